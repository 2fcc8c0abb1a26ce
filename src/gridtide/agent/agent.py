"""The agent: joins the service, pulls jobs, runs them, delivers their results, leaves; or keeps a batch node running.

One file, standard library only, Python 3.8 or later, started as ``python3 -I agent.py --context FILE``. It speaks what
docs/worker-protocol.md says; docs/explanation/agent.md tells why it is built like this. Three kinds of process:

    agent      one asyncio loop: all of the talking, no waiting that blocks; may be killed and started again
    zygote     forked first, before there are threads or secrets; forks a runner per job (2 ms instead of a new Python)
    runner     one per attempt, a session of its own: starts the job, enforces its limits, writes ``result.json``

In a node of a batch system (``kind`` "batch" in the answer to the join) the agent pulls no jobs: it writes the ordered
files, runs the ordered commands and keeps the ordered services running; each is a process that the zygote forked.

All that matters is on disk, so jobs and services outlive the agent:

    context.json  agent.json  taken  agent.lock  cache/<digest>
    jobs/<job>-<attempt>/  assignment.json  runner.json  result.json  cancel  stdout  stderr  tmp/  work/
    batch/ready  batch/closed  batch/<service or command>/  program.json  process.json  result.json  output  output.1
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import fcntl
import glob
import grp
import hashlib
import ipaddress
import json
import os
import platform
import posixpath
import pwd
import random
import re
import resource
import secrets
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, Tuple, TypeVar, Union
from urllib.parse import quote, urlsplit

VERSION = "0.1.0"
PIECE = 256 * 1024
"""Bytes per read and write, and most of a log stream that rides along in ``finished`` (the protocol's figure)."""
LOG_POST = 1024 * 1024
"""Most bytes per log request; the service refuses more."""
LOG_EVERY = 1.0
"""Seconds between two looks at a running job's output; less costs the service a request per job that prints."""
POLL = 20.0
"""Seconds that the service may hold a question for a job; an agent that leaves may have to wait that long."""
PATIENCE = 30.0
"""Seconds without a byte after which a request counts as not answered."""
DELIVERY = 86400.0
"""Seconds for which a result is offered to a silent service: the protocol's day."""
FAREWELL = 60.0
"""Seconds for which ``done`` is offered; an empty machine that stays longer costs money for nothing."""
GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL: what jobs are promised for tidying up."""
SAMPLE = 1.0
"""Seconds between two looks at a job's memory; less costs a scan of /proc each time."""
STUBBORN = 30.0
"""Seconds of SIGKILL after which a process counts as impossible to end (it hangs in the kernel)."""
SPARE = 32 * 1024
"""Bytes set aside at the start of a job, so that its result can be written when the disk is full."""
CACHE = 1024 * 1024 * 1024
"""Bytes of input files kept for the next job; at most a tenth of the machine's disk is taken."""
TEXT_LIMIT = 2000
"""Characters of a result's text; the service refuses a much longer one."""
ANSWER_LIMIT = 16 * 1024 * 1024
"""Bytes of an answer that is not a file; a longer one is nonsense and would only fill the memory."""
OUTPUT = 1024 * 1024
"""Bytes of a service's output after which it begins anew; the part before is kept beside it."""
STEADY = 60.0
"""Seconds after which a service counts as running well: when it ends, it is started again without a long pause."""
PREPARED = 600.0
"""Seconds that a command which makes the node ready may take; one that hangs would keep the machine useless."""
ORDERED = 60.0
"""Seconds that a local drain or resume may take: with the network gone, a batch system's own tools like to hang."""
LOOKS = 2
"""Looks in a row that must find no running job before a node leaves; one may fall between two processes of a job."""
LISTED = 1000
"""Most running jobs in a sign of life; the service refuses more than 1024."""
TOKEN_OPEN_HOSTS = ("localhost", "10.0.2.2")
"""Names that plain HTTP may go to beside loopback addresses; the second is the host seen from QEMU's user network."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

Json = Dict[str, Any]
T = TypeVar("T")


def say(text: str) -> None:
    """One line to the log. A log that cannot be written (a full disk) stops nothing."""
    line = "%s %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), " ".join(text.split()))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line)
        sys.stderr.flush()


def describe(error: BaseException) -> str:
    """An exception in a few words."""
    return (str(error) if isinstance(error, (OSError, ValueError)) else "") or type(error).__name__


def write_atomic(path: Path, text: str, *, sync: bool = False) -> None:
    """Replace the file as a whole, readable by its owner only. OSError when the disk does not take it."""
    partial = path.with_name(path.name + ".new")
    with open(os.open(str(partial), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
        if sync:
            handle.flush()
            os.fsync(handle.fileno())
    os.replace(str(partial), str(path))


def read_json(path: Path) -> Optional[Json]:
    """The object in the file; None when there is no file, or no whole one (the machine lost power)."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def boot_report(boot: Json) -> Json:
    """What ``boot.json`` says (seconds of the machine's boot clock), and now; for a machine that was continued from a
    saved state the clock began when it was continued. What is no plain number is left out: no join may fail for it."""
    names = ("origin", "user_space", "context", "agent")
    told = {name: boot[name] for name in names if isinstance(boot.get(name), (int, float))}
    report: Json = {name: float(value) for name, value in told.items() if abs(value) < 1e9}
    report["now"] = time.clock_gettime(time.CLOCK_BOOTTIME) - report.pop("origin", 0.0)
    return report


def remove_tree(path: Path) -> None:
    """Remove a directory, also one whose owner took his own rights away."""
    shutil.rmtree(str(path), ignore_errors=True)
    if path.exists():
        for directory, _, _ in os.walk(str(path)):
            for name in [directory] + [
                entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)
            ]:
                with contextlib.suppress(OSError):
                    os.chmod(name, 0o700)
        shutil.rmtree(str(path), ignore_errors=True)


def forget_attempt(directory: Path) -> None:
    """Remove a job's directory; first the assignment: with half of the rest gone it would look like a new job."""
    with contextlib.suppress(OSError):
        (directory / "assignment.json").unlink()
    remove_tree(directory)


def safe_path(name: str) -> str:
    """The name, normalised, if it stays below the job's directory. ValueError otherwise."""
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/") or name.endswith("/"):
        raise ValueError("the file name %r does not stay in the job's directory" % name)
    return posixpath.normpath(name)


# --- what the machine is told ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resources:
    """Cores, memory in MiB, disk in MiB, GPUs."""

    cores: int = 0
    memory: int = 0
    disk: int = 0
    gpus: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Resources:
        """Missing amounts are 0. ValueError when one is not a number."""
        try:
            return cls(*(max(0, int(values.get(name) or 0)) for name in ("cores", "memory", "disk", "gpus")))
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError("resources are not numbers") from error

    @classmethod
    def of_machine(cls, directory: Path) -> Resources:
        """Measured: cores this process may use, all memory, free disk, NVIDIA devices."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        gpus = len(glob.glob("/dev/nvidia[0-9]*"))
        return cls(len(os.sched_getaffinity(0)), pages >> 20, shutil.disk_usage(str(directory)).free >> 20, gpus)

    def minus(self, other: Resources) -> Resources:
        """What is left, never below 0 (the service may have matched generously)."""
        return Resources(
            max(0, self.cores - other.cores),
            max(0, self.memory - other.memory),
            max(0, self.disk - other.disk),
            max(0, self.gpus - other.gpus),
        )


@dataclass
class Context:
    """The context file: who this worker is, whom it trusts, what it has."""

    path: Path
    worker: str
    service: List[str]
    ca: Optional[str]
    join_token: Optional[str]
    shutdown: str
    resources: Resources
    attributes: Dict[str, Any]
    grace: float
    sample: float

    @classmethod
    def load(cls, path: Path) -> Context:
        """ValueError or OSError, in one line, when the file cannot be used."""
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or values.get("version") != 1:
            raise ValueError("not a context of version 1")
        services = values.get("service")
        if not isinstance(services, list) or not services:
            raise ValueError("it names no service")
        for address in services:
            check_address(address, has_ca=bool(values.get("ca")))
        if values.get("shutdown", "exit") not in ("exit", "poweroff"):
            raise ValueError("shutdown is neither exit nor poweroff")
        given = values.get("resources")
        return cls(
            path=path,
            worker=worker_name(values.get("worker")),
            service=[address.rstrip("/") for address in services],
            ca=values.get("ca") or None,
            join_token=values.get("join_token"),
            shutdown=values.get("shutdown", "exit"),
            resources=Resources.from_json(given) if given else Resources.of_machine(path.parent),
            attributes=dict(values.get("attributes") or {}),
            grace=float(values.get("grace", GRACE)),
            sample=float(values.get("sample", SAMPLE)),
        )

    def forget_join_token(self) -> None:
        """It is spent: nobody needs to find it here. OSError is left to the caller."""
        values = json.loads(self.path.read_text())
        if values.pop("join_token", None) is not None:
            write_atomic(self.path, json.dumps(values), sync=True)
        self.join_token = None

    def host(self) -> Json:
        """The machine as a ClassAd (attribute names of HTCondor). ``Machine`` is the worker's id, its host name."""
        release = {}
        with contextlib.suppress(OSError):
            for line in Path("/etc/os-release").read_text().splitlines():
                key, _, value = line.partition("=")
                release[key] = value.strip("\"'")
        values = {
            "Cpus": self.resources.cores,
            "Memory": self.resources.memory,
            "Disk": self.resources.disk,
            "Gpus": self.resources.gpus,
            "Arch": platform.machine().upper(),
            "OpSys": platform.system().upper(),
            "OpSysAndVer": release.get("ID", "linux").capitalize() + release.get("VERSION_ID", "").split(".")[0],
            "KernelVersion": platform.release(),
            "Machine": self.worker,
        }
        values.update(self.attributes)
        return values


