"""What is learned of boots: a bounded window, the latest few, and waits in vain."""

from __future__ import annotations

from gridtide.control.boots import LATELY, WINDOW, BootMemory, key_of
from gridtide.model.boots import Boot, BootKey, BootTimes, Phase
from gridtide.model.ids import CloudName, ShapeName, WorkerId
from tests.unit.planning.worlds import LARGE, worker

CLOUD = CloudName("private")
SMALL = BootKey(CLOUD, ShapeName("small"), None)
ANY = BootKey(CLOUD, None, None)


def boot(number: int, seconds: float, key: BootKey = SMALL) -> Boot:
    return Boot(WorkerId(f"w{number}"), key, float(number), seconds, {Phase.CLOUD: 0.0, Phase.JOIN: seconds})


def test_nothing_is_known_at_first() -> None:
    assert dict(BootMemory().view()) == {}


def test_median_and_p95_of_each_kind_and_of_what_it_is_part_of() -> None:
    memory = BootMemory()
    thin, thick = (BootKey(CLOUD, ShapeName("small"), image) for image in ("thin", "thick"))
    memory.load([boot(0, 10.0, thin), boot(1, 20.0, thin), boot(2, 90.0, thick)])
    assert memory.times[thin] == BootTimes(2, 15.0, 19.5, 0.0, 20.0)
    assert memory.times[BootKey(CLOUD, None, "thick")] == BootTimes(1, 90.0, 90.0, 2.0, 90.0)
    assert memory.times[ANY] == BootTimes(3, 20.0, 83.0, 0.0, 90.0)
    memory.joined(boot(3, 30.0, thin))
    assert memory.times[thin] == BootTimes(3, 20.0, 29.0, 0.0, 30.0)


def test_one_by_one_or_all_at_once_is_the_same() -> None:
    boots = [boot(number, float(number * 37 % 101)) for number in range(WINDOW + 50)]
    one_by_one, at_once = BootMemory(), BootMemory()
    for each in boots:
        one_by_one.joined(each)
    at_once.load(boots)
    assert one_by_one.times == at_once.times


def test_only_the_latest_count() -> None:
    memory = BootMemory()
    memory.load([boot(number, 1000.0) for number in range(WINDOW)])
    for number in range(WINDOW, 2 * WINDOW):
        memory.joined(boot(number, 10.0))
    assert memory.times[SMALL] == BootTimes(WINDOW, 10.0, 10.0, float(WINDOW), 10.0)


def test_a_wait_in_vain_counts_among_the_latest_and_nowhere_else() -> None:
    memory = BootMemory()
    memory.load([boot(number, 10.0) for number in range(9)])
    memory.gave_up(worker(), 60.0)
    assert memory.times[SMALL] == BootTimes(9, 10.0, 10.0, 0.0, 60.0)
    assert memory.times[ANY].longest_lately == 60.0
    for number in range(9, 9 + LATELY):
        assert memory.times[SMALL].longest_lately == 60.0
        memory.joined(boot(number, 10.0))
    assert memory.times[SMALL].longest_lately == 10.0


def test_waits_in_vain_are_known_before_anything_joined() -> None:
    memory = BootMemory()
    memory.gave_up(worker(shape=LARGE), 600.0)
    assert memory.times[key_of(worker(shape=LARGE))] == BootTimes(0, None, None, None, 600.0)
    assert SMALL not in memory.times


def test_who_holds_the_times_sees_them_change() -> None:
    memory = BootMemory()
    held, copied = memory.times, memory.view()
    memory.load([boot(0, 10.0)])
    memory.load([boot(1, 20.0)])
    assert held[SMALL].median == 20.0
    assert dict(copied) == {}
