"""The agent's parts that need neither a socket nor a process."""

from __future__ import annotations

import ast
import email.utils
import json
import os
import ssl
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.agent import agent
from gridtide.agent.agent import (
    Answer,
    Assignment,
    Backoff,
    Cache,
    Context,
    LogStream,
    NoAnswer,
    Question,
    Resources,
    boot_report,
    check_address,
    find_outputs,
    forget_attempt,
    job_environment,
    parse_retry_after,
    read_json,
    remove_tree,
    safe_path,
    shut_down,
    write_atomic,
)

SOURCE = Path(agent.__file__)


def values(**changes: object) -> dict[str, object]:
    """An assignment as the service sends it."""
    result: dict[str, object] = {
        "job": "1.0",
        "attempt": 2,
        "executable": "/bin/true",
        "arguments": ["a"],
        "environment": {"A": "b"},
        "inputs": [{"name": "in.txt", "digest": "0" * 64, "size": 1, "executable": False}],
        "outputs": ["*.root"],
        "cores": 2,
        "memory": 100,
        "walltime": 60.0,
    }
    return {**result, **changes}


# --- one file for old Pythons


def test_the_file_is_python_3_8() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 8))


def test_it_imports_the_standard_library_alone() -> None:
    names = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").split(".")[0])
    assert names <= set(sys.stdlib_module_names)


def test_it_uses_nothing_that_python_3_8_lacks() -> None:
    newer = {
        *("removeprefix", "removesuffix", "to_thread", "timeout", "TaskGroup", "pidfd_open", "send_fds", "recv_fds"),
        *(
            "bit_count",
            "is_relative_to",
            "with_stem",
            "readlink",
            "pairwise",
            "batched",
            "orig_argv",
            "waitstatus_to_exitcode",
        ),
        *(
            "unparse",
            "randbytes",
            "file_digest",
            "anext",
            "aiter",
            "Runner_",
            "ParamSpec",
            "TypeAlias",
            "Self",
            "override",
        ),
    }
    tree = ast.parse(SOURCE.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert used & newer == set()
    keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
    assert keywords & {"root_dir", "slots", "kw_only", "strict", "onexc", "cancel_futures", "usedforsecurity"} == set()


def test_generic_builtins_and_unions_stay_in_annotations() -> None:
    tree = ast.parse(SOURCE.read_text())
    annotations = set()
    for node in ast.walk(tree):
        for attribute in ("annotation", "returns"):
            inner = getattr(node, attribute, None)
            annotations |= {id(part) for part in ast.walk(inner)} if inner is not None else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and id(node) not in annotations:
            assert node.value.id not in {"dict", "list", "set", "tuple", "type"}, f"line {node.lineno}"


# --- boot times


def test_the_boot_report_leaves_out_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 12.5}.__getitem__)
    assert boot_report({}) == {"now": 12.5}
    assert boot_report({"user_space": 1, "context": 2.5, "agent": 3.0, "else": 4}) == {
        "user_space": 1.0,
        "context": 2.5,
        "agent": 3.0,
        "now": 12.5,
    }
    nonsense = {"origin": "x", "user_space": None, "context": float("nan"), "agent": 10**400}
    assert boot_report(nonsense) == {"now": 12.5}
    assert boot_report({"user_space": [1.0], "context": {"a": 1}, "agent": float("inf")}) == {"now": 12.5}


def test_a_machine_that_was_continued_counts_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 12.5}.__getitem__)
    assert boot_report({"origin": 12.0, "user_space": 0.0}) == {"user_space": 0.0, "now": 0.5}


# --- names of files


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "../x", "a/../../b", "a/..", "x\0y", "a/"])
def test_names_that_leave_the_directory_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not stay in the job's directory"):
        safe_path(name)


@given(st.text(alphabet="a./\0", max_size=12))
def test_no_accepted_name_leads_out(name: str) -> None:
    try:
        kept = safe_path(name)
    except ValueError:
        return
    assert os.path.normpath(f"/job/{kept}").startswith("/job")
    assert not kept.startswith("/")


# --- assignments and the environment


