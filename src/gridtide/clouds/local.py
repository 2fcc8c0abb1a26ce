"""Machines that are a directory and a process of this host: what the process cloud and the QEMU cloud have in common.

What is true of a machine is decidable at any instant, after any crash, from the file system and the kernel alone:

- ``<directory>/<worker id>/`` exists: the machine was made. It appears complete, by one rename.
- ``machine.lock`` in it is held: its first process lives. The process inherits the lock at its birth and can only lose
  it by dying, so that no process number has to be written down, and no second process can start.
- processes with ``GRIDTIDE_MACHINE=<site>/<worker id>`` in their environment are the machine's; nothing else is.
- ``.ending/<site>.<worker id>.<random>/`` exists: it is being ended, and a repeated terminate goes on with it.

docs/explanation/process-cloud.md tells why, and what this cloud does not protect from.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridtide import locks
from gridtide.clouds import local_check, process_table
from gridtide.clouds.local_home import (
    Tag,
    bound_console,
    is_held,
    keep_console,
    last_words,
    read_console,
    read_tag,
    remove_tree,
    tag_document,
    write_private,
)
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.errors import AuthenticationFailed, CloudError, CloudUnavailable, LaunchRejected, NoCapacity
from gridtide.model.ids import CloudName, MachineId, WorkerId
from gridtide.model.machines import Machine, Machines, MachineState
from gridtide.model.resources import Resources, Shape

_ROUNDS: Final = 100
_PAUSE: Final = 0.05
"""A machine that cannot be ended is given up after this many looks at these seconds: a SIGKILL acts in milliseconds
unless the kernel itself holds the process (a dead network disk), which no waiting helps."""

_MACHINE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SITE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_CROWDED: Final = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True, slots=True)
class FirstProcess:
    """What is started in a machine's directory, beside the marker and the lock that every machine has."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: tuple[int, ...] = ()
    """Open files that it inherits; closed by the caller afterwards."""
    marked: bool = True
    """Whether it carries the machine's marker. One that does not only waits, with the lock, for processes that do, and
    ends by itself when the last of them has: it is never killed."""


