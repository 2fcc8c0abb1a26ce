"""Gridtide turns any cloud into an elastic grid site, and never ends a running job."""

__version__ = "0.1.0"
