"""Arithmetic of jobs and machines, held against a slow and obvious way to do it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.demand import DemandRow, OfferKey
from gridtide.model.ids import GroupName, ShapeName, WorkerId
from gridtide.model.resources import Resources
from gridtide.planning.fitting import Amount, Bin, Kind, Load, add_machines, less, loads_of, place, plus, times

KEY: OfferKey = (GroupName("grid"), ShapeName("small"))
OTHER: OfferKey = (GroupName("grid"), ShapeName("large"))


def load(count: int, need: Amount = (1, 0, 0, 0), *keys: OfferKey) -> Load:
    return Load(need, frozenset(keys or (KEY,)), [], count)


def machines(count: int, free: Amount = (2, 0, 0, 0), key: OfferKey | None = KEY, slots: int | None = None) -> Bin:
    return Bin(key, free, slots, count, [WorkerId(f"{free}{number}") for number in range(count)])


def test_how_many_times() -> None:
    assert times((8, 16, 100, 1), (1, 4, 10, 0)) == 4
    assert times((8, 16, 100, 1), (1, 0, 0, 0)) == 8
    assert times((8, 16, 100, 1), (0, 0, 0, 2)) == 0


def test_less_is_never_negative() -> None:
    assert less((8, 16, 100, 1), (1, 4, 10, 0), 2) == (6, 8, 80, 1)
    assert less((1, 1, 1, 1), (2, 2, 2, 2), 1) == (0, 0, 0, 0)


def test_more_may_be_taken_away() -> None:
    assert plus((1, 2, 3, 4), (10, 20, 30, 40), 3) == (31, 62, 93, 124)
    assert plus((31, 62, 93, 124), (10, 20, 30, 40), -3) == (1, 2, 3, 4)


def test_rows_that_look_alike_become_one_load_largest_first() -> None:
    def row(cores: int, count: int, memory: int = 0, gpus: int = 0, disk: int = 0) -> DemandRow:
        return DemandRow(Resources(cores, memory, disk, gpus), count, 0.0, frozenset([KEY]), "")

    rows = (row(1, 2), row(4, 1), row(1, 3), row(1, 1, memory=5), row(1, 1, gpus=1), row(1, 1, disk=7), row(0, 4))
    loads = loads_of(rows)
    assert [(entry.need, entry.left, entry.count) for entry in loads] == [
        ((1, 0, 0, 1), 1, 1),
        ((4, 0, 0, 0), 1, 1),
        ((1, 5, 0, 0), 1, 1),
        ((1, 0, 7, 0), 1, 1),
        ((1, 0, 0, 0), 9, 9),
    ]


def test_placing_splits_bins_into_full_partial_and_untouched() -> None:
    jobs = load(5)
    after = place([jobs], [machines(4, (2, 0, 0, 0))], "free")
    assert [(entry.count, entry.free[0], entry.touched) for entry in after] == [
        (2, 0, True),
        (1, 1, True),
        (1, 2, False),
    ]
    assert [len(entry.members) for entry in after] == [2, 1, 1]
    assert jobs.left == 0
    assert jobs.placed == {"free": 5}


def test_members_are_used_in_their_order() -> None:
    bin_ = Bin(KEY, (1, 0, 0, 0), None, 3, [WorkerId("a"), WorkerId("b"), WorkerId("c")])
    after = place([load(2)], [bin_], "free")
    assert [(entry.members, entry.touched) for entry in after] == [(["a", "b"], True), (["c"], False)]


def test_what_is_left_of_a_machine_takes_smaller_jobs() -> None:
    big, small = load(1, (3, 0, 0, 0)), load(9)
    place([big, small], [machines(1, (8, 0, 0, 0))], "free")
    assert (big.left, small.left) == (0, 4)


def test_slots_limit_whatever_the_resources() -> None:
    jobs = load(9)
    after = place([jobs], [machines(3, (8, 0, 0, 0), slots=2)], "free")
    assert jobs.left == 3
    assert [entry.slots for entry in after] == [0]


def test_a_bin_of_an_offer_takes_only_jobs_of_that_offer() -> None:
    jobs = load(2, (1, 0, 0, 0), OTHER)
    place([jobs], [machines(1)], "free")
    assert jobs.left == 2
    place([jobs], [machines(1, key=None)], "free")
    assert jobs.left == 0


def test_stages_add_up() -> None:
    jobs = load(3)
    place([jobs], [machines(1, (1, 0, 0, 0))], "free")
    place([jobs], [machines(1, (1, 0, 0, 0))], "free")
    place([jobs], [machines(1, (1, 0, 0, 0))], "soon")
    assert jobs.placed == {"free": 2, "soon": 1}


def kind(cores: int, place_: int = 0, *, slots: int | None = None, rank: int = 0, key: OfferKey = KEY) -> Kind:
    return Kind(key, rank, ("grid", place_, f"c{cores}"), (cores, 0, 0, 0), slots)


def bought(loads: list[Load], kinds: list[Kind], room: int = 100) -> dict[str, int]:
    counts: dict[str, int] = {}

    def left(_: Kind) -> int:
        return room - sum(counts.values())

    def take(taken: Kind, number: int) -> None:
        counts[taken.order[2]] = counts.get(taken.order[2], 0) + number

    add_machines(loads, kinds, left, take, "launched")
    return counts


@pytest.mark.parametrize(
    ("jobs", "sizes", "expected"),
    [
        (10, (8, 2), {"c8": 1, "c2": 1}),
        (7, (8, 2), {"c8": 1}),  # four small ones would leave as much unused: fewer machines win
        (6, (8, 2), {"c2": 3}),
        (5, (8, 4, 2), {"c4": 1, "c2": 1}),
        (1, (8, 4, 2), {"c2": 1}),
        (16, (2, 8), {"c2": 8}),
        (0, (8, 2), {}),
        (9, (4,), {"c4": 3}),
        (15, (8, 4), {"c8": 2}),
    ],
)
def test_the_choice_of_machines(jobs: int, sizes: tuple[int, ...], expected: dict[str, int]) -> None:
    assert bought([load(jobs)], [kind(size, place_) for place_, size in enumerate(sizes)]) == expected


def test_when_only_few_machines_may_be_added_one_that_takes_all_wins() -> None:
    assert bought([load(6)], [kind(8), kind(2, 1)], room=1) == {"c8": 1}
    assert bought([load(6)], [kind(8), kind(2, 1)], room=2) == {"c8": 1}
    assert bought([load(6)], [kind(8), kind(2, 1)], room=3) == {"c2": 3}


def test_room_ends_it() -> None:
    jobs = load(100)
    assert bought([jobs], [kind(8)], room=3) == {"c8": 3}
    assert jobs.left == 76
    assert jobs.placed == {"launched": 24}


def test_a_shape_that_is_filled_better_goes_before_the_order_given() -> None:
    assert bought([load(4, (3, 0, 0, 0))], [kind(4), kind(3, 1)]) == {"c3": 4}


def test_the_first_cloud_goes_before_the_better_fit() -> None:
    assert bought([load(2)], [kind(2, rank=1), kind(8, rank=0)]) == {"c8": 1}


def test_kinds_that_run_different_jobs_both_get_their_turn() -> None:
    loads = [load(4, (2, 0, 0, 0), OTHER), load(3)]
    assert bought(loads, [kind(8, key=OTHER), kind(2, 1)]) == {"c8": 1, "c2": 2}


def test_jobs_a_machine() -> None:
    assert bought([load(10)], [kind(8, slots=4)]) == {"c8": 3}
    assert bought([load(3), load(3, (2, 0, 0, 0))], [kind(8, slots=1)]) == {"c8": 6}
    assert bought([load(3), load(3, (2, 0, 0, 0))], [kind(8, slots=4)]) == {"c8": 2}


def test_gpus_are_not_wasted_on_jobs_that_need_none() -> None:
    plain = kind(8, 1)
    with_gpu = Kind(KEY, 0, ("grid", 0, "gpu"), (8, 0, 0, 4), None)
    assert bought([load(16)], [with_gpu, plain]) == {"c8": 2}
    assert bought([load(4, (1, 0, 0, 1))], [with_gpu, plain]) == {"gpu": 1}


def test_a_shape_without_cores_has_no_part_unused() -> None:
    memory = Kind(KEY, 0, ("grid", 0, "m"), (0, 8, 0, 0), None)
    assert bought([load(5, (0, 2, 0, 0))], [memory]) == {"m": 2}


needs = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 1), st.integers(0, 1)).filter(any)
loads_drawn = st.lists(
    st.builds(
        lambda need, count, keys: load(count, need, *keys),
        needs,
        st.integers(0, 30),
        st.sets(st.sampled_from([KEY, OTHER]), min_size=1),
    ),
    max_size=6,
)
bins_drawn = st.lists(
    st.builds(
        lambda count, free, key, slots: machines(count, free, key, slots),
        st.integers(1, 5),
        st.tuples(*[st.integers(0, 8)] * 4),
        st.sampled_from([KEY, OTHER, None]),
        st.sampled_from([None, None, 1, 3]),
    ),
    max_size=5,
)


@given(loads_drawn, bins_drawn)
def test_placing_in_bulk_is_placing_one_job_on_one_machine_at_a_time(loads: list[Load], bins: list[Bin]) -> None:
    jobs = [[load(1, entry.need, *entry.runs_on) for _ in range(entry.left)] for entry in loads]
    single = [machines(1, bin_.free, bin_.key, bin_.slots) for bin_ in bins for _ in range(bin_.count)]
    place([job for row in jobs for job in row], single, "free")
    after = place(loads, bins, "free")
    assert [entry.left for entry in loads] == [sum(job.left for job in row) for row in jobs]
    assert sum(bin_.count for bin_ in after) == len(single)
    assert all(len(bin_.members) == bin_.count for bin_ in after)


@given(
    loads_drawn,
    st.lists(st.tuples(needs, st.sampled_from([KEY, OTHER]), st.sampled_from([None, 1, 3])), max_size=4),
    st.integers(0, 9),
)
def test_machines_are_added_for_jobs_only_and_within_room(
    loads: list[Load], shapes: list[tuple[Amount, OfferKey, int | None]], room: int
) -> None:
    kinds = [
        Kind(key, 0, ("grid", place_, f"k{place_}"), whole, slots) for place_, (whole, key, slots) in enumerate(shapes)
    ]
    waiting = sum(entry.left for entry in loads)
    counts = bought(loads, kinds, room)
    placed = waiting - sum(entry.left for entry in loads)
    assert sum(counts.values()) <= room
    assert all(number > 0 for number in counts.values())
    assert sum(counts.values()) <= placed, "no machine without a job"
    if sum(counts.values()) < room:
        for entry in loads:
            for each in kinds:
                runs = each.key in entry.runs_on and (each.slots or times(each.whole, entry.need))
                assert not (entry.left and runs), "room and a kind that fits, and yet a job is left"