def worker_name(value: object) -> str:
    """ValueError unless it is a legal host name, as the ids of workers are."""
    if not isinstance(value, str) or not re.match(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", value):
        raise ValueError("it does not name the worker")
    return value


def check_address(address: object, *, has_ca: bool) -> None:
    """ValueError unless a token may be sent there: TLS with a known authority, or plain HTTP that stays on the host."""
    parts = urlsplit(address) if isinstance(address, str) else urlsplit("")
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        if not has_ca:
            raise ValueError("%s needs a ca to trust, the context has none" % address)
        return
    if parts.scheme != "http" or not host:
        raise ValueError("%r is no http or https address" % (address,))
    if host not in TOKEN_OPEN_HOSTS:
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError("no token is sent over plain HTTP to %s; use https" % host)


# --- talking to the service -----------------------------------------------------------------------------------------


class NoAnswer(Exception):
    """The service did not answer, or not with sense; asking again later is right."""

    def __init__(self, text: str, retry_after: Optional[float] = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Refused(Exception):
    """The service answered: no. Asking the same again is useless."""

    def __init__(self, status: int, text: str, values: Json) -> None:
        super().__init__("%d: %s" % (status, text))
        self.status = status
        self.values = values


class LocalTrouble(Exception):
    """This machine's disk did not do as told."""


class GivenUp(Exception):
    """It was tried for as long as it makes sense."""


class Backoff:
    """Growing pauses with jitter, so that agents do not come back all at once."""

    def __init__(self, first: float = 0.2, most: float = 15.0, draw: Callable[[], float] = random.random) -> None:
        self._first, self._most, self._draw = first, most, draw
        self._next = first

    def pause(self, at_least: Optional[float] = None) -> float:
        """Seconds to wait now: half to all of the step, never less than the service asked for."""
        step, self._next = self._next, min(self._most, self._next * 2)
        pause = step * (0.5 + 0.5 * self._draw())
        return max(pause, at_least * (1 + 0.1 * self._draw())) if at_least else pause

    def reset(self) -> None:
        """It worked: start small next time."""
        self._next = self._first


def parse_retry_after(value: Optional[str]) -> Optional[float]:
    """Seconds from either form of the header, at most ten minutes; None when there is none, or nonsense."""
    if value is None:
        return None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = (
            float(value) if re.match(r"[0-9.]+$", value) else parsedate_to_datetime(value).timestamp() - time.time()
        )
        return min(max(seconds, 0.0), 600.0)
    return None


async def in_time(awaitable: Awaitable[T], seconds: float) -> T:
    """Its result, or asyncio.TimeoutError. Unlike ``wait_for`` before Python 3.12 it never swallows a cancellation."""
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


class Bell:
    """Wakes everybody who waits. Take the wait first and look at the state then: so nothing is slept through."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] = asyncio.get_event_loop().create_future()

    def ring(self) -> None:
        """Something changed."""
        self._next.set_result(None)
        self._next = asyncio.get_event_loop().create_future()

    def wait(self) -> asyncio.Future[None]:
        """Done at the next ring. Not to be cancelled: it is shared."""
        return self._next


class Download:
    """Receives a file and its digest. May be started again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: Any = None
        self.size = 0
        self.digest = hashlib.sha256()

    def start(self) -> None:
        """Forget what came before."""
        self.close()
        self.size, self.digest = 0, hashlib.sha256()
        try:
            self._handle = open(str(self._path), "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise LocalTrouble("cannot write %s: %s" % (self._path.name, error.strerror)) from error

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size += len(data)
        self.digest.update(data)
        try:
            view = memoryview(data)
            while view:
                view = view[self._handle.write(view) :]
        except OSError as error:
            raise LocalTrouble("cannot write %s: %s" % (self._path.name, error.strerror)) from error

    def close(self) -> None:
        """Done, or not."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


@dataclass
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: Dict[str, str]
    body: bytes = b""

    def values(self) -> Json:
        """The JSON object; NoAnswer when it is something else."""
        try:
            values = json.loads(self.body)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise NoAnswer("the answer is not a JSON object")
        return values


Body = Union[bytes, Path]


class Connection:
    """One HTTP/1.1 connection that is kept for the next request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.usable = True

    def idle_and_open(self) -> bool:
        """Whether the next request may go over it."""
        return self.usable and not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        """At once, also in the middle of a request."""
        self._writer.transport.abort()

    async def exchange(self, head: bytes, body: Body, patience: float, sink: Optional[Download]) -> Answer:
        """Send and receive. OSError, EOFError, ValueError, asyncio's errors: it did not work."""
        try:
            for data in self._pieces(head, body):
                self._writer.write(data)
                await in_time(self._writer.drain(), PATIENCE)
        except ConnectionError:
            self.usable = False  # it may have answered (too large, say) before it hung up
        answer = self._parse_head(await in_time(self._reader.readuntil(b"\r\n\r\n"), patience))
        while 100 <= answer.status < 200:
            answer = self._parse_head(await in_time(self._reader.readuntil(b"\r\n\r\n"), patience))
        if answer.headers.get("connection", "").lower() == "close":
            self.usable = False
        await self._read_body(answer, sink if answer.status == 200 else None)
        return answer

    @staticmethod
    def _pieces(head: bytes, body: Body) -> Iterator[bytes]:
        if isinstance(body, bytes):
            yield head + body
            return
        yield head
        try:
            with open(os.open(str(body), os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as handle:
                for piece in iter(lambda: handle.read(PIECE), b""):
                    yield piece
        except OSError as error:
            raise LocalTrouble("cannot read %s: %s" % (body.name, error.strerror)) from error

    @staticmethod
    def _parse_head(data: bytes) -> Answer:
        first, *lines = data.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if not words[0].startswith("HTTP/1.") or len(words) < 2 or not re.match("[1-5][0-9][0-9]$", words[1]):
            raise ValueError("the answer is not HTTP")
        pairs = (line.partition(":") for line in lines if line)
        return Answer(int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs})

    async def _read_body(self, answer: Answer, sink: Optional[Download]) -> None:
        collected: List[bytes] = []
        total = 0
        if sink:
            sink.start()
        async for data in self._body(answer):
            total += len(data)
            if sink:
                sink.write(data)
            elif total > ANSWER_LIMIT:
                raise ValueError("the answer is too long")
            else:
                collected.append(data)
        answer.body = b"".join(collected)

    async def _body(self, answer: Answer) -> Any:
        if answer.status in (204, 304):
            return
        if "chunked" in answer.headers.get("transfer-encoding", "").lower():
            while True:
                line = await in_time(self._reader.readuntil(b"\r\n"), PATIENCE)
                left = int(line.split(b";")[0], 16)
                async for data in self._exactly(left):
                    yield data
                while await in_time(self._reader.readuntil(b"\r\n"), PATIENCE) != b"\r\n" and left == 0:
                    pass  # trailers, which nobody needs
                if left == 0:
                    return
        elif "content-length" in answer.headers:
            async for data in self._exactly(int(answer.headers["content-length"])):
                yield data
        else:
            self.usable = False
            raise ValueError("the answer does not say how long it is")

    async def _exactly(self, left: int) -> Any:
        while left:
            data = await in_time(self._reader.read(min(left, PIECE)), PATIENCE)
            if not data:
                raise EOFError("the answer was cut short")
            left -= len(data)
            yield data


class Service:
    """Asks the service, at whichever of its addresses answers. Trusts the context's authority alone."""

    def __init__(self, context: Context) -> None:
        self._addresses = list(context.service)
        self._idle: List[Connection] = []
        self._tls: Optional[ssl.SSLContext] = None
        if context.ca:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self._tls.load_verify_locations(cadata=context.ca)
        self.token = ""
        self.heard = time.monotonic()
        """When the service last answered, by the monotonic clock: the lease counts from here."""

    async def ask(self, method: str, path: str, values: Json, *, token: str = "", wait: float = 0.0) -> Json:
        """A JSON question; an empty answer (204) is an empty object. NoAnswer or Refused."""
        body = json.dumps(values).encode()
        answer = await self.send(method, path, body, kind="application/json", token=token, wait=wait)
        values = {} if answer.status == 204 else answer.values()
        self.heard = time.monotonic()
        return values

    async def put(self, path: str, file: Path) -> None:
        """A file. As :meth:`send`."""
        answer = await self.send("PUT", path, file)
        if answer.status != 201:
            raise NoAnswer("the service answered %d where 201 is right" % answer.status)

    async def send(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        kind: str = "application/octet-stream",
        token: str = "",
        wait: float = 0.0,
        sink: Optional[Download] = None,
    ) -> Answer:
        """Any question. NoAnswer after every address failed once; Refused; LocalTrouble."""
        trouble = ""
        for _ in self._addresses:
            try:
                answer = await self._send_there(method, path, body, kind, token or self.token, wait, sink)
            except asyncio.TimeoutError:
                trouble = "no answer in time from %s" % self._addresses[0]
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                trouble = "%s: %s" % (self._addresses[0], describe(error))
            else:
                return self._judge(answer)
            self._next_address()
        raise NoAnswer(trouble)

    def close(self) -> None:
        """Hang up."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _next_address(self) -> None:
        self.close()
        self._addresses.append(self._addresses.pop(0))

    def _judge(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        if answer.status in (408, 425, 429) or answer.status >= 500 or answer.status < 400:
            self._next_address()
            after = parse_retry_after(answer.headers.get("retry-after"))
            raise NoAnswer("the service answered %d" % answer.status, after)
        try:
            values = answer.values()
        except NoAnswer:
            values = {}
        error = values.get("error")
        text = str(error.get("what", "")) if isinstance(error, dict) else ""
        if answer.status not in (401, 403):
            self.heard = time.monotonic()
        raise Refused(answer.status, text or "refused", values)

    async def _send_there(
        self, method: str, path: str, body: Body, kind: str, token: str, wait: float, sink: Optional[Download]
    ) -> Answer:
        address = urlsplit(self._addresses[0])
        length = len(body) if isinstance(body, bytes) else file_size(body)
        head = (
            "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gridtide-agent/%s\r\nAuthorization: Bearer %s\r\n"
            "Content-Type: %s\r\nContent-Length: %d\r\n\r\n"
            % (method, address.path, path, address.netloc, VERSION, token, kind, length)
        ).encode("latin-1")
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_and_open():
                # The service may be hanging up at this very moment: such a failure means nothing, a new one decides.
                with contextlib.suppress(ConnectionError, EOFError):
                    return await self._use(connection, head, body, wait, sink)
                break
            connection.close()
        return await self._use(
            await self._connect(address.hostname or "", address.port, address.scheme), head, body, wait, sink
        )

    async def _connect(self, host: str, port: Optional[int], scheme: str) -> Connection:
        secure = self._tls if scheme == "https" else None
        opening = asyncio.open_connection(host, port or (443 if secure else 80), ssl=secure)
        return Connection(*await in_time(opening, PATIENCE))

    async def _use(
        self, connection: Connection, head: bytes, body: Body, wait: float, sink: Optional[Download]
    ) -> Answer:
        done = False
        try:
            answer = await connection.exchange(head, body, PATIENCE + wait, sink)
            done = connection.usable
        finally:
            if done:
                self._idle.append(connection)
            else:
                connection.close()  # also when we were cancelled: what is still to come belongs to nobody
        return answer


def file_size(path: Path) -> int:
    """LocalTrouble when there is none."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise LocalTrouble("cannot read %s: %s" % (path.name, error.strerror)) from error


# --- processes ------------------------------------------------------------------------------------------------------


def prctl(option: int, value: int) -> bool:
    """Whether the kernel took it; False too where there is no such call."""
    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def process_stat(pid: int) -> Optional[Tuple[int, int]]:
    """Parent and start time (clock ticks since boot) of a process; None when nothing of it runs any more.

    Fields 3, 4, 20 and 22 of proc(5)'s stat. A zombie with more than one thread lives: only its first has ended.
    """
    try:
        fields = Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ended = fields[0] in "ZX" and int(fields[17]) <= 1
    return None if ended else (int(fields[1]), int(fields[19]))


def all_processes() -> List[int]:
    """Those that /proc lists."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> List[int]:
    """All living processes below ``root``."""
    children: Dict[int, List[int]] = {}
    for pid in all_processes():
        found = process_stat(pid)
        if found:
            children.setdefault(found[0], []).append(pid)
    result: List[int] = []
    level = children.get(root, [])
    while level:
        result += level
        level = [child for pid in level for child in children.get(pid, [])]
    return result


def marked_processes(environment: Mapping[str, str]) -> List[int]:
    """Processes that were started with all of these in their environment."""
    wanted = {("%s=%s" % pair).encode() for pair in environment.items()}
    result = []
    for pid in all_processes():
        with contextlib.suppress(OSError):
            if wanted <= set(Path("/proc/%d/environ" % pid).read_bytes().split(b"\0")):
                result.append(pid)
    return result


def send_signal(processes: List[int], number: int) -> None:
    """To those that are still there."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def memory_of(processes: List[int], *, exact: bool) -> int:
    """Bytes in use: resident pages, or (exact, slower) with shared pages counted once."""
    total = 0
    exact = exact and os.path.exists("/proc/self/smaps_rollup")  # Linux 4.14
    for pid in processes:
        with contextlib.suppress(OSError, ValueError, IndexError):
            if exact:
                text = Path("/proc/%d/smaps_rollup" % pid).read_text()
                total += int(text.split("\nPss:")[1].split()[0]) * 1024
            else:
                total += int(Path("/proc/%d/statm" % pid).read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def signal_name(number: int) -> str:
    """As people know it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def boot_id() -> str:
    """Which start of the machine this is: process numbers of another one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def claim(path: Path) -> bool:
    """Say in this file, which must not be there yet, that this process does the work. False: another one does."""
    found = process_stat(os.getpid())
    mine = path.with_name("%s.%d" % (path.stem, os.getpid()))
    mine.write_text(json.dumps({"pid": os.getpid(), "started": found[1] if found else 0, "boot": boot_id()}))
    try:
        os.link(str(mine), str(path))
    except FileExistsError:
        return False
    finally:
        mine.unlink()
    return True


def claimed_by(path: Path) -> int:
    """Number of the living process that made this claim, or 0."""
    values = read_json(path)
    if not values or values.get("boot") != boot_id():
        return 0
    pid = int(values.get("pid", 0))
    found = process_stat(pid)
    return pid if found and found[1] == values.get("started") else 0


def restore_signals() -> None:
    """For a program that is about to start: what we ignore or block is no business of its."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE", "SIGXFSZ", "SIGCHLD"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def redirect(output: Path, errors: Path) -> None:
    """No input; output to the ends of these files."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for target, path in ((1, output), (2, errors)):
        os.dup2(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), target)


@dataclass(frozen=True)
class Assignment:
    """One attempt of a job, checked: nothing in it points out of the job's directory."""

    job: str
    attempt: int
    executable: str
    arguments: List[str]
    environment: Dict[str, str]
    inputs: List[Json]
    outputs: List[str]
    cores: int
    memory: int
    walltime: float

    @classmethod
    def from_json(cls, values: Json) -> Assignment:
        """ValueError, in one line, when it cannot be run as it is."""
        for name in ("attempt", "cores", "memory", "walltime"):
            if not isinstance(values.get(name), (int, float)):
                raise ValueError("the %s of the job is not a number" % name)
        try:
            result = cls(
                str(values["job"]),
                int(values["attempt"]),
                str(values["executable"]),
                [str(word) for word in values["arguments"]],
                {str(name): str(value) for name, value in dict(values["environment"]).items()},
                [dict(entry, name=safe_path(str(entry["name"]))) for entry in values["inputs"]],
                [safe_path(str(name)) for name in values["outputs"]],
                int(values["cores"]),
                int(values["memory"]),
                float(values["walltime"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("the description of the job is incomplete (%s)" % error) from error
        if any("\0" in text for text in result.arguments + list(result.environment.values())):
            raise ValueError("an argument or a variable holds a zero byte")
        if any("\0" in name or "=" in name or not name for name in result.environment):
            raise ValueError("a variable's name is not legal")
        if not result.executable.startswith("/") and safe_path(result.executable) not in result.input_names():
            raise ValueError("the executable %r is neither an absolute path nor an input file" % result.executable)
        return result

    def input_names(self) -> List[str]:
        """Relative to the job's directory."""
        return [str(entry["name"]) for entry in self.inputs]


def job_environment(assignment: Assignment, directory: Path, worker: str, machine: Optional[str]) -> Dict[str, str]:
    """Nothing of the agent's own but the process cloud's mark, by which it finds all processes of a machine."""
    result = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TMPDIR": str(directory / "tmp"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "OMP_NUM_THREADS": str(max(1, assignment.cores)),
    }
    result.update(assignment.environment)
    result.update(job_mark(assignment.job, assignment.attempt, worker, directory))
    result["GRIDTIDE_CORES"] = str(assignment.cores)
    if machine is not None:
        result["GRIDTIDE_MACHINE"] = machine
    return result


def job_mark(job: str, attempt: int, worker: str, directory: Path) -> Dict[str, str]:
    """The part of the environment by which an attempt's processes are known.

    The directory makes it good on a host with several machines: no other's processes are ever taken for ours.
    """
    names = {"GRIDTIDE_JOB": job, "GRIDTIDE_ATTEMPT": str(attempt), "GRIDTIDE_WORKER": worker}
    return {**names, "HOME": str(directory / "work")}


def find_outputs(work: Path, patterns: List[str]) -> Tuple[List[Json], str]:
    """What was declared and is there, with sizes and digests; and in words what is missing or not acceptable."""
    found: Dict[str, Json] = {}
    problems = []
    home = os.path.realpath(str(work))
    for pattern in patterns:
        literal = os.path.join(home, pattern)
        matches = [literal] if os.path.lexists(literal) else sorted(glob.glob(os.path.join(glob.escape(home), pattern)))
        real = {match: os.path.realpath(match) for match in matches}
        outside = [match for match in matches if os.path.commonpath([real[match], home]) != home]
        files = [match for match in matches if match not in outside and os.path.isfile(real[match])]
        problems += ["output %s leads out of the job's directory" % os.path.relpath(match, home) for match in outside]
        if not matches:
            problems.append("output %s was not made" % pattern)
        elif not files and not outside:
            problems.append("output %s is not a file" % pattern)
        for match in files:
            name = os.path.relpath(match, home)
            found[name] = {"name": name, "file": os.path.relpath(real[match], home), **digest_of(Path(real[match]))}
    return list(found.values()), "; ".join(problems)


def digest_of(path: Path) -> Json:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with open(str(path), "rb", buffering=0) as handle:
        for piece in iter(lambda: handle.read(PIECE), b""):
            digest.update(piece)
            size += len(piece)
    return {"size": size, "digest": digest.hexdigest()}


def end_report(cause: str, text: str) -> Json:
    """A result of an attempt of which nothing ran."""
    return {
        "cause": cause,
        "exit_code": None,
        "signal": None,
        "text": text,
        "wall_seconds": 0.0,
        "cpu_seconds": 0.0,
        "peak_memory": 0,
        "outputs": [],
        "ended": time.time(),
    }


class Runner:
    """Runs one attempt in a process of its own, to its end, whatever becomes of the agent.

    One wait serves everything: ``sigtimedwait`` returns when a child ended, when the agent says cancel (SIGUSR1), or
    when the next deadline is due. As the subreaper it inherits every orphan of the job, so that "no child is left"
    means that nothing of the job is left.
    """

    def __init__(self, order: Json) -> None:
        self.directory = Path(order["directory"])
        self._worker: str = order["worker"]
        self._grace: float = order["grace"]
        self._sample: float = order["sample"]
        self._assignment = Assignment.from_json(read_json(self.directory / "assignment.json") or {})
        self._main = 0
        self._status: Optional[int] = None
        self._peak = 0
        self._cause = "exited"
        self._text = ""
        self._kill_at: Optional[float] = None
        self._stubborn_at: Optional[float] = None

    def run(self) -> None:
        """Claim the attempt, run it, write down how it went. Does nothing when another runner has claimed it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGUSR1})
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a runner ends with its job; SIGKILL is for those who mean it
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
        if not claim(self.directory / "runner.json"):
            return
        started = time.monotonic()
        trouble = self._start()
        if trouble:
            self._write(end_report("not-started", trouble))
            return
        self._watch(started)
        if not subreaper:
            mark = job_mark(self._assignment.job, self._assignment.attempt, self._worker, self.directory)
            send_signal([pid for pid in marked_processes(mark) if pid != os.getpid()], signal.SIGKILL)
        self._write(self._report(time.monotonic() - started))

    def _start(self) -> str:
        """Start the job's main process; returns what went wrong, in words."""
        hear, tell = os.pipe()
        self._main = os.fork()
        if self._main == 0:
            try:
                self._become_job()
            except OSError as error:
                os.write(tell, ("cannot run %s: %s" % (self._assignment.executable, error.strerror)).encode())
            finally:
                os._exit(127)
        os.close(tell)
        with open(hear, "rb") as pipe:  # closed by the exec, without a word, when it worked
            trouble = pipe.read().decode(errors="replace")
        if trouble:
            os.waitpid(self._main, 0)
        return trouble

    def _become_job(self) -> NoReturn:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.umask(0o077)
        restore_signals()
        with contextlib.suppress(OSError):
            # If memory runs out, the kernel shall take the job and not the runner, who can tell what happened.
            Path("/proc/self/oom_score_adj").write_text("1000")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        redirect(self.directory / "stdout", self.directory / "stderr")
        os.chdir(str(self.directory / "work"))
        executable = self._assignment.executable
        path = executable if executable.startswith("/") else str(self.directory / "work" / safe_path(executable))
        environment = job_environment(
            self._assignment, self.directory, self._worker, os.environ.get("GRIDTIDE_MACHINE")
        )
        os.execve(path, [executable, *self._assignment.arguments], environment)  # noqa: S606

    def _watch(self, started: float) -> None:
        deadline = started + self._assignment.walltime
        next_sample = started + min(0.2, self._sample)
        if (self.directory / "cancel").exists():
            self._end("cancelled", "cancelled", gentle=True)
        while self._reap():
            now = time.monotonic()
            if self._cause == "exited" and self._status is None:
                if now >= deadline:
                    self._end("walltime", "ran longer than %g s" % self._assignment.walltime, gentle=True)
                elif now >= next_sample:
                    next_sample = now + self._sample
                    self._check_memory()
            if self._kill_at is not None and now >= self._kill_at:
                send_signal(descendants(os.getpid()), signal.SIGKILL)
                self._stubborn_at = self._stubborn_at or now + STUBBORN
                self._kill_at = now + 0.2
                if now >= self._stubborn_at:
                    self._text += "; a process of it hangs in the kernel and could not be ended"
                    return
            due = [deadline, next_sample] if self._cause == "exited" else []
            due += [] if self._kill_at is None else [self._kill_at]
            found = signal.sigtimedwait({signal.SIGCHLD, signal.SIGUSR1}, max(0.0, min(due) - time.monotonic()))
            if found and found.si_signo == signal.SIGUSR1 and self._cause == "exited":
                self._end("cancelled", "cancelled", gentle=True)

    def _reap(self) -> bool:
        """Collect what ended; whether anything lives. Once the main process has ended, the rest has to go."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._main:
                self._status = status
                self._kill_at = time.monotonic()

    def _end(self, cause: str, text: str, *, gentle: bool) -> None:
        self._cause, self._text = cause, text
        if gentle:
            send_signal(descendants(os.getpid()), signal.SIGTERM)
        self._kill_at = time.monotonic() + (self._grace if gentle else 0.0)

    def _check_memory(self) -> None:
        limit = self._assignment.memory * 1024 * 1024
        processes = descendants(os.getpid())
        used = memory_of(processes, exact=False)
        if used > limit > 0:
            # Shared pages were counted once per process. Twice, because the shares of those that live on grow when
            # others end between two of these readings.
            used = min(memory_of(descendants(os.getpid()), exact=True) for _ in range(2))
        self._peak = max(self._peak, used)
        if used > limit > 0:
            text = "used %d MiB of memory, %d are allowed" % (used >> 20, self._assignment.memory)
            self._end("memory", text, gentle=False)  # no grace: it may grow while we wait

    def _report(self, wall: float) -> Json:
        result = end_report(self._cause, self._text)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["wall_seconds"] = round(wall, 3)
        result["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 3)
        result["peak_memory"] = max(self._peak >> 20, usage.ru_maxrss >> 10)
        if self._status is not None and os.WIFEXITED(self._status):
            result["exit_code"] = os.WEXITSTATUS(self._status)
        elif self._status is not None:
            result["signal"] = os.WTERMSIG(self._status)
        if self._cause == "exited":
            self._add_outputs(result)
            if result["signal"]:
                result["text"] = ("ended by %s" % signal_name(result["signal"])) + self._text
            if (result["exit_code"] != 0 or result["cause"] != "exited") and disk_is_full(self.directory):
                result["text"] += "; the machine's disk is full"
            result["text"] = result["text"].lstrip("; ")
        return result

    def _add_outputs(self, result: Json) -> None:
        try:
            result["outputs"], problems = find_outputs(self.directory / "work", self._assignment.outputs)
        except OSError as error:
            problems = "an output cannot be read: %s" % error.strerror
        if result["exit_code"] == 0 and problems:
            result["cause"] = "output-missing"
            result["text"] = problems + self._text
        elif result["exit_code"] is not None:
            result["text"] = "exited with %d" % result["exit_code"] + self._text

    def _write(self, result: Json) -> None:
        """Into the space set aside for it; on a full disk that is all there is."""
        spare = self.directory / "spare"
        data = json.dumps(result).encode()
        while True:
            try:
                with open(os.open(str(spare), os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as handle:
                    handle.write(data)
                    handle.truncate(len(data))
                os.replace(str(spare), str(self.directory / "result.json"))
                return
            except OSError as error:
                if not self.directory.is_dir():
                    return  # the machine was cleared away: nobody waits for it
                say("job %s: cannot write its result (%s), trying again" % (self._assignment.job, error.strerror))
                time.sleep(1.0)  # another job may end and give its disk back; without a result this one is lost


def disk_is_full(directory: Path) -> bool:
    """Less than 1 MiB, or no file more."""
    found = os.statvfs(str(directory))
    return found.f_bavail * found.f_frsize < 1024 * 1024 or (found.f_files > 0 and found.f_favail == 0)


class Zygote:
    """Forks the runners, and a batch node's programs. Made before there is a thread, a token, a lock or a connection
    that they could inherit.

    A runner says on the same channel that it is done; so its end is known at once, without polling.
    """

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        if os.fork() == 0:
            try:
                self.channel.close()
                self._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def start(self, order: Json) -> None:
        """A runner; or, with "program" in the order, what that directory describes. OSError when the zygote is gone."""
        self.channel.send(json.dumps(order).encode())

    def ended(self) -> Optional[str]:
        """The directory of a runner that is done; None when the zygote is gone. BlockingIOError: nothing now."""
        return self.channel.recv(4096).decode() or None

    @staticmethod
    def _serve(channel: socket.socket) -> None:
        os.setsid()  # a Ctrl-C for the agent is not for those who run jobs
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in map(int, os.listdir("/proc/self/fd")):
            if number > 2 and number != channel.fileno():
                with contextlib.suppress(OSError):
                    os.close(number)
        while True:
            message = channel.recv(65536)
            if not message:
                return  # the agent is gone; the runners go on
            order = json.loads(message)
            if os.fork() == 0:
                try:
                    become_program(Path(order["directory"])) if "program" in order else Runner(order).run()
                except BaseException:  # noqa: BLE001  the last stop before the process ends: leave a trace
                    say("runner of %s: %s" % (order["directory"], traceback.format_exc()))
                finally:
                    with contextlib.suppress(OSError):
                        channel.send(order["directory"].encode())
                    os._exit(0)


# --- one attempt, seen from the agent -------------------------------------------------------------------------------


class JobLost(Exception):
    """Its runner vanished without a result (killed, or the machine restarted): what became of it is not known."""


class LogStream:
    """One of the two outputs: what the service has of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.offset = 0
        self.closed = False
        """The service takes no more of it (its own limit)."""
        self.rewound = False

    def piece(self, most: int) -> bytes:
        """The next bytes that the service does not have."""
        if self.closed:
            return b""
        try:
            with open(str(self.path), "rb", buffering=0) as handle:
                handle.seek(self.offset)
                return handle.read(most)
        except OSError:
            return b""

    def left(self) -> int:
        """Bytes that the service does not have."""
        try:
            return 0 if self.closed else max(0, self.path.stat().st_size - self.offset)
        except OSError:
            return 0

    def last(self) -> Json:
        """What rides along with the report of the end."""
        return {"offset": self.offset, "data": base64.b64encode(self.piece(PIECE)).decode()}

    def rewind(self, length: object) -> None:
        """The service lacks bytes from ``length`` on: send them again, once. Anything else is the end of the stream."""
        self.closed = self.rewound or not isinstance(length, int) or length >= self.offset
        self.rewound = True
        if isinstance(length, int) and not self.closed:
            self.offset = length

    def kept(self, sent: int, length: object) -> None:
        """The service says how much it has, after ``sent`` bytes were sent from ``offset``."""
        if not isinstance(length, int) or length < self.offset + sent:
            self.closed = True
        self.offset = length if isinstance(length, int) else self.offset


class Cache:
    """Input files of earlier jobs, by digest. Jobs can reach it, so every use checks the digest again."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory, self._limit = directory, limit

    def copy(self, digest: str, target: Path) -> bool:
        """Whether the target is that file now. LocalTrouble on a full disk."""
        source = self._directory / digest
        sink = Download(target)
        try:
            with open(str(source), "rb", buffering=0) as handle:
                sink.start()
                for piece in iter(lambda: handle.read(PIECE), b""):
                    sink.write(piece)
            os.utime(str(source))
        except OSError:
            return False
        finally:
            sink.close()
        return sink.digest.hexdigest() == digest

    def keep(self, digest: str, source: Path) -> None:
        """Remember a file that was checked; forget those that were not used for longest."""
        try:
            size = source.stat().st_size
            if size > self._limit // 4:
                return
            self._directory.mkdir(mode=0o700, exist_ok=True)
            files = sorted(
                (entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(str(self._directory))
            )
            used = sum(entry[1] for entry in files)
            for _, length, path in files:
                if used + size > self._limit or path.endswith("/" + digest):
                    os.unlink(path)
                    used -= length
            os.link(str(source), str(self._directory / digest))
        except OSError:
            return  # it is only a cache


class Job:
    """One attempt: prepare, run, watch, deliver. Every step may be begun again after a crash."""

    def __init__(self, agent: Agent, directory: Path, values: Json, *, reattached: bool) -> None:
        self._agent = agent
        self._service = agent.service
        self.directory = directory
        self.key = (str(values["job"]), int(values["attempt"]))
        self._values = values
        try:
            self.need = Resources.from_json(values)
        except ValueError:
            self.need = Resources(cores=1)  # it will not start, and says so in its report
        self.ended = Bell()
        """Rung when the runner says that it is done."""
        self.result: Optional[Json] = None
        self.task: Optional[asyncio.Future[None]] = None
        self._cancelled = False
        self._tick = 0.1 if reattached else LOG_EVERY  # a runner of a former agent can tell us nothing
        self._logs = [LogStream(directory / "stdout"), LogStream(directory / "stderr")]
        self._url = "/v1/pilot/jobs/%s" % quote(self.key[0], safe="")
        self._query = "?attempt=%d" % self.key[1]

    def __str__(self) -> str:
        return "job %s attempt %d" % self.key

    async def live(self) -> None:
        """Until the result is delivered. JobLost or GivenUp."""
        self.result = self.result or self._read_result()
        if self.result is None and not (self.directory / "runner.json").exists():
            trouble = await self._prepare()
            if self._cancelled:
                self._set_result(end_report("cancelled", "cancelled before it started"))
            elif trouble:
                self._set_result(end_report("not-started", trouble))
            else:
                self._agent.start_runner(self)
        if self.result is None:
            await self._watch()
        say("%s: %s" % (self, (self.result or {}).get("text")))
        await self._deliver()

    def cancel(self) -> None:
        """The service wants it ended. Harmless when repeated, or late."""
        if self.result is not None:
            return
        if not self._cancelled:
            say("%s: the service says cancel" % self)
        self._cancelled = True
        with contextlib.suppress(OSError):
            (self.directory / "cancel").touch()  # for a runner that is just starting
        pid = self._runner()
        if pid:
            send_signal([pid], signal.SIGUSR1)

    # --- prepare

    async def _prepare(self) -> str:
        """Make the job's directory with its inputs; returns what went wrong, in words."""
        try:
            assignment = Assignment.from_json(self._values)
            for name in ("work", "tmp"):
                remove_tree(self.directory / name)
                (self.directory / name).mkdir(mode=0o700)
            spare = os.open(str(self.directory / "spare"), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(spare, 0, SPARE)
            finally:
                os.close(spare)
            for entry in assignment.inputs:
                await self._fetch(entry, executable=safe_path(assignment.executable.lstrip("/")) == entry["name"])
                if self._cancelled:
                    return "cancelled"
        except (ValueError, LocalTrouble, Refused, GivenUp) as error:
            return str(error)
        except OSError as error:
            return "cannot make the job's directory: %s" % error.strerror
        return ""

    async def _fetch(self, entry: Json, *, executable: bool) -> None:
        name, digest = str(entry["name"]), str(entry.get("digest", "")).lower()
        target = self.directory / "work" / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not re.match("[0-9a-f]{64}$", digest):
            raise ValueError("input %s has no usable digest" % name)
        large = int(entry.get("size", 0)) > PIECE  # small ones are not worth a thread
        cache = self._agent.cache
        if not (await in_thread(cache.copy, digest, target) if large else cache.copy(digest, target)):
            await self._download(name, digest, int(entry.get("size", -1)), target)
            cache.keep(digest, target)
        target.chmod(0o700 if executable or entry.get("executable") else 0o600)

    async def _download(self, name: str, digest: str, size: int, target: Path) -> None:
        path = "%s/inputs/%s%s" % (self._url, quote(name), self._query)
        for _ in range(3):
            with contextlib.closing(Download(target)) as sink:
                await self._persist(lambda: self._service.send("GET", path, sink=sink), "input %s" % name, running=True)
            if sink.digest.hexdigest() == digest and size in (-1, sink.size):
                return
            say("%s: input %s came damaged" % (self, name))
        raise ValueError("input %s does not have the digest that it should have" % name)

    # --- watch

    def _runner(self) -> int:
        """Process number of the living runner, or 0."""
        return claimed_by(self.directory / "runner.json")

    async def _watch(self) -> None:
        started, ended = time.monotonic(), self.ended.wait()
        pushing: Optional[asyncio.Future[None]] = None
        try:
            while self.result is None:
                await asyncio.wait({ended}, timeout=self._tick)
                told = ended.done()
                ended = self.ended.wait()
                alive = bool(self._runner())
                self.result = self._read_result()  # after the look at the runner: it writes first and ends then
                if self.result is None and not alive:
                    self._without_runner(told or time.monotonic() - started > PATIENCE)
                if self.result is None and (pushing is None or pushing.done()):
                    pushing = asyncio.ensure_future(self._push_logs())
        finally:
            if pushing is not None:
                pushing.cancel()
                await asyncio.wait({pushing})

    def _without_runner(self, for_good: bool) -> None:
        if (self.directory / "runner.json").exists():
            mark = job_mark(*self.key, self._agent.context.worker, self.directory)
            send_signal(marked_processes(mark), signal.SIGKILL)
            raise JobLost()
        if for_good:
            text = (
                "the machine's disk is full" if disk_is_full(self.directory) else "no process could be started for it"
            )
            self._set_result(end_report("not-started", text))

    def _read_result(self) -> Optional[Json]:
        return read_json(self.directory / "result.json")

    def _set_result(self, result: Json) -> None:
        self.result = result
        with contextlib.suppress(OSError):  # on a full disk it is kept in memory alone
            write_atomic(self.directory / "result.json", json.dumps(result))

    async def _push_logs(self, leave: int = 0) -> None:
        """Send what is new, but for the last ``leave`` bytes of each stream. Gives up quietly: it is tried again."""
        started = time.monotonic()
        for log in self._logs:
            while log.left() > leave:
                data = log.piece(LOG_POST)
                try:
                    log.kept(len(data), await self._post_log(log, data))
                except Refused as refusal:
                    log.rewind(refusal.values.get("length") if refusal.status == 409 else None)
                except NoAnswer as silence:
                    if leave == 0:
                        await asyncio.sleep(silence.retry_after or 0)
                        break
                    raise
        await asyncio.sleep(max(0.0, started + LOG_EVERY - time.monotonic()) if leave == 0 else 0)

    async def _post_log(self, log: LogStream, data: bytes) -> object:
        path = "%s/log%s&stream=%s&offset=%d" % (self._url, self._query, log.name, log.offset)
        answer = await self._service.send("POST", path, data)
        return answer.values().get("length")

    # --- deliver

    async def _deliver(self) -> None:
        assert self.result is not None  # noqa: S101
        # With little to upload, the question for the next job rides on the report; it is nobody else's until then.
        small = sum(output["size"] for output in self.result["outputs"]) < 4 * PIECE
        if not (small and self._agent.question.take(self)):
            self._agent.free_changed()
        try:
            for output in self.result["outputs"]:
                await self._upload(output)
            await self._persist(lambda: self._push_logs(leave=PIECE), "log")
            answer, asked = await self._finish()
        finally:
            self._let_others_ask()
        if not answer.get("accepted", True):
            say("%s: its result is not wanted any more" % self)
        if asked is not None:
            self._agent.heed(answer, asked)
        await in_thread(forget_attempt, self.directory)

    def _let_others_ask(self) -> None:
        self._agent.question.give_back(self)
        self._agent.look_again()

    async def _upload(self, output: Json) -> None:
        assert self.result is not None  # noqa: S101
        path = "%s/outputs/%s%s&digest=%s" % (self._url, quote(output["name"]), self._query, output["digest"])
        file = self.directory / "work" / output["file"]
        try:
            await self._persist(lambda: self._service.put(path, file), "output %s" % output["name"])
        except (Refused, LocalTrouble) as trouble:
            if self.result["cause"] == "exited" and self.result["exit_code"] == 0:
                self.result["cause"] = "output-missing"
                self.result["text"] = "output %s could not be delivered: %s" % (output["name"], trouble)

    async def _finish(self) -> Tuple[Json, Optional[float]]:
        """Report the end; returns the answer, and when the question in it was asked (None: there was none)."""
        assert self.result is not None  # noqa: S101
        body = {name: self.result[name] for name in self.result if name not in ("outputs", "ended")}
        body.update(attempt=self.key[1], text=str(body["text"])[:TEXT_LIMIT])
        asked: Optional[float] = None

        async def attempt() -> Json:
            nonlocal asked
            body["logs"] = {log.name: log.last() for log in self._logs if log.left()}
            body["request"] = self._agent.next_question(0.0) if self._agent.question.holder is self else None
            asked = time.monotonic() if body["request"] else None
            return await self._service.ask("POST", self._url + "/finished", body)

        while True:
            try:
                return await self._persist(attempt, "result"), asked
            except Refused as refusal:
                self._let_others_ask()
                if not await self._mend_log(refusal):
                    say("%s: the service does not take its result: %s" % (self, refusal))
                    return {"accepted": False}, None

    async def _mend_log(self, refusal: Refused) -> bool:
        """Whether the report was refused for a gap in a log only, which is filled, or given up, now."""
        for log in self._logs:
            if refusal.status == 409 and refusal.values.get("stream") == log.name and not log.closed:
                log.rewind(refusal.values.get("length"))
                await self._persist(lambda: self._push_logs(leave=PIECE), "log")
                return True
        return False

    async def _persist(self, call: Callable[[], Awaitable[T]], what: str, *, running: bool = False) -> T:
        """Repeat until there is an answer. GivenUp after a day, or when the lease is over and we are not wanted."""
        backoff = Backoff()
        until = time.time() + DELIVERY if running else float((self.result or {}).get("ended", 0)) + DELIVERY
        while True:
            try:
                return await call()
            except NoAnswer as silence:
                trouble, after = str(silence), silence.retry_after
            except Refused as refusal:
                if refusal.status not in (401, 403):
                    raise
                if self._agent.lease_is_over():
                    raise GivenUp("%s: %s" % (what, refusal)) from refusal
                trouble, after = str(refusal), None
            if time.time() > until or (running and (self._cancelled or self._agent.lease_is_over())):
                raise GivenUp("%s: no answer from the service (%s)" % (what, trouble))
            self._let_others_ask()  # what fails may be this job's matter alone
            pause = backoff.pause(after)
            say("%s: %s: %s; again in %.1f s" % (self, what, trouble, pause))
            await asyncio.sleep(pause)


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Run what may block for long beside the loop."""
    return await asyncio.get_event_loop().run_in_executor(None, lambda: function(*arguments))


# --- a node of a batch system ---------------------------------------------------------------------------------------


def is_plain(text: object) -> bool:
    """Whether it can be a name or a word for the system: a string without zero bytes and halves of characters."""
    return isinstance(text, str) and not re.search("[\0\ud800-\udfff]", text)


def texts(value: object, what: str) -> List[str]:
    """A list of strings that programs can be given. ValueError names what it should be."""
    if not isinstance(value, list) or not all(map(is_plain, value)):
        raise ValueError("%s: not a list of strings" % what)
    return value


def command_of(value: object, what: str) -> List[str]:
    """The same, with a program in front."""
    words = texts(value, what)
    if not words or not words[0]:
        raise ValueError("%s: it names no program" % what)
    return words


def objects(values: Mapping[str, Any], name: str) -> List[Json]:
    """A list of objects, maybe empty. ValueError names it."""
    found = values.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError("%s: not a list of objects" % name)
    return found


@dataclass(frozen=True)
class OrderedFile:
    """A file that the batch system needs in its place."""

    path: str
    content: bytes = field(repr=False)
    mode: int
    owner: str

    @classmethod
    def from_json(cls, values: Json) -> OrderedFile:
        """ValueError, in one line, that does not tell the content."""
        path, content = values.get("path"), values.get("content")
        mode, owner = values.get("mode", "0600"), values.get("owner", "root")
        if not isinstance(path, str) or not is_plain(path) or not re.match(r"(/(?!\.\.?(/|\Z))[^/\n]+)+\Z", path):
            raise ValueError("the file %r is not at an absolute, plain path" % (path,))
        if not isinstance(mode, str) or not re.match(r"[0-7]{3,4}\Z", mode):
            raise ValueError("the mode of the file %s is not octal" % path)
        if not isinstance(owner, str) or not owner or not is_plain(owner):
            raise ValueError("the file %s has no owner" % path)
        try:
            return cls(path, str.encode(content), int(mode, 8), owner)  # type: ignore[arg-type]
        except (TypeError, UnicodeError):
            raise ValueError("the content of the file %s is not text" % path) from None

    def write(self) -> None:
        """Put it in its place, as a whole. OSError or ValueError when that does not work.

        A link in that place is replaced, never followed. Without the rights of root all files are our own.
        """
        *parents, name = self.path.split("/")[1:]
        owner = owner_of(self.owner) if os.geteuid() == 0 else None
        parent = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        partial = ".%s.gridtide-new" % name
        try:
            for step in parents:
                below = enter(parent, step)
                os.close(parent)
                parent = below
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(partial, flags, 0o600, dir_fd=parent), "wb", buffering=0) as handle:
                if owner is not None:
                    os.fchown(handle.fileno(), *owner)
                os.fchmod(handle.fileno(), self.mode)  # after the owner, which takes set-user-id bits away
                view = memoryview(self.content)
                while view:
                    view = view[handle.write(view) :]
                os.fsync(handle.fileno())
            os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            os.close(parent)


def enter(parent: int, name: str) -> int:
    """Open a directory below this one, made where it is missing. Links are followed only where root or we made them."""
    made = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        made = True
    flags = os.O_RDONLY | os.O_DIRECTORY
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    trusted = stat.S_ISLNK(found.st_mode) and found.st_uid in (0, os.geteuid())
    handle = os.open(name, flags if trusted else flags | os.O_NOFOLLOW, dir_fd=parent)
    if made:
        os.fchmod(handle, 0o755)  # like any directory of the system, whatever our umask
    return handle


def owner_of(name: str) -> Tuple[int, int]:
    """Number of the user, and of the group of the same name, else of the user's own. ValueError: nobody's name."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ValueError("there is no user %s" % name) from None
    try:
        return user.pw_uid, grp.getgrnam(name).gr_gid
    except KeyError:
        return user.pw_uid, user.pw_gid


@dataclass(frozen=True)
class OrderedService:
    """A program that shall always run."""

    name: str
    command: List[str]
    environment: Dict[str, str]

    @classmethod
    def from_json(cls, values: Json) -> OrderedService:
        """ValueError, in one line."""
        name, environment = values.get("name"), values.get("environment", {})
        if not isinstance(name, str) or not re.match(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}\Z", name):
            raise ValueError("%r is no name of a service" % (name,))
        if not isinstance(environment, dict) or any(not key or "=" in key for key in environment):
            raise ValueError("service %s: its environment is not legal" % name)
        texts([*environment, *environment.values()], "service %s: its environment" % name)
        return cls(name, command_of(values.get("command"), "service %s: its command" % name), dict(environment))


@dataclass(frozen=True)
class BatchOrders:
    """How this machine becomes a node of a batch system, checked before anything is done."""

    files: List[OrderedFile]
    prepare: List[List[str]]
    services: List[OrderedService]
    busy: List[str]
    drain: List[str]
    resume: List[str]

    @classmethod
    def from_json(cls, values: object) -> BatchOrders:
        """ValueError, in one line, when anything is wrong: no part of such orders is followed."""
        if not isinstance(values, dict):
            raise ValueError("they say nothing about the batch system")
        prepare = values.get("prepare", [])
        if not isinstance(prepare, list):
            raise ValueError("prepare: not a list of commands")
        orders = cls(
            [OrderedFile.from_json(item) for item in objects(values, "files")],
            [command_of(words, "command %d of prepare" % number) for number, words in enumerate(prepare, 1)],
            [OrderedService.from_json(item) for item in objects(values, "services")],
            texts(values.get("busy", []), "busy"),
            texts(values.get("drain", []), "drain"),
            texts(values.get("resume", []), "resume"),
        )
        names = [service.name for service in orders.services]
        if len(set(names)) < len(names):
            raise ValueError("two services have the same name")
        return orders


def become_program(directory: Path) -> None:
    """Run what is described there, in a process that the zygote forked: a service in its place, a command to its end.

    Only who makes the claim goes on, whatever else was started for the same program before.
    """
    order = read_json(directory / "program.json") or {}
    os.setsid()
    restore_signals()
    if not claim(directory / "process.json"):
        return
    redirect(directory / "output", directory / "output")
    child = os.fork() if order["ends"] else 0
    if child == 0:
        try:
            os.umask(0o022)
            os.chdir("/")
            os.execvpe(order["command"][0], order["command"], order["environment"])  # noqa: S606
        except OSError as error:
            os.write(2, ("cannot run %s: %s\n" % (order["command"][0], error.strerror)).encode())
        finally:
            os._exit(127)
    status = os.waitpid(child, 0)[1]
    write_atomic(directory / "result.json", json.dumps({"status": status}))


class Program:
    """A command or service of the orders, in a directory of its own. It outlives the agent; the next one finds it."""

    def __init__(self, agent: Agent, name: str, command: List[str], environment: Mapping[str, str]) -> None:
        self._agent = agent
        self.name = name
        self.directory = agent.directory / "batch" / name
        self._command, self._environment = command, environment
        self._claim = self.directory / "process.json"

    def process(self) -> int:
        """Its number while it lives, or 0. A claim of our own bars it, it is not the program."""
        pid = claimed_by(self._claim)
        return 0 if pid == os.getpid() else pid

    def was_claimed(self) -> bool:
        """Whether a process took it on, alive or not."""
        return self._claim.exists()

    def start(self, *, ends: bool) -> None:
        """Ask the zygote for it; only while none lives. OSError when the disk does not take what must be written."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("process.json", "result.json"):
            with contextlib.suppress(FileNotFoundError):
                (self.directory / name).unlink()
        order = {"command": self._command, "environment": self._surroundings(), "ends": ends}
        write_atomic(self.directory / "program.json", json.dumps(order))
        self._agent.start_program(self.directory)

    def _surroundings(self) -> Json:
        result = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
            "LANG": "C.UTF-8",
            "GRIDTIDE_WORKER": self._agent.context.worker,
        }
        result.update(self._environment)
        if "GRIDTIDE_MACHINE" in os.environ:  # the process cloud's mark
            result["GRIDTIDE_MACHINE"] = os.environ["GRIDTIDE_MACHINE"]
        return result

    def bar(self) -> None:
        """One that was asked for and did not begin yet never will: the claim is ours."""
        with contextlib.suppress(OSError):
            claim(self._claim)

    def signal(self, number: int) -> None:
        """To its process; SIGKILL to all of its group."""
        pid = self.process()
        if pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)

    def limit_output(self) -> None:
        """Keep at most twice the limit of what it wrote. It goes on writing to the same file, at its end."""
        output = self.directory / "output"
        with contextlib.suppress(OSError):
            if output.stat().st_size > OUTPUT:
                with open(str(output), "rb") as handle:
                    handle.seek(-OUTPUT, os.SEEK_END)
                    last = handle.read(OUTPUT)
                os.truncate(str(output), 0)
                with open(os.open(str(output) + ".1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as older:
                    older.write(last)

    def last_words(self) -> str:
        """The end of its output, for the log."""
        with contextlib.suppress(OSError):
            with open(str(self.directory / "output"), "rb") as handle:
                handle.seek(max(0, os.fstat(handle.fileno()).st_size - 1000))
                lines = handle.read().decode(errors="replace").split("\n")
            words = " | ".join(line.strip() for line in lines[-6:] if line.strip())
            return "; its last words: " + words if words else ""
        return ""


class Command(Program):
    """A program that ends by itself."""

    async def run(self, limit: float) -> str:
        """To its end; returns what went wrong, in words. One that a former agent started is waited for."""
        old = (self.directory / "result.json").exists()  # its process may need a moment to end
        if old or not self.process():
            with contextlib.suppress(OSError):
                (self.directory / "output").unlink()
            self.start(ends=True)
        asked, result = time.monotonic(), None
        try:
            while True:
                claimed, alive = self.was_claimed(), self.process()
                result = read_json(self.directory / "result.json")  # after the look: it writes first and ends then
                if result is not None:
                    return self._verdict(int(result["status"]))
                if claimed and not alive:
                    return "it was killed" + self.last_words()
                if time.monotonic() - asked > (limit if claimed else min(PATIENCE, limit)):
                    return "it did not end within %g s" % limit if claimed else "no process could be started for it"
                await asyncio.sleep(0.05)
        finally:
            if result is None:  # also when we are to leave
                self.bar()
                self.signal(signal.SIGKILL)

    def _verdict(self, status: int) -> str:
        words = self.last_words()
        if status == 0:
            say("%s: done%s" % (self.name, words))
            return ""
        if os.WIFSIGNALED(status):
            return "ended by %s%s" % (signal_name(os.WTERMSIG(status)), words)
        return "exited with %d%s" % (os.WEXITSTATUS(status), words)


class Daemon(Program):
    """A service: whenever it does not run, it is started."""

    def __init__(self, agent: Agent, service: OrderedService) -> None:
        super().__init__(agent, "service-" + service.name, service.command, service.environment)
        self._pauses = Backoff(first=1.0, most=60.0)
        self._running = 0
        self._since = 0.0
        self._asked: Optional[float] = None
        self._due = 0.0

    def look(self) -> bool:
        """Start it if it is time to; whether that was done. OSError when the disk does not take it."""
        now = time.monotonic()
        claimed, alive = self.was_claimed(), self.process()  # in this order: it may be claimed just now
        self.limit_output()
        if alive:
            self._note_running(alive, now)
            return False
        if self._running or (self._asked is not None and (claimed or now - self._asked > PATIENCE)):
            self._note_end(now)
        if self._asked is not None or now < self._due:
            return False
        self.start(ends=False)
        self._asked = now
        return True

    def _note_running(self, process: int, now: float) -> None:
        if process != self._running:
            say("%s: %s as process %d" % (self.name, "found again" if self._asked is None else "runs", process))
            self._running, self._since, self._asked = process, now, None
        if now - self._since > STEADY:
            self._pauses.reset()

    def _note_end(self, now: float) -> None:
        pause = self._pauses.pause()
        say("%s: it ended; again in %.1f s%s" % (self.name, pause, self.last_words()))
        self._running, self._asked, self._due = 0, None, now + pause


class Node:
    """Makes this machine a node of a batch system, keeps its services running, and knows when it may go.

    Who gets which job, and the drain before an orderly end, are matters between the service and the batch system. The
    node closes itself only when it must go, or when nobody can be asked.
    """

    def __init__(self, agent: Agent, orders: BatchOrders) -> None:
        self._agent, self._orders = agent, orders
        self._directory = agent.directory / "batch"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._daemons = [Daemon(agent, service) for service in orders.services]
        self._ready = self._reads("ready") == boot_id() != ""
        self.closing = self._reads("closed") is not None
        """The local drain was begun and not taken back. A former agent may have done so."""
        self._closed = False
        """It worked, and no service was started since."""
        self._pauses, self._due = Backoff(first=1.0, most=30.0), 0.0
        self._began = time.monotonic()
        self.empty = False
        """Nothing runs any more that it must wait for."""

    def running(self) -> List[str]:
        """The processes that stand for running jobs: name and number."""
        wanted = {name[:15] for name in self._orders.busy}  # the kernel keeps no more (TASK_COMM_LEN)
        found = []
        for pid in all_processes() if wanted else []:
            with contextlib.suppress(OSError):
                name = Path("/proc/%d/comm" % pid).read_text(errors="replace").rstrip("\n")
                if name in wanted and process_stat(pid):
                    found.append("%s %d" % (name, pid))
        return found

    # --- make ready, keep running

    async def serve(self) -> None:
        """Files, commands, then the services, for ever. Nothing is begun in a machine that is to end."""
        pauses = Backoff(first=1.0, most=60.0)
        while not self._ready:
            trouble = "" if self._agent.why_end() else await self._prepare()
            if not (trouble or self._agent.why_end()):
                self._write("ready", boot_id())
                self._ready = True
                break
            pause = pauses.pause()
            if trouble:
                say("%s; again in %.1f s" % (trouble, pause))
            await asyncio.sleep(pause)
        while True:
            self._look_after_services()
            await asyncio.sleep(self._agent.context.sample)

    async def _prepare(self) -> str:
        """Returns what went wrong, in words."""
        for file in self._orders.files:
            try:
                file.write()
            except (OSError, ValueError) as error:
                return "file %s: %s" % (file.path, getattr(error, "strerror", None) or error)
        for number, words in enumerate(self._orders.prepare, 1):
            trouble = await self._run("prepare-%d" % number, words, PREPARED)
            if trouble:
                return trouble
        return ""

    async def _run(self, name: str, words: List[str], limit: float) -> str:
        try:
            trouble = await Command(self._agent, name, words, {}).run(limit)
        except OSError as error:
            trouble = describe(error)
        return "%s (%s): %s" % (name, words[0], trouble) if trouble else ""

    def _look_after_services(self) -> None:
        for daemon in self._daemons:
            try:
                if daemon.look():
                    self._closed = False  # a service that begins anew may have forgotten that it was drained
            except OSError as error:
                say("%s: cannot be started: %s" % (daemon.name, describe(error)))

    # --- close, open again, go

    async def watch(self) -> None:
        """Until it may go: it is to end, or nobody can be asked; it takes no new jobs; and none runs, twice."""
        looks, before = 0, ""
        while looks < LOOKS:
            await asyncio.sleep(self._agent.context.sample)
            why = self._agent.why_end()
            if why != before:
                say("closing this node: %s" % why if why else "the service answers again: this node goes on")
                before, self._due = why, 0.0
            busy = self.running() if why else []
            stopped = self._agent.ordered("stop")  # the queue has confirmed that it is drained, unless forced
            safe = self._closed or not self._ready or stopped
            if why and not self._closed and self._ready and (busy or not stopped):
                await self._close()
            elif self.closing and self._agent.service.heard > self._began and not (why or self._agent.ordered("drain")):
                await self._open()
            looks = looks + 1 if why and safe and not busy else 0
        if before and not self._agent.ordered("stop"):
            self._agent.leave(before)
        self.empty = True
        self._agent.look_again()

    async def _close(self) -> None:
        """Refuse new jobs without anybody's help; what runs goes on."""
        if not self.closing:
            self.closing = True
            self._write("closed", "")
        self._closed = True  # and not any more, when a service is started while the command runs
        if not await self._order("drain", self._orders.drain):
            self._closed = False

    async def _open(self) -> None:
        """Take jobs again."""
        self._closed = False
        if await self._order("resume", self._orders.resume):
            self.closing = False
            with contextlib.suppress(OSError):
                (self._directory / "closed").unlink()

    async def _order(self, name: str, words: List[str]) -> bool:
        """Whether it was done. What fails is tried again, with growing pauses."""
        if time.monotonic() < self._due:
            return False
        trouble = await self._run(name, words, ORDERED) if words else ""
        if not trouble:
            self._pauses.reset()
            return True
        pause = self._pauses.pause()
        say("%s; again in %.1f s" % (trouble, pause))
        self._due = time.monotonic() + pause
        return False

    async def end(self) -> None:
        """End the services: gently, then not; but what stands for a job is never ended."""
        for daemon in self._daemons:
            daemon.bar()
            daemon.signal(signal.SIGTERM)
        patience = time.monotonic() + 3 * self._agent.context.grace  # daemons say goodbye to others over the network
        while any(daemon.process() for daemon in self._daemons):
            if time.monotonic() > patience and not self.running():
                say("services that do not end are killed")
                for daemon in self._daemons:
                    daemon.signal(signal.SIGKILL)
                return
            await asyncio.sleep(0.05)

    # --- what the next agent must know

    def _reads(self, name: str) -> Optional[str]:
        try:
            return (self._directory / name).read_text()
        except OSError:
            return None

    def _write(self, name: str, text: str) -> None:
        try:
            write_atomic(self._directory / name, text)
        except OSError as error:
            # It matters after a restart only.
            say("cannot note on disk that this node is %s: %s" % (name, describe(error)))


# --- the agent ------------------------------------------------------------------------------------------------------


class Question:
    """The agent's one question for a job; whoever asks it (the asker, or a job's last report) holds it.

    Its number changes when a job came, and only then: whatever answer was lost, the next question is the same one and
    gets the job that may have been given already. The count survives a restart.
    """

    def __init__(self, path: Path, series: str) -> None:
        self._path, self._series = path, series
        self.holder: Optional[object] = None
        self.open = False
        """It was asked and no answer has been seen: a job may have been given to us."""
        try:
            self.taken = int(path.read_text())
        except (OSError, ValueError):
            self.taken = 0

    @property
    def number(self) -> str:
        """What the service knows it by."""
        return "%s-%d" % (self._series, self.taken)

    def take(self, holder: object) -> bool:
        """Whether the holder may ask now."""
        if self.holder is None:
            self.holder = holder
        return self.holder is holder

    def give_back(self, holder: object) -> None:
        """Harmless when it is somebody else's."""
        if self.holder is holder:
            self.holder = None

    def next(self) -> None:
        """A job came: the next question is another one."""
        self.taken += 1
        try:
            # One write of constant length in place is whole or not there, and cheaper than a new file for each job.
            handle = os.open(str(self._path), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(handle, b"%020d" % self.taken)
            finally:
                os.close(handle)
        except OSError as error:
            say("cannot count jobs on disk: %s" % error.strerror)  # matters after a restart only: the job is known


class Agent:
    """Joins, asks for jobs while there is room for one, reports, obeys, leaves."""

    def __init__(self, context: Context, zygote: Zygote) -> None:
        self.context = context
        self.service = Service(context)
        self.directory = context.path.parent
        disk = context.resources.disk << 20
        self.cache = Cache(self.directory / "cache", min(CACHE, disk // 10) if disk else CACHE)
        self.question = Question(self.directory / "taken", "unset")
        self._zygote = zygote
        self._state: Json = {}
        self._jobs: Dict[Tuple[str, int], Job] = {}
        self._node: Optional[Node] = None
        """What it keeps running where a batch system hands out the jobs."""
        self._tasks: List[asyncio.Future[None]] = []
        self._changed = Bell()
        self._nudge = Bell()
        self._poll: Optional[asyncio.Future[None]] = None
        self._ordered_at = 0.0
        self._ordered_drain = False
        self._leaving = ""
        """Why it drains for good; empty while it does not."""
        self._stopped = False

    # --- from join to leave

    async def run(self) -> int:
        """The whole life; returns the exit status."""
        loop = asyncio.get_event_loop()
        loop.add_reader(self._zygote.channel.fileno(), self._runners_ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.leave, "told by %s" % signal_name(number))
        try:
            joined = await self._join()
        except OSError as error:
            say("cannot keep a token in %s: %s" % (self.directory, error.strerror))
            joined = False
        status = 0 if joined else 1
        if joined:
            try:
                self._start_work()
            except ValueError as error:
                self.leave("its orders cannot be followed: %s" % error)
                status = 2
            else:
                await self._work()
            await self._say_goodbye()
        self.service.close()
        # All is said: what asyncio has to complain of the connections cut off just now (before Python 3.11) is noise.
        loop.set_exception_handler(lambda *_: None)
        shut_down(self.context.shutdown)
        return status

    def _start_work(self) -> None:
        """Of the kind that the queue wants. ValueError, and nothing was begun, when that cannot be done."""
        works: List[Callable[[], Awaitable[None]]] = [self._keep_contact]
        kind = self._state["joined"].get("kind")
        if kind == "batch":
            self._node = Node(self, BatchOrders.from_json(self._state["joined"].get("batch")))
            works += [self._node.serve, self._node.watch]
        else:
            self._recover()
            works += [self._keep_lease, self._keep_asking] if kind in (None, "pilot") else [self._keep_lease]
        self._tasks = [asyncio.ensure_future(work()) for work in works]

    async def _work(self) -> None:
        changed = self._changed.wait()
        while not self._may_go():
            await asyncio.wait([changed, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            changed = self._changed.wait()
            self._check_tasks()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if self._node is not None:
            await self._node.end()

    async def _join(self) -> bool:
        """Whether the service expects us."""
        path = self.directory / "agent.json"
        self._state = read_json(path) or {}
        if "worker_token" not in self._state:
            token = "gtw_%s.%s" % (self.context.worker, secrets.token_urlsafe(32))
            self._state = {"version": 1, "worker_token": token, "series": secrets.token_hex(8)}
            write_atomic(path, json.dumps(self._state), sync=True)
        self.service.token = self._state["worker_token"]
        self.question = Question(self.directory / "taken", self._state["series"])
        if self.context.join_token:
            answer = await self._ask_to_join()
            if answer is None:
                return False
            queue = answer.get("queue")
            kind = queue.get("kind") if isinstance(queue, dict) else None
            self._state["joined"] = {"lease": 600.0, "heartbeat": 10.0, "kind": kind}
            self._state["joined"]["single_use"] = answer.get("single_use") is True
            if kind == "batch" and isinstance(queue, dict):
                self._state["joined"]["batch"] = queue.get("batch")
            self._note_terms(answer)
            write_atomic(path, json.dumps(self._state), sync=True)
            self.context.forget_join_token()
            say("joined as %s" % self.context.worker)
        elif "joined" not in self._state:
            say("no join token, and never joined: nobody expects this machine")
            return False
        else:
            say("going on as %s" % self.context.worker)
        self.service.heard = time.monotonic()
        if self._state["joined"]["single_use"] and self.question.taken:
            self.leave("its one job was taken")
        return True

    async def _ask_to_join(self) -> Optional[Json]:
        backoff, until = Backoff(), time.monotonic() + DELIVERY
        values: Json = {"worker_token": self.service.token, "host": self.context.host(), "agent": VERSION}
        boot = read_json(self.directory / "boot.json")
        while not self._leaving and time.monotonic() < until:
            if boot is not None:
                values["boot"] = boot_report(boot)
            try:
                return await self.service.ask("POST", "/v1/worker/join", values, token=self.context.join_token or "")
            except Refused as refusal:
                say("nobody expects this machine: the service refused the join (%s)" % refusal)
                return None
            except NoAnswer as silence:
                pause = backoff.pause(silence.retry_after)
                say("join: %s; again in %.1f s" % (silence, pause))
                await asyncio.wait({self._changed.wait()}, timeout=pause)
        return None

    def _note_terms(self, values: Json) -> None:
        for name in ("lease", "heartbeat"):
            given = values.get(name)
            if isinstance(given, (int, float)) and given > 0:
                self._state["joined"][name] = float(given)

    def _recover(self) -> None:
        """Take up what a former agent ran."""
        root = self.directory / "jobs"
        root.mkdir(mode=0o700, exist_ok=True)
        for directory in sorted(root.iterdir()):
            values = read_json(directory / "assignment.json")
            if values is None:
                remove_tree(directory)  # never recorded: the same question gets it again
            else:
                self._add_job(Job(self, directory, values, reattached=True))
                self.question.taken = max(self.question.taken, int(values.get("question", -1)) + 1)
                say("job %(job)s attempt %(attempt)s: found again" % values)

    def _check_tasks(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()  # a defect: end here, loudly; whoever starts us again finds everything on disk
        self._tasks = [task for task in self._tasks if not task.done()]

    def leave(self, why: str) -> None:
        """Drain for good: ask for nothing more, finish what runs, then go."""
        if not self._leaving:
            say("draining, then leaving: %s" % why)
            self._leaving = why
        self._changed.ring()
        self._nudge.ring()

    def _may_go(self) -> bool:
        if self._node is not None:
            return self._node.empty
        if self._jobs or not (self._leaving or self._stopped):
            return False
        return self._stopped or not self.question.open or self.lease_is_over()

    async def _say_goodbye(self) -> None:
        text = ("ordered to stop" if self._stopped else self._leaving)[:900]  # the service takes 1 000
        backoff, until = Backoff(), time.monotonic() + FAREWELL
        while True:
            try:
                await self.service.ask("POST", "/v1/worker/done", {"text": text})
                return say("done: %s" % text)
            except Refused as refusal:
                return say("done: %s (the service: %s)" % (text, refusal))
            except NoAnswer as silence:
                pause = backoff.pause(silence.retry_after)
                if time.monotonic() + pause > until:
                    return say("done: %s (and the service does not answer: %s)" % (text, silence))
                await asyncio.sleep(pause)

    # --- contact and orders

    def lease_is_over(self) -> bool:
        """No answer for longer than the service granted."""
        lease: float = self._state["joined"]["lease"]
        return time.monotonic() - self.service.heard >= lease

    def draining(self) -> bool:
        """Whether no more jobs are wanted, by us or by the service."""
        closed = self._node is not None and self._node.closing
        return bool(self._leaving) or self._ordered_drain or self._stopped or closed

    def why_end(self) -> str:
        """Why a batch node shall become empty and go; nothing while it shall not. Only silence may pass again."""
        ordered = "ordered to stop" if self._stopped else self._leaving
        return ordered or (self._silence() if self.lease_is_over() else "")

    def ordered(self, order: str) -> bool:
        """Whether that ("drain" or "stop") is the service's word."""
        return self._stopped if order == "stop" else self._ordered_drain

    def _silence(self) -> str:
        return "no contact with the service for %g s" % self._state["joined"]["lease"]

    async def _keep_lease(self) -> None:
        """The dead man's switch."""
        while not self.lease_is_over():  # noqa: ASYNC110  time passes by itself: there is no event to wait for
            await asyncio.sleep(max(0.01, self.service.heard + self._state["joined"]["lease"] - time.monotonic()))
        self.leave(self._silence())

    async def _keep_contact(self) -> None:
        """A sign of life per heartbeat; at once when we began to drain or became empty."""
        backoff = Backoff(first=0.2, most=10.0)
        while True:
            nudge = self._nudge.wait()
            pause: float = self._state["joined"]["heartbeat"]
            try:
                await self._sign_of_life()
                backoff.reset()
            except NoAnswer as silence:
                pause = max(min(pause, backoff.pause()), silence.retry_after or 0)
                say("alive: %s; again in %.1f s" % (silence, pause))
            except Refused as refusal:
                say("alive: %s" % refusal)
            await asyncio.wait({nudge}, timeout=pause)

    async def _sign_of_life(self) -> None:
        draining, asked = self.draining(), time.monotonic()
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        running = [{"job": job, "attempt": attempt} for job, attempt in self._jobs]
        if self._node is not None:
            running = [{"job": name, "attempt": 1} for name in self._node.running()[:LISTED]]
        values = {"load": round(load, 3), "running": running, "draining": draining}
        answer = await self.service.ask("POST", "/v1/worker/alive", values)
        self._note_terms(answer)
        self.heed(answer, asked)
        cancel = answer.get("cancel")
        for job in list(self._jobs.values()):
            if isinstance(cancel, list) and job.key[0] in cancel:
                job.cancel()
        if draining:
            self._ask_anew()  # the service knows that we drain: no need to wait until it answers the open question

    def heed(self, answer: Json, asked: float) -> None:
        """Follow the order in an answer to a question asked at that time, and take the job in it.

        An order that was asked for earlier than one already followed is old news.
        """
        order = answer.get("order")
        if asked >= self._ordered_at and order in ("continue", "drain", "stop"):
            self._ordered_at = asked
            drain = order != "continue"
            if drain != self._ordered_drain:
                say("the service says %s" % order)
                self._nudge.ring()  # tell it that we know
            self._ordered_drain = drain
            self._stopped = self._stopped or order == "stop"
        if "job" in answer:
            self.question.open = False
            if answer["job"] is not None:
                self._take_job(answer["job"])
        self._changed.ring()

    # --- jobs

    def free(self) -> Resources:
        """What no running job needs. Jobs that only wait to be delivered need nothing any more."""
        left = self.context.resources
        for job in self._jobs.values():
            if job.result is None:
                left = left.minus(job.need)
        here = shutil.disk_usage(str(self.directory)).free >> 20
        return replace(left, disk=min(left.disk, here))

    def next_question(self, wait: float) -> Optional[Json]:
        """The question as it stands, to be sent by its holder. None when we want no job."""
        free = self.free()
        if not self.question.open and (self.draining() or free.cores < 1):
            return None
        self.question.open = True
        return {"number": self.question.number, "free": asdict(free), "wait": 0.0 if self.draining() else wait}

    def look_again(self) -> None:
        """Something is free that was not: room, or the question."""
        self._changed.ring()

    def free_changed(self) -> None:
        """There is more room than the open question says."""
        self._ask_anew()
        self._changed.ring()

    def _ask_anew(self) -> None:
        if self._poll is not None:
            self._poll.cancel()

    async def _keep_asking(self) -> None:
        backoff = Backoff()
        while True:
            changed = self._changed.wait()
            wanted = self.question.take(self) and self.next_question(POLL)
            if not wanted:
                self.question.give_back(self)
                await asyncio.wait({changed})
                continue
            self._poll = asyncio.ensure_future(self._ask(wanted, backoff))
            try:
                await asyncio.wait({self._poll})
            finally:
                self.question.give_back(self)
                self._poll.cancel()
            if not self._poll.cancelled():
                self._poll.result()
            self._poll = None

    async def _ask(self, question: Json, backoff: Backoff) -> None:
        asked = time.monotonic()
        try:
            answer = await self.service.ask("POST", "/v1/pilot/request", question, wait=question["wait"])
            if "job" not in answer:
                raise NoAnswer("the answer to the request names no job")
            self.heed(answer, asked)
            backoff.reset()
        except (NoAnswer, Refused) as trouble:
            pause = backoff.pause(getattr(trouble, "retry_after", None))
            say("request: %s; again in %.1f s" % (trouble, pause))
            await asyncio.sleep(pause)

    def _take_job(self, values: Any) -> None:
        """Record it, then start it. What cannot even be recorded is refused by its own report."""
        try:
            name, attempt = str(values["job"]), int(values["attempt"])
        except (TypeError, KeyError, ValueError):
            return say("request: the answer holds a job without a name")
        if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", name):
            return say("request: %r is no name of a job" % name)
        if (name, attempt) in self._jobs:
            return self.question.next()
        directory = self.directory / "jobs" / ("%s-%d" % (name, attempt))
        job = Job(self, directory, values, reattached=False)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            write_atomic(directory / "assignment.json", json.dumps(dict(values, question=self.question.taken)))
        except OSError as error:
            job.result = end_report("not-started", "cannot record the job: %s" % error.strerror)
        self.question.next()  # after the record: between the two it is the record that knows
        self._add_job(job)
        if self._state["joined"]["single_use"]:
            self.leave("its one job was taken")
        return None

    def _add_job(self, job: Job) -> None:
        self._jobs[job.key] = job
        job.task = asyncio.ensure_future(self._live(job))

    async def _live(self, job: Job) -> None:
        for trial in range(3):
            try:
                await job.live()
                break
            except JobLost:
                say("%s: its runner is gone and left no result; the service will give the job to another" % job)
                forget_attempt(job.directory)
                self.leave("a job was lost here, this machine is not to be trusted")
                break
            except GivenUp as end:
                say("%s: given up: %s" % (job, end))
                break
            except Exception:  # noqa: BLE001  the barrier of a job's task: one bad job must not end the others
                say("%s: %s" % (job, traceback.format_exc()))
                await asyncio.sleep(1.0 + trial)
        else:
            self.leave("a defect: see the log")
        del self._jobs[job.key]
        self._changed.ring()
        if self.draining():
            self._nudge.ring()

    def start_runner(self, job: Job) -> None:
        """Through the zygote. Without one, begin again with a new one: all is on disk."""
        order = {
            "directory": str(job.directory),
            "worker": self.context.worker,
            "grace": self.context.grace,
            "sample": self.context.sample,
        }
        self._zygote_starts(order)

    def start_program(self, directory: Path) -> None:
        """Likewise, for what is described there."""
        self._zygote_starts({"directory": str(directory), "program": True})

    def _zygote_starts(self, order: Json) -> None:
        try:
            self._zygote.start(order)
        except OSError:
            begin_again()

    def _runners_ended(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    directory = self._zygote.ended()
                except ConnectionError:
                    directory = None
                if directory is None:
                    begin_again()
                for job in self._jobs.values():
                    if str(job.directory) == directory:
                        job.ended.ring()


def begin_again() -> NoReturn:
    """Become a new agent in place of this one. Jobs run on; the new one finds them."""
    say("the process that starts jobs is gone: beginning again")
    os.execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606


def shut_down(how: str) -> None:
    """``exit``: nothing to do. ``poweroff``: by the first means that works."""
    if how != "poweroff":
        return
    for command in (["systemctl", "poweroff"], ["poweroff", "-f"]):
        if shutil.which(command[0]) and subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode == 0:  # noqa: S603
            return
    os.sync()
    ctypes.CDLL(None).reboot(0x4321FEDC)  # RB_POWER_OFF: a machine without either program


async def live(context: Context, zygote: Zygote) -> int:
    """The agent is made inside the loop, because in Python 3.8 its events belong to the loop they are made in."""
    return await Agent(context, zygote).run()


def main() -> int:
    """Exit status 0: left after its work; 1: nobody expects this machine; 2: it cannot work here. (70: a defect.)"""
    parser = argparse.ArgumentParser(description="Gridtide's worker agent")
    parser.add_argument("--context", required=True, type=Path, metavar="FILE")
    path = Path(os.path.abspath(str(parser.parse_args().context)))
    os.umask(0o077)
    zygote = Zygote()
    try:
        context = Context.load(path)
        # Only now: the lock would be inherited by the zygote, and outlive the agent with it.
        lock = os.open(str(path.parent / "agent.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another agent works in %s" % path.parent)
        return 2
    except (OSError, ValueError) as error:
        say("the context %s cannot be used: %s" % (path, describe(error)))
        return 2
    return asyncio.run(live(context, zygote))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # noqa: BLE001  Python's own status would be 1, after which nobody starts us again
        say(traceback.format_exc())
        sys.exit(70)
