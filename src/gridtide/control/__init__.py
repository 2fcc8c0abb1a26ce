"""The loop: observe, plan, act. And everything that makes it safe to run: readings, breaker, backoff, lease."""
