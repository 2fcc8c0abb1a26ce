"""Constraints of jobs: ``(a|b)&c``, ``[rack1|rack2]``, ``a*2&b*3`` (sbatch(1), --constraint)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

_TOKEN: Final = re.compile(r"\s*(?:([A-Za-z0-9_.:=/+-]+)|\*(\d+)|([&|,()\[\]]))")


def satisfied(constraint: str, features: Collection[str]) -> bool:
    """Whether a node with these features can be (one of) those that the job runs on. ValueError: not understood.

    ``[a|b]`` wants all nodes alike: one node is. ``a*2&b*1`` wants two nodes with a and one with b: each of the two
    kinds is good for some of them.
    """
    return _Reading(constraint, features).result() if constraint.strip() else True


class _Reading:
    def __init__(self, constraint: str, features: Collection[str]) -> None:
        self._text = constraint
        self._features = features
        self._tokens: list[str] = []
        place = 0
        while place < len(constraint.rstrip()):
            found = _TOKEN.match(constraint, place)
            if found is None:
                raise self._wrong()
            self._tokens.append(f"*{found[2]}" if found[2] else found[1] or found[3])
            place = found.end()
        # With counts the terms are about different nodes: one that suits any of them is of use.
        self._counted = any(token[0] == "*" for token in self._tokens)

    def result(self) -> bool:
        value = self._either()
        if self._tokens:
            raise self._wrong()
        return value

    def _either(self) -> bool:
        value = self._all()
        while self._next("|"):
            value = self._all() or value
        return value

    def _all(self) -> bool:
        value = self._one()
        while self._next("&") or self._next(","):
            other = self._one()
            value = value or other if self._counted else value and other
        return value

    def _one(self) -> bool:
        if not self._tokens:
            raise self._wrong()
        token = self._tokens.pop(0)
        closing = {"(": ")", "[": "]"}.get(token)
        if closing is not None:
            value = self._either()
            if not self._next(closing):
                raise self._wrong()
        elif token[0] in "&|,)]*":
            raise self._wrong()
        else:
            value = token in self._features
        if self._tokens and self._tokens[0][0] == "*":
            self._tokens.pop(0)
        return value

    def _next(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            self._tokens.pop(0)
            return True
        return False

    def _wrong(self) -> ValueError:
        return ValueError(f"constraint {self._text[:60]!r} is not understood")
