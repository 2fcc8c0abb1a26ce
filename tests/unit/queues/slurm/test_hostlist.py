"""Slurm's short forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.queues.slurm.hostlist import MOST, count_tasks, expand


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("a1,grid-3f[2-3],b", ["a1", "grid-3f2", "grid-3f3", "b"]),
        ("r[1-2]n[1-2]x", ["r1n1x", "r1n2x", "r2n1x", "r2n2x"]),
        ("n[5]", ["n5"]),
    ],
)
def test_lists_of_hosts(text: str, hosts: list[str]) -> None:
    assert list(expand(text)) == hosts


@pytest.mark.parametrize(
    "text", ["", " ", "n[", "n[1-", "n]1[", "n[[1]]", "n[2-1]", "n[a-b]", "n1,,n2", "n 1", "n;rm", "n[1-999999999]"]
)
def test_what_is_no_list_of_hosts(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        expand(text)


def test_a_list_is_never_longer_than_allowed() -> None:
    assert len(expand(f"n[1-{MOST}]")) == MOST
    for text in (f"n[0-{MOST}]", f"n[1-{MOST}],m", "a[1-1000]b[1-1000]"):
        with pytest.raises(ValueError, match="host"):
            expand(text)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30, unique=True))
def test_each_number_is_one_host(numbers: list[int]) -> None:
    assert expand(f"n[{','.join(map(str, numbers))}]") == tuple(f"n{number}" for number in numbers)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", (1, None)),
        ("1-1000", (1000, None)),
        ("1-1000%5", (1000, 5)),
        ("1-9:2", (5, None)),
        ("0,2,4-6%2", (5, 2)),
        ("1-5%0", (5, None)),
        ("1,3,5,...", (3, None)),
        ("1-40,50,...%3", (41, 3)),
    ],
)
def test_lists_of_tasks(text: str, count: tuple[int, int | None]) -> None:
    assert count_tasks(text) == count


@pytest.mark.parametrize("text", ["", "a", "1-", "5-1", "1-9:0", "1%", "1%x", "..."])
def test_what_is_no_list_of_tasks(text: str) -> None:
    with pytest.raises(ValueError, match="array tasks"):
        count_tasks(text)
