"""The process that reads Slurm's JSON: what real versions wrote, and what may go wrong."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gridtide.model.demand import NodeState
from gridtide.queues.slurm import reading
from gridtide.queues.slurm.jobs import from_json
from gridtide.queues.slurm.nodes import node_of
from gridtide.queues.slurm.values import Surprising

SAMPLES = Path(__file__).parent / "samples"
"""Made by ``python -m tests.real.slurm.record``."""
RELEASES = ("22.05", "24.11")


@pytest.mark.parametrize("release", RELEASES)
def test_jobs_as_real_versions_write_them(release: str) -> None:
    with (SAMPLES / f"{release}.jobs.json").open() as stream:
        jobs = from_json(reading.read_jobs(stream))
    assert jobs.placed == {"conform-one": 1, "conform-two": 1}
    told = {(ask.cores, ask.memory, ask.nodes, ask.features, ask.exclusive): n for ask, (n, _) in jobs.waiting.items()}
    assert told.pop((2, 200, 1, "", False)) == 3, "an array of which five may run, and two do"
    assert told.pop((2, 100, 1, "", False)) == 5, "tasks 1, 3, 5, 7, 9"
    assert told.pop((2, 1024, 1, "gridtide&conform", False)) == 1
    assert told.pop((1, 64, 1, "", True)) == 1, "alone on its node"
    assert told.pop((2, 20, 2, "", False)) == 2, "a job of two nodes"
    obstacles = {ask.obstacle for ask in jobs.waiting} - {""}
    assert obstacles == {"asks for nodes by name (conform-two)"}
    assert told == {(1, 64, 1, "", False): 1}, "dependent, held and later ones do not count"


@pytest.mark.parametrize("release", RELEASES)
def test_nodes_as_real_versions_write_them(release: str) -> None:
    with (SAMPLES / f"{release}.nodes.json").open() as stream:
        records = reading.read_nodes(stream)["nodes"]
    nodes = [node_of(record, {"conform-one": 1, "conform-two": 1}, "gridtide") for record in records]
    assert {node.name: (node.worker, node.state, node.running) for node in nodes if node is not None} == {
        "conform-one": ("conform-one", NodeState.ACCEPTING, 1),
        "conform-two": ("conform-two", NodeState.ACCEPTING, 1),
        "conform-three": ("conform-three", NodeState.DRAINED, 0),
        "conform-four": ("conform-four", NodeState.UNAVAILABLE, 0),
    }


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("what", ["jobs", "nodes"])
def test_an_answer_cut_off_anywhere_is_an_error(release: str, what: str) -> None:
    whole = (SAMPLES / f"{release}.{what}.json").read_text().rstrip()
    read = reading.read_jobs if what == "jobs" else reading.read_nodes
    for end in [*range(0, len(whole) - 1, 97), len(whole) - 1]:
        with pytest.raises(ValueError, match=r"."):
            read(io.StringIO(whole[:end]))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_records_come_whole_whatever_the_pieces(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    text = '{"meta": {"jobs": [1], "x": "\\"jobs\\": ["}, "jobs" : [ {"a": "]}{"} , {"b": [1,{}]} ] , "errors": []}'
    if chunk >= 1000:
        assert list(reading.records(io.StringIO(text), "jobs")) == [{"a": "]}{"}, {"b": [1, {}]}]
        return
    monkeypatch.setattr(reading, "_LONGEST", 1 << 20)
    tail = io.StringIO(text)
    head = text.index('"jobs" :') + 10

    class Pieces(io.StringIO):
        def read(self, size: int | None = -1, /) -> str:
            return tail.read(head if tail.tell() == 0 else size if size is not None else -1)

    assert list(reading.records(Pieces(), "jobs")) == [{"a": "]}{"}, {"b": [1, {}]}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no answer at all"),
        ("   \n", "no answer at all"),
        ("slurm_load_jobs error: Unable to contact slurm controller", "no list of jobs"),
        ('{"nodes": []}', "no list of jobs"),
        ('{"jobs": {}}', "no list of jobs"),
        ('{"jobs": [3]}', "no object"),
        ('{"jobs": [{"a": 1}', "ends too early"),
        ('{"jobs": [{"a": nonsense}]}', "ends too early"),
        ('{"jobs": []', "ends too early"),
        ('{"jobs": []} and more', "ends too early"),
        ('{"errors": [{"error": "Socket timed out"}], "jobs": []}', "Socket timed out"),
        ('{"jobs": [], "errors": [{"description": "Zero Bytes", "error_number": 1}]}', "Zero Bytes"),
    ],
)
def test_what_is_no_answer(text: str, problem: str) -> None:
    with pytest.raises(Surprising, match=problem):
        list(reading.records(io.StringIO(text), "jobs"))


def test_a_job_that_is_not_understood_is_named() -> None:
    text = '{"jobs": [{"job_id": 42, "job_state": 7}]}'
    with pytest.raises(Surprising, match="job 42: job_state is 7"):
        reading.read_jobs(io.StringIO(text))


def run(script: str, what: str = "jobs") -> dict[str, Any]:
    import subprocess

    command = (sys.executable, "-I", "-m", "gridtide.queues.slurm.reading", what, "2000", "sh", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_process_answers_in_one_line() -> None:
    assert run("""echo '{"jobs": []}'""") == {"result": {"waiting": [], "placed": {}}}
    assert run("""echo '{"nodes": [{"name": "n", "junk": 1}]}'""", "nodes") == {"result": {"nodes": [{"name": "n"}]}}


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1", "Unable to contact"),
        ("exit 3", "exit status 3"),
        ("""echo '{"jobs": []}'; exit 1""", "exit status 1"),
        ("""echo '{"jobs": [{'""", "ends too early"),
        ("""echo '{"jobs": []}'; kill -9 $$""", "signal 9"),
        ("echo nonsense", "no list of jobs"),
        ("""printf '{"jobs": [{"a": "\\377"}]}'""", "utf-8"),
    ],
)
def test_whatever_fails_is_told(script: str, problem: str) -> None:
    assert problem in run(script)["error"]
