"""The queue's operations, one promise at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, event

from gridtide.errors import InvalidRequest, JobDescriptionError, NotFound, StoreUnavailable
from gridtide.model.demand import NodeState, Offer
from gridtide.model.ids import GroupName, ShapeName, WorkerId
from gridtide.model.resources import Resources, Shape
from gridtide.pilot.protocol import JobId, JobState, Order
from gridtide.pilot.queue import PilotQueue
from tests.unit.pilot.support import ONE_CORE, Site, end

W1, W2 = WorkerId("w1"), WorkerId("w2")
EIGHT_CORES = {**ONE_CORE, "Cpus": 8, "Memory": 8192}


async def test_a_job_from_submission_to_result(site: Site) -> None:
    digest = await site.store(b"#!/bin/sh\n")
    await site.admit("w1")
    made = await site.queue.submit(
        "anna",
        'Executable = "run.sh"; Arguments = "$(index)"; OutputFile = "out/*.txt"; Array = 2;',
        {"run.sh": digest},
    )
    assert (made.number, made.user, made.name) == (1, "anna", "run.sh")
    assert made.counts == {**dict.fromkeys(JobState, 0), JobState.WAITING: 2}
    job = await site.take("w1")
    assert (job.job, job.attempt, job.arguments, job.outputs) == ("1.0", 1, ("0",), ("out/*.txt",))
    assert [(file.name, file.size, file.executable) for file in job.inputs] == [("run.sh", 10, True)]
    path = await site.queue.open_input(W1, job.job, 1, "run.sh")
    assert await asyncio.to_thread(path.read_bytes) == b"#!/bin/sh\n"
    assert await site.queue.append_log(W1, job.job, 1, "stdout", 0, b"hi\n") == 3
    await site.upload("w1", job, "out/a.txt", b"result")
    site.clock.at += 5
    assert await site.finish("w1", job)
    record = await site.queue.job(job.job)
    assert (record.state, record.exit_code, record.worker, record.attempt) == (JobState.DONE, 0, W1, 1)
    assert (record.ended, record.cpu_seconds, record.peak_memory) == (site.clock.at, 1.5, 30)
    assert await site.queue.read_log(job.job, "stdout", offset=0, limit=100) == b"hi\n"
    (kept,) = await site.queue.outputs(job.job)
    assert (kept.name, kept.size) == ("out/a.txt", 6)
    found = await site.queue.open_output(job.job, "out/a.txt")
    assert await asyncio.to_thread(found.read_bytes) == b"result"
    assert (await site.queue.submission(1)).counts[JobState.DONE] == 1
    await site.check_counters()


async def test_the_same_request_gets_the_same_job_also_after_a_restart(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 5;')
    first = (await site.ask("w1", "r1")).assignment
    assert (await site.ask("w1", "r1")).assignment == first
    site.restart()
    assert (await site.ask("w1", "r1")).assignment == first
    second = (await site.ask("w1", "r2")).assignment
    assert first is not None
    assert second is not None
    assert second.job != first.job
    assert await site.finish("w1", first)
    assert (await site.ask("w1", "r1")).assignment is None  # it has ended: not again, and no other under this number
    assert (await site.queue.counts())[JobState.RUNNING] == 1


async def test_two_copies_of_a_request_at_the_same_time_get_one_job(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 5;')
    answers = await asyncio.gather(*(site.ask("w1", "r1", wait=1) for _ in range(5)))
    assert len({answer.assignment.job for answer in answers if answer.assignment}) == 1
    assert (await site.queue.counts())[JobState.RUNNING] == 1


async def test_needs_must_fit_what_is_free(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Cores = 5; Memory = 4000;')
    await site.submit('Executable = "/bin/false"; Cores = 4; Memory = 4000;')
    assert (await site.ask("w1", free=Resources(4, 8192))).assignment is not None  # the second one
    assert await site.state("2.0") is JobState.RUNNING
    assert (await site.ask("w1")).assignment is None  # four cores are held, whatever the agent believes
    await site.queue.finished(W1, end("2.0", 1))
    assert (await site.take("w1")).job == "1.0"


async def test_requirements_must_hold(site: Site) -> None:
    await site.admit("w1")
    await site.admit("w2", {**ONE_CORE, "Arch": "AARCH64"})
    await site.submit('Executable = "/bin/true"; Requirements = other.Arch == "AARCH64";')
    await site.submit('Executable = "/bin/true"; Requirements = other.KernelVersion == "6";')
    assert (await site.ask("w1")).assignment is None
    assert (await site.take("w2")).job == "1.0"


async def test_order_is_share_then_priority_then_age(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 3;', "anna")
    await site.submit('Executable = "/bin/true"; Priority = 5;', "anna")
    await site.submit('Executable = "/bin/true"; Array = 3; Priority = -9;', "bert")
    taken = [(await site.take("w1")).job for _ in range(7)]
    # Equal shares alternate; within anna's, priority first and then age.
    assert taken == ["2.0", "3.0", "1.0", "3.1", "1.1", "3.2", "1.2"]


async def test_past_usage_weighs_and_fades(site: Site) -> None:
    await site.admit("w1")
    await site.submit('Executable = "/bin/true";', "anna")
    job = await site.take("w1")
    site.clock.at += 86400
    await site.finish("w1", job)
    await site.submit('Executable = "/bin/true"; Array = 9;', "anna")
    await site.submit('Executable = "/bin/true"; Array = 9;', "bert")
    for _ in range(3):
        job = await site.take("w1")
        assert job.job.startswith("3."), "anna has used a day"
        site.clock.at += 10
        await site.finish("w1", job)
    site.clock.at += 40 * 86400
    job = await site.take("w1")
    assert job.job.startswith("3.")  # both have faded, bert's 30 s of a month ago are still less
    site.clock.at += 60
    await site.finish("w1", job)
    assert (await site.take("w1")).job.startswith("2.")


async def test_no_job_for_a_draining_worker_and_stop_when_it_is_empty(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 3;')
    job = await site.take("w1")
    assert await site.queue.set_draining([W1, WorkerId("nobody")], True) == [W1]
    answer = await site.ask("w1")
    assert (answer.order, answer.assignment) == (Order.DRAIN, None)
    assert await site.queue.alive(W1, [(job.job, 1)], draining=True) == (Order.DRAIN, ())
    await site.finish("w1", job)
    assert (await site.ask("w1")).order is Order.STOP
    assert await site.queue.set_draining([W1], False) == []  # it was told to stop
    assert (await site.ask("w1")).order is Order.STOP


async def test_a_drain_can_be_taken_back_before_it_ends(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 3;')
    job = await site.take("w1")
    await site.queue.set_draining([W1], True)
    assert (await site.queue.alive(W1, [(job.job, 1)], draining=True))[0] is Order.DRAIN
    assert await site.queue.set_draining([W1], False) == [W1]
    # The agent does not know yet and still says that it drains.
    assert (await site.queue.alive(W1, [(job.job, 1)], draining=True))[0] is Order.CONTINUE
    assert (await site.queue.alive(W1, [(job.job, 1)], draining=False))[0] is Order.CONTINUE
    assert (await site.take("w1")).job == "1.1"


async def test_a_worker_that_drains_of_its_own_will_cannot_be_taken_back(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 3;')
    job = await site.take("w1")
    for order in (Order.CONTINUE, Order.DRAIN):
        assert (await site.queue.alive(W1, [(job.job, 1)], draining=True))[0] is order
    assert await site.queue.set_draining([W1], False) == []
    assert (await site.queue.nodes())[0].state is NodeState.DRAINING


async def test_a_single_use_worker_takes_one_job(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES, single_use=True)
    await site.submit('Executable = "/bin/true"; Array = 3;')
    answers = await asyncio.gather(*(site.ask("w1") for _ in range(4)))
    assert [answer.assignment is not None for answer in answers] == [True, False, False, False]
    assert answers[0].order is Order.CONTINUE
    assert {answer.order for answer in answers[1:]} == {Order.DRAIN}
    assert await site.queue.set_draining([W1], False) == []
    assert answers[0].assignment is not None
    await site.finish("w1", answers[0].assignment)
    assert await site.queue.alive(W1, [], draining=True) == (Order.STOP, ())
    assert (await site.queue.nodes())[0].state is NodeState.DRAINED


async def test_an_unknown_worker_gets_nothing_and_is_to_end(site: Site) -> None:
    await site.submit()
    assert await site.ask("ghost") == await site.ask("ghost")
    assert (await site.ask("ghost")).order is Order.STOP
    assert await site.queue.alive(WorkerId("ghost"), [(JobId("1.0"), 1)], draining=False) == (Order.DRAIN, ("1.0",))
    assert await site.state("1.0") is JobState.WAITING


# --- waiting


async def test_a_waiting_worker_is_woken_by_a_submission(site: Site) -> None:
    await site.admit("w1")
    asking = asyncio.create_task(site.ask("w1", wait=60))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await site.submit()
    answer = await asyncio.wait_for(asking, 5)
    assert answer.assignment is not None


async def test_a_waiting_worker_is_woken_by_a_drain_and_by_a_lost_worker(site: Site) -> None:
    await site.admit("w1")
    await site.admit("w2")
    await site.submit()
    await site.take("w1")
    asking = asyncio.create_task(site.ask("w2", wait=60))
    await asyncio.sleep(0.05)
    await site.queue.remove([W1])
    assert (await asyncio.wait_for(asking, 5)).assignment is not None
    idle = await site.admit("w3")
    asking = asyncio.create_task(site.ask("w3", wait=60))
    await asyncio.sleep(0.05)
    await site.queue.set_draining([idle], True)
    assert (await asyncio.wait_for(asking, 5)).order is Order.STOP


async def test_nothing_fits_within_the_time(site: Site) -> None:
    await site.admit("w1")
    answer = await site.ask("w1", wait=0.02)
    assert (answer.order, answer.assignment) == (Order.CONTINUE, None)


async def test_a_thousand_waiting_requests_share_ten_jobs(site: Site) -> None:
    for number in range(100):
        await site.admit(f"w{number}", {**ONE_CORE, "Cpus": 10, "Memory": 10_240})
    asking = [asyncio.create_task(site.ask(f"w{number % 100}", wait=60)) for number in range(1000)]
    while len(site.queue._room) < 1000:  # noqa: ASYNC110  the room has no event for tests
        await asyncio.sleep(0.01)
    await site.submit('Executable = "/bin/true"; Array = 10;')
    while sum(task.done() for task in asking) < 10:  # noqa: ASYNC110  likewise
        await asyncio.sleep(0.01)
    await site.queue.set_draining([WorkerId(f"w{number}") for number in range(100)], True)
    answers = await asyncio.wait_for(asyncio.gather(*asking), 30)
    assert sum(answer.assignment is not None for answer in answers) == 10
    assert {answer.order for answer in answers if answer.assignment is None} == {Order.DRAIN, Order.STOP}
    await site.check_counters()


# --- what the controller sees


async def test_demand_merges_what_looks_alike_and_evaluates_offers(site: Site) -> None:
    small = Shape(ShapeName("small"), Resources(1, 2048, 10_000))
    large = Shape(ShapeName("large"), Resources(8, 16384, 10_000))
    offers = [Offer(GroupName("grid"), shape, {"Arch": "X86_64"}) for shape in (small, large)]
    await site.submit('Executable = "/bin/true"; Array = 1000;', "anna")
    site.clock.at += 5
    await site.submit('Executable = "/bin/true"; Array = 10; Priority = 3;', "bert")
    await site.submit('Executable = "/bin/true"; Requirements = other.Arch == "AARCH64"; Cores = 2;')
    await site.submit('Executable = "/bin/true"; Requirements = other.KernelVersion == "6"; Cores = 3;')
    await site.submit('Executable = "/bin/true"; Cores = 9;')
    one, two, three, nine = await site.queue.demand(offers)
    assert (one.count, one.oldest_since) == (1010, site.clock.at - 5)
    assert one.runs_on == {("grid", "small"), ("grid", "large")}
    assert (two.count, two.runs_on) == (1, frozenset())
    assert two.label == '2 cores, 1 GiB memory; Requirements: other.Arch == "AARCH64"'
    assert three.runs_on == {("grid", "large")}  # its kernel is not known yet: it could be the right one
    assert nine.runs_on == frozenset()
    await site.queue.cancel(jobs=[], submission=1, user=None)
    assert (await site.queue.demand(offers))[0].count == 10


async def test_nodes(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    began = site.clock.at
    site.clock.at += 7
    await site.submit('Executable = "/bin/true"; Array = 9; Cores = 3; Memory = 1000;')
    (node,) = await site.queue.nodes()
    assert (node.worker, node.state, node.running, node.idle_since) == (W1, NodeState.ACCEPTING, 0, began)
    assert node.total == node.free == Resources(8, 8192, 10_000)
    job = await site.take("w1")
    await site.take("w1")
    (node,) = await site.queue.nodes()
    assert (node.running, node.free, node.idle_since) == (2, Resources(2, 6192, 10_000), None)
    site.clock.at += 5
    await site.finish("w1", job)
    await site.queue.set_draining([W1], True)
    (node,) = await site.queue.nodes()
    assert (node.state, node.running) == (NodeState.DRAINING, 1)
    await site.queue.finished(W1, end("1.1", 1))
    (node,) = await site.queue.nodes()
    assert (node.state, node.running, node.idle_since) == (NodeState.DRAINED, 0, site.clock.at)
    await site.queue.remove([W1])
    assert await site.queue.nodes() == ()


async def test_a_node_is_made_anew_only_when_something_of_it_has_changed(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.admit("w2", EIGHT_CORES)
    await site.submit('Executable = "/bin/true";')
    before = await site.queue.nodes()
    await site.take("w1")
    after = await site.queue.nodes()
    assert [node.running for node in after] == [1, 0]
    assert after[1] is before[1]
    site.clock.at += 601
    await site.queue.alive(W1, [], draining=False)
    silent = await site.queue.nodes()
    assert [node.state for node in silent] == [NodeState.ACCEPTING, NodeState.UNAVAILABLE]
    assert silent[0] is after[0]


def rows_read(site: Site) -> list[tuple[str, ...]]:
    """Whose rows each look at the nodes asks for, from now on."""
    looks: list[tuple[str, ...]] = []

    def note(_connection: object, _cursor: object, statement: str, given: Any, *_: object) -> None:
        if "used_cores" in statement:
            values = given.values() if isinstance(given, Mapping) else given  # psycopg names them
            looks.append(tuple(value for value in values if isinstance(value, str)))

    event.listen(site.database.engine, "before_cursor_execute", note)
    return looks


async def test_only_what_has_changed_is_read(site: Site) -> None:
    for name in ("w1", "w2", "w3"):
        await site.admit(name, EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 2;')
    first = await site.queue.nodes()
    looks = rows_read(site)
    assert await site.queue.nodes() is first
    assert looks == []
    job = await site.take("w2")
    assert [node.running for node in await site.queue.nodes()] == [0, 1, 0]
    await site.queue.set_draining([W1], True)
    await site.finish("w2", job)
    await site.queue.remove([WorkerId("w3")])
    await site.admit("w0", EIGHT_CORES)
    shown = await site.queue.nodes()
    assert [(node.name, node.state, node.running) for node in shown] == [
        ("w0", NodeState.ACCEPTING, 0),
        ("w1", NodeState.DRAINED, 0),
        ("w2", NodeState.ACCEPTING, 0),
    ]
    assert looks == [("w2",), ("w0", "w1", "w2", "w3")]
    site.restart()
    assert await site.queue.nodes() == shown
    assert looks[2:] == [()]


async def test_what_others_write_is_seen_at_once_while_they_may_and_otherwise_after_a_minute(site: Site) -> None:
    await site.admit("w1")
    assert len(await site.queue.nodes()) == 1
    other = PilotQueue(site.database, site.directory / "data", site.clock, wake=site.woken.append)
    await other.admit(WorkerId("w2"), GroupName("grid"), EIGHT_CORES, single_use=False)
    assert len(await site.queue.nodes()) == 1
    site.clock.at += 60
    assert len(await site.queue.nodes()) == 2
    site.alone = False
    await other.admit(WorkerId("w3"), GroupName("grid"), EIGHT_CORES, single_use=False)
    assert len(await site.queue.nodes()) == 3
    await other.admit(WorkerId("w4"), GroupName("grid"), EIGHT_CORES, single_use=False)
    site.alone = True
    assert len(await site.queue.nodes()) == 4, "somebody may have written before it was alone"


async def test_while_a_write_is_under_way_its_rows_are_read_with_every_look(site: Site) -> None:
    await site.admit("w1")
    await site.admit("w2")
    await site.queue.nodes()
    looks = rows_read(site)
    held, goes_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        held.set()
        goes_on.wait(30)

    writing = asyncio.create_task(site.queue._change([W1], slow))
    await asyncio.to_thread(held.wait, 30)
    await site.queue.nodes()
    await site.queue.nodes()
    goes_on.set()
    await writing
    await site.queue.nodes()
    await site.queue.nodes()
    assert looks == [("w1",), ("w1",), ("w1",)]


async def test_after_a_look_that_failed_everything_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.admit("w1")
    await site.queue.nodes()
    await site.queue.set_draining([W1], True)

    async def fail(_work: object) -> object:
        raise StoreUnavailable("the store does not answer", where="here")

    with monkeypatch.context() as broken:
        broken.setattr(site.database, "read", fail)
        with pytest.raises(StoreUnavailable):
            await site.queue.nodes()
    looks = rows_read(site)
    assert [node.state for node in await site.queue.nodes()] == [NodeState.DRAINED]
    assert looks == [()]


async def test_more_changes_than_a_statement_takes_are_read_with_all_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridtide.pilot.nodes._FEW", 1)
    await site.admit("w1")
    await site.queue.nodes()
    looks = rows_read(site)
    await site.admit("w2")
    await site.admit("w3")
    assert len(await site.queue.nodes()) == 3
    await site.admit("w4")
    assert len(await site.queue.nodes()) == 4
    assert looks == [(), ("w4",)]


async def test_admitting_again_changes_nothing_but_the_description(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    await site.take("w1")
    await site.queue.set_draining([W1], True)
    await site.admit("w1", EIGHT_CORES)
    (node,) = await site.queue.nodes()
    assert (node.state, node.running, node.total.cores) == (NodeState.DRAINING, 1, 8)


async def test_the_controller_is_woken(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    assert site.woken == ["submission 1: 1 jobs"]
    await site.take("w1")
    await site.queue.remove([W1])
    assert site.woken[-1] == "1 jobs lost their worker"


# --- lists


async def test_pages_of_jobs(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 5;', "anna")
    await site.submit('Executable = "/bin/true"; Array = 3;', "bert")
    await site.submit('Executable = "/bin/true"; Array = 2;', "anna")
    await site.take("w1")

    async def page(**wanted: object) -> list[str]:
        return [record.id for record in await site.queue.jobs(**wanted)]  # type: ignore[arg-type]

    assert await page(limit=6) == ["1.0", "1.1", "1.2", "1.3", "1.4", "2.0"]
    assert await page(limit=6, after="2.0") == ["2.1", "2.2", "3.0", "3.1"]
    assert await page(user="anna", after="1.3") == ["1.4", "3.0", "3.1"]
    assert await page(submission=2, after="1.3") == ["2.0", "2.1", "2.2"]
    assert await page(submission=2, after="2.2") == []
    assert await page(state=JobState.RUNNING) == ["1.0"]
    assert await page(state=JobState.WAITING, limit=2) == ["1.1", "1.2"]
    assert await page(state=JobState.DONE) == []
    assert [record.number for record in await site.queue.submissions(user="anna", limit=5)] == [3, 1]
    for limit in (0, -1, 100_000):
        with pytest.raises(InvalidRequest):
            await site.queue.jobs(limit=limit)
    with pytest.raises(NotFound):
        await site.queue.jobs(after=JobId("x"))


async def test_what_is_not_there_is_not_found(site: Site) -> None:
    await site.submit()
    for name in ("1.1", "2.0", "", "1", "1.0.0", "-1.0", "9" * 40 + ".0"):
        with pytest.raises(NotFound):
            await site.queue.job(JobId(name))
    with pytest.raises(NotFound):
        await site.queue.submission(2)
    with pytest.raises(NotFound):
        await site.queue.open_output(JobId("1.0"), "x")
    assert await site.queue.read_log(JobId("1.0"), "stdout", offset=0, limit=10) == b""


# --- submitting


async def test_files_must_be_there_or_nothing_is_made(site: Site) -> None:
    with pytest.raises(InvalidRequest, match="not sent along"):
        await site.queue.submit("anna", 'Executable = "run.sh";', {})
    with pytest.raises(NotFound, match="upload it first"):
        await site.queue.submit("anna", 'Executable = "run.sh";', {"run.sh": "0" * 64})
    with pytest.raises(InvalidRequest):
        await site.queue.submit("anna", 'Executable = "run.sh";', {"run.sh": "../../etc/passwd"})
    with pytest.raises(JobDescriptionError):
        await site.queue.submit("anna", "", {})
    assert await site.queue.submissions(user=None, limit=9) == []
    digest = await site.store(b"x")
    assert await site.queue.has_files(["0" * 64, digest]) == [digest]


async def test_logs_and_outputs_of_the_last_attempt_are_shown(site: Site) -> None:
    await site.admit("w1")
    await site.submit('Executable = "/bin/true"; OutputFile = "x";')
    await site.take("w1")
    await site.queue.append_log(W1, JobId("1.0"), 1, "stdout", 0, b"first")
    await site.queue.remove([W1])
    await site.admit("w2")
    job = await site.take("w2")
    await site.queue.append_log(W2, job.job, 2, "stdout", 0, b"second")
    await site.upload("w2", job, "x", b"2")
    assert await site.queue.outputs(job.job) == ()
    await site.finish("w2", job)
    assert await site.queue.read_log(job.job, "stdout", offset=0, limit=99) == b"second"
    assert [kept.size for kept in await site.queue.outputs(job.job)] == [1]


async def test_jobs_of_a_class_need_not_lie_together(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit()
    await site.submit('Executable = "/bin/true"; Array = 2; Requirements = other.Arch == "PPC";')
    await site.submit()
    answers = await asyncio.gather(*(site.ask("w1") for _ in range(3)))  # one transaction
    assert [answer.assignment and answer.assignment.job for answer in answers] == ["1.0", "3.0", None]
    await site.check_counters()
