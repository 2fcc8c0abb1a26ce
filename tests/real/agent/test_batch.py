"""The agent in a node of a batch system, with real processes: shell programs stand for daemons and jobs."""

from __future__ import annotations

import json
import os
import pwd
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from math import log2
from pathlib import Path

import pytest

from tests.real.agent.batch import Pool, lives
from tests.real.agent.conftest import Machine, fall_silent, soon
from tests.real.agent.service_double import PATIENCE, FaultKind, Json, ServiceDouble
from tests.real.agent.test_life import other_pythons


@pytest.fixture
def pool(service: ServiceDouble, tmp_path: Path) -> Iterator[Pool]:
    """Its orders are the usual ones."""
    made = Pool(tmp_path / "pool", service)
    made.order()
    yield made
    made.end()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


# --- files, commands, services


def test_a_machine_becomes_a_node(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    config = pool.directory / "etc" / "pool.d" / "worker.conf"
    elsewhere = pool.directory / "elsewhere"
    elsewhere.write_text("untouched")
    secret = pool.directory / "token"
    secret.symlink_to(elsewhere)
    pool.order(
        files=[
            {"path": str(config), "content": "A = ä\n", "mode": "0644", "owner": "daemon"},
            {"path": str(secret), "content": "SECRET", "mode": "0600", "owner": "root"},
        ],
        prepare=[pool.shell("cat token > seen; umask > mask; echo first >> log"), pool.shell("echo second >> log")],
        services=[
            pool.service_of("daemon"),
            pool.service_of("other", "echo other $$ $COLOUR >> log; sleep 60", COLOUR="red"),
        ],
    )
    machine.start()
    soon(lambda: len(pool.log()) == 4)
    assert pool.log()[:2] == ["first", "second"]
    assert set(pool.started()) <= set(machine.processes()), "the cloud finds them by their mark"
    assert any(line.startswith("other ") and line.endswith(" red") for line in pool.log())
    assert (config.read_text(), stat.S_IMODE(config.stat().st_mode)) == ("A = ä\n", 0o644)
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o755
    assert config.stat().st_uid == (pwd.getpwnam("daemon").pw_uid if os.geteuid() == 0 else os.geteuid())
    assert (secret.is_symlink(), secret.read_text(), elsewhere.read_text()) == (False, "SECRET", "untouched")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert ((pool.directory / "seen").read_text(), (pool.directory / "mask").read_text()) == ("SECRET", "0022\n")
    soon(lambda: len(service.signs) >= 2)
    assert service.signs[-1] == {**service.signs[-1], "running": [], "draining": False}
    assert service.count("/v1/pilot/") == 0, "it pulls no jobs"
    assert "SECRET" not in machine.text()


def test_all_that_it_keeps_is_its_own(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    machine.start()
    soon(pool.started)
    found = [*machine.directory.glob("*"), *machine.directory.glob("batch/**/*")]
    assert machine.directory / "batch" / "service-daemon" / "program.json" in found
    for path in found:
        if path != machine.log:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_services_wait_for_a_preparation_that_fails_twice(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    script = 'echo try >> log; echo "no key" yet; test $(grep -c try log) -gt 2 || exit 3'
    pool.order(prepare=[pool.shell(script), pool.shell("echo second >> log")])
    machine.start()
    soon(pool.started)
    assert pool.log()[:-1] == ["try", "try", "try", "second"]
    assert machine.text().count("prepare-1 (/bin/sh): exited with 3; its last words: no key yet; again in") == 2
    assert "prepare-1: done; its last words: no key yet" in machine.text()
    assert service.signs, "meanwhile it gives signs of life"


def test_a_file_that_cannot_be_written_is_told_and_tried_again(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    place = pool.directory / "place"
    place.write_text("in the way")
    pool.order(files=[{"path": f"{place}/file", "content": "x", "mode": "0600", "owner": "root"}])
    machine.start()
    soon(lambda: machine.log.exists() and f"file {place}/file: Not a directory; again in" in machine.text())
    assert not pool.started()
    place.unlink()
    soon(pool.started)
    assert (place / "file").read_text() == "x"


def test_a_service_that_ends_is_started_again(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    pool.order(services=[pool.service_of("daemon"), pool.service_of("broken", "echo broken $$ >> log; echo alas >&2")])
    began = time.monotonic()
    machine.start()
    soon(lambda: pool.started() and len(pool.started("broken")) == 2)
    os.kill(pool.started()[0], signal.SIGKILL)
    soon(lambda: len(pool.started()) == 2)
    first, second = pool.started()
    assert not lives(first)
    assert lives(second)
    time.sleep(1.5)
    assert len(pool.started()) == 2
    # Pauses of at least 0.5, 1, 2, 4 ... s lie between its starts.
    starts, most = len(pool.started("broken")), 1 + log2(1 + 2 * (time.monotonic() - began))
    assert starts <= most, "one that always ends is not started without a pause"
    assert "service-broken: it ended; again in" in machine.text()
    assert "its last words: alas" in machine.text()


def test_a_program_that_is_not_there_is_told(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    pool.order(services=[{"name": "daemon", "command": ["/nowhere/daemon"], "environment": {}}])
    machine.start()
    soon(lambda: machine.log.exists() and "cannot run /nowhere/daemon: No such file or directory" in machine.text())


def test_output_of_services_does_not_fill_the_disk(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    talks = (
        "echo daemon $$ >> log; for i in $(seq 40); do head -c 300000 /dev/zero | tr '\\0' x; echo; sleep 0.05; done"
    )
    talks += "; echo silent >> log; exec sleep 60"
    pool.order(services=[pool.service_of("daemon", talks)])
    machine.start()
    directory = machine.directory / "batch" / "service-daemon"
    soon(lambda: pool.log()[-1:] == ["silent"])
    soon(lambda: (directory / "output").stat().st_size <= 1 << 20)
    assert (directory / "output.1").stat().st_size == 1 << 20, "the last of 12 MB"
    assert len(pool.started()) == 1


# --- the agent is killed


def test_services_survive_the_agent_and_are_found_again(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    pool.order(prepare=[pool.shell("echo prepared >> log")])
    process = machine.start()
    soon(pool.started)
    soon(lambda: "service-daemon: runs as process" in machine.text())
    kill(process)
    assert lives(pool.started()[0])
    machine.start()
    soon(lambda: f"service-daemon: found again as process {pool.started()[0]}" in machine.text())
    time.sleep(0.5)
    assert len(pool.started()) == 1
    assert pool.log().count("prepared") == 1
    assert len(service.join_bodies) == 1
    os.kill(pool.started()[0], signal.SIGKILL)
    soon(lambda: len(pool.started()) == 2)


def test_a_service_that_ended_while_there_was_no_agent_is_started(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    process = machine.start()
    soon(pool.started)
    kill(process)
    os.kill(pool.started()[0], signal.SIGKILL)
    machine.start()
    soon(lambda: len(pool.started()) == 2)


def test_kills_at_any_moment_never_double_a_service(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    for trial in range(12):
        process = machine.start()
        time.sleep(0.15 + 0.011 * trial)
        kill(process)
    machine.start()
    soon(pool.started)
    time.sleep(0.5)
    assert len(pool.started()) == 1
    os.kill(pool.started()[0], signal.SIGKILL)
    soon(lambda: "it ended" in machine.text())
    for trial in range(6):
        time.sleep(0.1 * trial)
        processes = [pid for pid in machine.processes() if b"--context" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        soon(lambda found=processes: not any(lives(pid) for pid in found))  # type: ignore[misc]
        machine.start()
    soon(lambda: len(pool.started()) >= 2)
    time.sleep(0.5)
    assert [lives(pid) for pid in pool.started()] == [False, True]


def test_a_command_that_a_killed_agent_started_is_not_run_beside(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    pool.order(prepare=[pool.shell("echo prepares >> log; until test -e go; do sleep 0.1; done")])
    process = machine.start()
    soon(lambda: pool.log() == ["prepares"])
    kill(process)
    machine.start()
    soon(lambda: machine.text().count("as w1") == 2)
    time.sleep(0.3)
    (pool.directory / "go").touch()
    soon(pool.started)
    assert pool.log().count("prepares") == 1


def test_it_goes_on_without_its_zygote(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    process = machine.start()
    soon(lambda: pool.started() and "runs as process" in machine.text())
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children), signal.SIGKILL)
    soon(lambda: "found again" in machine.text())
    assert process.poll() is None
    assert len(pool.started()) == 1


# --- signs of life and orders


def test_running_jobs_are_counted_by_their_processes(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    machine.start()
    soon(pool.started)
    jobs = [pool.run_job(60) for _ in range(2)]
    expected: list[Json] = [{"job": f"{pool.job} {job.pid}", "attempt": 1} for job in jobs]
    service.wait(lambda: sorted(map(str, service.signs[-1]["running"] or ())) == sorted(map(str, expected)))  # type: ignore[arg-type]
    for job in jobs:
        job.kill()  # not waited for: a zombie is no running job
    service.wait(lambda: service.signs[-1]["running"] == [])


def test_a_drain_of_the_service_is_the_queues_matter(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    process = machine.start()
    soon(pool.started)
    service.order = "drain"
    service.wait(lambda: service.signs and service.signs[-1]["draining"])
    time.sleep(0.5)
    service.order = "continue"
    service.wait(lambda: not service.signs[-1]["draining"])
    assert pool.orders() == []
    assert process.poll() is None


def test_stop_ends_the_services_and_leaves(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    stubborn = "trap '' TERM; echo stubborn $$ >> log; while :; do sleep 0.1; done"
    pool.order(services=[pool.service_of("daemon"), pool.service_of("stubborn", stubborn)])
    process = machine.start()
    soon(lambda: len(pool.log()) == 2)
    service.order = "stop"
    assert process.wait(PATIENCE) == 0
    assert pool.orders() == ["daemon ends"]
    assert service.done == ["ordered to stop"]
    soon(lambda: not machine.processes())


def test_stop_with_a_job_running_waits_for_it(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    process = machine.start()
    soon(pool.started)
    job = pool.run_job(600)
    service.order = "stop"
    soon(lambda: pool.orders() == ["drain"])
    time.sleep(0.5)
    assert lives(pool.started()[0])
    assert job.poll() is None
    job.kill()
    assert process.wait(PATIENCE) == 0
    assert pool.orders() == ["drain", "daemon ends"]


def test_a_job_that_slipped_in_outlives_the_services_patience(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    takes_one = f"trap './{pool.job} 3' TERM; echo daemon $$ >> log; while :; do sleep 0.1; done"
    pool.order(services=[pool.service_of("daemon", takes_one)])
    process = machine.start()
    soon(pool.started)
    service.order = "stop"
    began = time.monotonic()
    assert process.wait(PATIENCE) == 0
    assert time.monotonic() - began > 3
    assert "services that do not end are killed" in machine.text()


def test_sigterm_drains_and_goes_when_empty(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    process = machine.start()
    soon(pool.started)
    job = pool.run_job(1.0)
    process.terminate()
    time.sleep(0.2)
    process.terminate()
    service.wait(lambda: service.signs[-1]["draining"])
    assert job.wait(PATIENCE) == 0
    assert process.wait(PATIENCE) == 0
    assert pool.orders() == ["drain", "daemon ends"]
    assert service.done == ["told by SIGTERM"]
    soon(lambda: not machine.processes())


def test_an_empty_node_that_cannot_be_closed_stays(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    pool.order(drain=pool.shell("echo drain >> log; test -e go"))
    process = machine.start()
    soon(pool.started)
    process.terminate()
    soon(lambda: pool.orders() == ["drain"])
    time.sleep(0.5)
    assert process.poll() is None, "it could be given a job at any moment"
    (pool.directory / "go").touch()
    assert process.wait(PATIENCE) == 0
    assert pool.orders()[-2:] == ["drain", "daemon ends"]


def test_a_daemon_is_kept_for_a_job_after_stop(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    process = machine.start()
    soon(pool.started)
    job = pool.run_job(60)
    service.order = "stop"
    soon(lambda: pool.orders() == ["drain"])
    os.kill(pool.started()[0], signal.SIGKILL)
    soon(lambda: len(pool.started()) == 2 and pool.orders() == ["drain", "drain"])
    job.kill()
    assert process.wait(PATIENCE) == 0


def test_sigterm_during_a_preparation_does_not_wait_for_it(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    pool.order(prepare=[pool.shell("echo prepares >> log; sleep 600")])
    process = machine.start()
    soon(lambda: pool.log() == ["prepares"])
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert pool.log() == ["prepares"]
    soon(lambda: not machine.processes())


# --- silence


def test_after_the_lease_it_drains_waits_for_the_job_and_leaves(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    pool.order(drain=pool.shell("echo drain >> log; test $(grep -c drain log) -gt 1"))
    process = machine.start()
    soon(lambda: pool.started() and service.signs)
    job = pool.run_job(600)
    fall_silent(service, lease=0.5)
    soon(lambda: pool.orders() == ["drain", "drain"])
    assert "drain (/bin/sh): exited with 1; again in" in machine.text()
    time.sleep(0.5)
    assert pool.orders() == ["drain", "drain"], "once it has worked it is not repeated"
    assert lives(pool.started()[0]), "the job needs its daemon"
    assert job.poll() is None
    job.kill()
    soon(lambda: pool.orders() == ["drain", "drain", "daemon ends"])
    service.start()
    assert process.wait(PATIENCE) == 0
    assert service.done == ["no contact with the service for 0.5 s"]


def test_it_goes_on_when_the_service_answers_in_time(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    pool.order(resume=pool.shell("echo resume >> log; test $(grep -c resume log) -gt 1"))
    process = machine.start()
    soon(lambda: pool.started() and service.signs)
    job = pool.run_job(600)
    fall_silent(service, lease=0.5)
    soon(lambda: pool.orders() == ["drain"])
    service.lease = 30
    service.start()
    soon(lambda: pool.orders() == ["drain", "resume", "resume"])
    service.wait(lambda: not service.signs[-1]["draining"])
    job.kill()
    time.sleep(0.5)
    assert process.poll() is None
    assert len(pool.started()) == 1
    assert pool.orders() == ["drain", "resume", "resume"]


def test_it_does_not_take_back_a_drain_that_the_service_wants(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    machine.start()
    soon(lambda: pool.started() and service.signs)
    pool.run_job(600)
    fall_silent(service, lease=0.5)
    soon(lambda: pool.orders() == ["drain"])
    service.lease, service.order = 30, "drain"
    service.start()
    soon(lambda: "the service answers again" in machine.text())
    time.sleep(0.5)
    assert pool.orders() == ["drain"]
    service.order = "continue"
    soon(lambda: pool.orders() == ["drain", "resume"])


def test_a_restarted_agent_knows_that_its_node_is_drained(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    process = machine.start()
    soon(lambda: pool.started() and service.signs)
    pool.run_job(600)
    fall_silent(service, lease=3.0)
    soon(lambda: pool.orders() == ["drain"])
    kill(process)
    machine.start()
    soon(lambda: "going on as w1" in machine.text())
    time.sleep(0.5)
    assert pool.orders() == ["drain"], "nobody has answered yet"
    service.lease = 30
    service.start()
    soon(lambda: pool.orders()[-1] == "resume")
    assert pool.orders() == ["drain", "resume"], "it did not need its own silence for it"


def test_a_daemon_that_begins_anew_is_drained_again(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    machine.start()
    soon(lambda: pool.started() and service.signs)
    pool.run_job(600)
    fall_silent(service, lease=0.5)
    soon(lambda: pool.orders() == ["drain"])
    os.kill(pool.started()[0], signal.SIGKILL)
    soon(lambda: len(pool.started()) == 2 and pool.orders() == ["drain", "drain"])


def test_a_short_silence_changes_nothing(service: ServiceDouble, machine: Machine, pool: Pool) -> None:
    machine.start()
    soon(lambda: pool.started() and service.signs)
    service.fault("/alive", FaultKind.BUSY, 3)
    service.stop()
    time.sleep(0.5)
    service.start()
    seen = len(service.signs)
    service.wait(lambda: len(service.signs) > seen + 1)
    assert pool.orders() == []
    assert "closing" not in machine.text()


# --- orders that cannot be followed


def test_bad_orders_are_told_and_no_part_of_them_is_followed(
    service: ServiceDouble, machine: Machine, pool: Pool
) -> None:
    target = pool.directory / "file"
    file: Json = {"path": str(target), "content": "x", "mode": "0600", "owner": "root"}
    pool.order(files=[file], prepare=[pool.shell("echo prepared >> log")], drain="drain")
    process = machine.start()
    assert process.wait(PATIENCE) == 2
    assert service.done == ["its orders cannot be followed: drain: not a list of strings"]
    assert not target.exists()
    assert pool.log() == []
    assert machine.text().count("its orders cannot be followed: drain") == 2, "when it found out, and when it left"
    assert "Traceback" not in machine.text()
    assert machine.start().wait(PATIENCE) == 2, "started again, it finds the same"


def test_without_orders_it_leaves(service: ServiceDouble, machine: Machine) -> None:
    service.queue = {"kind": "batch", "settings": {}, "secrets": {}}
    assert machine.start().wait(PATIENCE) == 2
    assert service.done == ["its orders cannot be followed: they say nothing about the batch system"]


# --- other Pythons


@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: Path(path).parents[1].name)
def test_nodes_run_on_other_pythons(service: ServiceDouble, machine: Machine, pool: Pool, python: str) -> None:
    pool.order(prepare=[pool.shell("echo prepared >> log")])
    process = machine.start(python=python)
    soon(lambda: pool.started() and service.signs)
    fall_silent(service, lease=0.5)
    soon(lambda: pool.orders() == ["prepared", "drain", "daemon ends"])
    service.start()
    assert process.wait(PATIENCE) == 0
    assert json.loads((machine.directory / "agent.json").read_text())["joined"]["kind"] == "batch"
    assert "Traceback" not in machine.text()
    assert "Warning" not in machine.text()