def test_an_assignment_is_read_as_sent() -> None:
    read = Assignment.from_json(values())
    assert (read.job, read.attempt, read.arguments, read.environment) == ("1.0", 2, ["a"], {"A": "b"})
    assert (read.outputs, read.cores, read.memory, read.walltime) == (["*.root"], 2, 100, 60.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"executable": "run.sh"}, "neither an absolute path nor an input file"),
        ({"executable": "../run.sh"}, "does not stay"),
        ({"outputs": ["a/../../x"]}, "does not stay"),
        ({"inputs": [{"digest": "0"}]}, "incomplete"),
        ({"environment": []}, None),
        ({"environment": {"": "x"}}, "name is not legal"),
        ({"environment": {"X": "a\0"}}, "zero byte"),
        ({"cores": None}, "the cores of the job is not a number"),
        ({"arguments": None}, "incomplete"),
    ],
)
def test_a_bad_assignment_is_one_line(changes: dict[str, object], words: str | None) -> None:
    if words is None:
        assert Assignment.from_json(values(**changes)).environment == {}
        return
    with pytest.raises(ValueError, match=words) as caught:
        Assignment.from_json(values(**changes))
    assert "\n" not in str(caught.value)


def test_a_job_may_set_what_is_its_own_and_forge_nothing() -> None:
    forged = {
        "PATH": "/opt/bin",
        "HOME": "/root",
        "GRIDTIDE_WORKER": "x",
        "GRIDTIDE_MACHINE": "y",
        "GRIDTIDE_CORES": "99",
    }
    found = job_environment(Assignment.from_json(values(environment=forged)), Path("/m/jobs/1.0-2"), "w1", "mark")
    assert found["PATH"] == "/opt/bin"
    assert (found["GRIDTIDE_WORKER"], found["GRIDTIDE_MACHINE"], found["GRIDTIDE_CORES"]) == ("w1", "mark", "2")
    assert (found["HOME"], found["TMPDIR"]) == ("/m/jobs/1.0-2/work", "/m/jobs/1.0-2/tmp")
    assert found["OMP_NUM_THREADS"] == "2"


def test_jobs_of_two_machines_on_one_host_are_told_apart() -> None:
    marks = [agent.job_mark("1.0", 1, "w1", Path(directory)) for directory in ("/a/jobs/1.0-1", "/b/jobs/1.0-1")]
    assert marks[0] != marks[1]


def test_the_mark_is_passed_on_only_when_there_is_one() -> None:
    assert "GRIDTIDE_MACHINE" not in job_environment(Assignment.from_json(values()), Path("/m"), "w1", None)


# --- outputs


def test_outputs_are_found_by_name_and_pattern(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.txt", "sub/c.txt", "odd[1].txt"):
        (tmp_path / name).write_text(name)
    found, problems = find_outputs(tmp_path, ["a.txt", "*.txt", "sub/*", "odd[1].txt"])
    assert sorted(entry["name"] for entry in found) == ["a.txt", "b.txt", "odd[1].txt", "sub/c.txt"]
    assert problems == ""
    assert found[0]["size"] == 5


def test_what_is_no_file_of_the_job_is_named(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (work / "out").symlink_to(tmp_path / "secret")
    (work / "up").symlink_to("..")
    os.mkfifo(work / "pipe")
    found, problems = find_outputs(work, ["out", "up/secret", "sub", "pipe", "none*"])
    assert found == []
    assert problems.split("; ") == [
        "output out leads out of the job's directory",
        "output up/secret leads out of the job's directory",
        "output sub is not a file",
        "output pipe is not a file",
        "output none* was not made",
    ]


# --- resources, backoff, Retry-After


amounts = st.integers(min_value=0, max_value=1000)
resources = st.builds(Resources, amounts, amounts, amounts, amounts)


@given(resources, resources)
def test_what_is_left_is_never_negative_and_never_more(have: Resources, need: Resources) -> None:
    left = have.minus(need)
    for name in ("cores", "memory", "disk", "gpus"):
        assert getattr(left, name) == max(0, getattr(have, name) - getattr(need, name))


def test_amounts_that_are_missing_are_none() -> None:
    assert Resources.from_json({"cores": 2, "memory": 100.0, "gpus": None}) == Resources(2, 100, 0, 0)
    for wrong in ([1], "many", {"a": 1}):
        with pytest.raises(ValueError, match="numbers"):
            Resources.from_json({"cores": wrong})


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=12, max_size=12))
def test_pauses_grow_to_their_limit_and_vary(draws: list[float]) -> None:
    left = iter(draws)
    backoff = Backoff(first=1.0, most=8.0, draw=lambda: next(left))
    steps = [1.0, 2.0, 4.0, 8.0, 8.0]
    for step in steps:
        assert step / 2 <= backoff.pause() <= step
    backoff.reset()
    assert backoff.pause() <= 1.0


