"""The pilot queue: a task queue whose workers ask for jobs, built in so that the first run needs nothing installed."""
