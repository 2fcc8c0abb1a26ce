"""Joining, orders, silence, restarts and leaving, with real agents and sockets."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.real.agent.conftest import POLL, Machine, MachineMaker, as_map, fall_silent, soon
from tests.real.agent.service_double import PATIENCE, FaultKind, ServiceDouble

# --- joining


def test_a_join_leaves_no_join_token_and_keeps_its_own_secret(service: ServiceDouble, machine: Machine) -> None:
    machine.start()
    soon(lambda: "joined as w1" in (machine.text() if machine.log.exists() else ""))
    assert "join_token" not in json.loads((machine.directory / "context.json").read_text())
    for name in ("agent.json", "context.json"):
        assert stat.S_IMODE((machine.directory / name).stat().st_mode) == 0o600
    assert service.worker_token
    secret = service.worker_token.partition(".")[2]
    assert len(secret) >= 43
    assert secret not in machine.text()
    assert "SECRET" not in machine.text()
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in machine.processes()]
    assert not any(secret.encode() in command for command in commands)


def test_the_join_tells_how_the_machine_booted(service: ServiceDouble, machine: Machine) -> None:
    points = {"origin": 0.0, "user_space": 1.5, "context": 2.5, "agent": None}
    (machine.directory / "boot.json").write_text(json.dumps(points))
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    machine.start()
    service.wait(lambda: service.join_bodies)
    told = as_map(service.join_bodies[0]["boot"])
    assert {name: told[name] for name in told if name != "now"} == {"user_space": 1.5, "context": 2.5}
    assert isinstance(told["now"], float)
    assert before <= told["now"] <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("text", [None, "", "[1]", "{"])
def test_without_boot_times_the_join_tells_none_of_the_hosts(
    service: ServiceDouble, machine: Machine, text: str | None
) -> None:
    if text is not None:
        (machine.directory / "boot.json").write_text(text)
    machine.start()
    service.wait(lambda: service.join_bodies)
    assert "boot" not in service.join_bodies[0]


@pytest.mark.parametrize("status", [401, 409])
def test_a_refused_join_ends_the_agent(service: ServiceDouble, machine: Machine, status: int) -> None:
    service.refuse_join = status
    process = machine.start()
    assert process.wait(PATIENCE) == 1
    assert "nobody expects this machine" in machine.text()
    soon(lambda: not machine.processes())


def test_it_joins_when_the_service_comes_up(service: ServiceDouble, machine_at: MachineMaker) -> None:
    address = service.start()
    service.stop()
    machine = machine_at(address)
    machine.start()
    soon(lambda: machine.log.exists() and "join:" in machine.text())
    service.start()
    service.wait(lambda: service.signs)


def test_it_uses_whichever_address_answers(service: ServiceDouble, machine_at: MachineMaker) -> None:
    dead = ServiceDouble()
    dead_address = dead.start()
    dead.stop()
    machine = machine_at(dead_address, service.start())
    service.add("1.0", "/bin/true")
    machine.start()
    assert service.end_of("1.0")["cause"] == "exited"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service": ["http://192.0.2.1:80"]}, "no token is sent over plain HTTP"),
        ({"service": ["https://192.0.2.1"]}, "needs a ca"),
        ({"service": []}, "names no service"),
        ({"version": 2}, "not a context of version 1"),
        ({"resources": {"cores": "many"}}, "cannot be used"),
        ({"join_token": None}, "nobody expects this machine"),
    ],
)
def test_a_context_that_cannot_be_used_is_one_line(machine: Machine, changes: dict[str, object], words: str) -> None:
    process = machine.start(**changes)  # type: ignore[arg-type]  # broken on purpose
    assert process.wait(PATIENCE) in (1, 2)
    assert words in machine.text()
    assert machine.text().count("\n") == 1


def test_two_agents_do_not_share_a_directory(service: ServiceDouble, machine: Machine) -> None:
    machine.start()
    service.wait(lambda: service.signs)
    assert machine.start().wait(PATIENCE) == 2
    assert "another agent works in" in machine.text()


# --- TLS


def authority(directory: Path, name: str) -> tuple[str, ssl.SSLContext]:
    """A new authority's certificate, and a server's context with a certificate of it for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    subjects = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, "127.0.0.1")]

    def certificate(index: int, extension: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder(subjects[0], subjects[index], keys[index].public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(
            extension, critical=index == 0
        )
        return builder.sign(keys[0], hashes.SHA256())

    ca = certificate(0, x509.BasicConstraints(ca=True, path_length=0)).public_bytes(serialization.Encoding.PEM)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    chain, key = directory / f"{name}.pem", directory / f"{name}.key"
    chain.write_bytes(certificate(1, names).public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    return ca.decode(), server


def test_it_works_over_tls_with_the_sites_authority(
    service: ServiceDouble, machine_at: MachineMaker, tmp_path: Path
) -> None:
    ca, server = authority(tmp_path, "site")
    machine = machine_at(service.start(server))
    job = service.add("1.0", "/bin/sh", "-c", "head -c 3000000 /dev/zero | tee out", outputs=["out"])
    machine.start(ca=ca)
    assert service.end_of("1.0")["cause"] == "exited"
    assert len(job.outputs["out"]) == len(job.logs["stdout"]) == 3000000


def test_another_authority_is_not_trusted(service: ServiceDouble, machine_at: MachineMaker, tmp_path: Path) -> None:
    _, server = authority(tmp_path, "site")
    other, _ = authority(tmp_path, "other")
    machine = machine_at(service.start(server))
    machine.start(ca=other)
    soon(lambda: machine.log.exists() and machine.text().count("certificate verify failed") >= 2)
    assert service.requests == []


# --- orders


def test_a_drained_agent_asks_no_more_finishes_and_waits_for_stop(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sleep", "0.8")
    process = machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    service.order = "drain"
    service.add("1.1", "/bin/true")
    assert service.end_of("1.0")["cause"] == "exited"
    service.wait(lambda: service.signs[-1] == {**service.signs[-1], "running": [], "draining": True})
    assert service.jobs["1.1"].number == ""
    assert process.poll() is None
    service.order = "stop"
    assert process.wait(PATIENCE) == 0
    assert service.done == ["ordered to stop"]


def test_a_drain_that_is_taken_back_lets_it_go_on(service: ServiceDouble, machine: Machine) -> None:
    service.order = "drain"
    machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["draining"])
    service.add("1.0", "/bin/true")
    service.order = "continue"
    assert service.end_of("1.0")["cause"] == "exited"


def test_stop_lets_a_running_job_finish(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sleep", "0.8")
    process = machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    service.order = "stop"
    assert service.end_of("1.0")["cause"] == "exited"
    assert process.wait(PATIENCE) == 0
    assert service.done == ["ordered to stop"]


def test_a_single_use_worker_takes_one_job_and_leaves(service: ServiceDouble, machine: Machine) -> None:
    service.single_use = True
    service.add("1.0", "/bin/true")
    service.add("1.1", "/bin/true")
    process = machine.start()
    assert process.wait(PATIENCE) == 0
    assert service.jobs["1.0"].finished
    assert service.jobs["1.1"].number == ""
    assert service.done == ["its one job was taken"]


def test_sigterm_finishes_what_runs_and_leaves(service: ServiceDouble, machine: Machine) -> None:
    go = machine.directory / "go"
    service.add("1.0", "/bin/sh", "-c", f"until test -e {go}; do sleep 0.1; done")
    service.add("1.1", "/bin/true")
    process = machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    process.terminate()
    time.sleep(0.2)
    process.terminate()
    service.wait(lambda: service.signs[-1]["draining"])
    go.touch()
    assert process.wait(PATIENCE) == 0
    assert service.end_of("1.0")["cause"] == "exited"
    assert service.jobs["1.1"].number == ""
    assert service.done == ["told by SIGTERM"]
    soon(lambda: not machine.processes())


def test_sigterm_of_an_idle_agent_does_not_wait_for_its_long_poll(service: ServiceDouble, machine: Machine) -> None:
    service.heartbeat = 10.0
    process = machine.start()
    soon(lambda: service.count("/request"))
    process.terminate()
    assert process.wait(POLL / 2) == 0
    assert service.count("/request") == 2, "it asked once more, whether a job had been given to it meanwhile"
    assert len(set(service.numbers)) == 1


def test_it_powers_the_machine_off(service: ServiceDouble, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = machine.directory / "bin"
    programs.mkdir()
    for name, status in (("systemctl", 1), ("poweroff", 0)):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {machine.directory}/off\nexit {status}\n')
        (programs / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(programs))
    service.order = "stop"
    assert machine.start(shutdown="poweroff").wait(PATIENCE) == 0
    assert (machine.directory / "off").read_text() == "systemctl poweroff\npoweroff -f\n"


def test_heartbeats_go_on_during_the_long_poll(service: ServiceDouble, machine: Machine) -> None:
    service.heartbeat = 0.1
    machine.start()
    service.wait(lambda: len(service.signs) >= 10)
    assert service.count("/request") == 1
    assert set(service.signs[0]) == {"load", "running", "draining"}


# --- silence


def test_a_result_outlives_a_service_that_is_down(service: ServiceDouble, machine: Machine) -> None:
    go = machine.directory / "go"
    script = f"until test -e {go}; do sleep 0.1; done; echo x | tee out"
    job = service.add("1.0", "/bin/sh", "-c", script, outputs=["out"])
    process = machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    fall_silent(service, lease=0.5)
    soon(lambda: "no contact with the service for 0.5 s" in machine.text())
    go.touch()
    soon(lambda: "exited with 0" in machine.text())
    time.sleep(0.5)
    assert process.poll() is None, "it keeps its result until it is delivered"
    service.start()
    assert service.end_of("1.0")["cause"] == "exited"
    assert job.outputs == {"out": b"x\n"}
    assert process.wait(PATIENCE) == 0
    assert service.done == ["no contact with the service for 0.5 s"]


def test_a_short_silence_changes_nothing(service: ServiceDouble, machine: Machine) -> None:
    go = machine.directory / "go"
    script = f"until test -e {go}; do sleep 0.1; done; for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done"
    job = service.add("1.0", "/bin/sh", "-c", script)
    service.add("1.1", "/bin/true")
    machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    service.stop()
    go.touch()
    time.sleep(0.5)
    service.start()
    assert service.end_of("1.0")["cause"] == "exited"
    assert job.logs["stdout"] == b"1\n2\n3\n4\n5\n6\n"
    assert service.end_of("1.1")["cause"] == "exited"
    assert "draining" not in machine.text()


def test_an_idle_agent_leaves_when_its_lease_ends(service: ServiceDouble, machine: Machine) -> None:
    machine.start()
    service.wait(lambda: service.signs)
    fall_silent(service, lease=0.5)
    soon(lambda: "draining, then leaving: no contact" in machine.text())
    service.start()
    service.wait(lambda: service.done)


def test_retry_after_is_honoured(service: ServiceDouble, machine: Machine) -> None:
    service.fault("/finished", FaultKind.BUSY)
    service.add("1.0", "/bin/true")
    machine.start()
    service.end_of("1.0")
    times = [at for at, _, path in service.requests if "/finished" in path]
    assert times[1] - times[0] >= 0.5


# --- restarts


def test_a_killed_agent_that_is_started_again_finds_its_jobs(service: ServiceDouble, machine: Machine) -> None:
    resources: dict[str, object] = {"cores": 3, "memory": 4096, "disk": 4096, "gpus": 0}
    first, second, ran = (machine.directory / name for name in ("first", "second", "ran"))
    script = "until test -e {go}; do sleep 0.1; done; echo {word}; echo ran >> {ran}"
    ended = service.add("1.0", "/bin/sh", "-c", script.format(go=first, word="a", ran=ran))
    running = service.add("1.1", "/bin/sh", "-c", script.format(go=second, word="b", ran=ran))
    cancelled = service.add("1.2", "/bin/sleep", "60")
    process = machine.start(resources=resources)  # type: ignore[arg-type]
    service.wait(lambda: service.signs and len(str(service.signs[-1]["running"]).split("job")) == 4)
    process.kill()
    process.wait()
    first.touch()
    soon(ran.exists)
    cancelled.cancelled = True
    machine.start()
    assert service.end_of("1.0")["cause"] == "exited"
    assert service.end_of("1.2")["cause"] == "cancelled"
    second.touch()
    assert service.end_of("1.1")["cause"] == "exited"
    assert (ended.logs["stdout"], running.logs["stdout"]) == (b"a\n", b"b\n")
    assert ran.read_text() == "ran\nran\n", "each ran once"
    assert len(service.join_bodies) == 1
    service.add("1.3", "/bin/true")
    assert service.end_of("1.3")["cause"] == "exited"


def test_a_chain_survives_kills_at_any_moment(service: ServiceDouble, machine: Machine) -> None:
    ran = machine.directory / "ran"
    for number in range(40):
        service.add(f"1.{number}", "/bin/sh", "-c", 'echo $GRIDTIDE_JOB >> "$0"', str(ran))
    for trial in range(8):
        process = machine.start()
        time.sleep(0.25 + 0.013 * trial)
        process.kill()
        process.wait()
    machine.start()
    service.end_of("1.39")
    assert sorted(ran.read_text().split()) == sorted(f"1.{number}" for number in range(40)), "each ran exactly once"
    assert all(state.finished and state.finished["cause"] == "exited" for state in service.jobs.values())


def test_a_job_whose_runner_was_killed_is_left_to_the_service(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sh", "-c", "sleep 60 & sleep 60")
    process = machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    soon(lambda: (machine.directory / "jobs" / "1.0-1" / "runner.json").exists())
    os.kill(json.loads((machine.directory / "jobs" / "1.0-1" / "runner.json").read_text())["pid"], signal.SIGKILL)
    assert process.wait(PATIENCE) == 0
    assert service.jobs["1.0"].finished is None
    assert service.done == ["a job was lost here, this machine is not to be trusted"]
    soon(lambda: not machine.processes())


def test_it_begins_again_when_its_zygote_is_killed(service: ServiceDouble, machine: Machine) -> None:
    service.add("1.0", "/bin/sh", "-c", "sleep 0.8; echo x")
    process = machine.start()
    service.wait(lambda: service.signs and service.signs[-1]["running"])
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children), signal.SIGKILL)
    assert service.end_of("1.0")["cause"] == "exited"
    service.add("1.1", "/bin/true")
    assert service.end_of("1.1")["cause"] == "exited"
    assert process.poll() is None
    assert "going on as w1" in machine.text()


# --- other Pythons


def other_pythons() -> list[str]:
    """The oldest that is supported and the newest, as far as this machine has them."""
    found = [Path.home() / ".pyenv" / "versions" / name for name in ("3.8.*", "3.13.*")]
    paths = [str(match) for path in found for match in path.parent.glob(f"{path.name}/bin/python3")]
    return paths or [sys.executable]


@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: Path(path).parents[1].name)
def test_it_runs_on_other_pythons(
    service: ServiceDouble, machine_at: MachineMaker, tmp_path: Path, python: str
) -> None:
    ca, server = authority(tmp_path, "site")
    machine = machine_at(service.start(server))
    script = service.file("run.sh", b"#!/bin/sh\necho x > out; sleep 1.2\n")
    job = service.add("1.0", "run.sh", inputs=[script], outputs=["out"])
    service.add("1.1", "/bin/sleep", "60", walltime=0.2)
    service.fault("/finished", FaultKind.LOSE_ANSWER)
    process = machine.start(python=python, ca=ca)
    assert service.end_of("1.0")["cause"] == "exited"
    assert job.outputs == {"out": b"x\n"}
    assert service.end_of("1.1")["cause"] == "walltime"
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in machine.text()
    assert "Warning" not in machine.text()
