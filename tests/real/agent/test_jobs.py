"""What becomes of jobs, with real agents, runners and sockets."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.real.agent.conftest import POLL, Machine, as_map, soon
from tests.real.agent.service_double import FaultKind, Json, ServiceDouble


def python(*lines: str) -> list[str]:
    """Arguments for a job that is a piece of Python."""
    return ["-I", "-S", "-c", "\n".join(lines)]


def test_a_job_runs_and_its_output_comes_back(service: ServiceDouble, machine: Machine) -> None:
    job = service.add("1.0", "/bin/echo", "hello")
    machine.start()
    end = service.end_of("1.0")
    assert (end["cause"], end["exit_code"], end["signal"], end["attempt"]) == ("exited", 0, None, 1)
    assert job.logs == {"stdout": b"hello\n", "stderr": b""}
    soon(lambda: not list((machine.directory / "jobs").iterdir()))


def test_a_chain_of_jobs_costs_one_round_trip_each(service: ServiceDouble, machine: Machine) -> None:
    for number in range(50):
        service.add(f"1.{number}", "/bin/echo", str(number))
    machine.start()
    service.end_of("1.49")
    assert [service.jobs[f"1.{number}"].logs["stdout"] for number in range(50)] == [b"%d\n" % n for n in range(50)]
    assert service.count("/finished") == 50
    assert service.count("/v1/pilot/request") <= 3
    assert service.count("/v1/pilot/") <= 53, "the report of an end brings the next job, and output rides in it"


def test_the_environment_is_the_jobs_own(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/usr/bin/env", environment={"COLOUR": "blue", "GRIDTIDE_JOB": "forged"}, cores=1)
    machine.start()
    service.end_of("1.0")
    lines = dict(line.split("=", 1) for line in service.jobs["1.0"].logs["stdout"].decode().splitlines())
    work = machine.directory / "jobs" / "1.0-1"
    assert lines == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(work / "work"),
        "TMPDIR": str(work / "tmp"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "COLOUR": "blue",
        "GRIDTIDE_JOB": "1.0",
        "GRIDTIDE_ATTEMPT": "1",
        "GRIDTIDE_CORES": "1",
        "GRIDTIDE_WORKER": "w1",
        "GRIDTIDE_MACHINE": machine.mark,
    }


def test_inputs_come_in_and_outputs_go_out(service: ServiceDouble, machine: Machine) -> None:
    script = service.file("run.sh", b"#!/bin/sh\ncat data/in.txt > out.txt; mkdir p; echo 1 > p/a.n; echo 2 > p/b.n\n")
    data = service.file("data/in.txt", b"some data")
    inputs: Json = [script, data]
    for number in range(3):
        service.add(f"1.{number}", "run.sh", inputs=inputs, outputs=["out.txt", "p/*.n"])
    machine.start()
    for number in range(3):
        assert service.end_of(f"1.{number}")["cause"] == "exited"
        assert service.jobs[f"1.{number}"].outputs == {"out.txt": b"some data", "p/a.n": b"1\n", "p/b.n": b"2\n"}
    assert service.count("/inputs/") == 2, "the second job takes them from the cache"


def test_an_input_that_was_tampered_with_is_fetched_again(service: ServiceDouble, machine: Machine) -> None:
    inputs: Json = [service.file("in.txt", b"right")]
    service.add("1.0", "/bin/sh", "-c", "echo wrong > in.txt", inputs=inputs)
    service.add("1.1", "/bin/cat", "in.txt", inputs=inputs)
    machine.start()
    service.end_of("1.1")
    assert service.jobs["1.1"].logs["stdout"] == b"right"


def test_a_damaged_input_keeps_the_job_from_starting(service: ServiceDouble, machine: Machine) -> None:
    entry = service.file("in.txt", b"right")
    service.files["in.txt"] = b"wrong"
    service.add("1.0", "/bin/cat", "in.txt", inputs=[entry])
    machine.start()
    end = service.end_of("1.0")
    assert end["cause"] == "not-started"
    assert "in.txt does not have the digest" in str(end["text"])


@pytest.mark.parametrize(
    ("executable", "more", "words"),
    [
        ("/no/such/thing", {}, "cannot run /no/such/thing: No such file"),
        ("missing.sh", {}, "neither an absolute path nor an input file"),
        ("/bin/true", {"outputs": ["../../agent.json"]}, "does not stay in the job's directory"),
        ("/bin/true", {"outputs": ["/etc/passwd"]}, "does not stay in the job's directory"),
        ("/bin/true", {"inputs": [{"name": "../x", "digest": "0", "size": 1}]}, "does not stay in the job's directory"),
        ("/bin/true", {"environment": {"A=B": "c"}}, "name is not legal"),
        ("/bin/true", {"arguments": ["a\0b"]}, "zero byte"),
        ("/bin/true", {"memory": "much"}, "the memory of the job is not a number"),
        ("/bin/true", {"inputs": None}, "description of the job is incomplete"),
    ],
)
def test_a_job_that_cannot_start_says_why(
    service: ServiceDouble, machine: Machine, executable: str, more: dict[str, Json], words: str
) -> None:
    service.add("1.0", executable, **more)
    service.add("1.1", "/bin/true")
    machine.start()
    end = service.end_of("1.0")
    assert end["cause"] == "not-started"
    assert words in str(end["text"])
    assert service.end_of("1.1")["cause"] == "exited"


def test_a_missing_output_fails_the_job_and_the_others_are_kept(service: ServiceDouble, machine: Machine) -> None:
    job = service.add("1.0", "/bin/sh", "-c", "echo x > there", outputs=["there", "missing", "*.root"])
    machine.start()
    end = service.end_of("1.0")
    assert (end["cause"], end["exit_code"]) == ("output-missing", 0)
    assert end["text"] == "output missing was not made; output *.root was not made"
    assert job.outputs == {"there": b"x\n"}


def test_a_link_that_leads_out_is_refused(service: ServiceDouble, machine: Machine) -> None:
    job = service.add(
        "1.0", "/bin/sh", "-c", "ln -s ../../../agent.json out; echo x > a; ln -s a b", outputs=["out", "b"]
    )
    machine.start()
    end = service.end_of("1.0")
    assert end["cause"] == "output-missing"
    assert "output out leads out of the job's directory" in str(end["text"])
    assert job.outputs == {"b": b"x\n"}


@pytest.mark.parametrize(
    ("command", "code", "number", "text"),
    [("exit 3", 3, None, "exited with 3"), ("kill -SEGV $$", None, 11, "ended by SIGSEGV")],
)
def test_how_a_job_ended_is_told(
    service: ServiceDouble, machine: Machine, command: str, code: int | None, number: int | None, text: str
) -> None:
    service.add("1.0", "/bin/sh", "-c", command)
    machine.start()
    end = service.end_of("1.0")
    assert (end["cause"], end["exit_code"], end["signal"], end["text"]) == ("exited", code, number, text)


def test_output_is_streamed_while_the_job_runs(service: ServiceDouble, machine: Machine) -> None:
    job = service.add("1.0", "/bin/sh", "-c", "echo first; echo oops >&2; sleep 2; echo last")
    machine.start()
    service.wait(lambda: job.logs["stdout"] == b"first\n" and job.logs["stderr"] == b"oops\n")
    assert job.finished is None
    service.end_of("1.0")
    assert job.logs["stdout"] == b"first\nlast\n"


def test_much_output_arrives_whole(service: ServiceDouble, machine: Machine) -> None:
    job = service.add("1.0", sys.executable, *python("import sys", "sys.stdout.write('0123456789' * 300000)"))
    machine.start()
    service.end_of("1.0")
    assert hashlib.sha256(job.logs["stdout"]).digest() == hashlib.sha256(b"0123456789" * 300000).digest()


def test_a_full_log_ends_the_stream_and_not_the_job(service: ServiceDouble, machine: Machine) -> None:
    service.log_limit = 1000
    job = service.add("1.0", sys.executable, *python("import sys", "sys.stdout.write('0123456789' * 300000)"))
    machine.start()
    assert service.end_of("1.0")["exit_code"] == 0
    assert len(job.logs["stdout"]) == 1000
    assert service.count("/log") == 1


def test_output_that_the_service_lost_is_sent_again(service: ServiceDouble, machine: Machine) -> None:
    go = machine.directory / "go"
    job = service.add("1.0", "/bin/sh", "-c", f"echo first; until test -e {go}; do sleep 0.1; done; echo last")
    machine.start()
    service.wait(lambda: job.logs["stdout"] == b"first\n")
    job.logs["stdout"] = b""
    go.touch()
    assert service.end_of("1.0")["cause"] == "exited"
    assert job.logs["stdout"] == b"first\nlast\n"


def test_one_result_that_cannot_be_delivered_holds_up_no_other(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sh", "-c", "echo x > out", outputs=["out"])
    service.add("1.1", "/bin/true")
    service.fault("1.0/outputs", FaultKind.BUSY, 100)
    machine.start()
    assert service.end_of("1.1")["cause"] == "exited"
    assert service.jobs["1.0"].finished is None


def test_wall_time_ends_a_job_gently_first(service: ServiceDouble, machine: Machine) -> None:
    job = service.add(
        "1.0", "/bin/sh", "-c", "trap 'echo tidy; exit 7' TERM; while :; do sleep 0.05; done", walltime=1.0
    )
    machine.start(grace=60.0)
    end = service.end_of("1.0")
    assert (end["cause"], end["exit_code"]) == ("walltime", 7)
    assert 1.0 <= float(str(end["wall_seconds"])) < 50, "it was not killed after its grace"
    assert job.logs["stdout"] == b"tidy\n"


def test_a_job_that_will_not_go_is_killed(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done", walltime=0.3)
    machine.start()
    end = service.end_of("1.0")
    assert (end["cause"], end["exit_code"], end["signal"]) == ("walltime", None, signal.SIGKILL)
    assert float(str(end["wall_seconds"])) >= 0.8


def test_memory_over_the_limit_ends_the_job(service: ServiceDouble, machine: Machine) -> None:
    code = python("import os, time", "os.fork()", "data = bytearray(80 << 20)", "time.sleep(30)")
    service.add("1.0", sys.executable, *code, memory=100)
    machine.start()
    end = service.end_of("1.0")
    assert (end["cause"], end["signal"]) == ("memory", signal.SIGKILL)
    assert int(str(end["peak_memory"])) > 100
    assert "100 are allowed" in str(end["text"])


def test_shared_memory_is_counted_once(service: ServiceDouble, machine: Machine) -> None:
    code = python(
        "import os, time", "data = bytearray(b'x' * (60 << 20))", "[os.fork() or time.sleep(1) for _ in range(2)]"
    )
    service.add("1.0", sys.executable, *code, memory=120)
    machine.start()
    assert service.end_of("1.0")["cause"] == "exited"


def test_accounting_is_plausible(service: ServiceDouble, machine: Machine) -> None:
    code = python("import time", "end = time.process_time() + 0.4", "while time.process_time() < end: pass")
    service.add("1.0", sys.executable, *code)
    machine.start()
    end = service.end_of("1.0")
    assert 0.4 <= float(str(end["cpu_seconds"])) <= float(str(end["wall_seconds"])) + 0.1
    assert 5 <= int(str(end["peak_memory"])) < 200


def test_a_cancelled_job_ends(service: ServiceDouble, machine: Machine) -> None:
    job = service.add("1.0", "/bin/sh", "-c", "sleep 60 & sleep 60")
    service.add("1.1", "/bin/true")
    machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    job.cancelled = True
    end = service.end_of("1.0")
    assert (end["cause"], end["signal"]) == ("cancelled", signal.SIGTERM)
    assert service.end_of("1.1")["cause"] == "exited"


def test_nothing_of_a_job_is_left_behind(service: ServiceDouble, machine: Machine) -> None:
    code = python(
        "import os, signal, time",
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0:",
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "        open('pid', 'w').write(str(os.getpid()))",
        "        time.sleep(60)",
        "    os._exit(0)",
        "while not os.path.exists('pid') or not open('pid').read(): time.sleep(0.01)",
    )
    job = service.add("1.0", sys.executable, *code, outputs=["pid"])
    machine.start()
    assert service.end_of("1.0")["cause"] == "exited"
    assert not Path(f"/proc/{job.outputs['pid'].decode()}").exists()


def test_jobs_share_the_machine_by_their_needs(service: ServiceDouble, machine: Machine) -> None:
    for number in range(4):
        service.add(f"1.{number}", "/bin/sleep", "0.5", cores=2 if number == 0 else 1)
    machine.start(resources={"cores": 4, "memory": 4096, "disk": 4096, "gpus": 0})
    service.wait(lambda: len(service.signs) > 0 and len(as_list(service.signs[-1]["running"])) == 3)
    assert service.jobs["1.3"].number == ""
    service.end_of("1.3")
    assert service.jobs["1.3"].given >= service.jobs["1.1"].given + 0.45


def test_a_big_job_gets_its_room_when_a_small_one_ends(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sleep", "0.7")
    machine.start(resources={"cores": 2, "memory": 4096, "disk": 4096, "gpus": 0})
    soon(lambda: service.count("/request") == 2)
    service.add("1.1", "/bin/true", cores=2)
    service.end_of("1.0")
    end = service.end_of("1.1", POLL / 2)
    assert end["cause"] == "exited", "it did not wait for the end of the long poll"


def test_an_idle_agent_starts_a_job_at_once(service: ServiceDouble, machine: Machine) -> None:
    machine.start()
    soon(lambda: service.count("/request"))
    time.sleep(0.3)
    added = time.monotonic()
    job = service.add("1.0", "/bin/true")
    service.end_of("1.0")
    assert job.finished_at - added < POLL / 2, "it was given in answer to the long poll"
    assert service.count("/request") == 1


@pytest.mark.parametrize(
    "kind", [FaultKind.LOSE_ANSWER, FaultKind.TRUNCATE, FaultKind.GARBAGE, FaultKind.BUSY, FaultKind.HANG_UP]
)
@pytest.mark.parametrize("path", ["/join", "/request", "/inputs/", "/log", "/outputs/", "/finished", "/alive"])
def test_any_request_survives_any_fault(service: ServiceDouble, machine: Machine, path: str, kind: FaultKind) -> None:
    inputs: Json = [service.file("run.sh", b"#!/bin/sh\necho $GRIDTIDE_JOB >> out; echo ran; sleep $1\n")]
    service.add("1.0", "run.sh", "1.1" if path == "/log" else "0", inputs=inputs, outputs=["out"])
    service.add("1.1", "/bin/echo", "next")
    service.fault(path, kind)
    machine.start()
    assert [service.end_of(name)["cause"] for name in ("1.0", "1.1")] == ["exited", "exited"]
    assert service.jobs["1.0"].logs["stdout"] == b"ran\n"
    assert service.jobs["1.0"].outputs == {"out": b"1.0\n"}
    assert service.faults[0].times == 0
    assert len({str(body["worker_token"]) for body in service.join_bodies}) == 1


def test_a_result_that_is_not_wanted_is_dropped(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/true")
    service.add("1.1", "/bin/true")
    service.fault("1.0/finished", FaultKind.REFUSE)
    machine.start()
    assert service.end_of("1.1")["cause"] == "exited"
    assert "does not take its result: 409: not now" in machine.text()


def test_a_full_disk_is_told_and_the_agent_lives(service: ServiceDouble, machine: Machine) -> None:
    # A limit on the size of files is as good as a full disk for one write, and needs no file system of its own.
    big = service.file("big", os.urandom(3 << 20))
    service.add("1.0", "/bin/cat", "big", inputs=[big])
    service.add("1.1", "/bin/true")
    machine.start(file_limit=1 << 20)
    end = service.end_of("1.0")
    assert end["cause"] == "not-started"
    assert "cannot write big" in str(end["text"])
    assert service.end_of("1.1")["cause"] == "exited"


def as_list(value: Json) -> list[Json]:
    """For mypy: a list and nothing else."""
    assert isinstance(value, list)
    return value


def test_the_host_describes_itself(service: ServiceDouble, machine: Machine) -> None:
    machine.start()
    service.wait(lambda: service.join_bodies)
    host = as_map(service.join_bodies[0]["host"])
    assert (host["Cpus"], host["Memory"], host["OpSys"], host["GridtideGroup"]) == (1, 2048, "LINUX", "grid")
    assert host["Machine"] == "w1"
