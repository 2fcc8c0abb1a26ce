"""A small, faithful double of docs/worker-protocol.md over real sockets, whose faults are switched on by a test."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

PATIENCE = 60.0
"""Seconds for anything to come true, on the slowest machine: what comes true ends a wait at once."""


class FaultKind(StrEnum):
    """What goes wrong with one request."""

    LOSE_ANSWER = "lose-answer"
    """Process it, then hang up without a word."""
    HANG_UP = "hang-up"
    """Hang up without processing it."""
    BUSY = "busy"
    """503 with Retry-After."""
    GARBAGE = "garbage"
    """200 with something that is no JSON."""
    TRUNCATE = "truncate"
    """Process it, then send half of the answer."""
    REFUSE = "refuse"
    """409."""


@dataclass
class Fault:
    """Applies to the next ``times`` requests whose path matches ``path``."""

    path: str
    kind: FaultKind
    times: int = 1


@dataclass
class JobState:
    """A job with what the agent delivered of it."""

    values: dict[str, Json]
    number: str = ""
    given: float = 0.0
    finished: dict[str, Json] | None = None
    finished_at: float = 0.0
    reports: int = 0
    cancelled: bool = False
    logs: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    outputs: dict[str, bytes] = field(default_factory=dict)


class ServiceDouble:
    """Jobs are handed out in order. All attributes may be read and set by the test while it serves."""

    def __init__(self, *, lease: float = 30.0, heartbeat: float = 0.2) -> None:
        self.lease, self.heartbeat = lease, heartbeat
        self.single_use = False
        self.order = "continue"
        self.refuse_join = 0
        self.queue: Json = {"kind": "pilot", "settings": {}, "secrets": {}}
        self.log_limit = 1 << 30
        self.worker_token: str | None = None
        self.jobs: dict[str, JobState] = {}
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[float, str, str]] = []
        self.numbers: list[str] = []
        self.signs: list[dict[str, Json]] = []
        self.done: list[str] = []
        self.join_bodies: list[dict[str, Json]] = []
        self.changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._open: set[socket.socket] = set()

    # --- for the test

    def add(self, job: str, executable: str, *arguments: str, **more: Json) -> JobState:
        """Put a job in line."""
        values: dict[str, Json] = {
            "job": job,
            "attempt": 1,
            "executable": executable,
            "arguments": list(arguments),
            "environment": {},
            "inputs": [],
            "outputs": [],
            "cores": 1,
            "memory": 512,
            "walltime": 60.0,
        }
        values.update(more)
        with self.changed:
            self.jobs[job] = JobState(values)
            self.changed.notify_all()
        return self.jobs[job]

    def file(self, name: str, data: bytes, *, executable: bool = False) -> Json:
        """An input file; returns its entry for a job's ``inputs``."""
        self.files[name] = data
        digest = hashlib.sha256(data).hexdigest()
        return {"name": name, "digest": digest, "size": len(data), "executable": executable}

    def fault(self, path: str, kind: FaultKind, times: int = 1) -> None:
        """The next requests to this path go wrong."""
        self.faults.append(Fault(path, kind, times))

    def wait(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """AssertionError when it does not come true in time."""
        with self.changed:
            assert self.changed.wait_for(lambda: bool(condition()), seconds), "it did not happen in time"

    def end_of(self, job: str, seconds: float = PATIENCE) -> dict[str, Json]:
        """The report of the job's end."""
        self.wait(lambda: self.jobs[job].finished, seconds)
        found = self.jobs[job].finished
        assert found is not None
        return found

    def count(self, path: str) -> int:
        """Requests so far whose path matches."""
        return sum(1 for _, _, seen in self.requests if re.search(path, seen))

    # --- up and down

    def start(self, tls: ssl.SSLContext | None = None) -> str:
        """Listen (on the same port as before); returns the address."""
        double = self

        class Handler(_Handler):
            service = double

        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self._server, self._port = server, server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"{'https' if tls else 'http'}://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def is_down(self) -> bool:
        """Between stop and start."""
        return self._server is None

    # --- the protocol

    def next_job(self, number: str, free: Mapping[str, int], wait: float) -> Json:
        """The job of this number again, or the first one that fits, or none after the wait."""
        until = time.monotonic() + wait
        with self.changed:
            self.numbers.append(number)
            while self._server is not None:
                for state in self.jobs.values():
                    if state.number == number:
                        return dict(state.values)
                if self.order != "continue":
                    return None
                for state in self.jobs.values():
                    if not state.number and int(str(state.values["cores"])) <= free["cores"]:
                        state.number, state.given = number, time.monotonic()
                        return dict(state.values)
                if not self.changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    return None
        return None

    def gap(self, state: JobState, body: Mapping[str, Json]) -> dict[str, Json] | None:
        """The stream of which bytes are missing before what rides along."""
        logs = body["logs"]
        assert isinstance(logs, dict)
        for stream, entry in logs.items():
            assert isinstance(entry, dict)
            if int(str(entry["offset"])) > len(state.logs[stream]):
                return {"stream": stream, "length": len(state.logs[stream])}
        return None

    def report(self, state: JobState, body: dict[str, Json]) -> bool:
        """Record an end once; the same report again is accepted again."""
        logs = body.pop("logs")
        assert isinstance(logs, dict)
        for stream, entry in logs.items():
            assert isinstance(entry, dict)
            self.append(state, stream, int(str(entry["offset"])), base64.b64decode(str(entry["data"])))
        body.pop("request", None)
        state.reports += 1
        if state.finished is None:
            state.finished, state.finished_at = body, time.monotonic()
        return True

    def append(self, state: JobState, stream: str, offset: int, data: bytes) -> int | None:
        """The length kept; None for a gap."""
        kept = state.logs[stream]
        if offset > len(kept):
            return None
        state.logs[stream] = (kept + data[len(kept) - offset :])[: self.log_limit]
        return len(state.logs[stream])


class _Handler(BaseHTTPRequestHandler):
    service: ServiceDouble
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    _cut = False

    def setup(self) -> None:
        super().setup()
        self.service._open.add(self.connection)

    def finish(self) -> None:
        self.service._open.discard(self.connection)
        try:
            super().finish()
        except OSError:
            return

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        if self.service.is_down():  # accepted at the very moment of the stop
            self.close_connection = True
            return
        with self.service.changed:
            self.service.requests.append((time.monotonic(), self.command, self.path))
            fault = next((f for f in self.service.faults if f.times and re.search(f.path, self.path)), None)
            if fault:
                fault.times -= 1
        kind = fault.kind if fault else None
        if kind == FaultKind.HANG_UP:
            self.close_connection = True
            return
        if kind == FaultKind.BUSY:
            self._answer(503, {"error": {"kind": "StoreUnavailable", "what": "busy"}}, {"Retry-After": "0.5"})
            return
        if kind == FaultKind.GARBAGE:
            self._send(200, b"<html>welcome</html>", {})
            return
        if kind == FaultKind.REFUSE:
            self._answer(409, {"error": {"kind": "Conflict", "what": "not now"}})
            return
        if kind in (FaultKind.LOSE_ANSWER, FaultKind.TRUNCATE):
            self._cut = True
        self._route(parts.path, {name: value[0] for name, value in parse_qs(parts.query).items()}, body)
        if kind == FaultKind.LOSE_ANSWER:
            self.close_connection = True
        with self.service.changed:
            self.service.changed.notify_all()

    def _route(self, path: str, query: Mapping[str, str], body: bytes) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if path == "/v1/worker/join":
            self._join(token, json.loads(body))
            return
        if token != self.service.worker_token:
            self._answer(401, {"error": {"kind": "AccessDenied", "what": "bad token"}})
            return
        if path == "/v1/worker/alive":
            self._alive(json.loads(body))
        elif path == "/v1/worker/done":
            self.service.done.append(json.loads(body)["text"])
            self._send(204, b"", {})
        elif path == "/v1/pilot/request":
            asked = json.loads(body)
            job = self.service.next_job(asked["number"], asked["free"], asked["wait"])
            self._answer(200, {"order": self.service.order, "job": job})
        else:
            _, _, _, _, job_id, verb, *rest = path.split("/")
            self._job(self.service.jobs[unquote(job_id)], verb, unquote("/".join(rest)), query, body)

    def _join(self, token: str, body: dict[str, Json]) -> None:
        service = self.service
        service.join_bodies.append(body)
        offered = str(body["worker_token"])
        if service.refuse_join:
            self._answer(service.refuse_join, {"error": {"kind": "AccessDenied", "what": "not expected"}})
            return
        if token != "gtj_w1.SECRET" or service.worker_token not in (None, offered):
            self._answer(401, {"error": {"kind": "AccessDenied", "what": "spent"}})
            return
        service.worker_token = offered
        terms: dict[str, Json] = {"lease": service.lease, "heartbeat": service.heartbeat}
        terms |= {"worker": "w1", "group": "grid", "single_use": service.single_use, "queue": service.queue}
        self._answer(200, terms)

    def _alive(self, body: dict[str, Json]) -> None:
        service = self.service
        service.signs.append(body)
        cancel: list[Json] = [job for job, state in service.jobs.items() if state.cancelled]
        self._answer(
            200,
            {"order": service.order, "lease": service.lease, "heartbeat": service.heartbeat, "cancel": cancel},
        )

    def _job(self, state: JobState, verb: str, name: str, query: Mapping[str, str], body: bytes) -> None:
        service = self.service
        if verb == "inputs":
            self._send(200, service.files[name], {"Content-Type": "application/octet-stream"})
        elif verb == "log":
            length = service.append(state, query["stream"], int(query["offset"]), body)
            kept = len(state.logs[query["stream"]])
            self._answer(409 if length is None else 200, {"length": kept})
        elif verb == "outputs":
            if hashlib.sha256(body).hexdigest() != query["digest"]:
                self._answer(400, {"error": {"kind": "InvalidRequest", "what": "digest"}})
            else:
                state.outputs[name] = body
                self._send(201, b"", {})
        else:
            values = json.loads(body)
            asked = values.get("request")
            with service.changed:
                gap = service.gap(state, values)
                accepted = gap is None and service.report(state, values)
            if gap is not None:
                self._answer(409, {"error": {"kind": "Conflict", "what": "a gap"}, **gap})
                return
            job = service.next_job(asked["number"], asked["free"], asked["wait"]) if asked else None
            order = service.order if asked else "continue"
            self._answer(200, {"accepted": accepted, "order": order, "job": job})

    def _answer(self, status: int, values: Json, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(values).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        if self._cut and self.service.faults and self._lost():
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self._cut:
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()

    def _lost(self) -> bool:
        """Whether nothing at all is to be sent."""
        seen = [f for f in self.service.faults if re.search(f.path, self.path)]
        return bool(seen) and seen[0].kind == FaultKind.LOSE_ANSWER
