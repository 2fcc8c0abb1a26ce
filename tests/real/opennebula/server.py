"""A double of OpenNebula's XML-RPC API, on a loopback port: what a driver of ours calls, and no more.

Written from the public reference ("XML-RPC API": signatures, ``[success, value, code]``), the published schemas and
the words that OpenNebula's source has for its refusals. It is a program of the tests: that OpenNebula itself does the
same is not shown by it.

``hook`` stands in front of every method. It gets the method and its arguments, and may answer in its place.
"""

from __future__ import annotations

import threading
import time
import xmlrpc.client
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from xml.etree import ElementTree

from tests.real.opennebula import documents
from tests.real.opennebula.documents import Attributes, Machine, Thing

ADMINISTRATOR: Final = 0
OURS: Final = 2
THEIRS: Final = 3
GROUP: Final = 100
PASSWORD: Final = "not-shown-anywhere"

PENDING, HOLD, ACTIVE, SUSPENDED, DONE, POWEROFF = 1, 2, 3, 5, 6, 8
PROLOG, RUNNING, EPILOG = 1, 3, 11

_UNDERSTOOD: Final = {"CPU", "VCPU", "MEMORY", "DISK", "NIC", "CONTEXT", "GRAPHICS", "OS", "PCI"}
"""Attributes of a template that are a machine's own; all others become its user template."""
_ENDABLE: Final = {3, 12, 16, 36, 37, 38, 39, 40, 41, 42, 44, 46, 47, 48, 49, 50, 61}
"""Life-cycle states in which a machine may be terminated."""

Answer = tuple[bool, Any, int] | Exception
Hook = Callable[[str, tuple[Any, ...]], Answer | None]


