"""Bad input: one clear line each, no traceback, nothing changed."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import pytest

from gridtide.store.ports import Role
from tests.unit.service.site import Site

ANNA = "submitter"
DIGEST = "0" * 64
FREE = {"cores": 1, "memory": 1, "disk": 0, "gpus": 0}
ALIVE = {"load": 0.1, "running": [], "draining": False}
END = {
    "attempt": 1,
    "cause": "exited",
    "exit_code": 0,
    "signal": None,
    "text": "",
    "wall_seconds": 1,
    "cpu_seconds": 1,
    "peak_memory": 1,
}


@dataclass(frozen=True)
class Bad:
    """One bad request: who sends it, what it is, and what the answer says."""

    who: str
    request: str
    body: bytes | str | object = b""
    status: int = 400
    says: str = ""
    type: str = "application/json"


def deep(levels: int) -> str:
    return '{"digests": ' + "[" * levels + "]" * levels + "}"


MISSING = "POST /v1/files/missing"
SUBMIT = "POST /v1/submissions"
SCALE = "POST /v1/groups/grid/scale"
TOKENS = "POST /v1/tokens"
DRAIN = "POST /v1/workers/drain"
BEAT = "POST /v1/worker/alive"
ASK = "POST /v1/pilot/request"
FINISH = "POST /v1/pilot/jobs/1.0/finished"
LOG = "POST /v1/pilot/jobs/1.0/log"

TABLE = [
    # JSON as such
    Bad(ANNA, MISSING, b"", says="not JSON"),
    Bad(ANNA, MISSING, b"{", says="line 1, column 2"),
    Bad(ANNA, MISSING, b"\xff\xfe", says="not UTF-8 at byte 0"),
    Bad(ANNA, MISSING, b"\xef\xbb\xbf{}", says="not JSON"),
    Bad(ANNA, MISSING, deep(100_000 // 10), says="nested"),
    Bad(ANNA, MISSING, deep(40), says="nested deeper than 32"),
    Bad(ANNA, MISSING, '{"digests": NaN}', says="cannot be used"),
    Bad(ANNA, MISSING, '{"digests": -Infinity}', says="cannot be used"),
    Bad(ANNA, MISSING, '{"digests": ' + "9" * 5000 + "}", says="cannot be used"),
    Bad(ANNA, MISSING, '{"digests": ["\\u0000"]}', says="NUL"),
    Bad(ANNA, MISSING, '{"digests": ["\\ud800"]}', says="surrogate"),
    Bad(ANNA, MISSING, '{"digests": ["a\nb"]}', says="not JSON"),
    Bad(ANNA, MISSING, "[]", says="body"),
    Bad(ANNA, MISSING, "null", says="body"),
    Bad(ANNA, MISSING, "{}", says="body.digests"),
    Bad(ANNA, MISSING, {"digests": []}, type="text/plain", says="Content-Type: application/json"),
    Bad(ANNA, MISSING, {"digests": []}, type="", says="no content type"),
    Bad(ANNA, MISSING, {"digests": []}, type="application/x-www-form-urlencoded", says="application/json"),
    Bad(ANNA, MISSING, b" " * (9 * 1024 * 1024), 413, "bytes"),
    # users
    Bad(ANNA, MISSING, {"digests": ["xyz"]}, says="body.digests.0"),
    Bad(ANNA, MISSING, {"digests": [DIGEST], "digest": 1}, says="body.digest"),
    Bad(ANNA, MISSING, {"digests": [DIGEST + "\n"]}, says="body.digests.0"),
    Bad(ANNA, SUBMIT, {"description": ""}, says="body.description"),
    Bad(ANNA, SUBMIT, {"description": 7}, says="string"),
    Bad(ANNA, SUBMIT, {"description": "nonsense"}, says="line 1: must be NAME CORES"),
    Bad(ANNA, SUBMIT, {"description": "a 1", "files": {"../x": DIGEST}}, says="no name of a file"),
    Bad(ANNA, SUBMIT, {"description": "a 1", "files": {"x": "y"}}, says="body.files.x"),
    Bad(ANNA, SUBMIT, {"description": "a 1", "files": {"x": "f" * 64}}, says="file is missing"),
    Bad(ANNA, "PUT /v1/files/xyz", b"data", says="no digest"),
    Bad(ANNA, f"PUT /v1/files/{DIGEST}", b"data", says="digest is"),
    Bad(ANNA, f"PUT /v1/files/{DIGEST.replace('0', 'A')}", b"data", says="no digest"),
    Bad(ANNA, "GET /v1/jobs/one", says="SUBMISSION.INDEX"),
    Bad(ANNA, "GET /v1/jobs/1.0%0A", says="path"),
    Bad(ANNA, "GET /v1/jobs/%D9%A1.0", says="is no job"),
    Bad(ANNA, "GET /v1/jobs/9.9", status=404, says="no job 9.9"),
    Bad(ANNA, "GET /v1/jobs?state=sleeping", says="query.state"),
    Bad(ANNA, "GET /v1/jobs?limit=0", says="query.limit"),
    Bad(ANNA, "GET /v1/jobs?limit=many", says="query.limit"),
    Bad(ANNA, "GET /v1/jobs?stat=done", says="there are after, limit, state, submission, user"),
    Bad(ANNA, "GET /v1/jobs?submission=99999999999999999999", says="query.submission"),
    Bad(ANNA, "GET /v1/jobs?after=x", says="is no job"),
    Bad(ANNA, "GET /v1/jobs?user=a%00b", says="query.user"),
    Bad(ANNA, "GET /v1/submissions/0", says="path.number"),
    Bad(ANNA, "GET /v1/submissions/1e9", says="path.number"),
    Bad(ANNA, "GET /v1/jobs/1.0/log?stream=stdin", says="query.stream"),
    Bad(ANNA, "GET /v1/jobs/1.0/log?offset=-1", says="query.offset"),
    Bad(ANNA, "GET /v1/jobs/1.0/outputs/a/..%2f..%2fetc", says="no name of a file"),
    Bad(ANNA, "GET /v1/jobs/1.0/outputs/a%00", says="path"),
    Bad(ANNA, "GET /v1/jobs/1.0/outputs/%FF", says="not UTF-8"),
    Bad(ANNA, "POST /v1/jobs/cancel", {}, says="either jobs or a submission"),
    Bad(ANNA, "POST /v1/jobs/cancel", {"jobs": ["1.0"], "submission": 1}, says="either jobs or a submission"),
    Bad(ANNA, "POST /v1/jobs/cancel", {"jobs": ["1"]}, says="body.jobs.0"),
    Bad(ANNA, "GET /v1/nothing", status=404, says="no such route"),
    Bad(ANNA, "GET /v1/jobs/", status=404, says="no such route"),
    Bad(ANNA, "PATCH /v1/jobs", status=405, says="not understood"),
    Bad(ANNA, "GET /" + "x" * 5000, status=404, says="no such route"),
    Bad(ANNA, "GET /v1/jobs/" + "1" * 5000, says="too long"),
    # operators and admins
    Bad("operator", SCALE, {"minimum": -1}, says="body.minimum"),
    Bad("operator", SCALE, {"minimum": "3"}, says="body.minimum"),
    Bad("operator", SCALE, {"minimum": 1.5}, says="body.minimum"),
    Bad("operator", SCALE, {"minimum": True}, says="body.minimum"),
    Bad("operator", SCALE, {"maximun": 3}, says="body.maximun"),
    Bad("operator", SCALE, {"minimum": 5, "maximum": 3}, says="above the maximum"),
    Bad("operator", "POST /v1/groups/gird/scale", {}, 404, "groups are grid"),
    Bad("operator", DRAIN, {"workers": []}, says="body.workers"),
    Bad("operator", DRAIN, {"workers": ["Grid 1"]}, says="body.workers.0"),
    Bad("operator", DRAIN, {"workers": ["grid-1"], "force": "yes"}, says="body.force"),
    Bad("operator", "GET /v1/workers?state=asleep", says="query.state"),
    Bad("operator", "GET /v1/workers/GRID_1", says="no worker's name"),
    Bad("operator", "GET /v1/events?after=-1", says="query.after"),
    Bad("admin", TOKENS, {"user": "a b", "role": "viewer"}, says="body.user"),
    Bad("admin", TOKENS, {"user": "anna", "role": "root"}, says="body.role"),
    Bad("admin", TOKENS, {"user": "anna", "role": "viewer", "expires_in": -1}, says="body.expires_in"),
    Bad("admin", TOKENS, '{"user": "anna", "role": "viewer", "expires_in": 1e999}', says="body.expires_in"),
    Bad("admin", "DELETE /v1/tokens/none", status=404, says="no token"),
    # workers
    Bad("grid-1", BEAT, "[]", says="must be a JSON object, not a list"),
    Bad("grid-1", BEAT, {**ALIVE, "load": -1}, says="body.load"),
    Bad("grid-1", BEAT, '{"load": 1e999, "running": [], "draining": false}', says="body.load"),
    Bad("grid-1", BEAT, {**ALIVE, "draining": 0}, says="body.draining"),
    Bad("grid-1", BEAT, {**ALIVE, "running": ["1.0"]}, says="body.running[0]"),
    Bad("grid-1", BEAT, {**ALIVE, "running": [{"job": "1.0", "attempt": 0}]}, says="attempt"),
    Bad("grid-1", BEAT, {"load": 1}, says="missing"),
    Bad("grid-1", BEAT, b" " * 70_000, 413, "65536"),
    Bad("grid-1", ASK, {"number": "", "free": FREE, "wait": 0}, says="body.number"),
    Bad("grid-1", ASK, {"number": "1", "free": {**FREE, "cores": -1}, "wait": 0}, says="body.free.cores"),
    Bad("grid-1", ASK, {"number": "1", "free": {**FREE, "cores": 2**70}, "wait": 0}, says="body.free.cores"),
    Bad("grid-1", ASK, {"number": "1", "free": FREE, "wait": "long"}, says="body.wait"),
    Bad("grid-1", ASK, {"number": "1" * 200, "free": FREE, "wait": 0}, says="body.number"),
    Bad("grid-1", FINISH, {**END, "cause": "bored"}, says="body.cause"),
    Bad("grid-1", FINISH, {**END, "exit_code": "0"}, says="body.exit_code"),
    Bad("grid-1", FINISH, {**END, "logs": {"stdout": {"offset": 0, "data": "%%%"}}}, says="base64"),
    Bad("grid-1", FINISH, {**END, "logs": {"stdout": {"offset": -1, "data": ""}}}, says="body.logs.stdout.offset"),
    Bad("grid-1", FINISH, {**END, "request": {"number": "1"}}, says="body.request.free"),
    Bad("grid-1", LOG, b"x", says="query.stream: is missing"),
    Bad("grid-1", LOG + "?attempt=1&stream=both&offset=0", b"x", says="stdout or stderr"),
    Bad("grid-1", LOG + "?attempt=1&attempt=2&stream=stdout&offset=0", b"x", says="twice"),
    Bad("grid-1", LOG + "?attempt=1&stream=stdout&offset=1e3", b"x", says="query.offset"),
    Bad("grid-1", LOG + "?attempt=1&stream=stdout&offset=0", b"x" * (1024 * 1024 + 1), 413, "1048576"),
    Bad("grid-1", f"PUT /v1/pilot/jobs/1.0/outputs/../x?attempt=1&digest={DIGEST}", b"", 404, "no such route"),
    Bad("grid-1", f"PUT /v1/pilot/jobs/1.0/outputs/a//x?attempt=1&digest={DIGEST}", b"", says="no name of a file"),
    Bad("grid-1", f"PUT /v1/pilot/jobs/1.0/outputs/a%5Cx?attempt=1&digest={DIGEST}", b"", says="no name of a file"),
    Bad("grid-1", "PUT /v1/pilot/jobs/1.0/outputs/x?attempt=1&digest=no", b"", says="no digest"),
    Bad("join", "POST /v1/worker/join", {"worker_token": "x", "host": {}, "agent": "1"}, says="gtw_grid-2"),
    Bad("join", "POST /v1/worker/join", {"worker_token": "x", "host": [], "agent": "1"}, says="body.host"),
    Bad("join", "POST /v1/worker/join", {"host": {"a b": 1}, "agent": "1"}, says="no attribute name"),
    Bad("join", "POST /v1/worker/join", {"host": {"A": {}}, "agent": "1"}, says="body.host.A"),
    Bad("join", "POST /v1/worker/join", '{"host": {"A": 1e999}, "agent": "1"}', says="body.host.A"),
    Bad("aliec2", "POST /spawn", b"script=", says="form.script", type="application/x-www-form-urlencoded"),
    Bad("aliec2", "POST /spawn", {"script": "x"}, says="no form"),
    Bad("aliec2", "POST /spawn", b"nonsense", says="form", type="multipart/form-data; boundary=x"),
    Bad("aliec2", "POST /spawn", b"nonsense", says="form", type="multipart/form-data"),
    Bad("aliec2", "GET /done/A%20B", says="no worker's name"),
]

SECRET = "A" * 43
BAD_TOKENS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    f"Bearer gt_.{SECRET}",
    "Bearer gt_abc.",
    "Bearer gt_abc.short",
    f"Bearer gt_abc.{SECRET}",
    f"Bearer gt_abc.{SECRET} ",
    f"Bearer gt_ABC.{SECRET}",
    f"Bearer gt_abc.{SECRET}.x",
    f"Bearer gt_abc.{'A' * 5000}",
    f"Bearer gtx_abc.{SECRET}",
    f"Bearer gtw_grid-1.{SECRET}",
    f"Bearer gtj_grid-1.{SECRET}",
    f"bearer gt_' or 1=1 --.{SECRET}",
    f"Token gt_abc.{SECRET}",
    f"Basic gt_abc.{SECRET}",
    "Basic ????",
    f"gt_abc.{SECRET}",
    "Bearer gt_\u00e9.x",
]


def token_of(site: Site, who: str) -> str:
    if who == "join":
        return site.join_tokens["grid-2"]
    if who.startswith("grid"):
        return site.worker_tokens[who]
    return site.tokens[Role.WORKER if who == "aliec2" else Role(who)]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: f"{bad.request[:60]} {bad.says}")
async def test_bad_requests_get_one_clear_line_and_change_nothing(site: Site, bad: Bad) -> None:
    await site.join()
    async with site.as_role(Role.SUBMITTER) as user:
        await user.post("/v1/submissions", json={"description": "a 1"})
    jobs, calls = copy.deepcopy(site.pilot.all), list(site.control.calls)
    raw = bad.body if isinstance(bad.body, bytes) else str(bad.body).encode()
    content = raw if isinstance(bad.body, bytes | str) else json.dumps(bad.body).encode()
    method, _, path = bad.request.partition(" ")
    async with site.client(token_of(site, bad.who)) as client:
        headers = {"content-type": bad.type} if bad.type else {}
        answer = await client.request(method, path, content=content, headers=headers)
    assert answer.status_code == bad.status, answer.text
    error = answer.json()["error"]
    line = f"{error['where']}: {error['what']} ({error['remedy']})"
    assert bad.says in line, line
    assert "\n" not in line
    assert "Traceback" not in line
    assert len(line) < 600
    assert (site.pilot.all, site.control.calls) == (jobs, calls)
    assert list(site.pilot.directory.iterdir()) == []


@pytest.mark.parametrize("authorization", BAD_TOKENS, ids=lambda text: text[:40] or "empty")
@pytest.mark.parametrize("route", ["GET /v1/status", "POST /v1/worker/alive", "POST /v1/worker/join", "POST /spawn"])
async def test_bad_tokens_are_401_and_never_echoed(site: Site, authorization: str, route: str) -> None:
    method, _, path = route.partition(" ")
    body = {"worker_token": site.worker_tokens["grid-1"], "host": {}, "agent": "1"}
    async with site.client() as client:
        headers = [(b"authorization", authorization.encode("latin-1"))]
        answer = await client.request(method, path, json=body, headers=headers)
    assert answer.status_code == 401
    assert "AAAA" not in answer.text
    assert site.control.calls == []


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) + len(BAD_TOKENS) >= 100
