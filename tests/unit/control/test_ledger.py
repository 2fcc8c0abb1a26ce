"""What machines that are gone have been charged: the same from the store as added up on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.control.ledger import Ledger, reach_of
from gridtide.control.operating import undrain_changes
from gridtide.errors import Conflict
from gridtide.model.costs import DAY, HOUR, Billing, Stay, day_of, stay_of
from gridtide.model.reasons import Cause
from gridtide.model.workers import Worker, WorkerState
from tests.unit.planning.worlds import BURST, CLOUD, SMALL, worker

MONDAY = 20_000 * DAY
BY_THE_HOUR = {CLOUD: Billing(HOUR, HOUR)}


def gone(name: str, launched: float, ended: float, *, price: float = 1.0, cloud: str = "private") -> Worker:
    shape = replace(SMALL, price=price)
    return worker(name, WorkerState.GONE, since=ended, launched=launched, shape=shape, cloud=cloud)


def test_each_cloud_charges_in_its_own_way() -> None:
    ledger = Ledger()
    ledger.bill(BY_THE_HOUR)
    ledger.add(gone("w1", MONDAY, MONDAY + 90 * 60.0))
    ledger.add(gone("w2", MONDAY, MONDAY + 90 * 60.0, cloud="burst"))
    assert ledger.view(MONDAY + 7200.0) == {CLOUD: {20_000: 2.0}, BURST: {20_000: 1.5}}


def test_another_way_to_charge_counts_for_what_was_too() -> None:
    ledger = Ledger()
    ledger.add(gone("w1", MONDAY, MONDAY + 90 * 60.0))
    assert ledger.view(MONDAY) == {CLOUD: {20_000: 1.5}}
    ledger.bill(BY_THE_HOUR)
    assert ledger.view(MONDAY) == {CLOUD: {20_000: 2.0}}


def test_a_new_day_forgets_the_old_one_and_keeps_what_reaches_into_it() -> None:
    ledger = Ledger()
    ledger.bill(BY_THE_HOUR)
    ledger.add(gone("w1", MONDAY - 600.0, MONDAY - 60.0))
    ledger.add(gone("w2", MONDAY - 6 * HOUR, MONDAY - 5 * HOUR))
    assert ledger.view(MONDAY - 1.0)[CLOUD][19_999] == pytest.approx(1.0 + 1 / 6)
    assert ledger.view(MONDAY)[CLOUD] == {20_000: pytest.approx(5 / 6)}
    assert ledger.view(MONDAY + DAY) == {}


def test_machines_without_a_price_and_launches_that_were_refused_are_left_out() -> None:
    ledger = Ledger()
    ledger.add(gone("w1", MONDAY, MONDAY + HOUR, price=0.0))
    refused = gone("w2", MONDAY, MONDAY + HOUR)
    ledger.add(replace(refused, machine=None, reason=replace(refused.reason, cause=Cause.LAUNCH_REFUSED)))
    assert ledger.view(MONDAY) == {}


@given(
    st.lists(st.tuples(st.floats(-2 * DAY, 2 * DAY), st.floats(0.0, 30 * HOUR), st.floats(0.01, 9.0)), max_size=20),
    st.floats(0.0, 3 * DAY),
)
def test_a_controller_that_begins_later_knows_the_same(lives: list[tuple[float, float, float]], later: float) -> None:
    workers = [
        gone(f"w{number}", MONDAY + start, MONDAY + start + length, price=price)
        for number, (start, length, price) in enumerate(lives)
    ]
    workers.sort(key=lambda each: each.since)
    first, second = Ledger(), Ledger()
    for ledger in (first, second):
        ledger.bill(BY_THE_HOUR)
    for each in workers:
        first.add(each)
        first.view(max(each.since, MONDAY - DAY))
    now = max([MONDAY + later, *(each.since for each in workers)])
    stays: list[Stay] = [stay for each in workers if each.since >= reach_of(now) and (stay := stay_of(each))]
    second.load(stays)
    mine, other = first.view(now).get(CLOUD, {}), second.view(now).get(CLOUD, {})
    assert mine == pytest.approx(other)
    assert all(day >= day_of(now) for day in mine)


def test_an_operator_cannot_take_the_drain_of_a_budget_back() -> None:
    drained = worker("w1", WorkerState.DRAINING, cause=Cause.BUDGET)
    with pytest.raises(Conflict, match="budget") as refused:
        undrain_changes({drained.id: drained}, [drained.id], actor="user:eve", now=MONDAY)
    assert "raise budget.per_day" in str(refused.value.remedy)
    other = worker("w1", WorkerState.DRAINING, cause=Cause.OPERATOR)
    assert undrain_changes({other.id: other}, [other.id], actor="user:eve", now=MONDAY)
