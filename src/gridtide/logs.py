"""Log lines on stderr: for people on a terminal, JSON elsewhere. No secret is ever given to a logger."""

from __future__ import annotations

import logging
import os
import sys

import structlog


def configure_logs() -> None:
    """Once per process. GRIDTIDE_LOG=debug|info|warning|error chooses the level (info)."""
    level = logging.getLevelNamesMapping().get(os.environ.get("GRIDTIDE_LOG", "info").upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
