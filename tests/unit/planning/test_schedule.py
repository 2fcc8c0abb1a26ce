"""The ``schedule`` policy: windows from ``now`` alone, and what becomes of them in a plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.reasons import Cause
from gridtide.model.rules import LoadPolicy, QueuePolicy, SchedulePolicy, Window, Wishes
from gridtide.model.snapshot import GroupMemory, Heartbeat
from gridtide.planning.policies import Aim, Outlook, policy_of
from gridtide.planning.policies.schedule import opening
from tests.unit.planning.worlds import GRID, NOW, World, brief, group, node, row, site, worker

ROME = "Europe/Rome"
HOUR = 3600.0


def at(text: str, zone: str = ROME) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def aim(
    *windows: Window, now: float, busy: int = 0, workers: int = 0, warm: int = 0, follow: QueuePolicy | None = None
) -> Aim:
    parameters = SchedulePolicy(windows, ROME, follow or QueuePolicy(), warm)
    return policy_of(parameters).aim(Outlook(now, 0, GroupMemory(), workers, busy, minimum=1, maximum=20))


OFFICE = Window("0 8 * * mon-fri", 10 * HOUR, minimum=4, maximum=12)


# --- when windows are open


@pytest.mark.parametrize(
    ("moment", "until", "changes"),
    [
        ("2026-03-02T07:59:59", None, "2026-03-02T08:00:00"),  # a Monday
        ("2026-03-02T08:00:00", "2026-03-02T18:00:00", "2026-03-02T18:00:00"),
        ("2026-03-02T17:59:59", "2026-03-02T18:00:00", "2026-03-02T18:00:00"),
        ("2026-03-02T18:00:00", None, "2026-03-03T08:00:00"),
        ("2026-03-06T18:00:00", None, "2026-03-09T08:00:00"),  # Friday evening to Monday
        ("2026-03-07T12:00:00", None, "2026-03-09T08:00:00"),
    ],
)
def test_open_from_its_beginning_up_to_its_end(moment: str, until: str | None, changes: str) -> None:
    found = opening(OFFICE, ROME, at(moment))
    assert (found.until, found.changes) == (None if until is None else at(until), at(changes))


def test_the_zone_decides() -> None:
    summer = datetime(2026, 7, 1, 6, 30, tzinfo=UTC).timestamp()
    assert opening(OFFICE, ROME, summer).until is not None
    assert opening(OFFICE, "UTC", summer).until is None


def test_a_window_that_begins_anew_before_its_end_stays_open() -> None:
    daily = Window("0 0 * * *", 36 * HOUR)
    noon = at("2026-03-02T12:00:00", "UTC")
    found = opening(daily, "UTC", noon)
    assert (found.until, found.changes) == (noon + 24 * HOUR, noon + 12 * HOUR)


def test_clocks_put_forward_begin_what_they_leave_out_right_after() -> None:
    night = Window("30 2 * * *", HOUR)
    assert opening(night, ROME, at("2026-03-29T01:59:59")).changes == at("2026-03-29T03:00:00")
    assert opening(night, ROME, at("2026-03-29T03:00:00")).until == at("2026-03-29T04:00:00")


def test_clocks_put_back_begin_what_comes_twice_once_and_lengths_stay() -> None:
    night = Window("30 2 * * *", HOUR)
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()  # 02:30 summer time
    assert opening(night, ROME, first).until == first + HOUR
    assert opening(night, ROME, first + HOUR).until is None  # 02:30 winter time
    assert opening(night, ROME, first + HOUR).changes == first + 25 * HOUR


@given(
    st.sampled_from(["0 8 * * mon-fri", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15 3 29 2 *", "59 23 * * 5L"]),
    st.integers(1, 10 * 86_400),
    st.integers(8 * int(at("2024-01-01T00:00:00")), 8 * int(at("2030-01-01T00:00:00"))),
    st.sampled_from([ROME, "UTC", "America/New_York", "Australia/Lord_Howe"]),
)
def test_nothing_changes_before_it_is_said_to(begins: str, lasts: int, eighths: int, zone: str) -> None:
    now, window = eighths / 8, Window(begins, float(lasts))
    found = opening(window, zone, now)
    assert found.changes is not None
    assert found.changes > now
    assert found.until is None or now < found.until <= now + lasts
    between = opening(window, zone, now + (found.changes - now) * 0.75)
    assert (between.until, between.changes) == (found.until, found.changes)
    there = opening(window, zone, found.changes)
    assert there != found


# --- what it aims at


def test_in_a_window_its_figures_hold_and_outside_those_of_the_group() -> None:
    inside = aim(OFFICE, now=at("2026-03-02T12:00:00"))
    assert (inside.minimum, inside.maximum, inside.count, inside.idle_for) == (4, 12, None, 300.0)
    assert inside.why is not None
    assert inside.why.cause is Cause.SCHEDULED
    assert inside.why.text == "the window '0 8 * * mon-fri' is open until 2026-03-02 17:00 UTC"
    assert inside.look_again == at("2026-03-02T18:00:00")
    outside = aim(OFFICE, now=at("2026-03-02T19:00:00"))
    assert (outside.minimum, outside.maximum, outside.why) == (1, 20, None)
    assert outside.look_again == at("2026-03-03T08:00:00")


def test_of_open_windows_the_one_written_last_counts_figure_by_figure() -> None:
    lunch = Window("0 12 * * *", HOUR, minimum=6)
    given = aim(OFFICE, lunch, now=at("2026-03-02T12:30:00"))
    assert (given.minimum, given.maximum) == (6, 12)
    assert aim(lunch, OFFICE, now=at("2026-03-02T12:30:00")).minimum == 4
    assert given.look_again == at("2026-03-02T13:00:00")


def test_a_window_never_goes_above_the_group() -> None:
    given = aim(Window("* * * * *", HOUR, minimum=50, maximum=90), now=at("2026-03-02T12:30:00"))
    assert (given.minimum, given.maximum) == (20, 20)


def test_a_desired_number_pins_and_says_why() -> None:
    given = aim(Window("* * * * *", HOUR, desired=3), now=at("2026-03-02T12:30:00"))
    assert (given.count, given.idle_only) == (3, False)
    assert given.patience is given.why is not None


@pytest.mark.parametrize(("busy", "minimum"), [(0, 2), (5, 7), (19, 20)])
def test_warm_workers_come_on_top_of_those_that_run_jobs(busy: int, minimum: int) -> None:
    assert aim(now=at("2026-03-02T12:30:00"), busy=busy, warm=2).minimum == minimum
    cold = Window("0 12 * * *", HOUR, warm=0)
    assert aim(cold, now=at("2026-03-02T12:30:00"), busy=busy, warm=2).minimum == 1


def test_another_policy_may_be_followed() -> None:
    parameters = SchedulePolicy((OFFICE,), ROME, LoadPolicy())
    outlook = Outlook(at("2026-03-02T12:00:00"), 0, GroupMemory(), workers=6, minimum=1, maximum=20)
    given = policy_of(parameters).aim(outlook)
    assert (given.count, given.idle_only, given.minimum) == (6, True, 4)
    assert given.look_again == outlook.now + 30, "the sooner of both"
    pinned = policy_of(replace(parameters, windows=(replace(OFFICE, desired=5),))).aim(outlook)
    assert (pinned.count, pinned.idle_only) == (5, False)


# --- in a plan

ALWAYS = "* * * * *"


def planned(*windows: Window, minimum: int = 0, warm: int = 0, **world: object) -> World:
    rules = site(group(policy=SchedulePolicy(windows, "UTC", warm=warm), minimum=minimum, maximum=10))
    return World(rules=rules).but(**world)


def test_a_minimum_of_the_hour_is_launched_and_kept() -> None:
    world = planned(Window(ALWAYS, HOUR, minimum=2))
    assert brief(world.actions()) == ["launch 2 grid private small scheduled"]
    two = [worker("w0"), worker("w1")]
    there = world.but(workers=two, nodes=[node("w0", idle_since=NOW - 900), node("w1", idle_since=NOW - 900)])
    there = there.but(heartbeats={name: Heartbeat(NOW, 0, 0.0, draining=False) for name in ("w0", "w1")})
    assert there.actions() == ()
    assert there.why("w0").cause is Cause.AT_MINIMUM
    assert "window" in there.why("w0").text


def test_a_maximum_of_the_hour_stops_launches_and_drains_what_is_above() -> None:
    world = planned(Window(ALWAYS, HOUR, maximum=1), demand=[row(50)])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
    two = world.but(workers=[worker("w0"), worker("w1")], nodes=[node("w0", running=1), node("w1", running=2)])
    assert brief(two.actions()) == ["drain w0 surplus"]
    assert world.but(wishes=Wishes(maximum=3)).plan().actions[0].count == 3  # type: ignore[union-attr]


def test_no_policy_goes_above_the_maximum_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy:
        def aim(self, outlook: Outlook) -> Aim:
            return Aim(memory=outlook.memory, minimum=50, maximum=50)

    monkeypatch.setattr("gridtide.planning.fleet.policy_of", lambda _: Greedy())
    assert brief(planned().actions()) == ["launch 10 grid private small below-minimum"]


def test_operators_come_before_windows() -> None:
    world = planned(Window(ALWAYS, HOUR, minimum=2, desired=5))
    assert brief(world.actions()) == ["launch 5 grid private small scheduled"]
    assert brief(world.but(wishes=Wishes(desired=3)).actions()) == ["launch 3 grid private small below-desired"]
    least = planned(Window(ALWAYS, HOUR, minimum=2), wishes=Wishes(minimum=1))
    assert brief(least.actions()) == ["launch 1 grid private small below-minimum"]
    assert least.but(wishes=Wishes(hold=True)).actions() == ()


def test_warm_workers_are_launched_beside_busy_ones() -> None:
    world = planned(warm=1, workers=[worker("w0")], nodes=[node("w0", running=2)])
    assert brief(world.actions()) == ["launch 1 grid private small scheduled"]


def test_the_plan_is_made_again_when_a_window_opens() -> None:
    later = datetime.fromtimestamp(NOW + 7200, UTC)
    world = planned(Window(f"{later.minute} {later.hour} * * *", HOUR, minimum=1), demand=[])
    again = world.plan().look_again
    assert again is not None
    assert NOW + 7140 <= again <= NOW + 7200
    assert world.plan().why_group[GRID].cause is Cause.SATISFIED
