"""Who a process is, and whether another one lives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import gridtide.store.owner
from gridtide.agent.agent import process_stat
from gridtide.processes import ProcessStatus, process_status
from gridtide.store.owner import lives, this_process


def test_this_process_lives() -> None:
    me = this_process()
    assert me.process == os.getpid()
    assert me.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert me.host.split("/")[0] == socket.gethostname()
    assert me == this_process()
    assert lives(me) is True


def test_a_reused_number_is_another_process() -> None:
    me = this_process()
    assert lives(replace(me, started=me.started - 1)) is False


def test_of_elsewhere_nothing_is_known() -> None:
    me = this_process()
    assert lives(replace(me, host="another")) is None
    assert lives(replace(me, boot="another")) is None
    assert lives(replace(me, host="another", process=2**22 + 1)) is None


def test_a_process_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = process_status(child.pid).started
        owner = replace(this_process(), process=child.pid, started=started)
        assert lives(owner) is True
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert lives(owner) is True  # it may go on at any time
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert lives(owner) is False  # a zombie: ended, not yet waited for
    assert lives(owner) is False


def test_a_process_whose_first_thread_has_ended_lives_on() -> None:
    # A killed one is so for a moment, with its port still open: who leads next could not have it.
    program = """
import ctypes, platform, threading
threading.Thread(target=input).start()
print("now", flush=True)
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)  # exit(2): of this thread alone
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"now\n"
        while "State:\tZ" not in Path(f"/proc/{child.pid}/status").read_text():
            pass
        owner = replace(this_process(), process=child.pid, started=process_status(child.pid).started)
        assert lives(owner) is True
        assert process_stat(child.pid) == (os.getpid(), owner.started)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert lives(owner) is False
        assert process_stat(child.pid) is None


def test_a_name_with_brackets_does_not_confuse(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        found = process_status(child.pid)
        child.kill()
    assert not found.ended
    assert found.started >= this_process().started


def test_a_hidden_process_is_not_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()

    def hidden(process: int) -> ProcessStatus:
        if process == me.process:
            return ProcessStatus(ended=False, started=me.started)
        raise FileNotFoundError

    monkeypatch.setattr(gridtide.store.owner, "process_status", hidden)
    assert lives(replace(me, process=os.getppid())) is None
    assert lives(replace(me, process=2**22 + 1)) is False  # above the kernel's highest number
