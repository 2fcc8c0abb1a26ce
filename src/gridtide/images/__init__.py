"""Images of worker machines: built, kept per host, verified."""
