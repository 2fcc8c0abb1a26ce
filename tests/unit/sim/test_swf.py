"""Logs in the Standard Workload Format."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from gridtide.sim.reading import read_trace
from gridtide.sim.swf import read_swf, start_of
from gridtide.sim.trace import Reading, Skip, TraceError, TraceJob

HEADER = """; Version: 2.2
; UnixStartTime: 1132444805
; MaxProcs: 24515
; Partition:  1 grid.ici.ro
;
; Note: jobs 5 and 6 : odd ones
"""


NAMES = ("number", "submit", "wait", "run", "procs", "cpu", "memory", "wanted", "walltime", "wanted_memory", "status")


def line(number: float = 1, **fields: float) -> str:
    """A line with everything unknown but what is given."""
    values = {"number": number, "submit": 0, "run": 60, "procs": 1, "status": 1} | fields
    return " ".join(f"{values.get(name, -1):g}" for name in (*NAMES, *"abcdefg"))


def read(*lines: str) -> tuple[list[TraceJob], Reading]:
    reading = Reading()
    return list(read_swf(lines, reading)), reading


def test_a_line_as_the_archive_has_it() -> None:
    jobs, reading = read(" 2  3 -1  3611 4 -1 -1 8 116400 -1 1 2 2 -1 -1 2 -1 -1")
    assert jobs == [TraceJob(2, 3.0, 3611.0, 4, walltime=116_400.0)]
    assert (reading.skipped, reading.bad_count) == ({}, 0)


def test_the_header_is_kept() -> None:
    _, reading = read(*HEADER.splitlines(), line())
    assert reading.header["UnixStartTime"] == "1132444805"
    assert reading.header["MaxProcs"] == "24515"
    assert start_of(reading) == 1_132_444_805.0
    assert start_of(Reading(header={"UnixStartTime": "soon"})) == start_of(Reading()) == 0.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"procs": -1, "wanted": 4}, {"cores": 4}),
        ({"procs": 2, "wanted": 4}, {"cores": 2}),
        ({"run": 0}, {"runtime": 1.0}),
        ({"run": 0, "status": 0}, {"runtime": 1.0}),
        ({"run": 7, "status": 5}, {"runtime": 7.0}),
        ({"walltime": -1}, {"walltime": None}),
        ({"walltime": 0}, {"walltime": None}),
        ({"procs": 2, "wanted_memory": 1536}, {"cores": 2, "memory": 3}),
        ({"memory": 1025}, {"memory": 2}),
        ({"memory": 5000, "wanted_memory": 1024}, {"memory": 1}),
        ({"status": -1}, {"runtime": 60.0}),
    ],
)
def test_what_is_made_of_unknown_and_odd_fields(given: dict[str, float], expected: dict[str, object]) -> None:
    (job,), _ = read(line(**given))
    assert {name: getattr(job, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"run": -1}, Skip.NEVER_RAN),
        ({"run": 0, "status": 5}, Skip.NEVER_RAN),
        ({"procs": -1}, Skip.NO_CORES),
        ({"procs": 0, "wanted": 0}, Skip.NO_CORES),
        ({"status": 2}, Skip.PART),
        ({"status": 3}, Skip.PART),
        ({"status": 4}, Skip.PART),
    ],
)
def test_what_is_left_out_and_counted(given: dict[str, float], why: Skip) -> None:
    jobs, reading = read(line(**given), line())
    assert len(jobs) == 1
    assert reading.skipped == {why: 1}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("1 2 3", "has 3 fields, 18 are needed"),
        (line().replace("60", "sixty"), "holds something that is no number"),
        (line(submit=-5), "has a submission at -5 and a run time of 60"),
        (line(submit=float("nan")), "has a submission at nan and a run time of 60"),
        (line(run=float("inf")), "has a submission at 0 and a run time of inf"),
    ],
)
def test_bad_lines_are_told_with_their_number(bad: str, why: str) -> None:
    jobs, reading = read("; Version: 2", line(), "", bad, line(2))
    assert [job.number for job in jobs] == [1, 2]
    assert [(each.number, each.why) for each in reading.bad] == [(4, why)]


def test_of_many_bad_lines_the_first_are_told() -> None:
    _, reading = read(*["nonsense"] * 1000, line())
    assert (reading.bad_count, len(reading.bad), reading.bad[-1].number) == (1000, 20, 20)


def test_files_plain_and_packed(tmp_path: Path) -> None:
    text = HEADER + line(2, submit=500) + "\n" + line(1, submit=100) + "\n"
    (tmp_path / "log.swf").write_text(text)
    with gzip.open(tmp_path / "log.swf.gz", "wt") as packed:
        packed.write(text)
    plain, unpacked = (read_trace(str(tmp_path / name)) for name in ("log.swf", "log.swf.gz"))
    assert plain.jobs == unpacked.jobs
    assert [(job.number, job.submit) for job in plain.jobs] == [(1, 0.0), (2, 400.0)]
    assert plain.epoch == 1_132_444_905.0
    assert (plain.span, plain.work) == (400.0, 120.0)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.swf").write_text("; Version: 2\n")
    (tmp_path / "nonsense.swf").write_text("\x00\x01 binary\n" * 3)
    (tmp_path / "cut.swf.gz").write_bytes(gzip.compress(line().encode() * 500)[:-20])
    for name, told in (
        ("empty.swf", "there is no job in it"),
        ("nonsense.swf", "there is no job in it: line 1 has 2 fields"),
        ("cut.swf.gz", "it is damaged"),
        ("none.swf", "No such file"),
    ):
        with pytest.raises(TraceError, match=told):
            read_trace(str(tmp_path / name))


def test_parts_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "log.swf").write_text("\n".join(line(number, submit=number * 10) for number in range(1, 11)))
    trace = read_trace(str(tmp_path / "log.swf"))
    part = trace.between(30.0, 60.0)
    assert [(job.number, job.submit) for job in part.jobs] == [(4, 0.0), (5, 10.0), (6, 20.0)]
    assert len(read_trace(str(tmp_path / "log.swf"), jobs=3).jobs) == 3
    assert read_trace(str(tmp_path / "log.swf"), spread=2.0).span == 2 * trace.span
    with pytest.raises(TraceError, match="no job was submitted"):
        trace.between(1e6, 2e6)


def test_half_a_million_jobs_take_seconds() -> None:
    lines = [line(number, submit=number, walltime=3600) for number in range(1000)] * 500
    began = time.process_time()
    jobs, _ = read(*lines)
    assert len(jobs) == 500_000
    assert time.process_time() - began < 20.0
