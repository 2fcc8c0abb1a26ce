"""The driver's end of the asking process: calls with deadlines that are kept, whatever the other side does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from gridtide.queues.htcondor.errors import KINDS, PoolUnreachable

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# One line of an answer. Larger ones are a fault; the bindings' own limit for one ad is far below.
_LONGEST_LINE: Final = 1 << 26
# Seconds to load the bindings. On a loaded machine that takes several; a start that hangs must be noticed all the same.
_START: Final = 30.0


class Asker:
    """Starts the process when it is first needed, and again when it has died. ``configuration`` is HTCondor's file."""

    def __init__(self, configuration: Path, where: str) -> None:
        self._configuration = configuration
        self._where = where
        self._process: Process | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()

    async def call(self, name: str, deadline: float, /, **arguments: object) -> list[Json]:
        """All items of the answer. QueueError, and the call is dead, when it takes longer than ``deadline``."""
        return [item async for item in self.items(name, deadline, **arguments)]

    async def items(self, name: str, deadline: float, /, **arguments: object) -> AsyncGenerator[Json, None]:
        """The items as they come; what came before an error counts."""
        request = json.dumps({"call": name, "arguments": arguments}).encode() + b"\n"
        ends = asyncio.get_running_loop().time() + deadline
        try:
            async with asyncio.timeout_at(ends):
                reader, writer = await self._connect()
        except TimeoutError:
            raise PoolUnreachable("the asking process did not start in time", where=self._where) from None
        call = _Call(reader, writer, self._where)
        try:
            async with asyncio.timeout_at(ends):
                await call.begin(request)
            while True:
                async with asyncio.timeout_at(ends):
                    item = await call.next()
                if isinstance(item, _End):
                    return
                yield item
        except TimeoutError:
            raise PoolUnreachable(f"no answer within {deadline:g} s", where=self._where) from None
        finally:
            call.kill()

    async def close(self) -> None:
        """End the process and all calls."""
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._start()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                if self._control is None:
                    raise BrokenPipeError
                socket.send_fds(self._control, [b"?"], [theirs.fileno()])
            except OSError:
                ours.close()
                await self.close()
                raise PoolUnreachable("the asking process has died; it is started again", where=self._where) from None
        return await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)

    async def _start(self) -> None:
        await self.close()
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "TZ") if name in os.environ}
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gridtide.queues.htcondor.asker",
                stdin=theirs.fileno(), stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
                env={**environment, "CONDOR_CONFIG": str(self._configuration)},
            )  # fmt: skip
        ours.setblocking(False)
        self._control = ours
        try:
            async with asyncio.timeout(_START):
                ready = await asyncio.get_running_loop().sock_recv(ours, 1)
        except TimeoutError:
            ready = b""
        if not ready:
            await self.close()
            raise PoolUnreachable(
                "the asking process does not start", where=self._where, remedy="is the htcondor package installed?"
            )


class _End:
    """The answer is complete."""


_END: Final = _End()


class _Call:
    """One call under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._reader, self._writer, self._where = reader, writer, where
        self._handle: int | None = None

    async def begin(self, request: bytes) -> None:
        """Hear who answers, and ask."""
        process = (await self._message()).get("process")
        if isinstance(process, int):
            # While the socket is open the process lives, so that its number is still its own.
            with contextlib.suppress(ProcessLookupError):
                self._handle = os.pidfd_open(process)
        self._writer.write(request)
        try:
            await self._writer.drain()
        except OSError:
            raise self._died() from None

    async def next(self) -> Json | _End:
        message = await self._message()
        if "item" in message:
            return message["item"]
        if "error" in message:
            kind = KINDS.get(str(message["error"]), PoolUnreachable)
            raise kind(str(message.get("what")), where=self._where)
        return _END

    async def _message(self) -> Mapping[str, Json]:
        try:
            line = await self._reader.readline()
        except OSError:  # it had not read all that it was sent
            raise self._died() from None
        except ValueError as error:
            raise PoolUnreachable(f"the asking process failed: {error}", where=self._where) from None
        if not line.endswith(b"\n"):
            raise self._died()
        found: Json = json.loads(line)
        if not isinstance(found, dict):
            raise PoolUnreachable("the asking process talks nonsense", where=self._where)
        return found

    def _died(self) -> PoolUnreachable:
        return PoolUnreachable("the asking process died over it", where=self._where)

    def kill(self) -> None:
        """Whatever it does. Harmless when it has ended."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            os.close(self._handle)
            self._handle = None
        self._writer.close()
