"""The store: intents, history, operators' wishes, tokens and the pilot queue's jobs."""
