"""Making an image from a recipe: packages, files and a script become a tree; that is the image, or becomes a disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

from gridtide import guest
from gridtide.errors import ImageError
from gridtide.guest import GuestKind
from gridtide.images.contents import content_list, walk
from gridtide.images.image import Image, ImageKind
from gridtide.images.programs import last_words, need, run
from gridtide.images.recipe import Recipe
from gridtide.images.store import ImageStore, Made, MadeDisk, Progress, check_name, no_progress
from gridtide.model.contexts import ContextFormat

KERNEL_ARGUMENTS: Final = (
    "quiet panic=-1 reboot=t mitigations=off tsc=reliable no_timer_check random.trust_cpu=on net.ifnames=0"
)
"""Machines that run one tenant's jobs, on an emulated clock: a panic ends the machine, no time is spent on calibration
or on mitigations that the host's kernel applies already. ``eth0`` is what machine.py expects."""

_ALONE: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
"""The installation mounts /proc, /sys and devices into its tree. In name spaces of its own, which end with this
process, a build that is killed leaves no mount behind: sweeping its directory never reaches the host's own files."""

_EPOCH: Final = 946_684_800
"""The time of all files, 1 January 2000: a build must not depend on when it was made."""

_CONTEXTS: Final = {GuestKind.GRIDTIDE: ContextFormat.AGENT, GuestKind.SYSTEMD: ContextFormat.CLOUD_INIT}

_SPARED: Final = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
)
"""What no machine reads."""

_LITTER: Final = (
    "boot",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/cache/debconf",
    "var/cache/ldconfig/aux-cache",
    "var/log",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/diversions-old",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/munge/munge.key",
    "tmp",
)
"""Left by the installation: differs from build to build, is of no use in a machine, or is a secret that all machines of
the image would share."""


_PROGRAMS: Final = {
    ImageKind.TREE: ("mmdebstrap", "chroot", "setpriv", "unshare"),
    ImageKind.DISK: ("mmdebstrap", "chroot", "setpriv", "unshare", "mke2fs", "qemu-img", "lz4", "zstd"),
}


def build(
    store: ImageStore,
    name: str,
    recipe: Recipe,
    text: str,
    *,
    kind: ImageKind = ImageKind.DISK,
    progress: Progress = no_progress,
) -> tuple[Image, str]:
    """Build the recipe (whose source is ``text``) as image ``name``. Returns it and its content list.

    ImageError when a program, a package or space is missing, or the recipe's script fails; nothing is left then.
    """
    check_name(name)
    need(*_PROGRAMS[kind])
    if kind is ImageKind.TREE and GuestKind(recipe.guest) is not GuestKind.GRIDTIDE:
        raise ImageError(
            f'a tree runs without systemd, and the recipe says guest = "{recipe.guest}"',
            remedy="build it without --tree, or take another recipe",
        )
    if os.geteuid() != 0:
        raise ImageError(
            "building an image takes root: its files belong to many users", remedy="run it as root, once per host"
        )
    with store.making() as place:
        try:
            if kind is ImageKind.TREE:
                return _build_tree(store, name, recipe, text, place, progress)
            with tempfile.TemporaryDirectory(prefix=".tree-", dir=place) as directory:
                return _build_disk(store, name, recipe, text, place, Path(directory) / "tree", progress)
        except OSError as error:
            raise ImageError(
                f"the image cannot be written: {error.strerror}", where=str(place), remedy="free some disk space"
            ) from error


def _build_tree(
    store: ImageStore, name: str, recipe: Recipe, text: str, place: Path, progress: Progress
) -> tuple[Image, str]:
    """The agent is not put in: the process cloud gives each machine its own."""
    tree = place / "tree"
    progress("installing packages", 0.0)
    packages = _install_packages(recipe, tree)
    progress("adding files", 0.7)
    _add_files(recipe, tree)
    guest.prepare(tree)
    _tidy(tree, keep_modules=False)
    progress("listing the contents", 0.85)
    contents = content_list(tree)
    (place / "contents.txt").write_text(contents)
    progress("verifying", 0.9)
    image = store.add(name, place, _made(recipe, text, packages, disk=None))
    progress("done", 1.0)
    return image, contents


def _build_disk(
    store: ImageStore, name: str, recipe: Recipe, text: str, place: Path, tree: Path, progress: Progress
) -> tuple[Image, str]:
    progress("installing packages", 0.0)
    packages = _install_packages(recipe, tree, with_kernel=True)
    progress("adding files", 0.65)
    _add_files(recipe, tree)
    kind = GuestKind(recipe.guest)
    guest.install(tree, kind=kind)
    progress("kernel and initial RAM disk", 0.72)
    guest.extract_kernel(tree, place / "kernel")
    guest.make_initrd(tree, place / "initrd")
    if kind is GuestKind.SYSTEMD:
        _index_modules(tree)
    _tidy(tree, keep_modules=kind is GuestKind.SYSTEMD)
    contents = content_list(tree)
    (place / "contents.txt").write_text(contents)
    progress("making the disk", 0.8)
    _make_disk(tree, place / "disk.qcow2", recipe.disk, contents)
    shutil.rmtree(tree)
    tree.parent.rmdir()
    progress("verifying", 0.95)
    made = _made(recipe, text, packages, disk=MadeDisk(recipe.disk << 20, KERNEL_ARGUMENTS))
    image = store.add(name, place, made)
    tree.parent.mkdir(parents=True, exist_ok=True)  # for the context manager that removes it
    progress("done", 1.0)
    return image, contents


