"""Implausible changes want a second reading."""

from __future__ import annotations

import pytest

from gridtide.model.demand import Demand, Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.machines import Machine, MachineState
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed
from gridtide.planning.guards import believe, believe_demand, believe_machines, believe_nodes
from tests.unit.planning.worlds import machine, node, row


def at(started: float, value: Demand | tuple[Node, ...]) -> Fresh[tuple[Node, ...]]:
    return Fresh(value, started, started + 0.1)  # type: ignore[arg-type]


def nodes(*names: str, running: int = 0, state: NodeState = NodeState.ACCEPTING) -> tuple[Node, ...]:
    return tuple(node(name, state, running=running) for name in names)


def believed(last: tuple[Node, ...], now: tuple[Node, ...], **leaving: tuple[WorkerId, ...]) -> bool:
    answer = at(10.0, now)
    reading = believe_nodes(at(0.0, last), answer, **leaving)
    if isinstance(reading, Unconfirmed):
        assert reading.value == now
        assert reading.last_good == at(0.0, last)
        assert "suddenly" in reading.doubt
        return False
    assert reading is answer
    return True


def test_the_first_answer_is_believed() -> None:
    answer = at(10.0, ())
    assert believe_nodes(Missing("not read yet", 0.0), answer) is answer


@pytest.mark.parametrize(
    ("last", "now", "plausible"),
    [
        ("abcd", "abcd", True),
        ("abcd", "abcde", True),
        ("", "", True),
        ("abcd", "ab", True),  # half is not more than half
        ("abcd", "a", False),
        ("abc", "a", False),
        ("ab", "a", True),
        ("ab", "", False),
        ("abcd", "wxyz", False),
        ("a", "", True),  # one idle node may well go
    ],
)
def test_many_nodes_at_once(last: str, now: str, plausible: bool) -> None:
    assert believed(nodes(*last), nodes(*now)) is plausible


def test_the_only_node_with_jobs() -> None:
    assert not believed(nodes("a", running=1), ())
    assert believed(nodes("a", running=1), nodes("a"))
    assert believed(nodes("a", running=1) + nodes("b"), nodes("b"))


def test_drained_nodes_may_vanish() -> None:
    gone = nodes("a", "b", "c", state=NodeState.DRAINED)
    assert believed(gone, ())
    assert believed(gone + nodes("d"), nodes("d"))
    assert not believed(nodes("a", running=1, state=NodeState.DRAINED), ())


def test_nodes_of_workers_that_are_being_ended_may_vanish() -> None:
    last = nodes("a", "b", "c", running=1)
    assert not believed(last, ())
    assert believed(last, (), leaving=(WorkerId("a"), WorkerId("b"), WorkerId("c")))
    assert not believed(last, (), leaving=(WorkerId("a"), WorkerId("b")))


FULL = nodes("a", "b", "c", "d")


def doubtful(second: Fresh[tuple[Node, ...]]) -> Reading[tuple[Node, ...]]:
    first = believe_nodes(at(0.0, FULL), at(10.0, ()))
    assert isinstance(first, Unconfirmed)
    return believe_nodes(first, second)


@pytest.mark.parametrize(("started", "confirmed"), [(11.9, False), (12.0, True)])
def test_a_second_reading_confirms_after_two_seconds(started: float, confirmed: bool) -> None:
    again = at(started, ())
    reading = doubtful(again)
    if confirmed:
        assert reading is again
    else:
        assert isinstance(reading, Unconfirmed)
        assert reading.started == 10.0, "the time runs from the first of them"
        assert reading.finished == again.finished
        assert believe_nodes(reading, at(12.0, ())) == at(12.0, ())


def test_a_second_reading_that_does_not_agree_is_doubted_anew() -> None:
    other = nodes("w", "x", "y", "z")
    first = believe_nodes(at(0.0, FULL), at(10.0, other))
    second = believe_nodes(first, at(20.0, ()))
    assert isinstance(second, Unconfirmed)
    assert (second.started, second.value, second.last_good.value) == (20.0, (), FULL)
    assert believe_nodes(second, at(22.0, ())) == at(22.0, ())


def test_a_second_reading_that_is_as_before_is_believed_at_once() -> None:
    assert doubtful(at(10.2, FULL)) == at(10.2, FULL)


def test_after_a_failure_the_doubt_begins_again() -> None:
    last = at(0.0, FULL)
    reading = believe_nodes(Stale(last, "refused", 5.0), at(10.0, ()))
    assert isinstance(reading, Unconfirmed)
    assert reading.last_good is last


def machines(*names: str, state: MachineState = MachineState.RUNNING) -> tuple[Machine, ...]:
    return tuple(machine(name, state) for name in names)


def plausible(last: tuple[Machine, ...], now: tuple[Machine, ...], leaving: tuple[str, ...] = ()) -> bool:
    answer = Fresh(now, 10.0, 10.1)
    reading = believe_machines(Fresh(last, 0.0, 0.1), answer, tuple(WorkerId(name) for name in leaving))
    return reading is answer


def test_machines_that_vanish() -> None:
    assert not plausible(machines("a", "b", "c"), ())
    assert not plausible(machines("a"), ())
    assert plausible(machines("a", state=MachineState.STARTING), ())
    assert plausible(machines("a", "b"), machines("b"))
    assert plausible(machines("a", "b", "c"), machines("a", "b", "c", state=MachineState.BROKEN))
    for state in (MachineState.ENDING, MachineState.GONE):
        assert plausible(machines("a", "b", "c", state=state), ())
    assert plausible(machines("a", "b", "c"), (), leaving=("a", "b", "c"))
    assert plausible(machines("a", "b", "c"), machines("c"), leaving=("a", "b"))


@pytest.mark.parametrize(
    ("were", "are", "is_plausible"),
    [(10, 0, False), (9, 0, True), (10, 1, True), (0, 0, True), (0, 10, True), (1000, 10, True)],
)
def test_demand_that_is_none_at_once(were: int, are: int, is_plausible: bool) -> None:
    answer = Fresh((row(are),) if are else (), 10.0, 10.1)
    reading = believe_demand(Fresh((row(were),), 0.0, 0.1), answer)
    assert (reading is answer) is is_plausible
    if not is_plausible:
        assert isinstance(reading, Unconfirmed)
        assert reading.doubt == f"{were} jobs waited, and suddenly none does"


def test_rows_without_jobs_are_no_demand() -> None:
    reading = believe_demand(Fresh((row(6), row(6, label="b")), 0.0, 0.1), Fresh((row(0),), 10.0, 10.1))
    assert isinstance(reading, Unconfirmed)


def test_any_kind_of_value_can_be_doubted() -> None:
    def smaller(last: int, now: int) -> str | None:
        return f"{now} < {last}" if now < last else None

    assert believe(Fresh(1, 0.0, 0.0), Fresh(2, 1.0, 1.0), smaller) == Fresh(2, 1.0, 1.0)
    assert isinstance(believe(Fresh(2, 0.0, 0.0), Fresh(1, 1.0, 1.0), smaller), Unconfirmed)
