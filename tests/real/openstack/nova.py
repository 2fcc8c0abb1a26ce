"""Names of Nova's calls, for rules and counts of the fault proxy, and its words."""

import json
import re

from gridtide.testing.fault_proxy import Answer, Call

LIST = "GET /servers/detail"
LAUNCH = "POST /servers"
END = "DELETE /servers/ID"
LIMITS = "GET /limits"

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def nova_call(call: Call) -> str:
    """``METHOD /path``, without what differs from machine to machine."""
    path = _ID.sub("ID", call.path.partition("?")[0].removeprefix("/v2.1"))
    return f"{call.method} {path}"


def refusal(status: int, name: str, message: str, **headers: str) -> Answer:
    """As Nova words it."""
    body = json.dumps({name: {"code": status, "message": message}}).encode()
    return Answer(status, body, {"content-type": "application/json", **headers})
