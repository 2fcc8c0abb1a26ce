"""Every state of a node, with every flag, has one meaning."""

import itertools
from typing import Any

import pytest

from gridtide.model.demand import NodeState
from gridtide.model.resources import Resources
from gridtide.queues.slurm.nodes import BASES, WORDS, Meaning, gpus_of, kind_of, node_of, partitions_and_features

A, D, DONE, U = NodeState.ACCEPTING, NodeState.DRAINING, NodeState.DRAINED, NodeState.UNAVAILABLE


def node(state: object = "idle", **changes: Any) -> dict[str, Any]:
    return {
        "name": "grid-1a2b3c4d",
        "state": state,
        "features": "gridtide,grid",
        "cpus": 4,
        "real_memory": 4000,
        "alloc_cpus": 0,
        "alloc_memory": 0,
        "gres": "",
        "gres_used": "",
        "last_busy": 900,
        "partitions": ["all"],
        **changes,
    }


def state_of(*said: str, placed: int = 0) -> NodeState:
    found = node_of(node(list(said)), {"grid-1a2b3c4d": placed}, "gridtide")
    assert found is not None
    return found.state


MATRIX = {
    ("IDLE",): A,
    ("MIXED",): A,
    ("ALLOCATED",): A,
    ("DOWN",): U,
    ("UNKNOWN",): U,
    ("ERROR",): U,
    ("FUTURE",): U,
    ("IDLE", "NOT_RESPONDING"): U,
    ("ALLOCATED", "NOT_RESPONDING"): U,
    ("IDLE", "DRAIN", "NOT_RESPONDING"): U,
    ("IDLE", "DRAIN"): DONE,
    ("MIXED", "DRAIN"): D,
    ("ALLOCATED", "DRAIN"): D,
    ("IDLE", "COMPLETING", "DRAIN"): D,
    ("DOWN", "DRAIN"): U,
    ("UNKNOWN", "DRAIN"): U,
    ("IDLE", "COMPLETING"): A,
    ("IDLE", "FAIL"): DONE,
    ("ALLOCATED", "FAIL"): D,
    ("IDLE", "POWERING_UP"): U,
    ("IDLE", "POWERING_DOWN"): U,
    ("IDLE", "POWERED_DOWN"): U,
    ("IDLE", "CLOUD", "POWERED_DOWN"): U,
    ("IDLE", "CLOUD", "DYNAMIC_NORM"): A,
    ("IDLE", "POWER_DRAIN", "DRAIN"): DONE,
    ("ALLOCATED", "POWER_DRAIN"): D,
    ("IDLE", "PLANNED"): A,
    ("IDLE", "MAINTENANCE"): A,
    ("IDLE", "RESERVED"): A,
    ("IDLE", "REBOOT_REQUESTED"): A,
    ("IDLE", "REBOOT_ISSUED"): U,
    ("IDLE", "INVALID_REG"): U,
    ("IDLE", "INVALID_REG", "DRAIN"): U,
    ("IDLE", "A_FLAG_OF_A_LATER_VERSION"): U,
    ("A_STATE_OF_A_LATER_VERSION",): U,
    ("IDLE", "ALLOCATED"): U,
    (): U,
    ("DRAIN",): U,
}


@pytest.mark.parametrize(("said", "state"), MATRIX.items(), ids="+".join)
def test_states(said: tuple[str, ...], state: NodeState) -> None:
    assert state_of(*said) is state
    assert state_of(*(word.lower() for word in said)) is state, "22.05 writes them small"


@pytest.mark.parametrize("base", sorted(BASES))
def test_the_strongest_word_decides(base: str) -> None:
    for one, two in itertools.combinations(sorted(set(WORDS) - BASES), 2):
        meanings = {WORDS[base], WORDS[one], WORDS[two]}
        state = state_of(base, one, two)
        if Meaning.AWAY in meanings:
            assert state is U
        elif Meaning.CLOSED in meanings:
            assert state is (D if Meaning.BUSY in meanings else DONE)
        else:
            assert state is A


