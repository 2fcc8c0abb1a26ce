"""The way of a simulated process to everything outside of it. Here it is frozen or killed.

A process of the controller is its tasks, which all run in a context that names its gate. Stores, queues and clouds of a
simulation call :func:`reach` before and after whatever they do for it: those are the instants at which a real process
may be found by ``kill -9``, or be frozen by its host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gridtide.errors import StoreUnavailable

_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)
_VISITOR: ContextVar[bool] = ContextVar("visitor", default=False)


async def reach() -> None:
    """An instant at which the process that runs this may be stopped. Nothing, outside of simulated processes."""
    gate = _GATE.get()
    if gate is not None:
        await gate.reach()


def present() -> Gate | None:
    """The gate of the process that runs this."""
    return _GATE.get()


class Gate:
    """Open, shut while its process is frozen, or gone with its process."""

    def __init__(self) -> None:
        self.dead = False
        self._moved = asyncio.Event()
        self._moved.set()
        self._fuse: tuple[int, Callable[[], None]] | None = None

    def enter(self) -> None:
        """The tasks that are started from here on are the process's own."""
        _GATE.set(self)
        _VISITOR.set(False)

    @contextmanager
    def visit(self) -> Iterator[None]:
        """A caller from outside. A process that dies under it is an error for the caller, as for a client whose
        connection is reset."""
        inside, visitor = _GATE.set(self), _VISITOR.set(True)
        try:
            yield
        finally:
            _VISITOR.reset(visitor)
            _GATE.reset(inside)

    def after(self, instants: int, happen: Callable[[], None]) -> None:
        """Let something happen once so many more instants have passed; 0: at the next one."""
        self._fuse = (instants, happen)

    def shut(self) -> None:
        """Freeze the process: nothing that it does gets out."""
        self._moved.clear()

    def open(self) -> None:
        """Let it go on where it was."""
        self._moved.set()

    @property
    def is_open(self) -> bool:
        """Whether its process is neither frozen nor gone."""
        return self._moved.is_set() and not self.dead

    def kill(self) -> None:
        """``kill -9``: nothing that it does gets out any more, not even what it would do while it is cancelled."""
        self.dead = True
        self._moved.set()

    async def reach(self) -> None:
        """See :func:`reach`."""
        if self._fuse is not None:
            left, happen = self._fuse
            self._fuse = (left - 1, happen) if left else None
            if not left:
                happen()
        while not self._moved.is_set():
            try:
                await self._moved.wait()
            except asyncio.CancelledError:
                # A deadline ran out while the process was frozen. A frozen process does not know: it goes on first.
                if self.dead or _VISITOR.get():
                    raise
        if self.dead:
            if _VISITOR.get():
                raise StoreUnavailable("the controller's process has died")
            raise asyncio.CancelledError  # it ends here, and so does whatever waits for it
