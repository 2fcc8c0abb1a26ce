"""The production controller with the OpenStack driver on real Nova; the benchmark measures it in large."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.openstack import life, quota

from tests.real.openstack.project import User


def missed(figures: list[Figure]) -> list[str]:
    """Counts that are not what they should be, and what never came. How long it took is the machine's affair."""
    return [
        f"{each.name}: {each.value:g}" for each in figures if each.value == math.inf or (counts(each) and not each.ok)
    ]


def counts(figure: Figure) -> bool:
    """Whether it is one that does not depend on how few servers there are, nor on the machine."""
    return figure.unit != "s" and "per server" not in figure.name


async def test_servers_join_are_replaced_are_drained_and_ended(administrator: User, tmp_path: Path) -> None:
    """An administrator sets one to ERROR and stops another meanwhile."""
    assert missed(await life(administrator, tmp_path, 3, 3.0)) == []


async def test_a_quota_that_is_used_up_half_way_is_kept_without_a_storm(administrator: User, tmp_path: Path) -> None:
    assert missed(await quota(administrator, tmp_path, 4, 5.0)) == []
