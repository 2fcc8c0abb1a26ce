"""Noticing new contents of the site file, however they come about."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import pytest

from gridtide.site.watch import changed


class Stirrings:
    """Stands in for the file system's events: each step does something to the files."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = steps
        self.directories: set[Path] = set()

    async def __call__(self, directories: set[Path]) -> AsyncIterator[object]:
        self.directories = directories
        for step in self.steps:
            step()
            yield set()


async def noticed(path: Path, *steps: Callable[[], object]) -> int:
    """After how many of the steps a change was told."""
    return len([None async for _ in changed(path, stirrings=Stirrings(*steps))])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text("one")
    return path


def replace(path: Path, text: str) -> None:
    """As an editor saves: another file is renamed onto it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


async def test_written_in_place(path: Path) -> None:
    assert await noticed(path, lambda: path.write_text("two")) == 1


async def test_replaced_by_rename(path: Path) -> None:
    assert await noticed(path, lambda: replace(path, "two"), lambda: replace(path, "three")) == 2


async def test_other_files_of_the_directory(path: Path) -> None:
    assert await noticed(path, lambda: (path.parent / "other").write_text("x")) == 0


async def test_saved_without_a_change(path: Path) -> None:
    assert await noticed(path, lambda: path.write_text("one"), path.touch, lambda: replace(path, "one")) == 0


async def test_a_file_that_is_away_for_a_moment(path: Path) -> None:
    assert await noticed(path, path.unlink, lambda: path.write_text("one")) == 0
    assert await noticed(path, path.unlink, lambda: path.write_text("two")) == 1


async def test_a_file_that_was_not_there_at_first(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    assert await noticed(path, lambda: path.write_text("one")) == 1


async def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "site.toml").write_text(version)
    (tmp_path / "now").symlink_to("1")
    (tmp_path / "site.toml").symlink_to("now/site.toml")

    def switch() -> None:
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(tmp_path / "now")

    stirrings = Stirrings(switch)
    assert len([None async for _ in changed(tmp_path / "site.toml", stirrings=stirrings)]) == 1
    assert stirrings.directories == {tmp_path, tmp_path / "1"}


async def test_context_files_count_too(path: Path) -> None:
    other = path.parent / "sub" / "worker.yaml"
    other.parent.mkdir()
    other.write_text("1")
    stirrings = Stirrings(lambda: other.write_text("2"), lambda: path.write_text("2"), path.touch)
    assert len([None async for _ in changed(path, other, stirrings=stirrings)]) == 2
    assert stirrings.directories == {path.parent, other.parent}


async def test_the_file_system_itself_tells(path: Path) -> None:
    """The one test with real events: it waits for them, never for time."""
    changes = changed(path)
    assert isinstance(changes, AsyncGenerator)
    waiting = asyncio.ensure_future(anext(changes))
    writing = asyncio.create_task(keep_writing(path))
    async with asyncio.timeout(20):
        await waiting
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    await changes.aclose()


async def keep_writing(path: Path) -> None:
    """Until it is noticed: nobody can say from when on the directory is watched."""
    number = 0
    while True:
        number += 1
        await asyncio.to_thread(replace, path, str(number))
        await asyncio.sleep(0.3)


async def test_it_ends_when_cancelled(path: Path) -> None:
    changes = changed(path)
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