def _made(recipe: Recipe, text: str, packages: dict[str, str], *, disk: MadeDisk | None) -> Made:
    return Made(
        disk=disk,
        context=_CONTEXTS[GuestKind(recipe.guest)],
        minimum_memory=recipe.minimum_memory,
        created=time.time(),
        description=recipe.description,
        origin={"recipe": text, "suite": recipe.suite, "packages": packages},
    )


def _install_packages(recipe: Recipe, tree: Path, *, with_kernel: bool = False) -> dict[str, str]:
    """A tree with the packages; the kernel's package is only unpacked: what it would set up, no machine uses.

    BusyBox is always there: it is what brings machines up, of either kind.
    """
    command = [*_ALONE, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--components=main"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _SPARED]
    command += ['--aptopt=Apt::Install-Recommends "false"', "--aptopt=Acquire::Retries 3"]
    wanted = sorted({"busybox-static", *recipe.packages})
    command += [f"--include={','.join(wanted)}"]
    if with_kernel:
        command += [f"--customize-hook={_KERNEL_HOOK.format(kernel=recipe.kernel)}"]
    command += [recipe.suite, str(tree), *([recipe.mirror] if recipe.mirror else [])]
    environment = {"SOURCE_DATE_EPOCH": str(_EPOCH), **_proxies()}
    try:
        run(command, what="installing packages", environment=environment)
    except ImageError as error:
        raise ImageError(
            error.what, where=f"{recipe.suite}: {', '.join(wanted)}", remedy="check the names and the mirror"
        ) from None
    if with_kernel:
        _unpack_kernel(recipe, tree)
    listed = run(["chroot", str(tree), "dpkg-query", "-W", "-f", "${Package} ${Version}\n"], what="listing packages")
    return dict(line.split(" ", 1) for line in listed.splitlines())


def _unpack_kernel(recipe: Recipe, tree: Path) -> None:
    found = list((tree / "kernel-package").glob("*.deb"))
    if not found:
        raise ImageError(f"package {recipe.kernel!r} brings no kernel", remedy="name one like linux-image-cloud-amd64")
    run(["dpkg", "-x", str(found[0]), str(tree / "kernel-package" / "unpacked")], what="unpacking the kernel")
    unpacked = tree / "kernel-package" / "unpacked"
    shutil.copytree(unpacked / "boot", tree / "boot", dirs_exist_ok=True)
    for modules in (unpacked / "lib/modules", unpacked / "usr/lib/modules"):
        if modules.exists():
            shutil.copytree(modules, tree / "usr/lib/modules", symlinks=True)
    shutil.rmtree(tree / "kernel-package")


# A kernel's package may be an empty one that depends on the newest kernel: then that one is taken.
_KERNEL_HOOK: Final = (
    'chroot "$1" sh -euc \'mkdir /kernel-package; cd /kernel-package; '
    "real=$(apt-cache depends --important {kernel} "
    '| sed -n "s/^ *Depends: \\(linux-image-[^ ]*\\).*/\\1/p" | head -1); '
    "apt-get -q -o APT::Sandbox::User=root download ${{real:-{kernel}}}'"
)


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in names if name in os.environ}


def _add_files(recipe: Recipe, tree: Path) -> None:
    for one in recipe.files:
        target = tree / one.target.lstrip("/")
        if not target.parent.resolve().is_relative_to(tree.resolve()):
            raise ImageError(f"{one.target} leads out of the image", remedy="name a place without symbolic links")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(one.source, target)
        target.chmod(int(one.mode, 8))
    if recipe.script is None:
        return
    inside = tree / "recipe-script"
    shutil.copyfile(recipe.script, inside)
    inside.chmod(0o700)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603
        ["chroot", str(tree), "/recipe-script"],  # noqa: S607
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    inside.unlink()
    if done.returncode:
        words = last_words(done.stderr or done.stdout)
        raise ImageError(f"the script ended with status {done.returncode}: {words}", where=str(recipe.script))


def _index_modules(tree: Path) -> None:
    """The kernel's package is only unpacked, so nothing has noted yet which module needs which."""
    for version in sorted((tree / "usr/lib/modules").iterdir()):
        try:
            run(["chroot", str(tree), "depmod", version.name], what="indexing kernel modules")
        except ImageError as error:
            raise ImageError(error.what, remedy='add the package "kmod" to the recipe') from None


def _tidy(tree: Path, *, keep_modules: bool) -> None:
    """Nothing of this build's own in the tree: no identity, no time, no cache."""
    for name in (*_LITTER, *(() if keep_modules else ("usr/lib/modules",))):
        path = tree / name
        if path.is_dir() and not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            shutil.rmtree(path)
            path.mkdir(mode=mode)
            path.chmod(mode)
        else:
            path.unlink(missing_ok=True)
    for key in tree.glob("etc/ssh/ssh_host_*"):
        key.unlink()
    (tree / "etc/machine-id").write_text("")
    (tree / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (tree / "etc/hostname").write_text("worker\n")
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").write_text("")
    for path in walk(tree):
        os.utime(path, (_EPOCH, _EPOCH), follow_symlinks=False)


def _make_disk(tree: Path, target: Path, size: int, contents: str) -> None:
    """A file system without a journal: a machine's disk is thrown away with it, and never repaired."""
    raw = target.with_name(".disk.raw")
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(contents.encode()).hexdigest()))
    with raw.open("wb") as file:
        file.truncate(size << 20)
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-U", identity, "-E", f"hash_seed={identity}", "-m", "0"]
    environment = {"E2FSPROGS_FAKE_TIME": str(_EPOCH), "SOURCE_DATE_EPOCH": str(_EPOCH)}
    try:
        run(["mke2fs", *options, "-d", str(tree), str(raw)], what="making the file system", environment=environment)
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target)], what="making the disk")
    finally:
        raw.unlink(missing_ok=True)
