"""The image store: found by name, kept by digest, never half written, verified before use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gridtide.errors import Conflict, ImageError, NotFound
from gridtide.images.contents import content_list
from gridtide.images.image import DirectBoot, DiskImage, FirmwareBoot, TreeImage
from gridtide.images.store import ImageStore, Made, MadeDisk, default_directory
from gridtide.locks import share_lock, take_lock
from gridtide.model.contexts import ContextFormat

MADE = Made(MadeDisk(1 << 30, "quiet"), ContextFormat.AGENT, 192, 1_000.0, "a test", {"recipe": "x = 1"})


def put(store: ImageStore, name: str, disk: bytes = b"disk", made: Made = MADE) -> None:
    with store.making() as place:
        (place / "disk.qcow2").write_bytes(disk)
        (place / "kernel").write_bytes(b"kernel")
        (place / "initrd").write_bytes(b"initrd")
        store.add(name, place, made)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def disk_of(store: ImageStore, name: str) -> Path:
    return disk_image(store, name).disk


def disk_image(store: ImageStore, name: str) -> DiskImage:
    image = store.use(name)
    assert isinstance(image, DiskImage)
    return image


def test_an_image_is_found_as_it_was_put(store: ImageStore) -> None:
    put(store, "thin")
    image = disk_image(store, "thin")
    assert (image.name, image.disk_size, image.context, image.minimum_memory) == ("thin", 1 << 30, "agent", 192)
    assert isinstance(image.boot, DirectBoot)
    assert image.boot.kernel.read_bytes() == b"kernel"
    assert image.disk.stat().st_mode & 0o777 == 0o444
    assert store.names() == ["thin"]


def test_without_a_kernel_the_firmware_boots(store: ImageStore) -> None:
    put(store, "x", made=Made(MadeDisk(1, None), ContextFormat.CLOUD_INIT, 1, 0.0, "", {}))
    assert isinstance(disk_image(store, "x").boot, FirmwareBoot)


def test_equal_contents_have_equal_digests_and_are_kept_once(store: ImageStore) -> None:
    put(store, "a")
    put(store, "b")
    put(store, "c", b"other")
    assert store.get("a").digest == store.get("b").digest != store.get("c").digest
    assert len(list((store.directory / "objects").iterdir())) == 2


def test_what_is_not_there_is_said_with_what_is(store: ImageStore) -> None:
    with pytest.raises(NotFound, match="gridtide image build thin --recipe thin"):
        store.get("thin")
    put(store, "thin")
    with pytest.raises(ImageError, match=r"there is no image 'thn' \(did you mean 'thin'\?\)"):
        store.use("thn")


@pytest.mark.parametrize("name", ["", "objects", "../x", "A", ".x", "x/y"])
def test_names_that_cannot_be(store: ImageStore, name: str) -> None:
    with pytest.raises(ImageError, match="cannot name an image"):
        store.get(name)


@pytest.mark.parametrize("file", ["disk.qcow2", "kernel", "initrd"])
def test_damage_is_found_before_use(store: ImageStore, file: str) -> None:
    put(store, "thin")
    path = disk_of(store, "thin").parent / file
    path.chmod(0o644)
    path.write_bytes(b"damage")
    with pytest.raises(ImageError, match=f"image thin is damaged: {file} is not what it was"):
        store.use("thin")


def test_a_file_that_only_looks_different_is_verified_once(store: ImageStore) -> None:
    put(store, "thin")
    disk = disk_of(store, "thin")
    os.utime(disk, (5, 5))
    before = (disk.parent / "verified.json").stat().st_mtime_ns
    store.use("thin")
    after = (disk.parent / "verified.json").stat().st_mtime_ns
    assert after > before
    store.use("thin")
    assert (disk.parent / "verified.json").stat().st_mtime_ns == after


def test_a_missing_file_is_damage(store: ImageStore) -> None:
    put(store, "thin")
    (disk_of(store, "thin").parent / "kernel").unlink()
    with pytest.raises(ImageError, match="kernel is not what it was"):
        store.use("thin")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_manifest_is_one_line(store: ImageStore, content: str) -> None:
    put(store, "thin")
    (disk_of(store, "thin").parent / "image.json").write_text(content)
    with pytest.raises(ImageError, match=r"image\.json is damaged"):
        store.use("thin")


def test_a_new_image_of_the_name_leaves_the_old_one_to_its_machines(store: ImageStore) -> None:
    put(store, "thin")
    old = disk_of(store, "thin")
    put(store, "thin", b"new")
    assert old.read_bytes() == b"disk"
    with old.open("rb") as machine:
        handle = os.open(old, os.O_RDONLY)
        os.close(handle)
        assert machine.read() == b"disk"
    assert len(store.prune()) == 1
    assert not old.exists()
    assert disk_of(store, "thin").read_bytes() == b"new"


def test_what_a_machine_runs_from_is_not_removed(store: ImageStore) -> None:
    put(store, "thin")
    disk = disk_of(store, "thin")
    disk.chmod(0o644)
    with disk.open("r+b") as machine:
        assert take_lock(machine.fileno())
        with pytest.raises(Conflict, match="a machine runs from image thin"):
            store.remove("thin")
        put(store, "thin", b"new")
        assert store.prune() == []
    assert len(store.prune()) == 1
    store.remove("thin")
    assert store.names() == []


def test_a_maker_that_is_killed_leaves_nothing_that_counts(store: ImageStore) -> None:
    put(store, "thin")
    script = (
        "import os, signal, sys; from pathlib import Path; from gridtide.images.store import ImageStore\n"
        "with ImageStore(Path(sys.argv[1])).making() as place:\n"
        "    (place / 'disk.qcow2').write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(store.directory)], check=False)
    assert len(list(store.directory.glob(".making-*"))) == 1
    assert store.names() == ["thin"]
    put(store, "other")
    assert list(store.directory.glob(".making-*")) == []


def test_a_maker_that_lives_is_not_disturbed(store: ImageStore) -> None:
    with store.making() as place:
        put(store, "other")
        assert place.exists()
    assert not place.exists()


def test_the_manifest_tells_all(store: ImageStore) -> None:
    put(store, "thin")
    manifest = json.loads((disk_of(store, "thin").parent / "image.json").read_text())
    assert manifest["origin"] == {"recipe": "x = 1"}
    assert set(manifest["files"]) == {"disk.qcow2", "kernel", "initrd"}


def test_where_a_host_keeps_its_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRIDTIDE_IMAGES", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.delenv("GRIDTIDE_IMAGES")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "gridtide/images"


# --- trees


def put_tree(store: ImageStore, name: str, content: str = "welcome") -> None:
    with store.making() as place:
        (place / "tree/etc").mkdir(parents=True)
        (place / "tree/etc/motd").write_text(content)
        (place / "contents.txt").write_text(content_list(place / "tree"))
        store.add(name, place, replace(MADE, disk=None))


def tree_image(store: ImageStore, name: str) -> TreeImage:
    image = store.use(name)
    assert isinstance(image, TreeImage)
    return image


def test_a_trees_digest_is_that_of_its_list(store: ImageStore) -> None:
    put_tree(store, "tree")
    image = tree_image(store, "tree")
    listed = image.hold.read_bytes()
    assert image.digest == f"sha256:{hashlib.sha256(listed).hexdigest()}"
    assert (image.tree / "etc/motd").read_text() == "welcome"
    assert image.size == 7 + len(listed)
    put_tree(store, "again")
    put_tree(store, "other", "hello")
    assert store.get("again").digest == image.digest != store.get("other").digest
    assert store.manifest("tree")["kind"] == "tree"


def test_a_tree_is_looked_at_from_above_before_use(store: ImageStore) -> None:
    put_tree(store, "tree")
    image = tree_image(store, "tree")
    stamp = (image.hold.parent / "verified.json").stat().st_mtime_ns
    store.use("tree")
    assert (image.hold.parent / "verified.json").stat().st_mtime_ns == stamp
    image.hold.chmod(0o644)
    image.hold.write_text("/etc drwxr-xr-x 0:0\n")
    with pytest.raises(ImageError, match=r"image tree is damaged: contents\.txt is not what it was"):
        store.use("tree")


def test_verify_reads_a_tree_and_names_what_differs(store: ImageStore) -> None:
    put_tree(store, "tree")
    motd = tree_image(store, "tree").tree / "etc/motd"
    motd.write_text("damaged")
    store.use("tree")
    with pytest.raises(ImageError, match=r"image tree is damaged: /etc/motd is not what it was \(build"):
        store.verify("tree")
    motd.write_text("welcome")
    told: list[float] = []
    store.verify("tree", lambda _what, part: told.append(part))
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_tree_that_is_missing_is_damage(store: ImageStore) -> None:
    put_tree(store, "tree")
    shutil.rmtree(tree_image(store, "tree").tree)
    with pytest.raises(ImageError, match=r"tree cannot be read: No such file"):
        store.use("tree")


def test_a_tree_that_machines_share_is_not_removed(store: ImageStore) -> None:
    put_tree(store, "tree")
    hold = tree_image(store, "tree").hold
    with hold.open("rb") as one, hold.open("rb") as two:
        assert share_lock(one.fileno())
        assert share_lock(two.fileno())
        one.close()
        assert store.users("tree")
        with pytest.raises(Conflict, match="a machine runs from image tree"):
            store.remove("tree")
        put_tree(store, "tree", "new")
        assert store.prune() == []
        assert hold.exists()
        assert list(store.directory.glob(".removing-*")) == []
    assert len(store.prune()) == 1
    store.remove("tree")
    assert list((store.directory / "objects").iterdir()) == []
    assert list(store.directory.glob(".removing-*")) == []


def test_a_removal_that_was_killed_is_finished_by_the_next_maker(store: ImageStore) -> None:
    put_tree(store, "tree")
    home = tree_image(store, "tree").tree.parent
    home.rename(store.directory / ".removing-1")
    put(store, "thin")
    assert not (store.directory / ".removing-1").exists()


def test_an_image_from_before_there_were_trees_is_a_disk(store: ImageStore) -> None:
    put(store, "thin")
    manifest = disk_of(store, "thin").parent / "image.json"
    document = json.loads(manifest.read_text())
    del document["kind"]
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(document))
    assert disk_image(store, "thin").disk_size == 1 << 30
