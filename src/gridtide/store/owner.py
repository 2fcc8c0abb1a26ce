"""Who this process is, and whether the process that holds the lease still lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gridtide.processes import process_status
from gridtide.store.ports import Owner

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# The kernel's number for the process namespace that every machine starts with (PROC_PID_INIT_INO in linux/proc_ns.h).
_FIRST_NAMESPACE: Final = 0xEFFFFFFC


def this_process() -> Owner:
    """This process, on this host, since this boot."""
    process = os.getpid()
    return Owner(_host(), _BOOT_ID.read_text(encoding="ascii").strip(), process, process_status(process).started)


def lives(owner: Owner) -> bool | None:
    """Whether the owner's process is still there. None when that cannot be known from here.

    False is only said of a process of this host, this boot and this process namespace. After a reboot the answer is
    None, because two machines may share a host name: the lease then has to run out.
    """
    me = this_process()
    if (owner.host, owner.boot) != (me.host, me.boot):
        return None
    try:
        found = process_status(owner.process)
    except (FileNotFoundError, ProcessLookupError):
        return _hidden(owner.process)
    except OSError:
        return None
    return found.started == owner.started and not found.ended


def _hidden(process: int) -> bool | None:
    """Of a process without an entry in /proc: mount options may hide those of other users, but not from signals."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return None


def _host() -> str:
    """The host name, and the process namespace when it is a container's: its process numbers are its own."""
    namespace = os.stat("/proc/self/ns/pid").st_ino
    name = os.uname().nodename
    return name if namespace == _FIRST_NAMESPACE else f"{name}/{namespace}"
