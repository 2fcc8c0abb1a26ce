"""Hut: the small cloud of docs/how-to/write-a-cloud-driver.md. Standard library only.

    python hut_service.py DIRECTORY [COMMAND ...]

serves on a loopback port of the kernel's choosing, which it writes into DIRECTORY/url, until standard input is closed;
then all machines end. A machine is a process: COMMAND, in a directory of its own in which ``user-data`` lies. The token
that callers need is in DIRECTORY/token.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = {
    "small": {"cores": 1, "memory": 1024, "disk": 4096, "price": 0.01},
    "large": {"cores": 4, "memory": 4096, "disk": 16384, "price": 0.03},
}
IMAGES = ["worker"]
PAGE = 10


@dataclass
class Machine:
    """``key`` is what its maker calls it: one machine for each, for ever."""

    id: str
    key: str
    kind: str
    labels: dict[str, str]
    process: subprocess.Popen[bytes]

    def row(self) -> dict[str, Any]:
        """As it is listed."""
        state = "on" if self.process.poll() is None else "off"
        kind = {name: KINDS[self.kind][name] for name in ("cores", "memory", "disk")}
        return {"id": self.id, "key": self.key, "state": state, "labels": self.labels, **kind}


@dataclass
class Hut:
    """All of it."""

    directory: Path
    command: list[str]
    token: str
    machines: dict[str, Machine] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def page(self, after: str) -> dict[str, Any]:
        """In the order of their ids."""
        with self.lock:
            ids = sorted(each for each in self.machines if each > after)
            rows = [self.machines[each].row() for each in ids[:PAGE]]
        return {"machines": rows, "next": ids[PAGE - 1] if len(ids) > PAGE else None}

    def make(self, key: str, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The machine of this key, made if it does not exist."""
        if wanted.get("kind") not in KINDS:
            return 400, {"error": f"no such kind: {wanted.get('kind')}"}
        if wanted.get("image") not in (None, *IMAGES):
            return 404, {"error": f"no such image: {wanted.get('image')}"}
        with self.lock:
            for each in self.machines.values():
                if each.key == key:
                    return 200, each.row()
            name = secrets.token_hex(8)
            home = self.directory / name
            home.mkdir()
            (home / "user-data").write_bytes(base64.b64decode(wanted["user_data"]))
            with (home / "console").open("wb") as console:
                process = subprocess.Popen(self.command, cwd=home, stdout=console, stderr=console)
            self.machines[name] = Machine(name, key, wanted["kind"], wanted["labels"], process)
            return 201, self.machines[name].row()

    def end(self, name: str) -> int:
        """Pull the plug."""
        with self.lock:
            found = self.machines.pop(name, None)
        if found is None:
            return 404
        found.process.kill()
        found.process.wait()
        return 204

    def close(self) -> None:
        """End all."""
        for name in list(self.machines):
            self.end(name)


class Handler(BaseHTTPRequestHandler):
    """One call."""

    protocol_version = "HTTP/1.1"
    hut: Hut

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def answer(self, status: int, document: object = None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        parts = urlsplit(self.path)
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        if self.headers.get("authorization") != f"Bearer {self.hut.token}":
            self.answer(401, {"error": "who are you?"})
            return
        match self.command, words:
            case "GET", ["kinds"]:
                self.answer(200, KINDS)
            case "GET", ["images"]:
                self.answer(200, IMAGES)
            case "GET", ["machines"]:
                self.answer(200, self.hut.page(parse_qs(parts.query).get("after", [""])[0]))
            case "PUT", ["machines", key]:
                self.answer(*self.hut.make(key, json.loads(body)))
            case "DELETE", ["machines", name]:
                self.answer(self.hut.end(name))
            case _:
                self.answer(404, {"error": "no such thing"})

    do_GET = do_PUT = do_DELETE = serve


def main() -> None:
    """See the module."""
    directory = Path(sys.argv[1]).absolute()
    directory.mkdir(exist_ok=True)
    token = secrets.token_urlsafe(16)
    (directory / "token").write_text(token)
    (directory / "token").chmod(0o600)
    Handler.hut = Hut(directory, sys.argv[2:] or ["sleep", "600"], token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (directory / "url.new").write_text(f"http://127.0.0.1:{server.server_port}")
    (directory / "url.new").rename(directory / "url")
    sys.stdin.read()
    Handler.hut.close()


if __name__ == "__main__":
    main()
