"""What would have been right: the nearest right name, or the short list of them."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

# Below this likeness a suggestion is a guess that sends the reader the wrong way ("disk" for "quota").
_LIKENESS: Final = 0.6
# A longer list hides the line it belongs to.
_LISTED: Final = 12


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name most like ``name``, None when none is like it."""
    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=_LIKENESS)
    return by_lower[found[0]] if found else None


def suggestion(name: str, known: Collection[str]) -> str:
    """One phrase that says what would be right in place of ``name``."""
    if not known:
        return "there is none yet"
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near is not None else f"known: {listing(known)}"


def listing(names: Collection[str]) -> str:
    """The names, shortened when there are many."""
    shown = list(names)[:_LISTED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
