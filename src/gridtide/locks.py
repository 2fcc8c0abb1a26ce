"""Locks on open files, as Linux has them (fcntl(2), "Open file description locks")."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_FLOCK: Final = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux."""


def take_lock(descriptor: int) -> bool:
    """Lock the open file for as long as anyone has this *opening* of it (children inherit it). False: it is taken.

    These are open-file-description locks: unlike ``flock`` they can be looked at without being taken, and unlike
    plain POSIX locks they are inherited.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows both for "somebody has it"
        return False
    return True


def share_lock(descriptor: int) -> bool:
    """As :func:`take_lock`, but any number may hold it together. False: somebody has it alone."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(descriptor: int) -> bool:
    """Whether somebody holds the lock, alone or shared. Takes nothing: looking cannot be mistaken for living."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK
