"""Content lists: the same for the same tree, and in words what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridtide.images.contents import content_list, differences, total_size


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_text("welcome")
    (tmp_path / "etc/a file with -rw-r--r-- 0:0 in its name").write_text("x")
    (tmp_path / "link").symlink_to("etc/motd")
    return tmp_path


def test_a_list_has_a_line_for_everything(tree: Path) -> None:
    contents = content_list(tree)
    paths = [line.split(" ")[0] for line in contents.splitlines()]
    assert paths == ["/etc", "/etc/a", "/etc/motd", "/link"]
    assert contents.endswith(" -> etc/motd\n")
    assert total_size(contents) == 8


def test_it_tells_neither_time_nor_order(tree: Path) -> None:
    before = content_list(tree)
    (tree / "etc/motd").unlink()
    (tree / "etc/motd").write_text("welcome")
    assert content_list(tree) == before
    assert differences(before, before) == []


def test_what_differs_is_named(tree: Path) -> None:
    before = content_list(tree)
    (tree / "etc/motd").chmod(0o600)
    (tree / "etc/a file with -rw-r--r-- 0:0 in its name").unlink()
    (tree / "new").mkdir()
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")
    assert differences(before, content_list(tree)) == [
        "/etc/a file with -rw-r--r-- 0:0 in its name is missing",
        "/etc/motd is not what it was",
        "/link is not what it was",
        "/new was added",
    ]


def test_progress_is_told_in_bytes(tree: Path) -> None:
    told: list[int] = []
    content_list(tree, told.append)
    assert told == sorted(told)
    assert told[-1] == 8


def test_what_cannot_be_read_is_no_empty_tree(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        content_list(tmp_path / "missing")
