"""Which machines that could be launched would run which jobs."""

from typing import Any

import pytest

from gridtide.model.demand import DemandRow, Offer
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.queues.slurm.fitting import PlannedNode, features_of, row_of, template_name, usable
from gridtide.queues.slurm.jobs import Ask

GRID = GroupName("grid")
PLAIN = Ask(2, 1000, 0, 1, "all", "", False, None, "")


def planned(
    name: str, size: Resources, *features: str, partitions: frozenset[str] | None = frozenset({"all"})
) -> PlannedNode:
    return PlannedNode(Offer(GRID, Shape(ShapeName(name), size), {}), size, ("gridtide", "grid", *features), partitions)


SMALL, LARGE = planned("small", Resources(2, 2000)), planned("large", Resources(8, 16000, 0, 2), "ssd")


def ask(**changes: Any) -> Ask:
    values = {key: getattr(PLAIN, key) for key in Ask.__dataclass_fields__}
    return Ask(**{**values, **changes})


def row(*machines: PlannedNode, kinds: set[str] | None = None, **changes: Any) -> DemandRow:
    return row_of(ask(**changes), 7, 100.0, machines or (SMALL, LARGE), kinds)


def shapes(found: DemandRow) -> set[str]:
    return {shape for _, shape in found.runs_on}


@pytest.mark.parametrize(
    ("changes", "fitting"),
    [
        ({}, {"small", "large"}),
        ({"cores": 3}, {"large"}),
        ({"memory": 2001}, {"large"}),
        ({"gpus": 1}, {"large"}),
        ({"features": "ssd"}, {"large"}),
        ({"features": "grid&gridtide"}, {"small", "large"}),
        ({"partitions": "other,all"}, {"small", "large"}),
    ],
)
def test_what_fits(changes: dict[str, Any], fitting: set[str]) -> None:
    found = row(**changes)
    assert shapes(found) == fitting
    assert "cannot run here" not in found.label


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cores": 9}, "larger than every shape"),
        ({"gpus": 3}, "larger than every shape"),
        ({"features": "nvme"}, "no group has the features nvme"),
        ({"features": "ssd", "cores": 9}, "larger than every shape"),
        ({"features": "a&&b"}, "constraint 'a&&b' is not understood"),
        ({"partitions": "other"}, "no machine of ours is in partition other"),
        ({"obstacle": "asks for temporary disk"}, "asks for temporary disk"),
    ],
)
def test_why_nothing_fits(changes: dict[str, Any], why: str) -> None:
    found = row(**changes)
    assert found.runs_on == frozenset()
    assert found.label.endswith(f"cannot run here: {why}")


def test_without_offers_the_jobs_are_still_told() -> None:
    found = row_of(PLAIN, 7, 100.0, (), None)
    assert (found.count, found.oldest_since, found.runs_on) == (7, 100.0, frozenset())
    assert found.label.endswith("no group has a shape to launch")


def test_partitions_that_are_not_known_yet_exclude_nothing() -> None:
    assert shapes(row(planned("new", Resources(4, 4000), partitions=None), partitions="x")) == {"new"}


def test_a_job_alone_on_its_node_takes_a_whole_machine_of_the_smallest_size() -> None:
    found = row(exclusive=True)
    assert (found.need, shapes(found)) == (Resources(2, 2000), {"small"})
    found = row(exclusive=True, cores=3)
    assert (found.need, shapes(found)) == (Resources(8, 16000, 0, 2), {"large"})


def test_the_label_names_the_jobs() -> None:
    found = row(nodes=2, features="ssd", minutes=90, exclusive=True)
    for words in ("2 cores", "each of 2 nodes", "alone on its node", "partition all", "constraint ssd", "90 min"):
        assert words in found.label
    assert found.walltime == 5400


def test_nodes_of_others() -> None:
    kinds = {"all;ssd", "all;", "other;ssd"}
    assert row(kinds=kinds).node_kinds == frozenset({"all;ssd", "all;"})
    assert row(kinds=kinds, features="ssd").node_kinds == frozenset({"all;ssd"})
    assert row(kinds=kinds, features="a&&b").node_kinds == frozenset()
    assert row(kinds=set()).node_kinds == frozenset()
    assert row().node_kinds is None, "not known yet"


def test_features_of_a_group() -> None:
    assert features_of("gridtide", "grid", {"Features": "ssd, haswell,ssd,,bad one,$(id)"}) == (
        "gridtide", "grid", "ssd", "haswell",
    )  # fmt: skip


def test_what_a_machine_has_for_jobs() -> None:
    assert usable(Resources(2, 2048, 500, 1), 128) == Resources(2, 1920, 0, 1)
    assert usable(Resources(2, 100), 128) == Resources(2, 0)


def test_names_of_templates_can_be_no_worker() -> None:
    assert template_name(GRID, ShapeName("m1.large"), 2) == "TEMPLATE-grid-m1-large-2"
    assert len(template_name(GroupName("g" * 40), ShapeName("s" * 63))) == 63
