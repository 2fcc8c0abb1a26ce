"""``submit wait jobs cancel logs outputs``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gridtide.cli import uploading
from gridtide.cli.exit_codes import ExitCode
from gridtide.pilot.protocol import JobState
from gridtide.store.ports import Json
from tests.unit.cli import samples
from tests.unit.cli.conftest import HandClock, Run, lines
from tests.unit.cli.fake_service import Answer, Asked, FakeService, Handler, refuse

JDL = 'Executable = "run.sh"; InputFile = {"data.bin", "twin.bin"}; OutputFile = {"out.npz"}; Array = 3;\n'


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """A description with its files in a directory that is not the present one."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "run.sh").write_bytes(b"#!/bin/sh\n")
    (place / "data.bin").write_bytes(b"same")
    (place / "twin.bin").write_bytes(b"same")
    path = place / "job.jdl"
    path.write_text(JDL)
    return path


def accept(service: FakeService, missing: list[str], **counts: int) -> None:
    service.on("POST", "/v1/files/missing", Answer(document={"missing": list[Json](missing)}))
    for name in missing:
        service.on("PUT", f"/v1/files/{name}", Answer(201, {"digest": name, "size": 1}))
    service.on("POST", "/v1/submissions", Answer(201, samples.submission(**counts)))


def test_submit_sends_only_what_is_missing(ask: Run, service: FakeService, description: Path) -> None:
    accept(service, [digest(b"same")], waiting=3)
    ran = ask("submit", str(description))
    assert ran.code == 0
    assert ran.stdout.strip() == "Submission 12: 3 jobs"
    assert ran.error == "Sent 1 file, 4 B"
    (question,) = service.calls("POST", "/v1/files/missing")
    assert question.body == {"digests": [digest(b"#!/bin/sh\n"), digest(b"same")]}
    (upload,) = [one for one in service.asked if one.method == "PUT"]
    assert upload.content == b"same"
    (made,) = service.calls("POST", "/v1/submissions")
    assert made.body == {
        "description": JDL,
        "files": {"run.sh": digest(b"#!/bin/sh\n"), "data.bin": digest(b"same"), "twin.bin": digest(b"same")},
    }


def test_submit_in_json(ask: Run, service: FakeService, description: Path) -> None:
    accept(service, [], waiting=3)
    ran = ask("submit", str(description), "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.document == samples.submission(waiting=3)


def test_submit_and_wait_gives_one_document_and_the_jobs_verdict(
    ask: Run, service: FakeService, description: Path
) -> None:
    accept(service, [], waiting=3)
    end = samples.submission(done=2, failed=1)
    service.on("GET", "/v1/submissions/12", Answer(document=samples.submission(running=3)), Answer(document=end))
    ran = ask("submit", str(description), "--wait", "--json")
    assert ran.code == ExitCode.FAILED
    assert ran.document == end
    assert "1 job of submission 12 did not end well" in ran.error


def test_a_missing_input_is_named_and_nothing_is_asked(ask: Run, service: FakeService, description: Path) -> None:
    description.with_name("data.bin").unlink()
    ran = ask("submit", str(description))
    assert ran.code == ExitCode.DESCRIPTION
    assert "data.bin" in ran.error
    assert service.asked == []


@pytest.mark.parametrize("text", ['Executable = "run.sh"; Arguments = [', "Executable = ;", "\udcff"])
def test_a_bad_description_is_told_with_its_file(ask: Run, service: FakeService, description: Path, text: str) -> None:
    description.write_bytes(text.encode("utf-8", "surrogateescape"))
    ran = ask("submit", str(description))
    assert ran.code == ExitCode.DESCRIPTION
    assert "job.jdl" in ran.error
    assert service.asked == []


def test_a_refused_description_makes_no_jobs(ask: Run, service: FakeService, description: Path) -> None:
    accept(service, [])
    service.on("POST", "/v1/submissions", refuse(400, "JobDescriptionError", "no such attribute", "line 1, Foo"))
    ran = ask("submit", str(description))
    assert (ran.code, ran.error) == (ExitCode.DESCRIPTION, "gridtide: line 1, Foo: no such attribute")


def test_a_file_that_shrinks_while_it_is_sent_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"123456")
    (file,) = uploading.find_files(("data",), tmp_path)
    path.write_bytes(b"123")
    with pytest.raises(Exception, match="has become shorter"):
        list(uploading._chunks(file))


def test_wait_tells_progress_and_ends_well(ask: Run, service: FakeService) -> None:
    service.on(
        "GET",
        "/v1/submissions/12",
        Answer(document=samples.submission(waiting=2)),
        Answer(document=samples.submission(waiting=2)),
        Answer(document=samples.submission(running=1, done=1)),
        Answer(document=samples.submission(done=2)),
    )
    ran = ask("wait", "12")
    assert ran.code == 0
    assert lines(ran.stderr) == [
        "0 of 2 jobs ended: 2 waiting",
        "1 of 2 jobs ended: 1 running, 1 done",
        "2 of 2 jobs ended: 2 done",
    ]
    assert ran.stdout.strip() == "Submission 12: 2 of 2 jobs ended: 2 done"