class LocalCloud(ABC):
    """Machines are directories below ``directory``, each with a process. All work is done in threads.

    What a machine is made of, and how its process is started, is a subclass's: :meth:`furnish`, :meth:`instruct`,
    :meth:`first_process`, :meth:`look_over`.
    """

    def __init__(
        self, name: CloudName, site: str, directory: Path, shapes: tuple[Shape, ...], *, settle: float = 0.0
    ) -> None:
        """ValueError for a site name that cannot be part of a file name."""
        if not _SITE_NAME.fullmatch(site):
            raise ValueError(f"site name {site!r}: letters, digits, '.', '_' and '-' only")
        self.name = name
        self.settle = settle
        self.directory = directory.absolute()
        self._site = site
        self._shapes = {shape.name: shape for shape in shapes}
        self._tags: dict[tuple[str, int], Tag] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        self._children_guard = threading.Lock()

    # --- what a subclass says

    @abstractmethod
    def furnish(self, request: LaunchRequest, shape: Shape, home: Path) -> None:
        """Put into the new machine's directory what never changes. CloudError or OSError: none is made."""

    @abstractmethod
    def instruct(self, request: LaunchRequest, home: Path) -> None:
        """Put the user-data into the directory, in place of any before."""

    @abstractmethod
    def first_process(self, request: LaunchRequest, home: Path) -> FirstProcess:
        """How its process is started. CloudError or OSError: it is not."""

    @abstractmethod
    def look_over(self, images: Sequence[str]) -> Sequence[Finding]:
        """What there is to be checked beside directory, disk and kernel."""

    def before_launch(self, requests: Sequence[LaunchRequest]) -> None:  # noqa: B027  (most have nothing to do here)
        """Called once per bulk launch, with the room for making held alone."""

    # --- the protocol

    async def shapes(self) -> tuple[Shape, ...]:
        """As configured."""
        return tuple(self._shapes.values())

    async def machines(self) -> Machines:
        """One pass over the directory. CloudUnavailable or AuthenticationFailed when it cannot be read."""
        return await asyncio.to_thread(self._list)

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """Make directories and start processes, one after the other."""
        return await asyncio.to_thread(self._launch, requests)

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """SIGKILL, as a cloud that pulls the plug; then the directory goes. The console's tail stays in ``.past/``."""
        return await asyncio.to_thread(self._terminate, machines)

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """Directory, disk, kernel, and what the kind of machine needs."""
        return await asyncio.to_thread(self._check, images)

    async def console(self, machine: MachineId, *, most: int) -> bytes | None:
        """From the machine's directory, or from what is kept of ended ones."""
        if not _MACHINE_NAME.fullmatch(machine):
            return None
        try:
            return await asyncio.to_thread(read_console, self.directory, machine, most)
        except OSError as error:
            raise self._typed(error, f"the console of {machine} cannot be read") from error

    async def close(self) -> None:
        """Machines live on."""
        self._reap()

    # --- listing

    def _list(self) -> Machines:
        self._reap()
        found: dict[str, Machine] = {}
        tags: dict[tuple[str, int], Tag] = {}
        try:
            for name, tag in self._entries(tags):
                if (machine := self._look(name, tag)) is not None:
                    found[name] = machine
            # Second, so that one that is moved from there to here in between is seen at least once.
            for worker, path in self._ending():
                ended = read_tag(path)
                resources = ended.resources if ended else Resources()
                found[worker] = Machine(MachineId(worker), WorkerId(worker), MachineState.ENDING, resources)
            self._name_leftovers(found)
        except OSError as error:
            raise self._typed(error, "the machines cannot be listed") from error
        self._tags = tags
        return tuple(found.values())

    def _entries(self, tags: dict[tuple[str, int], Tag]) -> Iterator[tuple[str, Tag]]:
        """Directories with a tag, of any site. Tags never change, so that each is read once."""
        try:
            entries = os.scandir(self.directory)
        except FileNotFoundError:
            if process_table.any_of_site(self._site):
                raise CloudUnavailable(
                    "the directory is missing, but processes of its machines still run",
                    where=f"{self.name} {self.directory}",
                    remedy="bring the directory back, for example mount its disk",
                ) from None
            return
        with entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                    continue
                key = (entry.name, entry.inode())
                tag = self._tags.get(key) or read_tag(Path(entry.path))
                if tag is not None:
                    if tag.readable:
                        tags[key] = tag
                    yield entry.name, tag

    def _look(self, name: str, tag: Tag) -> Machine | None:
        """The machine of a directory; None when it went away meanwhile."""
        home = self.directory / name
        worker = WorkerId(name) if tag.belongs_to(self._site, name) else None
        if not tag.readable:
            state, message = MachineState.UNKNOWN, "its machine.json cannot be read: nothing is known of it"
        else:
            held = is_held(home)
            if held is None and not home.exists():
                return None
            if held is None:
                state, message = MachineState.UNKNOWN, "its machine.lock is missing: whether it runs is not known"
            elif held:
                state, message = MachineState.RUNNING, ""
                bound_console(home)
            elif (home / "started").exists():
                state, message = MachineState.STOPPED, f"its process has ended; last words: {last_words(home)}"
            else:
                state, message = MachineState.BROKEN, "its process was never started: whoever made it ended meanwhile"
        return Machine(MachineId(name), worker, state, tag.resources, message=message)

    def _name_leftovers(self, found: dict[str, Machine]) -> None:
        """Nothing runs in a STOPPED machine: one whose first process left others behind is BROKEN."""
        stopped = {self.marker(name): name for name, machine in found.items() if machine.state is MachineState.STOPPED}
        if not stopped:
            return
        for marker, numbers in process_table.marked(stopped).items():
            name = stopped[marker]
            before = found[name]
            message = f"{before.message}; {len(numbers)} of its processes run on without it"
            found[name] = Machine(before.id, before.worker, MachineState.BROKEN, before.resources, message=message)

    def _ending(self) -> Iterator[tuple[str, Path]]:
        """Machines of this site that are being ended: worker and directory."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory / ".ending") as entries:
            for entry in entries:
                site, _, worker = entry.name.rpartition(".")[0].rpartition(".")
                if site == self._site:
                    yield worker, Path(entry.path)

    # --- launching

    def _launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        self._reap()
        answers: dict[WorkerId, MachineId | CloudError] = {}
        try:
            with self._making() as making:
                self.before_launch(requests)
                ending = {worker for worker, _ in self._ending()}
                for request in requests:
                    try:
                        answers[request.worker] = self._launch_one(request, making, ending)
                    except CloudError as error:
                        answers[request.worker] = error
                    except OSError as error:
                        answers[request.worker] = self._typed(error, f"{request.worker} cannot be made")
        except OSError as error:
            raise self._typed(error, "no machine can be made") from error
        return answers

    @contextlib.contextmanager
    def _making(self) -> Iterator[Path]:
        """The room for half-made machines, held alone, and swept: what is in it belongs to a launch that crashed."""
        making = self.directory / ".making"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        making.mkdir(mode=0o700, exist_ok=True)
        guard = os.open(self.directory / ".making.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            for leftover in list(making.iterdir()):
                remove_tree(leftover)
            yield making
        finally:
            os.close(guard)

    def _launch_one(self, request: LaunchRequest, making: Path, ending: Collection[str]) -> MachineId:
        shape = self._shapes.get(request.shape)
        if shape is None:
            known = ", ".join(self._shapes) or "none"
            raise self.rejected(f"no shape is called {request.shape!r}", f"use one of: {known}")
        if not _MACHINE_NAME.fullmatch(request.worker):
            raise self.rejected(f"{request.worker!r} cannot name a machine", "use a-z, 0-9 and '-'")
        if request.worker in ending:
            raise self.rejected(f"{request.worker} is being ended", "launch another worker")
        home = self.directory / request.worker
        if os.path.lexists(home):
            self._start_if_never_started(request, home)
        else:
            self._make(request, shape, making / request.worker, home)
        return MachineId(request.worker)

    def _make(self, request: LaunchRequest, shape: Shape, prepared: Path, home: Path) -> None:
        """Prepare aside, take the lock, appear by a rename, start: a crash at no instant leaves something unclear."""
        with contextlib.ExitStack() as opened:
            try:
                prepared.mkdir(mode=0o700)
                tag = tag_document(self._site, request.worker, request.group, shape)
                write_private(prepared / "machine.json", tag)
                self.furnish(request, shape, prepared)
                self.instruct(request, prepared)
                write_private(prepared / "prepared", b"")
                write_private(prepared / "machine.lock", b"")
                lock = os.open(prepared / "machine.lock", os.O_RDWR | os.O_CLOEXEC)
                opened.callback(os.close, lock)
                locks.take_lock(lock)
                prepared.rename(home)
                try:
                    self._start(request, home, lock)
                except (OSError, CloudError):
                    home.rename(prepared)  # no process lives: the machine was not made, and the error may say so
                    raise
            except (OSError, CloudError):
                remove_tree(prepared)
                raise

    def _start_if_never_started(self, request: LaunchRequest, home: Path) -> None:
        """The machine was made by an earlier call, which may have crashed before it started the process."""
        tag = read_tag(home)
        if tag is None or not tag.belongs_to(self._site, request.worker):
            raise self.rejected(f"{home} exists and is not this site's", "choose another directory for this cloud")
        if (home / "started").exists():
            return
        with contextlib.ExitStack() as opened:
            lock = os.open(home / "machine.lock", os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, lock)
            if locks.take_lock(lock):
                self.instruct(request, home)  # its join token is the newest: others are void
                self._start(request, home, lock)

    def _start(self, request: LaunchRequest, home: Path, lock: int) -> None:
        """Start the first process, which inherits the held lock. OSError or CloudError: then none lives."""
        first = self.first_process(request, home)
        marker = {process_table.VARIABLE: self.marker(request.worker)} if first.marked else {}
        console = os.open(home / "console.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            child = subprocess.Popen(  # noqa: S603 - the command is the site's own; nothing of a user is in it
                first.command,
                cwd=home,
                env={**first.environment, **marker},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                pass_fds=(lock, *first.files),
                umask=0o077,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if error.filename == first.command[0]:
                raise self.rejected(
                    f"{first.command[0]}: {error.strerror}", "was it moved or removed? `gridtide check` tells"
                ) from error
            raise
        finally:
            os.close(console)
            for handle in first.files:
                os.close(handle)
        with self._children_guard:
            self._children.append(child)
        # A rename needs no space on a full disk. Without it the machine still counts as alive: its lock is held.
        with contextlib.suppress(OSError):
            (home / "prepared").rename(home / "started")

    # --- terminating

    def _terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        answers: dict[MachineId, CloudError | None] = {}
        pending: dict[MachineId, list[Path]] = {}
        try:
            halfway: dict[str, list[Path]] = {}
            for worker, path in self._ending():
                halfway.setdefault(worker, []).append(path)
            for machine in machines:
                answers[machine] = None
                try:
                    if _MACHINE_NAME.fullmatch(machine):  # anything else can be no machine of ours
                        pending[machine] = halfway.get(machine, []) + self._withdraw(machine)
                except AuthenticationFailed as error:
                    answers[machine] = error
            answers.update(self._end(pending))
        except OSError as error:
            raise self._typed(error, "machines cannot be ended") from error
        self._reap()
        return answers

    def _withdraw(self, machine: MachineId) -> list[Path]:
        """Move the directory aside: from now on the machine is ENDING, whatever happens to this process."""
        home = self.directory / machine
        tag = read_tag(home)
        if tag is None:
            return []
        if not tag.belongs_to(self._site, machine):
            whose = f"belongs to site {tag.site}" if tag.readable else "has an unreadable machine.json"
            raise AuthenticationFailed(f"machine {machine} {whose} and is left alone", where=f"{self.name} {home}")
        aside = self.directory / ".ending" / f"{self._site}.{machine}.{secrets.token_hex(4)}"
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            home.rename(aside)
        except FileNotFoundError:
            return []
        return [aside]

    def _end(self, pending: Mapping[MachineId, list[Path]]) -> dict[MachineId, CloudError | None]:
        """Kill until nothing of a machine is seen twice in a row and its lock is free; then remove its directory.

        The lock catches a process that is just being born and does not carry its marker yet.
        """
        answers: dict[MachineId, CloudError | None] = {}
        names = {self.marker(machine): machine for machine in pending}
        quiet: set[MachineId] = set()
        for _ in range(_ROUNDS):
            alive = process_table.marked(names)
            busy = {names[marker] for marker in alive}
            busy |= {machine for machine in names.values() if any(is_held(path) for path in pending[machine])}
            for machine in quiet - busy:
                answers[machine] = self._bury(machine, pending[machine])
                del names[self.marker(machine)]
            if not names:
                return answers
            process_table.kill(alive)
            quiet = set(names.values()) - busy
            time.sleep(_PAUSE if busy and not alive else 0.01)
        for machine in names.values():
            answers[machine] = CloudUnavailable(
                f"processes of machine {machine} do not end", where=str(self.name), remedy="the kernel holds them"
            )
        return answers

    def _bury(self, machine: MachineId, paths: Sequence[Path]) -> CloudError | None:
        """Keep the console's tail, remove the rest."""
        for path in paths:
            keep_console(path, self.directory / ".past", machine)
            try:
                remove_tree(path)
            except OSError as error:
                return CloudUnavailable(
                    f"{path} cannot be removed: {error.strerror}", where=str(self.name), remedy="remove it by hand"
                )
        return None

    # --- the rest

    def _check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        common = (local_check.directory(self.directory), local_check.disk(self.directory), local_check.kernel())
        return (*common, *self.look_over(images))

    def marker(self, worker: str) -> str:
        """What every process of the machine carries in :data:`process_table.VARIABLE`."""
        return f"{self._site}/{worker}"

    def _reap(self) -> None:
        """Let go of machines' processes that ended and happen to be children of this very process."""
        with self._children_guard:
            self._children = [child for child in self._children if child.poll() is None]

    def rejected(self, what: str, remedy: str) -> LaunchRejected:
        """The error for a request that can never be met."""
        return LaunchRejected(what, where=str(self.name), remedy=remedy)

    def _typed(self, error: OSError, what: str) -> CloudError:
        text = f"{what}: {error.strerror or type(error).__name__}"
        where = f"{self.name} {self.directory}"
        if error.errno in _FULL:
            return NoCapacity(text, where=where, remedy="free some disk space")
        if error.errno in _CROWDED:
            return NoCapacity(text, where=where, remedy="lower the maximum, or raise this user's limits")
        if error.errno in _FORBIDDEN:
            return AuthenticationFailed(text, where=where, remedy=f"make the directory writable for user {os.getuid()}")
        return CloudUnavailable(text, where=where, remedy="look at the disk")