def test_a_pause_is_not_shorter_than_the_service_asks() -> None:
    backoff = Backoff(first=1.0, most=8.0, draw=lambda: 0.5)
    assert backoff.pause(30.0) == pytest.approx(31.5)
    assert backoff.pause(0.1) == pytest.approx(1.5)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after(None) is None
    assert parse_retry_after("soon") is None
    assert parse_retry_after("2.5") == 2.5
    assert parse_retry_after("99999999") == 600.0
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert parse_retry_after(in_a_minute) == pytest.approx(60, abs=2)
    assert parse_retry_after(email.utils.formatdate(0, usegmt=True)) == 0.0


# --- context


def context_file(directory: Path, **changes: object) -> Path:
    path = directory / "context.json"
    text = {"version": 1, "worker": "w1", "service": ["http://127.0.0.1:1"], "join_token": "gtj_w1.S"}
    path.write_text(json.dumps({**text, "resources": {"cores": 3, "memory": 5}, **changes}))
    return path


def test_a_context_is_read(tmp_path: Path) -> None:
    context = Context.load(context_file(tmp_path, attributes={"GridtideGroup": "g", "Cpus": 7}))
    assert (context.worker, context.shutdown, context.resources) == ("w1", "exit", Resources(3, 5, 0, 0))
    assert (context.grace, context.sample) == (10.0, 1.0)
    host = context.host()
    assert (host["Machine"], host["GridtideGroup"], host["Cpus"]) == ("w1", "g", 7)
    assert host["Arch"] == os.uname().machine.upper()


def test_a_machine_measures_itself_without_resources(tmp_path: Path) -> None:
    found = Context.load(context_file(tmp_path, resources=None)).resources
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory > 100
    assert found.disk > 0


def test_the_join_token_is_forgotten_and_the_rest_kept(tmp_path: Path) -> None:
    path = context_file(tmp_path, future={"key": 1})
    context = Context.load(path)
    context.forget_join_token()
    left = json.loads(path.read_text())
    assert "join_token" not in left
    assert left["future"] == {"key": 1}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "address", ["https://x.example", "http://127.0.0.1:8", "http://[::1]:8", "http://10.0.2.2", "http://localhost:1"]
)
def test_addresses_that_may_see_a_token(address: str) -> None:
    check_address(address, has_ca=True)


@pytest.mark.parametrize(
    "address",
    [
        "http://x.example",
        "http://10.0.2.3",
        "http://127.0.0.1.x.example",
        "http://192.0.2.1",
        "ftp://127.0.0.1",
        "x",
        "https://",
        7,
    ],
)
def test_addresses_that_may_not(address: object) -> None:
    with pytest.raises(ValueError, match=r"plain HTTP|no http or https"):
        check_address(address, has_ca=True)


def test_tls_needs_an_authority_of_the_context() -> None:
    with pytest.raises(ValueError, match="needs a ca"):
        check_address("https://x.example", has_ca=False)


