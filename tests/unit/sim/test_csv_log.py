"""Workloads as comma-separated values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.sim.csv_log import read_csv
from gridtide.sim.reading import read_trace
from gridtide.sim.trace import Reading, Skip, TraceError, TraceJob


def read(text: str) -> tuple[list[TraceJob], Reading]:
    reading = Reading()
    return list(read_csv(text.splitlines(), reading, "log.csv")), reading


def test_the_least_that_is_needed() -> None:
    jobs, _ = read("submit,runtime\n0,60\n30,90.5\n")
    assert jobs == [TraceJob(0, 0.0, 60.0), TraceJob(1, 30.0, 90.5)]


def test_every_column_in_any_order() -> None:
    text = "Runtime, submit ,cores,memory,disk,gpus,walltime,priority,group\n60,5,2,2048,100,1,3600,-3,large\n"
    jobs, _ = read(text)
    assert jobs == [TraceJob(0, 5.0, 60.0, 2, 2048, 100, 1, 3600.0, -3, "large")]


def test_an_array_is_as_many_jobs() -> None:
    jobs, _ = read("submit,runtime,tasks,at_once\n0,60,3,2\n1,5,1,\n2,7,2,\n")
    assert [(job.number, job.array, job.at_once) for job in jobs] == [
        (0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 0, 0), (4, 2, 0), (5, 2, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "submit", ["1970-01-02T00:00:00", "1970-01-02 00:00:00+00:00", "1970-01-02T01:00:00+01:00", "86400", "86400.0"]
)
def test_dates_are_of_utc_unless_they_say(submit: str) -> None:
    jobs, _ = read(f"submit,runtime\n{submit},60\n")
    assert jobs[0].submit == 86_400.0


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("0", "has 1 fields, the first line 4"),
        ("soon,60,1,", "has submit 'soon', which is neither seconds nor a date"),
        ("-1,60,1,", "has submit '-1', which is out of range"),
        ("0,long,1,", "has runtime 'long', which is no number of seconds"),
        ("0,nan,1,", "has runtime 'nan', which is no number of seconds"),
        ("0,60,two,", "has cores 'two', which is no whole number"),
        ("0,60,0,", "has cores 0, the least is 1"),
        ("0,60,1,5000000", "has 5000000 tasks, more than 1000000"),
    ],
)
def test_bad_rows_are_told_with_their_line(row: str, why: str) -> None:
    jobs, reading = read(f"submit,runtime,cores,tasks\n0,60,1,\n{row}\n1,60,1,\n")
    assert len(jobs) == 2
    assert [(each.number, each.why) for each in reading.bad] == [(3, why)]


def test_jobs_that_never_ran_are_counted() -> None:
    jobs, reading = read("submit,runtime,tasks\n0,,3\n0,5,\n")
    assert (len(jobs), reading.skipped) == (1, {Skip.NEVER_RAN: 3})


def test_columns_of_others_are_told() -> None:
    _, reading = read("submit,runtime,user,project\n0,60,me,x\n")
    assert reading.notes == ["columns that are not used: user, project"]


def test_a_file_without_our_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="column 'submit' is missing"):
        read("a,b\n1,2\n")
    (tmp_path / "log.csv").write_text("\ufeffsubmit,runtime\n2020-01-01T00:00:00,60\n2020-01-01T00:01:00,60\n")
    trace = read_trace(str(tmp_path / "log.csv"))
    assert [job.submit for job in trace.jobs] == [0.0, 60.0]


@given(st.text(max_size=200))
def test_no_text_makes_it_fall_over(text: str) -> None:
    reading = Reading()
    for job in read_csv(["submit,runtime", *text.splitlines()], reading, "log.csv"):
        assert job.submit >= 0.0 < job.runtime