@pytest.mark.parametrize("said", [said for said, state in MATRIX.items() if state is DONE], ids="+".join)
def test_drained_needs_both_witnesses(said: tuple[str, ...]) -> None:
    assert state_of(*said, placed=1) is D, "squeue has a job there"


def test_idle_with_a_job_attributed_is_not_idle() -> None:
    found = node_of(node("idle"), {"grid-1a2b3c4d": 2}, "gridtide")
    assert found is not None
    assert (found.state, found.running, found.idle_since) == (A, 2, None)


@pytest.mark.parametrize("said", [["MIXED"], ["ALLOCATED"], ["IDLE", "COMPLETING"]])
def test_busy_without_a_job_in_squeue_is_busy(said: list[str]) -> None:
    found = node_of(node(said), {}, "gridtide")
    assert found is not None
    assert (found.running, found.idle_since) == (1, None)
    found = node_of(node("idle", alloc_cpus=1), {}, "gridtide")
    assert found is not None
    assert found.running == 1


@pytest.mark.parametrize("flag", ["PLANNED", "MAINTENANCE", "RESERVED", "REBOOT_REQUESTED", "BLOCKED"])
def test_what_is_promised_is_neither_free_nor_idle(flag: str) -> None:
    found = node_of(node(["IDLE", flag]), {}, "gridtide")
    assert found is not None
    assert (found.free, found.idle_since) == (Resources(), None)


def test_what_is_free() -> None:
    found = node_of(
        node(
            ["MIXED"],
            alloc_cpus=1,
            alloc_memory=1000,
            gres="gpu:a100:2(S:0-1),gpu:1,shard:8",
            gres_used="gpu:a100:1(IDX:0)",
        ),
        {},
        "gridtide",
    )
    assert found is not None
    assert (found.total, found.free) == (Resources(4, 4000, 0, 3), Resources(3, 3000, 0, 2))


def test_reserved_cores_and_memory_are_not_for_jobs() -> None:
    found = node_of(node(effective_cpus=3, specialized_memory=500), {}, "gridtide")
    assert found is not None
    assert found.total == Resources(3, 3500)


def test_idle_since() -> None:
    found = node_of(node(last_busy={"set": True, "infinite": False, "number": 950}), {}, "gridtide")
    assert found is not None
    assert found.idle_since == 950
    found = node_of(node(last_busy=0), {}, "gridtide")
    assert found is not None
    assert found.idle_since is None


def test_ours_and_others() -> None:
    found = node_of(node(features=["gridtide", "grid"]), {}, "gridtide")
    assert found is not None
    assert (found.worker, found.kind) == ("grid-1a2b3c4d", None)
    for other in (node(features=["grid"]), node(features="gridtide-two"), node(name="Static1"), node(name="a_b")):
        found = node_of(other, {}, "gridtide")
        assert found is not None
        assert found.worker is None
    assert node_of(node(name="TEMPLATE-grid-2core-1"), {}, "gridtide") is None


def test_kinds_of_nodes_of_others() -> None:
    found = node_of(node(name="Static1", features=["ssd", "amd"], partitions=["b", "a"]), {}, "gridtide")
    assert found is not None
    assert found.kind == kind_of(("a", "b"), frozenset({"amd", "ssd"}))
    assert partitions_and_features(found.kind or "") == (frozenset({"a", "b"}), frozenset({"amd", "ssd"}))


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("", 0),
        ("gpu:2", 2),
        ("gpu", 1),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a:1,gpu:b:2", 3),
        ("shard:4,fpga:1", 0),
        ("gpu:0", 0),
    ],
)
def test_gpus(gres: str, count: int) -> None:
    assert gpus_of(gres) == count


@pytest.mark.parametrize("key", ["name", "state", "cpus", "real_memory"])
def test_what_must_be_there(key: str) -> None:
    record = node()
    del record[key]
    with pytest.raises(ValueError, match=f"{key} is missing"):
        node_of(record, {}, "gridtide")


@pytest.mark.parametrize(
    "changes", [{"state": 3}, {"cpus": "4"}, {"features": 7}, {"alloc_cpus": -1}, {"last_busy": []}]
)
def test_what_no_slurm_writes(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        node_of(node(**{"state": "idle", **changes}), {}, "gridtide")
