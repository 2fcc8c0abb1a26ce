"""Slurm's commands as children: whatever they do, the caller gets an answer or one error, and nothing is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gridtide.errors import QueueError
from gridtide.queues.slurm.commands import Commands
from tests.real.slurm.cluster import until


def pretending(directory: Path, script: str, *, timeout: float = 20.0, memory: int = 4096) -> Commands:
    """Commands that all are this script; its last arguments are those of Slurm's command."""
    program = directory / "pretend"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Commands("queue cluster", (str(program),), None, timeout, memory)


async def test_what_a_command_prints(tmp_path: Path) -> None:
    commands = pretending(tmp_path, 'echo "slurm-wlm 24.11.5 $*"')
    assert await commands.version() == (24, 11)
    assert await commands.run("scontrol", "ping") == "slurm-wlm 24.11.5 env SLURM_BITSTR_LEN=0 scontrol ping"


async def test_the_configuration_is_named(tmp_path: Path) -> None:
    commands = Commands("queue cluster", (), Path("/somewhere/slurm.conf"))
    assert await commands.run("sh", "-c", "echo $SLURM_CONF") == "/somewhere/slurm.conf"


async def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    commands = Commands("queue cluster")
    assert await commands.run("echo", "$(id)", ";", "`id`") == "$(id) ; `id`"


async def test_variables_of_an_operator_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUEUE_PARTITION", "SINFO_SORT", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HOME", "/home/of/ssh")
    said = await Commands("queue cluster").run("env")
    assert "secret" not in said
    assert "HOME=/home/of/ssh" in said


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo slurm_update error: no such node >&2; exit 1", "scontrol: slurm_update error: no such node"),
        ("echo told on the wrong channel; exit 1", "told on the wrong channel"),
        ("exit 7", "exit status 7"),
        ("kill -9 $$", "exit status -9"),
    ],
)
async def test_failures_are_told(tmp_path: Path, script: str, problem: str) -> None:
    with pytest.raises(QueueError, match=problem):
        await pretending(tmp_path, script).run("scontrol", "update")


async def test_a_command_that_is_not_there() -> None:
    with pytest.raises(QueueError, match=r"cannot be run.*install Slurm"):
        await Commands("queue cluster", ("/nowhere/ssh",)).run("squeue")
    with pytest.raises(QueueError, match=r"cannot be run|No such file"):
        await Commands("queue cluster", ("/nowhere/ssh",)).jobs(waiting=True)
    with pytest.raises(QueueError, match="No such file"):
        await Commands("queue cluster").run("squeue-that-is-not-installed")


async def test_no_version() -> None:
    with pytest.raises(QueueError, match="does not tell its version"):
        await Commands("queue cluster", ("echo", "hello")).version()


@pytest.mark.parametrize("reads", [True, False])
async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path, reads: bool) -> None:
    commands = pretending(tmp_path, f"sleep 987 & echo $! > {tmp_path}/child; wait", timeout=1.0)
    began = time.monotonic()
    with pytest.raises(QueueError, match="no answer within 1 s"):
        await (commands.jobs(waiting=True) if reads else commands.run("squeue"))
    assert time.monotonic() - began < 300, "it did not wait for it"
    child = int((tmp_path / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


async def test_who_gives_up_waiting_leaves_nothing(tmp_path: Path) -> None:
    commands = pretending(tmp_path, f"echo $$ > {tmp_path}/child; exec sleep 987")
    waiting = asyncio.create_task(commands.jobs(waiting=True))
    await asyncio.to_thread(until, lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    child = Path(f"/proc/{int((tmp_path / 'child').read_text())}")
    until(lambda: not child.exists() or "Z" in (child / "stat").read_text().split()[2])


async def test_a_command_that_wants_too_much_memory_is_refused_it(tmp_path: Path) -> None:
    hungry = "exec python3 -c 'x = bytearray(3 << 30)'"
    with pytest.raises(QueueError, match="MemoryError"):
        await pretending(tmp_path, hungry, memory=1000).jobs(waiting=True)
