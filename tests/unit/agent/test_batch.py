"""Orders for a node of a batch system: what is followed, what is refused, where files go."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.agent.agent import BatchOrders, OrderedFile, claim, claimed_by

FILE = {"path": "/etc/pool.conf", "content": "A = 1\n", "mode": "0644", "owner": "root"}
SERVICE = {"name": "master", "command": ["/usr/sbin/master", "-f"], "environment": {"A": "b"}}


def orders(**changes: object) -> dict[str, object]:
    """As the service sends them."""
    result: dict[str, object] = {
        "files": [FILE],
        "prepare": [["/bin/mkdir", "/run/pool"]],
        "services": [SERVICE],
        "busy": ["starter"],
        "drain": ["/bin/drain"],
        "resume": [],
    }
    return {**result, **changes}


# --- orders


def test_orders_are_read_as_sent() -> None:
    found = BatchOrders.from_json(orders())
    assert (found.files[0].path, found.files[0].content, found.files[0].mode) == ("/etc/pool.conf", b"A = 1\n", 0o644)
    assert found.prepare == [["/bin/mkdir", "/run/pool"]]
    assert (found.services[0].name, found.services[0].command) == ("master", ["/usr/sbin/master", "-f"])
    assert found.services[0].environment == {"A": "b"}
    assert (found.busy, found.drain, found.resume) == (["starter"], ["/bin/drain"], [])


def test_what_is_left_out_is_nothing() -> None:
    assert BatchOrders.from_json({}) == BatchOrders([], [], [], [], [], [])
    assert OrderedFile.from_json({"path": "/a", "content": ""}) == OrderedFile("/a", b"", 0o600, "root")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": {}}, "files: not a list of objects"),
        ({"files": ["/etc/x"]}, "files: not a list of objects"),
        ({"files": [{**FILE, "mode": "0999"}]}, "the mode of the file /etc/pool.conf is not octal"),
        ({"files": [{**FILE, "mode": 420}]}, "the mode of the file /etc/pool.conf is not octal"),
        ({"files": [{**FILE, "mode": "07777777"}]}, "is not octal"),
        ({"files": [{**FILE, "owner": ""}]}, "the file /etc/pool.conf has no owner"),
        ({"files": [{**FILE, "owner": 0}]}, "the file /etc/pool.conf has no owner"),
        ({"files": [{**FILE, "content": None}]}, "the content of the file /etc/pool.conf is not text"),
        ({"files": [{**FILE, "content": "\udc80"}]}, "the content of the file /etc/pool.conf is not text"),
        ({"prepare": "/bin/true"}, "prepare: not a list of commands"),
        ({"prepare": [["/bin/true"], "/bin/true"]}, "command 2 of prepare: not a list of strings"),
        ({"prepare": [[]]}, "command 1 of prepare: it names no program"),
        ({"prepare": [[""]]}, "command 1 of prepare: it names no program"),
        ({"prepare": [["/bin/true", 1]]}, "command 1 of prepare: not a list of strings"),
        ({"prepare": [["/bin/true", "\ud800"]]}, "command 1 of prepare: not a list of strings"),
        ({"prepare": [["/bin/true", "a\0b"]]}, "command 1 of prepare: not a list of strings"),
        ({"services": [SERVICE, SERVICE]}, "two services have the same name"),
        ({"services": [{**SERVICE, "name": "../x"}]}, "'../x' is no name of a service"),
        ({"services": [{**SERVICE, "name": "x\n"}]}, "is no name of a service"),
        ({"services": [{**SERVICE, "name": None}]}, "None is no name of a service"),
        ({"services": [{**SERVICE, "command": []}]}, "service master: its command: it names no program"),
        ({"services": [{**SERVICE, "environment": []}]}, "service master: its environment is not legal"),
        ({"services": [{**SERVICE, "environment": {"A=B": "c"}}]}, "service master: its environment is not legal"),
        ({"services": [{**SERVICE, "environment": {"": "c"}}]}, "service master: its environment is not legal"),
        (
            {"services": [{**SERVICE, "environment": {"A": 1}}]},
            "service master: its environment: not a list of strings",
        ),
        ({"busy": "starter"}, "busy: not a list of strings"),
        ({"drain": [None]}, "drain: not a list of strings"),
        ({"resume": {"a": "b"}}, "resume: not a list of strings"),
    ],
)
def test_bad_orders_are_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        BatchOrders.from_json(orders(**changes))
    assert words in str(caught.value)


@pytest.mark.parametrize("values", [None, [], "batch", 1])
def test_no_orders_are_bad_orders(values: object) -> None:
    with pytest.raises(ValueError, match="they say nothing about the batch system"):
        BatchOrders.from_json(values)


@pytest.mark.parametrize(
    "path", ["etc/x", "", "/", "/etc/", "//x", "/a//b", "/a/../b", "/..", "/a/./b", "/a\0b", "/a\n", "/a\ud800", 1]
)
def test_files_go_to_plain_absolute_paths_alone(path: object) -> None:
    with pytest.raises(ValueError, match="is not at an absolute, plain path"):
        OrderedFile.from_json({**FILE, "path": path})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*orders(), *FILE, *SERVICE]), inner),
    )
)
def test_whatever_the_orders_are_they_are_read_or_refused_in_one_line(values: object) -> None:
    with contextlib.suppress(ValueError):  # any other exception fails
        assert isinstance(values, dict) is (BatchOrders.from_json(values) is not None)


def test_a_secret_is_in_no_message() -> None:
    found = OrderedFile.from_json({**FILE, "content": "SECRET"})
    assert "SECRET" not in repr(found)
    with pytest.raises(ValueError, match="not text") as caught:
        OrderedFile.from_json({**FILE, "content": "SECRET\ud800"})
    assert "SECRET" not in str(caught.value)


# --- files


def file(path: Path, content: str = "new", mode: str = "0640", owner: str = "root") -> OrderedFile:
    return OrderedFile.from_json({"path": str(path), "content": content, "mode": mode, "owner": owner})


@pytest.mark.parametrize("path", ["/a", "/a/..b", "/a/.b", "/a/b..", "/a b/c"])
def test_dots_in_names_are_nothing_special(path: str) -> None:
    assert OrderedFile.from_json({**FILE, "path": path}).path == path


def test_a_file_is_written_as_a_whole_with_its_rights(tmp_path: Path) -> None:
    target = tmp_path / "a/b/file"
    before = os.umask(0o077)  # the agent's
    try:
        file(target).write()
        file(target, "newer", "4755").write()
    finally:
        os.umask(before)
    assert target.read_text() == "newer"
    assert stat.S_IMODE(target.stat().st_mode) == 0o4755
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o755
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("old")
    for name in ("file", ".file.gridtide-new"):
        (tmp_path / name).symlink_to(tmp_path / "other")
    file(tmp_path / "file").write()
    assert (tmp_path / "other").read_text() == "old"
    assert not (tmp_path / "file").is_symlink()
    assert not (tmp_path / ".file.gridtide-new").exists()


def test_directories_that_are_links_are_followed_where_the_system_made_them(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    file(tmp_path / "var/file").write()
    assert (tmp_path / "run/file").read_text() == "new"


def test_directories_that_are_somebodys_links_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    real = os.stat

    def stranger(path: str, **options: bool) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result((*found[:4], 4711, *found[5:])) if path == "var" else found

    monkeypatch.setattr(os, "stat", stranger)
    with pytest.raises(OSError, match="var"):
        file(tmp_path / "var/file").write()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_file_gets_the_user_and_the_group_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))
    file(tmp_path / "file", owner="daemon").write()
    user = pwd.getpwnam("daemon")
    assert given == [(user.pw_uid, user.pw_gid)]
    with pytest.raises(ValueError, match="there is no user nobody-of-this-name"):
        file(tmp_path / "other", owner="nobody-of-this-name").write()
    assert not (tmp_path / "other").exists()


def test_without_rights_files_are_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    file(tmp_path / "file", owner="nobody-of-this-name").write()
    assert (tmp_path / "file").stat().st_uid == os.getuid()


# --- claims


def test_a_claim_is_made_once_and_is_the_living_process(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    assert claimed_by(path) == 0
    assert claim(path)
    assert not claim(path)
    assert claimed_by(path) == os.getpid()
    assert [entry.name for entry in tmp_path.iterdir()] == ["process.json"]


@pytest.mark.parametrize(
    ("old", "new"), [('"started": ', '"started": 1'), ('"boot": "', '"boot": "x'), ('"pid": ', '"pid": 9')]
)
def test_a_claim_of_another_process_or_boot_is_nobodys(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "process.json"
    assert claim(path)
    path.write_text(path.read_text().replace(old, new))
    assert claimed_by(path) == 0
