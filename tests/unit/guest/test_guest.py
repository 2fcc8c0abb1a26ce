"""What goes into an image, and how a machine reads its seed."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import os
import struct
from pathlib import Path
from types import ModuleType

import pytest

from gridtide.clouds.seed import SIZE, seed_disk
from gridtide.errors import ImageError
from gridtide.guest import NUMBER
from gridtide.guest.initrd import MODULES, Entry, archive, make_initrd
from gridtide.guest.kernel import unpack_kernel

KERNEL = b"\x7fELF" + b"kernel" * 100


@pytest.fixture(scope="module")
def machine() -> ModuleType:
    """The program, loaded without being run: here nobody is process 1."""
    import gridtide.guest

    path = Path(gridtide.guest.__file__).parent / "machine.py"
    spec = importlib.util.spec_from_file_location("machine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_packed_kernel_is_found_behind_its_loader(pack: object) -> None:
    assert callable(pack)
    decoy = b"\x1f\x8b\x08" + b"no kernel" + b"\xfd7zXZ\x00"
    assert unpack_kernel(decoy + b"x" * 100 + pack(KERNEL), "k") == KERNEL
    assert unpack_kernel(KERNEL, "k") == KERNEL


def test_what_is_no_kernel_is_said_so() -> None:
    with pytest.raises(ImageError, match="no kernel image that can be unpacked"):
        unpack_kernel(b"MZ" + bytes(1000), "boot/vmlinuz")


def names_in(content: bytes) -> list[str]:
    """Of a cpio archive in the "newc" format, in order."""
    names, at = [], 0
    while True:
        assert content[at : at + 6] == b"070701"
        size, length = (int(content[at + place : at + place + 8], 16) for place in (54, 94))
        names.append(content[at + 110 : at + 110 + length - 1].decode())
        at += -(-(110 + length) // 4) * 4
        at += -(-size // 4) * 4
        if names[-1] == "TRAILER!!!":
            return names


def make_tree(root: Path, *, without: str = "") -> Path:
    modules = root / "usr/lib/modules/6.1.0-1-cloud-amd64"
    modules.mkdir(parents=True)
    for name in MODULES:
        if name not in (without, "virtio_pci"):
            (modules / f"{name.replace('_', '-', 1)}.ko.xz").write_bytes(lzma.compress(name.encode()))
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    (root / "usr/bin").mkdir()
    (root / "usr/bin/busybox").write_bytes(b"busybox")
    return root


def test_the_initial_ram_disk_has_the_modules_in_order_and_is_the_same_twice(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    make_initrd(tree, tmp_path / "one")
    make_initrd(tree, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    names = names_in((tmp_path / "one").read_bytes())
    assert {"init", "bin/busybox", "lib/order", "newroot"} <= set(names)
    loaded = [name for name in names if name.endswith(".ko")]
    assert loaded == [f"lib/{name}.ko" for name in MODULES if name != "virtio_pci"]


def test_a_missing_module_or_busybox_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="virtio_blk is missing"):
        make_initrd(make_tree(tmp_path / "a", without="virtio_blk"), tmp_path / "x")
    tree = make_tree(tmp_path / "b")
    (tree / "usr/bin/busybox").unlink()
    with pytest.raises(ImageError, match="busybox-static"):
        make_initrd(tree, tmp_path / "x")


def test_an_archive_ends_as_cpio_wants_it() -> None:
    made = archive([Entry("a", 0o100644, b"12345")])
    assert made.startswith(b"070701")
    assert made.endswith(b"TRAILER!!!\0\0\0\0")
    assert len(made) % 4 == 0


# --- seeds


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_a_seed_is_read_as_it_was_written(machine: ModuleType, tmp_path: Path) -> None:
    data = bytes(range(256)) * 500
    disk = seed_disk("grid-1", data, launched=12.5, entropy=b"e" * 64)
    assert len(disk) == SIZE
    files = machine.read_seed(written(tmp_path / "seed", disk))
    assert files["user-data"] == data
    assert files["random-seed"] == b"e" * 64
    assert machine.meta(files) == {"instance-id": "grid-1", "local-hostname": "grid-1", "launched": "12.500"}


def test_a_large_seed_is_larger(machine: ModuleType, tmp_path: Path) -> None:
    disk = seed_disk("grid-1", b"x" * (3 << 20), launched=0.0, entropy=b"")
    assert len(disk) == 4 * SIZE
    assert len(machine.read_seed(written(tmp_path / "seed", disk))["user-data"]) == 3 << 20


def test_an_empty_disk_is_no_seed_yet(machine: ModuleType, tmp_path: Path) -> None:
    assert machine.read_seed(written(tmp_path / "seed", bytes(SIZE))) is None


def test_a_disk_of_somebody_else_is_refused(machine: ModuleType, tmp_path: Path) -> None:
    disk = seed_disk("g", b"x", launched=0.0, entropy=b"").replace(b"CIDATA", b"BACKUP")
    with pytest.raises(machine.Unusable, match="not labelled CIDATA"):
        machine.read_seed(written(tmp_path / "seed", disk))


def test_a_damaged_seed_is_told(machine: ModuleType, tmp_path: Path) -> None:
    disk = bytearray(seed_disk("g", b"x", launched=0.0, entropy=b""))
    struct.pack_into("<I", disk, 16 * 2048 + 156 + 10, 0xFFFFFFF0)  # the size of the first directory
    with pytest.raises(machine.Unusable, match="is damaged"):
        machine.read_seed(written(tmp_path / "seed", bytes(disk)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the seed has no user-data"),
        (b"#cloud-config\n", "not in the format 'agent'"),
        (b"[]", "no context of version 1"),
        (b'{"version": 2}', "no context of version 1"),
    ],
)
def test_user_data_that_is_not_for_this_image(machine: ModuleType, content: bytes | None, message: str) -> None:
    with pytest.raises(machine.Unusable, match=message):
        machine.read_context({} if content is None else {"user-data": content})


@pytest.mark.parametrize("value", [None, False, "true", 1, [True]])
def test_the_agent_is_root_for_nothing_less_than_true(machine: ModuleType, value: object) -> None:
    assert machine.agent_user({"privileged": True}) == 0
    assert machine.agent_user({"privileged": value}) == machine.agent_user({}) == NUMBER


@pytest.mark.parametrize("privileged", [True, False])
@pytest.mark.parametrize("continued", [True, False])
def test_a_machine_gives_its_directory_to_the_agents_user(
    machine: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, privileged: bool, continued: bool
) -> None:
    """Also one that was saved before it was told what it is."""
    user = 0 if privileged else NUMBER
    context = {"version": 1, "worker": "grid-1", **({"privileged": True} if privileged else {})}
    given: dict[str, int] = {}
    monkeypatch.setattr(machine, "HOME", str(tmp_path))
    monkeypatch.setattr(machine, "await_seed", lambda _: ({"user-data": json.dumps(context).encode()}, continued))
    monkeypatch.setattr(machine, "name_machine", lambda _: None)
    monkeypatch.setattr(os, "chown", lambda path, owner, group: given.update({path: owner, "group": group}))
    monkeypatch.setattr(machine, "write", lambda path, _, mode, owner: given.update({path: owner, "mode": mode}))
    monkeypatch.setattr(machine, "tend", lambda agent, owner: f"{agent.__name__} as {owner}")
    assert machine.live(machine, 0.0) == f"machine as {user}"
    files = {str(tmp_path): user, f"{tmp_path}/context.json": user, f"{tmp_path}/boot.json": user}
    assert given == {**files, "group": user, "mode": 0o600}


@pytest.mark.parametrize("path", ["relative", "/a/../b"])
def test_files_only_go_to_absolute_places(machine: ModuleType, path: str) -> None:
    with pytest.raises(ValueError, match="absolute"):
        machine.place({"path": path, "content": "x"})


def test_a_file_is_written_with_its_mode(machine: ModuleType, tmp_path: Path) -> None:
    machine.place({"path": str(tmp_path / "a/b"), "mode": "0600", "base64": "aGVsbG8="})
    assert (tmp_path / "a/b").read_bytes() == b"hello"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600