async def test_no_other_authority_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError):
        agent.Service(
            Context.load(context_file(tmp_path, ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
        )


# --- what is kept on disk


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, "{}", sync=True)
    write_atomic(path, '{"a": 1}')
    assert read_json(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_half_a_file_is_no_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_bytes(text.encode("latin-1"))
    assert read_json(tmp_path / "x") is None
    assert read_json(tmp_path / "y") is None


def test_a_tree_without_rights_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("x")
    (root / "link").symlink_to(tmp_path)
    (root / "a" / "b").chmod(0o500)
    (root / "a").chmod(0)
    remove_tree(root)
    assert not root.exists()
    assert tmp_path.exists()


def test_an_attempt_that_is_half_removed_is_no_new_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("assignment.json", "runner.json", "result.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(agent, "remove_tree", lambda _: None)  # killed at this moment
    forget_attempt(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"runner.json", "result.json"}


def test_the_number_of_a_question_changes_with_each_job_and_survives(tmp_path: Path) -> None:
    question = Question(tmp_path / "taken", "abc")
    assert question.number == "abc-0"
    question.next()
    assert question.number == "abc-1"
    assert Question(tmp_path / "taken", "abc").number == "abc-1"


def test_a_question_has_one_holder(tmp_path: Path) -> None:
    question, first, second = Question(tmp_path / "taken", "abc"), object(), object()
    assert question.take(first)
    assert not question.take(second)
    question.give_back(second)
    assert not question.take(second)
    question.give_back(first)
    assert question.take(second)


def test_a_log_follows_what_the_service_keeps(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"0123456789")
    log = LogStream(tmp_path / "stdout")
    assert (log.left(), log.piece(4)) == (10, b"0123")
    log.kept(4, 4)
    assert (log.left(), log.piece(100)) == (6, b"456789")
    log.kept(6, 20)  # more than we have sent: an agent before us sent it
    assert (log.left(), log.closed) == (0, False)


def test_a_log_is_closed_when_the_service_keeps_less(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"0123456789")
    log = LogStream(tmp_path / "stdout")
    log.kept(10, 7)
    assert (log.closed, log.left(), log.piece(9)) == (True, 0, b"")


@pytest.mark.parametrize(("length", "closed"), [(2, False), (6, True), (9, True), (None, True)])
def test_a_gap_is_filled_once(tmp_path: Path, length: int | None, closed: bool) -> None:
    (tmp_path / "stdout").write_bytes(b"0123456789")
    log = LogStream(tmp_path / "stdout")
    log.kept(6, 6)
    log.rewind(length)
    assert log.closed is closed
    if not closed:
        assert log.last() == {"offset": 2, "data": "MjM0NTY3ODk="}
        log.rewind(1)
        assert log.closed


def test_the_cache_gives_back_what_it_was_given_or_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"data")
    digest = agent.digest_of(source)["digest"]
    cache = Cache(tmp_path / "cache", 100)
    assert not cache.copy(digest, target)
    cache.keep(digest, source)
    assert cache.copy(digest, target)
    assert target.read_bytes() == b"data"
    (tmp_path / "cache" / digest).write_bytes(b"evil")
    assert not cache.copy(digest, target)


def test_the_cache_forgets_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 100)
    digests = []
    for number in range(6):
        source = tmp_path / str(number)
        source.write_bytes(b"%d" % number * 20)
        digests.append(agent.digest_of(source)["digest"])
        cache.keep(digests[-1], source)
        os.utime(tmp_path / "cache" / digests[-1], (number, number))
        if number == 3:
            assert cache.copy(digests[0], tmp_path / "target")
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} == {digests[n] for n in (0, 2, 3, 4, 5)}


# --- answers and leaving


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"\xff", b'"text"'])
def test_an_answer_that_is_no_object_is_no_answer(body: bytes) -> None:
    with pytest.raises(NoAnswer):
        Answer(200, {}, body).values()


@pytest.mark.parametrize(
    "head",
    [b"\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 abc x\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 2000 x\r\n"],
)
def test_what_is_not_http_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="not HTTP"):
        agent.Connection._parse_head(head)


def test_headers_are_read_without_regard_to_case() -> None:
    answer = agent.Connection._parse_head(b"HTTP/1.1 503 Busy\r\nRETRY-After:  3 \r\nX: a:b\r\n\r\n")
    assert (answer.status, answer.headers) == (503, {"retry-after": "3", "x": "a:b"})


def test_a_process_machine_is_not_powered_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it called a program"))
    shut_down("exit")
