"""Checks that say what was expected, without a test framework and also under ``python -O``."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def expect(condition: bool, rule: str, found: object = "") -> None:
    """AssertionError with the rule, and what was found instead."""
    if not condition:
        raise AssertionError(f"{rule}; found: {found!r}" if found != "" else rule)


def expect_type(value: object, kind: type[T], rule: str) -> T:
    """The value, if it is of that kind; else AssertionError."""
    if not isinstance(value, kind):
        raise AssertionError(f"{rule}; found: {value!r}")
    return value