@pytest.mark.parametrize("counts", [{"done": 1, "failed": 1}, {"done": 1, "cancelled": 1}])
def test_wait_fails_when_a_job_did(ask: Run, service: FakeService, counts: dict[str, int]) -> None:
    service.on("GET", "/v1/submissions/12", Answer(document=samples.submission(**counts)))
    ran = ask("wait", "12", "--json")
    assert ran.code == ExitCode.FAILED
    assert ran.document == samples.submission(**counts)


def test_wait_gives_up_after_its_time_and_ends_nothing(ask: Run, service: FakeService, clock: HandClock) -> None:
    service.on("GET", "/v1/submissions/12", Answer(document=samples.submission(waiting=2)))
    begin = clock.at
    ran = ask("wait", "12", "--timeout", "10", "--json")
    assert ran.code == ExitCode.TIMED_OUT
    assert clock.at - begin == pytest.approx(10.0)
    assert {one.method for one in service.asked} == {"GET"}


def test_wait_bears_a_service_that_restarts(ask: Run, service: FakeService) -> None:
    busy = refuse(503, "StoreUnavailable")
    service.on("GET", "/v1/submissions/12", busy, busy, Answer(document=samples.submission(done=1)))
    assert ask("wait", "12").code == 0


def test_wait_does_not_repeat_what_will_never_be_right(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/submissions/12", refuse(404, "NotFound", "there is no submission 12"))
    assert ask("wait", "12").code == ExitCode.NOT_FOUND
    assert len(service.asked) == 1


def test_jobs_shows_a_row_each(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/jobs", Answer(document={"jobs": [samples.job()], "next": None}))
    ran = ask("jobs", "12", "--state", "running", "--user", "rosa")
    assert service.asked[0].query == {"submission": "12", "state": "running", "user": "rosa", "limit": "100"}
    row = lines(ran.stdout)[-1]
    assert row.split()[:4] == ["12.0", "rosa", "spectrum", "running"]
    assert "1 min ago" in row
    assert "40 s" in row


def test_jobs_turns_pages(ask: Run, service: FakeService) -> None:
    def page(asked: Asked) -> Answer:
        first = int(asked.query.get("after", "12.-1").partition(".")[2]) + 1
        last = min(first + min(int(asked.query["limit"]), 1000), 2450)
        return Answer(document={"jobs": [samples.job(f"12.{index}") for index in range(first, last)], "next": None})

    service.handle("GET", "/v1/jobs", page)
    ran = ask("jobs", "--limit", "9000", "--json")
    assert isinstance(ran.document, dict)
    found = ran.document["jobs"]
    assert isinstance(found, list)
    assert [row["id"] for row in found if isinstance(row, dict)] == [f"12.{index}" for index in range(2450)]
    assert len(service.asked) == 3
    cut = ask("jobs", "--limit", "250")
    assert len(lines(cut.stdout)) == 250 + 2  # heading and its rule
    assert "--after 12.249" in cut.error


def test_no_jobs(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/jobs", Answer(document={"jobs": [], "next": None}))
    assert ask("jobs").stdout.strip() == "No jobs"


def test_cancel(ask: Run, service: FakeService) -> None:
    service.on("POST", "/v1/jobs/cancel", Answer(document={"cancelled": 2}))
    assert ask("cancel", "12.1", "12.2").stdout.strip() == "Cancelled 2 jobs"
    assert ask("cancel", "--submission", "12", "--json").document == {"cancelled": 2}
    assert [one.body for one in service.asked] == [
        {"jobs": ["12.1", "12.2"], "submission": None},
        {"jobs": [], "submission": 12},
    ]


def log_of(content: bytes, piece: int) -> Handler:
    def handler(asked: Asked) -> Answer:
        offset = int(asked.query["offset"])
        return Answer(content=content[offset : offset + piece])

    return handler


def test_logs_reads_all_pieces(ask: Run, service: FakeService) -> None:
    service.handle("GET", "/v1/jobs/12.0/log", log_of(b"one\ntwo\nthree\n", 5))
    ran = ask("logs", "12.0", "--stderr")
    assert ran.stdout == "one\ntwo\nthree\n"
    assert {one.query["stream"] for one in service.asked} == {"stderr"}
    assert ask("logs", "12.0", "--json").document == {"job": "12.0", "stream": "stdout", "text": "one\ntwo\nthree\n"}


def test_following_a_log_loses_and_doubles_no_byte(ask: Run, service: FakeService) -> None:
    service.on(
        "GET",
        "/v1/jobs/12.0/log",
        Answer(pieces=(b"be", b"fore "), cut=True),
        refuse(503, "StoreUnavailable"),
        Answer(pieces=(b"after",)),
    )
    assert ask("logs", "12.0", "--follow").stdout == "before after"
    assert [one.query["offset"] for one in service.asked] == ["0", "7", "7"]


def test_following_in_json_keeps_characters_whole(ask: Run, service: FakeService) -> None:
    half, rest = "é".encode()[:1], "é".encode()[1:]
    service.on("GET", "/v1/jobs/12.0/log", Answer(pieces=(b"a" + half,), cut=True), Answer(pieces=(rest,)))
    ran = ask("logs", "12.0", "--follow", "--json")
    assert "".join(row["text"] for row in ran.documents if isinstance(row, dict)) == "aé"


def outputs_of(service: FakeService, files: dict[str, bytes], claimed: dict[str, bytes] | None = None) -> None:
    rows: list[Json] = [samples.output(n, digest((claimed or files)[n]), len(c)) for n, c in files.items()]
    service.on("GET", "/v1/jobs/12.0/outputs", Answer(document={"outputs": rows}))
    for name, content in files.items():
        service.on("GET", f"/v1/jobs/12.0/outputs/{name}", Answer(content=content))


def test_outputs_are_listed(ask: Run, service: FakeService) -> None:
    outputs_of(service, {"out.npz": b"x" * 2048})
    assert lines(ask("outputs", "12.0").stdout)[-1].split() == ["12.0", "out.npz", "2.0", "KiB"]
    assert "outputs" in json.loads(ask("outputs", "12.0", "--json").stdout)


def test_outputs_are_fetched_whole(ask: Run, service: FakeService, tmp_path: Path) -> None:
    outputs_of(service, {"out.npz": b"abc", "deep/a b?.txt": b"def"})
    ran = ask("outputs", "12.0", "--to", "there")
    assert ran.stdout.strip() == "Fetched 2 files, 6 B, into there"
    assert (tmp_path / "there/out.npz").read_bytes() == b"abc"
    assert (tmp_path / "there/deep/a b?.txt").read_bytes() == b"def"


def test_outputs_of_a_whole_submission(ask: Run, service: FakeService, tmp_path: Path) -> None:
    done: list[Json] = [samples.job("12.0", JobState.DONE), samples.job("12.7", JobState.DONE)]
    service.on("GET", "/v1/jobs", Answer(document={"jobs": done, "next": None}))
    for job in ("12.0", "12.7"):
        row = samples.output("out.npz", digest(job.encode()), 4)
        service.on("GET", f"/v1/jobs/{job}/outputs", Answer(document={"outputs": [row]}))
        service.on("GET", f"/v1/jobs/{job}/outputs/out.npz", Answer(content=job.encode()))
    assert [line.split()[0] for line in lines(ask("outputs", "12").stdout)[-2:]] == ["12.0", "12.7"]
    ran = ask("outputs", "12", "--to", "there", "--json")
    assert isinstance(ran.document, dict)
    assert set(ran.document["jobs"]) == {"12.0", "12.7"}
    assert (tmp_path / "there/12.0/out.npz").read_bytes() == b"12.0"
    assert (tmp_path / "there/12.7/out.npz").read_bytes() == b"12.7"
    asked = service.calls("GET", "/v1/jobs")[0].query
    assert (asked["submission"], asked["state"]) == ("12", "done")


def test_what_is_there_is_not_replaced_unasked(ask: Run, service: FakeService, tmp_path: Path) -> None:
    outputs_of(service, {"out.npz": b"new"})
    (tmp_path / "out.npz").write_bytes(b"old")
    assert ask("outputs", "12.0", "--to", ".").code == ExitCode.USAGE
    assert (tmp_path / "out.npz").read_bytes() == b"old"
    assert ask("outputs", "12.0", "--to", ".", "--force").code == 0
    assert (tmp_path / "out.npz").read_bytes() == b"new"


def test_damaged_outputs_do_not_stay(ask: Run, service: FakeService, tmp_path: Path) -> None:
    outputs_of(service, {"out.npz": b"damaged"}, {"out.npz": b"right"})
    ran = ask("outputs", "12.0", "--to", "there")
    assert ran.code == ExitCode.FAILED
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../escape", ".."])
def test_no_output_is_written_outside(ask: Run, service: FakeService, tmp_path: Path, name: str) -> None:
    outputs_of(service, {name: b"evil"})
    ran = ask("outputs", "12.0", "--to", "there")
    assert ran.code == ExitCode.INTERNAL
    assert "unsafe" in ran.error
    assert not (tmp_path / "escape").exists()


def test_no_output_is_written_through_a_link(ask: Run, service: FakeService, tmp_path: Path) -> None:
    outputs_of(service, {"link/out": b"evil"})
    (tmp_path / "there").mkdir()
    (tmp_path / "there/link").symlink_to(tmp_path)
    assert ask("outputs", "12.0", "--to", "there").code == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


def test_every_state_that_a_job_can_end_in_is_known() -> None:
    from gridtide.cli import views

    assert set(JobState) - views.ENDED == {JobState.WAITING, JobState.RUNNING}
