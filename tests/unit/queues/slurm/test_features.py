"""Constraints."""

import pytest

from gridtide.queues.slurm.features import satisfied


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        ("", True),
        ("a", True),
        ("x", False),
        ("a&b", True),
        ("a&x", False),
        ("a,b", True),
        ("x|b", True),
        ("x|y", False),
        ("x|y&a", False),
        ("x&y|a", True),
        ("(x|a)&b", True),
        ("(x|a)&y", False),
        ("[x|a]", True),
        ("[x|y]", False),
        ("[(x&y)|b]&a", True),
        ("a*2&x*4", True),
        ("x*2&y*4", False),
        ("[a*1&b*4]", True),
        ("a & b", True),
    ],
)
def test_constraints(constraint: str, fits: bool) -> None:
    assert satisfied(constraint, {"a", "b"}) is fits


@pytest.mark.parametrize("constraint", ["a&", "&a", "(a", "a)", "[a)", "a b", "!a", "a||b", "*2", "a;b"])
def test_what_is_not_understood(constraint: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        satisfied(constraint, {"a"})