class Refusal(Exception):
    """With OpenNebula's code and words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class OpenNebula:
    """The whole of it: users 2 and 3 of group 100, two templates, an image and a network."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.version = "6.10.0"
        self.pace = 0.0
        """Seconds that a machine takes from one state to the next."""
        self.hosts = True
        """Whether there is room for a machine."""
        self.descending = True
        """The order of listings: API_LIST_ORDER."""
        self.empty()

    def empty(self) -> None:
        """As new."""
        with self._lock:
            self.hook: Hook | None = None
            self.calls: Counter[str] = Counter()
            self.machines: dict[int, Machine] = {}
            self.secrets = {"gridtide": (OURS, PASSWORD), "other": (THEIRS, "theirs"), "oneadmin": (0, "admin")}
            self.tokens: dict[str, int] = {}
            self.quota: dict[str, dict[str, str]] = {}
            """Limits, by ``user``, ``group``, ``default user`` and ``default group``."""
            small: Attributes = [
                ("CPU", "1"),
                ("VCPU", "2"),
                ("MEMORY", "4096"),
                ("DISK", {"IMAGE": "base", "IMAGE_UNAME": "oneadmin"}),
                ("NIC", {"NETWORK": "public"}),
                ("CONTEXT", {"NETWORK": "YES", "SSH_PUBLIC_KEY": "$USER[SSH_PUBLIC_KEY]", "START_SCRIPT": "reboot"}),
            ]
            large: Attributes = [("CPU", "4"), ("MEMORY", "16384"), ("DISK", {"IMAGE_ID": "0", "SIZE": "30720"})]
            self.templates = [Thing(5, OURS, "small", small), Thing(6, ADMINISTRATOR, "large", large)]
            self.images = [
                Thing(0, ADMINISTRATOR, "base", size=10240),
                Thing(7, OURS, "worker-2026.11", size=8192),
                Thing(8, THEIRS, "worker-2026.12", size=8192),
                Thing(9, OURS, "data", size=8192, persistent=1),
                Thing(10, OURS, "broken", size=8192, state=5),
            ]
            self.networks = [Thing(1, ADMINISTRATOR, "public"), Thing(2, THEIRS, "private")]
            self.clusters = {0: "default", 100: "physics"}
            self._next = 40

    def machine(self, number: int | str) -> Machine:
        """Of this id, also when it is done."""
        return self.machines[int(number)]

    def living(self) -> list[Machine]:
        """All that are not done."""
        with self._lock:
            self._advance()
            return [each for each in self.machines.values() if each.state != DONE]

    def put(self, number: int | str, state: int, life_cycle: int = 0) -> None:
        """Move a machine into a state, as its host or an administrator does."""
        with self._lock:
            each = self.machines[int(number)]
            each.state, each.life_cycle, each.since = state, life_cycle, time.monotonic()
            each.ran = each.ran or state == ACTIVE

    def make(self, uid: int, name: str, rows: Attributes, *, hold: bool = False) -> int:
        """A machine, without any check."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            own: Attributes = [(key, value) for key, value in rows if key in _UNDERSTOOD]
            said: Attributes = [(key, value) for key, value in rows if key not in _UNDERSTOOD]
            self.machines[number] = Machine(number, uid, GROUP, name, own, said, HOLD if hold else PENDING)
            return number

    # --- one call

    def answer(self, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Raises xmlrpc.client.Fault."""
        with self._lock:
            self.calls[method] += 1
        # A hook may wait, so it must not hold the lock.
        given = None if self.hook is None else self.hook(method, arguments)
        if isinstance(given, Exception):
            raise given
        if given is not None:
            return given if given[0] else (*given, -1, 0)
        with self._lock:
            self._advance()
            try:
                return (True, self._do(method, arguments), 0)
            except Refusal as refusal:
                return (False, f"[{method}] {refusal.words}", refusal.code, -1, 0)

    def _do(self, method: str, arguments: tuple[Any, ...]) -> Any:
        found = getattr(self, "_" + method.removeprefix("one.").replace(".", "_"), None)
        if found is None or not method.startswith("one."):
            raise xmlrpc.client.Fault(-506, f"Method '{method}' not defined")
        if not arguments or not isinstance(arguments[0], str):
            raise xmlrpc.client.Fault(-501, "Not enough parameters")
        user, _, secret = arguments[0].partition(":")
        uid, password = self.secrets.get(user, (-1, ""))
        ends = self.tokens.get(secret, 0)
        if uid < 0 or (secret != password and not (ends == -1 or ends > time.time())):
            raise Refusal(0x0100, "User couldn't be authenticated, aborting call.")
        try:
            return found(uid, *arguments[1:])
        except TypeError as error:
            raise xmlrpc.client.Fault(-501, str(error)) from error

    def _advance(self) -> None:
        """The scheduler places what waits; hosts boot and end."""
        now = time.monotonic()
        for each in self.machines.values():
            if now - each.since < self.pace:
                continue
            if each.state == PENDING and self.hosts:
                self.put(each.id, ACTIVE, RUNNING)
            elif each.state == PENDING and not each.said("SCHED_MESSAGE"):
                each.user_template.append(("SCHED_MESSAGE", "Cannot dispatch VM: No host meets capacity"))
            elif each.state == ACTIVE and each.life_cycle == EPILOG:
                self.put(each.id, DONE)

    # --- methods

    def _system_version(self, _uid: int) -> str:
        return self.version

    def _user_info(self, uid: int, number: int) -> str:
        if number not in (-1, uid):
            raise Refusal(0x0200, f"User [{uid}] : Not authorized to perform MANAGE USER [{number}].")
        name = next(name for name, (known, _) in self.secrets.items() if known == uid)
        tokens = self.tokens if uid == OURS else {}
        return documents.user(uid, name, self._used("user", uid), self.quota.get("default user"), tokens)

    def _group_info(self, uid: int, number: int) -> str:
        assert number in (-1, GROUP)
        return documents.group(GROUP, self._used("group", uid), self.quota.get("default group"))

    def _used(self, whose: str, uid: int) -> dict[str, str] | None:
        counted = [
            each for each in self.machines.values() if each.state != DONE and (whose == "group" or each.uid == uid)
        ]
        if not counted and whose not in self.quota:
            return None
        limits = {"VMS": "-1", "CPU": "-1", "MEMORY": "-1", "RUNNING_VMS": "-1", **self.quota.get(whose, {})}
        running = [each for each in counted if each.state not in (POWEROFF, SUSPENDED)]
        used = {
            "VMS_USED": str(len(counted)),
            "CPU_USED": str(sum(float(each.first("CPU") or 1) for each in counted)),
            "MEMORY_USED": str(sum(int(each.first("MEMORY") or 0) for each in counted)),
            "RUNNING_VMS_USED": str(len(running)),
        }
        return {**limits, **used}

    def _check_quota(self, uid: int, wanted: Machine) -> None:
        needs = {"VMS": 1.0, "CPU": float(wanted.first("CPU") or 1), "MEMORY": float(wanted.first("MEMORY") or 0)}
        needs["RUNNING_VMS"] = 1.0
        for whose, number in (("user", uid), ("group", GROUP)):
            used = self._used(whose, uid) or {}
            for metric, need in needs.items():
                limit = float(used.get(metric, "-1"))
                if limit == -1.0:
                    limit = float(self.quota.get(f"default {whose}", {}).get(metric, "-2"))
                if limit >= 0 and float(used.get(f"{metric}_USED", "0")) + need > limit:
                    what = f"{whose} [{number}] limit of {limit:g} reached for {metric} quota in VM"
                    raise Refusal(0x0200, f"User [{uid}] : {what}.")

    def _vmpool_info(self, uid: int, whose: int, start: int, end: int, state: int) -> str:
        assert whose in (-1, -2, -3)
        assert -2 <= state <= 11
        rows = [
            each
            for each in sorted(self.machines.values(), key=lambda each: each.id, reverse=self.descending)
            if (each.uid == uid or whose != -3)
            and (state == -2 or (state == -1 and each.state != DONE) or each.state == state)
        ]
        rows = rows[start : start - end] if end < -1 else rows
        return documents.pool("VM_POOL", (documents.machine(each, extended=False) for each in rows))

    def _vmpool_infoset(self, _uid: int, numbers: str, extended: bool) -> str:
        asked = {int(each) for each in numbers.split(",")}
        rows = [self.machines[each] for each in asked if each in self.machines]
        return documents.pool("VM_POOL", (documents.machine(each, extended=extended) for each in rows))

    def _vm_info(self, _uid: int, number: int) -> str:
        if number not in self.machines:
            raise Refusal(0x0400, f"Error getting virtual machine [{number}].")
        return documents.machine(self.machines[number], extended=True)

    def _vm_action(self, uid: int, action: str, number: int) -> int:
        if number not in self.machines:
            raise Refusal(0x0400, f"Error getting virtual machine [{number}].")
        each = self.machines[number]
        if each.uid != uid:
            raise Refusal(0x0200, f"User [{uid}] : Not authorized to perform MANAGE VM [{number}].")
        if action == "release" and each.state == HOLD:
            self.put(number, PENDING)
        elif action == "terminate-hard" and each.state == ACTIVE and each.life_cycle in _ENDABLE:
            self.put(number, ACTIVE, EPILOG)
        elif action == "terminate-hard" and each.state not in (ACTIVE, DONE):
            self.put(number, DONE)
        elif action != "terminate-hard" or each.state != DONE:
            why = f"wrong state {each.state}/{each.life_cycle}"
            raise Refusal(0x0800, f'Error performing action "{action}": Could not {action} VM {number}, {why}.')
        return number

    def _template_instantiate(self, uid: int, number: int, name: str, hold: bool, extra: str, persistent: bool) -> int:
        assert persistent is False
        kind = next((each for each in self.templates if each.id == number), None)
        if kind is None:
            raise Refusal(0x0400, f"Error getting virtual machine template [{number}].")
        try:
            more = _parsed(extra)
        except ElementTree.ParseError as error:
            raise Refusal(0x2000, "Cannot parse the template") from error
        for key, value in more:
            if key == "NIC" and "MAC" in value:
                raise Refusal(0x0200, f"User [{uid}] : User Template includes a restricted attribute NIC/MAC.")
            if key == "DISK" and not isinstance(value, str):
                self._check_image(value)
        replaced = {key for key, _ in more}
        rows = [(key, value) for key, value in kind.attributes if key not in replaced] + more
        self._check_quota(uid, Machine(-1, uid, GROUP, name, rows, [], HOLD))
        return self.make(uid, name, rows, hold=hold)

    def _check_image(self, disk: Any) -> None:
        if "IMAGE_ID" in disk and int(disk["IMAGE_ID"]) not in {each.id for each in self.images}:
            raise Refusal(0x0400, f"Error getting image [{disk['IMAGE_ID']}].")

    def _templatepool_info(self, uid: int, _whose: int, _start: int, _end: int) -> str:
        return self._things("VMTEMPLATE", self.templates)

    def _imagepool_info(self, uid: int, _whose: int, _start: int, _end: int) -> str:
        return self._things("IMAGE", self.images)

    def _vnpool_info(self, uid: int, _whose: int, _start: int, _end: int) -> str:
        return self._things("VNET", self.networks)

    def _things(self, name: str, rows: list[Thing]) -> str:
        return documents.pool(f"{name}_POOL", (documents.thing(name, each) for each in rows))

    def _clusterpool_info(self, _uid: int) -> str:
        rows = (
            documents.element("CLUSTER", documents.leaves({"ID": key, "NAME": name}))
            for key, name in self.clusters.items()
        )
        return documents.pool("CLUSTER_POOL", rows)


def _parsed(extra: str) -> Attributes:
    found: Attributes = []
    for each in ElementTree.fromstring(extra) if extra else ():  # noqa: S314 - of our own driver
        inside = {part.tag: part.text or "" for part in each}
        found.append((each.tag, inside or each.text or ""))
    return found


@contextmanager
def serve(cloud: OpenNebula) -> Iterator[str]:
    """Its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for an answer: two of them wait for each other

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                arguments, method = xmlrpc.client.loads(body)
                answer = xmlrpc.client.dumps((list(cloud.answer(str(method), arguments)),), methodresponse=True)
            except xmlrpc.client.Fault as fault:
                answer = xmlrpc.client.dumps(fault, methodresponse=True)
            data = answer.encode()
            self.send_response(200)
            self.send_header("content-type", "text/xml")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/RPC2"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
