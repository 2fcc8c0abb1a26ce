"""SQLite on disks that fail: really full, really read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridtide.errors import StoreUnavailable
from gridtide.store.opening import open_store
from tests.unit.store.values import event, lead

_NOBODY = 65_534


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("a file system can only be mounted by root: the full disk cannot be tried")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def _grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    _database, store = await open_store(f"sqlite:///{small_disk}/store.db")
    lease = await lead(store)
    written = 0
    told: StoreUnavailable | None = None
    while told is None:
        try:
            await store.commit(lease, [event(f"{written}" + "x" * 5_000)])
            written += 1
        except StoreUnavailable as error:
            told = error
    assert "store.db: the disk is full" in str(told)
    assert "\n" not in str(told)
    assert 50 < written < 1000
    # Nothing was lost, reading goes on, and so does writing once there is room.
    events = await store.events(limit=10_000)
    assert len(events) == written
    _grow(small_disk)
    await store.commit(lease, [event("room again")])
    assert [recorded.event.text for recorded in await store.events(newest=True, limit=1)] == ["room again"]
    await store.close()


@contextmanager
def _not_root() -> Iterator[None]:
    """Root may write what is read-only: be nobody for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def _hand_over(directory: Path, mode: int) -> None:
    """Let nobody reach a directory of the test's, and own it."""
    for parent in directory.parents:
        if parent.name.startswith(("pytest-", "popen-", "test_")):
            parent.chmod(0o755)
    directory.chmod(mode)
    if os.geteuid() == 0:
        os.chown(directory, _NOBODY, _NOBODY)


async def test_a_read_only_file(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    _database, store = await open_store(f"sqlite:///{file}")
    await lead(store)
    await store.close()
    _hand_over(tmp_path, 0o755)
    _only_read(file)
    with _not_root(), pytest.raises(StoreUnavailable, match=r"store\.db: it may not be written \(check owner and mode"):
        await open_store(f"sqlite:///{file}")


def _only_read(file: Path) -> None:
    file.chmod(0o444)


async def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    _hand_over(tmp_path, 0o555)
    with _not_root(), pytest.raises(StoreUnavailable, match="the database cannot be made: Permission denied"):
        await open_store(f"sqlite:///{tmp_path}/var/store.db")
