"""The storage directory, and strangers' names for its files."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from gridtide.errors import Conflict, InvalidRequest, NotFound
from gridtide.pilot import files as files_module
from gridtide.pilot.files import TRUNCATED, AttemptPlace, Files
from gridtide.pilot.jdl_values import why_not_file_name

PLACE = AttemptPlace(12, 3, 1)

HOSTILE = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../x",
    "a/../b",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\x7f",
    "a\\b",
    "..\\x",
    ".gridtide-upload-0",
    "a/.gridtide-x",
    "x" * 256,
    "é" * 128,
    "/".join(["x" * 200] * 6),
    "\ud800",
]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "data")


def upload(files: Files, data: bytes) -> tuple[Path, str]:
    path = files.new_upload()
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def keep(files: Files, name: str, data: bytes) -> int:
    path = files.new_output(PLACE)
    path.write_bytes(data)
    return files.keep_output(PLACE, name, path, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_hostile_names_are_refused_and_leave_nothing(files: Files, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        keep(files, name, b"x")
    with pytest.raises(InvalidRequest):
        files.output(PLACE, name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        path.name for path in tmp_path.rglob(".gridtide-upload-*")
    ]


@pytest.mark.parametrize("name", ["a", "a.root", "dir/sub/x.txt", "-rf", "...", "ü", "a b", "x" * 255])
def test_ordinary_names_are_good(name: str) -> None:
    assert why_not_file_name(name) is None


def test_an_input_is_kept_under_its_digest(files: Files) -> None:
    path, digest = upload(files, b"data")
    assert not files.has(digest)
    with pytest.raises(NotFound):
        files.input(digest)
    files.keep_input(path, digest)
    assert files.has(digest)
    assert files.size(digest) == 4
    assert files.input(digest).read_bytes() == b"data"
    assert not path.exists()
    again, _ = upload(files, b"data")
    files.keep_input(again, digest)


def test_a_wrong_digest_keeps_nothing(files: Files) -> None:
    path, _ = upload(files, b"data")
    with pytest.raises(InvalidRequest, match="announced"):
        files.keep_input(path, "0" * 64)
    assert not path.exists()
    assert not files.has("0" * 64)


@pytest.mark.parametrize("digest", ["", "abc", "../" * 20 + "abcd", "A" * 64, "0" * 63 + "\n", "0" * 65])
def test_what_is_no_digest_is_refused(files: Files, digest: str) -> None:
    with pytest.raises(InvalidRequest):
        files.has(digest)
    with pytest.raises(InvalidRequest):
        files.keep_input(files.new_upload(), digest)


def test_only_uploads_begun_here_are_moved(files: Files, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    with pytest.raises(InvalidRequest):
        files.keep_input(secret, digest)
    link = files.new_upload()
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(InvalidRequest):
        files.keep_input(link, digest)
    assert secret.read_bytes() == b"secret"


def test_symbolic_links_are_not_followed(files: Files, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    files.append_log(PLACE, "stdout", 0, b"x")
    directory = tmp_path / "data/jobs/12/3/1"
    (directory / "stderr").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        files.append_log(PLACE, "stderr", 0, b"x")
    with pytest.raises(OSError, match="symbolic links"):
        files.read_log(PLACE, "stderr", 0, 10)
    (directory / "outputs").mkdir()
    (directory / "outputs/link").symlink_to(secret)
    with pytest.raises(NotFound):
        files.output(PLACE, "link")
    assert secret.read_bytes() == b"secret"


def test_everything_belongs_to_the_service_alone(files: Files, tmp_path: Path) -> None:
    keep(files, "a/b/c", b"x")
    files.append_log(PLACE, "stdout", 0, b"x")
    path, digest = upload(files, b"y")
    files.keep_input(path, digest)
    for found in (tmp_path / "data").rglob("*"):
        assert stat.S_IMODE(found.stat().st_mode) == (0o700 if found.is_dir() else 0o600), found


def test_a_name_cannot_be_file_and_directory(files: Files) -> None:
    keep(files, "a", b"x")
    with pytest.raises(InvalidRequest, match="both"):
        keep(files, "a/b", b"x")
    keep(files, "c/d", b"x")
    with pytest.raises(InvalidRequest, match="both"):
        keep(files, "c", b"x")
    assert keep(files, "a", b"new") == 3
    assert files.output(PLACE, "a").read_bytes() == b"new"


def test_a_log_grows_repeats_are_ignored_and_gaps_refused(files: Files) -> None:
    assert files.append_log(PLACE, "stdout", 0, b"hello ") == 6
    assert files.append_log(PLACE, "stdout", 0, b"hello ") == 6
    assert files.append_log(PLACE, "stdout", 3, b"lo world") == 11
    with pytest.raises(Conflict, match="11 bytes"):
        files.append_log(PLACE, "stdout", 12, b"x")
    with pytest.raises(Conflict):
        files.append_log(PLACE, "stdout", -1, b"x")
    assert files.append_log(PLACE, "stdout", 0, b"") == 11
    assert files.read_log(PLACE, "stdout", 6, 3) == b"wor"
    assert files.read_log(PLACE, "stderr", 0, 10) == b""
    with pytest.raises(InvalidRequest):
        files.append_log(PLACE, "../stdout", 0, b"x")
    with pytest.raises(InvalidRequest):
        files.read_log(PLACE, "stdout", -1, 3)


def test_an_endless_log_is_cut_with_a_note(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAXIMUM_LOG", 10)
    assert files.append_log(PLACE, "stdout", 0, b"12345678") == 8
    assert files.append_log(PLACE, "stdout", 8, b"abcdefgh") == 16
    assert files.append_log(PLACE, "stdout", 16, b"more") >= 20
    assert files.read_log(PLACE, "stdout", 0, 1000) == b"12345678ab" + TRUNCATED


def test_a_log_of_exactly_the_limit_is_not_cut(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAXIMUM_LOG", 4)
    assert files.append_log(PLACE, "stdout", 0, b"1234") == 4
    assert files.read_log(PLACE, "stdout", 0, 100) == b"1234"
    assert files.append_log(PLACE, "stdout", 4, b"") == 4
    assert files.append_log(PLACE, "stdout", 4, b"5") == 5
    assert files.read_log(PLACE, "stdout", 0, 100) == b"1234" + TRUNCATED


def test_a_file_that_is_too_large_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAXIMUM_FILE", 3)
    path, digest = upload(files, b"1234")
    with pytest.raises(InvalidRequest, match="3 are the most"):
        files.keep_input(path, digest)
    assert not path.exists()


def test_abandoned_uploads_are_deleted(files: Files) -> None:
    old, fresh = files.new_upload(), files.new_upload()
    os.utime(old, (100.0, 100.0))
    files.discard_uploads(200.0)
    assert not old.exists()
    assert fresh.exists()
