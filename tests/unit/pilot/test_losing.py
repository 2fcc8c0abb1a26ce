"""Lost workers, late results, ends and cancels, one promise at a time."""

from __future__ import annotations

import pytest

from gridtide.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import EndCause, JobId, JobState, Order
from tests.unit.pilot.support import LEASE, ONE_CORE, Site, end

W1, W2 = WorkerId("w1"), WorkerId("w2")
EIGHT_CORES = {**ONE_CORE, "Cpus": 8, "Memory": 8192}


# --- leases


async def test_a_silent_worker_loses_its_job_and_at_last_the_job_fails(site: Site) -> None:
    await site.submit()
    for loss in (1, 2, 3):
        await site.admit(f"w{loss}")
        assert (await site.take(f"w{loss}")).attempt == loss
        await site.listen(LEASE - 1)
        await site.queue.sweep()
        assert await site.state("1.0") is JobState.RUNNING
        site.clock.at += 2
        await site.queue.sweep()
        assert await site.state("1.0") is (JobState.FAILED if loss == 3 else JobState.WAITING)
    assert await site.reason("1.0") == "lost 3 times: worker w3 silent for 600 s"
    await site.check_counters()


async def test_every_contact_renews_the_lease(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; OutputFile = "x"; Array = 9;')
    job = await site.take("w1")
    await site.take("w1")

    async def write() -> None:
        await site.queue.append_log(W1, job.job, 1, "stdout", 0, b"x")

    async def heartbeat() -> None:
        await site.queue.alive(W1, [(JobId("1.0"), 1), (JobId("1.1"), 1)], draining=False)

    async def ask() -> None:
        await site.ask("w1", free=Resources())

    async def fetch() -> None:
        with pytest.raises(NotFound):
            await site.queue.open_input(W1, job.job, 1, "no-such-input")

    async def send() -> None:
        await site.upload("w1", job, "x", b"x")

    async def finish() -> None:
        await site.finish("w1", job)

    for contact in (write, heartbeat, ask, fetch, send, finish):
        await site.listen(LEASE - 1)
        await contact()
        site.clock.at += 2  # without this contact the lease would have ended by now
        await site.queue.sweep()
        assert await site.state("1.1") is JobState.RUNNING, contact.__name__
        await heartbeat()
    assert await site.state("1.1") is JobState.RUNNING
    assert await site.state("1.0") is JobState.DONE


async def test_after_a_restart_every_worker_has_a_full_lease(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    await site.take("w1")
    site.clock.at += 10 * LEASE  # the service was down
    site.restart()
    await site.queue.sweep()
    assert (await site.queue.nodes())[0].state is NodeState.ACCEPTING
    await site.listen(LEASE - 1)
    await site.queue.sweep()
    assert await site.state("1.0") is JobState.RUNNING
    site.clock.at += 2
    assert (await site.queue.nodes())[0].state is NodeState.UNAVAILABLE
    await site.queue.sweep()
    assert await site.state("1.0") is JobState.WAITING


@pytest.mark.parametrize("during", ["the pause between two sweeps", "a sweep"])
async def test_whoever_could_not_reach_a_stopped_service_was_not_silent(
    site: Site, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """Start: a job runs. Do: stop the service for three leases. Expected: its worker has a full lease afterwards."""
    await site.admit("w1")
    await site.submit()
    await site.take("w1")
    await site.queue.sweep()
    if during == "a sweep":
        honest = site.queue._listing

        async def held_up() -> object:
            site.clock.at += 3 * LEASE
            return await honest()

        with monkeypatch.context() as stopped:
            stopped.setattr(site.queue, "_listing", held_up)
            await site.queue.sweep()
    else:
        site.clock.at += 3 * LEASE
        await site.queue.sweep()
    assert await site.state("1.0") == "running"
    await site.listen(LEASE - 1)
    await site.queue.sweep()
    assert await site.state("1.0") == "running"
    site.clock.at += 2
    await site.queue.sweep()
    assert await site.state("1.0") == "waiting"


async def test_sweep_says_when_to_look_again(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    await site.take("w1")
    await site.listen(LEASE - 2)
    assert await site.queue.sweep() == pytest.approx(site.clock.at + 2)


async def test_a_late_result_is_taken_while_the_job_waits(site: Site) -> None:
    await site.admit("w1")
    await site.submit('Executable = "/bin/true"; OutputFile = "x";')
    job = await site.take("w1")
    await site.listen(LEASE + 1)
    await site.queue.sweep()
    assert await site.state("1.0") is JobState.WAITING
    await site.queue.append_log(W1, job.job, 1, "stdout", 0, b"late")
    await site.upload("w1", job, "x", b"late")
    assert await site.finish("w1", job)
    assert await site.state("1.0") is JobState.DONE
    assert (await site.ask("w1")).assignment is None
    assert await site.finish("w1", job)
    await site.check_counters()


async def test_a_worker_that_comes_back_goes_on(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    job = await site.take("w1")
    await site.listen(LEASE + 1)
    await site.queue.sweep()
    assert await site.queue.alive(W1, [(job.job, 1)], draining=False) == (Order.CONTINUE, ())
    record = await site.queue.job(job.job)
    assert (record.state, record.attempt) == (JobState.RUNNING, 1)
    await site.check_counters()
    assert await site.finish("w1", job)


async def test_a_given_up_attempt_is_fenced_once_another_runs(site: Site) -> None:
    await site.admit("w1")
    await site.admit("w2")
    await site.submit('Executable = "/bin/true"; OutputFile = "x";')
    old = await site.take("w1")
    await site.listen(LEASE + 1)
    await site.queue.sweep()
    new = await site.take("w2")
    assert new.attempt == 2
    assert await site.queue.alive(W1, [(old.job, 1)], draining=False) == (Order.CONTINUE, ("1.0",))
    with pytest.raises(Conflict):
        await site.queue.append_log(W1, old.job, 1, "stdout", 0, b"x")
    with pytest.raises(Conflict):
        await site.upload("w1", old, "x", b"x")
    with pytest.raises(Conflict):
        await site.queue.open_input(W1, old.job, 1, "x")
    assert not await site.finish("w1", old, 1)
    assert await site.state("1.0") is JobState.RUNNING
    await site.upload("w2", new, "x", b"x")
    assert await site.finish("w2", new)
    assert not await site.finish("w1", old)
    assert await site.state("1.0") is JobState.DONE


async def test_a_job_that_its_worker_forgot_waits_again(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 2;')
    await site.take("w1")
    kept = await site.take("w1")
    for _ in range(13):
        await site.queue.alive(W1, [(kept.job, 1)], draining=False)
        await site.queue.sweep()
        assert await site.state("1.0") is JobState.RUNNING
        site.clock.at += 50
    await site.queue.sweep()
    assert await site.state("1.0") is JobState.WAITING
    assert await site.reason("1.0") == "waits again after attempt 1 was given up: worker w1 does not know of it"
    assert await site.state("1.1") is JobState.RUNNING


async def test_a_worker_that_left_gives_back_what_it_never_ended(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    await site.take("w1")
    await site.queue.left(W1)
    assert await site.state("1.0") is JobState.WAITING
    assert (await site.queue.nodes())[0].state is NodeState.DRAINED
    assert (await site.ask("w1")).order is Order.STOP


# --- ends


@pytest.mark.parametrize(
    ("cause", "code", "state", "reason"),
    [
        (EndCause.EXITED, 0, JobState.DONE, "ended with exit code 0, results kept"),
        (EndCause.EXITED, 3, JobState.FAILED, "ended with exit code 3"),
        (EndCause.EXITED, None, JobState.FAILED, "was ended by an unknown signal"),
        (EndCause.WALLTIME, None, JobState.FAILED, "ran longer than its TTL of 60 s and was ended"),
        (EndCause.MEMORY, None, JobState.FAILED, "used 30 MiB of memory, more than its 10 MiB, and was ended"),
        (EndCause.NOT_STARTED, None, JobState.FAILED, "could not be started"),
        (EndCause.OUTPUT_MISSING, 0, JobState.FAILED, "ended with exit code 0 but did not leave a declared output"),
    ],
)
async def test_ends(site: Site, cause: EndCause, code: int | None, state: JobState, reason: str) -> None:
    await site.admit("w1")
    await site.submit('Executable = "/bin/true"; TTL = 60; Memory = 10;')
    await site.take("w1")
    assert await site.queue.finished(W1, end("1.0", 1, code, cause))
    assert (await site.state("1.0"), await site.reason("1.0")) == (state, reason)
    # Another end of the same attempt changes nothing.
    assert await site.queue.finished(W1, end("1.0", 1, 7))
    assert (await site.state("1.0"), await site.reason("1.0")) == (state, reason)


async def test_a_declared_output_that_was_not_kept_fails_the_job(site: Site) -> None:
    await site.admit("w1")
    await site.submit('Executable = "/bin/true"; OutputFile = {"a.txt", "b/*.root"};')
    job = await site.take("w1")
    await site.upload("w1", job, "a.txt", b"x")
    await site.finish("w1", job)
    assert await site.reason("1.0") == "ended with exit code 0 but did not leave b/*.root"
    assert [kept.name for kept in await site.queue.outputs(job.job)] == ["a.txt"]


async def test_a_job_that_its_worker_ended_unasked_waits_again(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    job = await site.take("w1")
    assert await site.finish("w1", job, cause=EndCause.CANCELLED)
    assert await site.state("1.0") is JobState.WAITING


async def test_strangers_cannot_end_or_feed_a_job(site: Site) -> None:
    await site.admit("w1")
    await site.admit("w2")
    await site.submit('Executable = "/bin/true"; OutputFile = "x";')
    job = await site.take("w1")
    for name, attempt in (("1.0", 2), ("1.1", 1), ("9.0", 1), ("x", 1), ("1.0 ", 1), ("01.0", 1)):
        with pytest.raises(NotFound):
            await site.queue.finished(W1, end(name, attempt))
    with pytest.raises(NotFound):
        await site.finish("w2", job)
    with pytest.raises(NotFound):
        await site.queue.append_log(W2, job.job, 1, "stdout", 0, b"x")
    with pytest.raises(InvalidRequest, match="did not declare"):
        await site.queue.output_path(W1, job.job, 1, "y")
    with pytest.raises(InvalidRequest):
        await site.queue.output_path(W1, job.job, 1, "../x")
    assert await site.state("1.0") is JobState.RUNNING


# --- cancelling


async def test_cancelling_what_waits_and_what_runs(site: Site) -> None:
    await site.admit("w1", EIGHT_CORES)
    await site.submit('Executable = "/bin/true"; Array = 5;')
    running, ended = await site.take("w1"), await site.take("w1")
    await site.finish("w1", ended)
    assert await site.queue.cancel(jobs=[], submission=1, user="anna") == 4
    assert await site.queue.cancel(jobs=[JobId("1.0"), JobId("1.3")], submission=None, user="anna") == 0
    assert await site.state("1.4") is JobState.CANCELLED
    assert await site.state("1.0") is JobState.RUNNING
    assert "to be cancelled" in await site.reason("1.0")
    assert await site.queue.alive(W1, [(running.job, 1)], draining=False) == (Order.CONTINUE, ("1.0",))
    assert await site.finish("w1", running, cause=EndCause.CANCELLED)
    assert (await site.queue.submission(1)).counts == {
        **dict.fromkeys(JobState, 0),
        JobState.DONE: 1,
        JobState.CANCELLED: 4,
    }
    await site.check_counters()


async def test_a_cancelled_job_whose_worker_is_lost_does_not_wait_again(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    job = await site.take("w1")
    await site.queue.cancel(jobs=[job.job], submission=None, user=None)
    await site.queue.remove([W1])
    assert await site.state("1.0") is JobState.CANCELLED
    assert not await site.finish("w1", job)


async def test_nobody_cancels_what_is_anothers(site: Site) -> None:
    await site.submit(user="anna")
    await site.submit(user="bert")
    with pytest.raises(AccessDenied):
        await site.queue.cancel(jobs=[JobId("2.0"), JobId("1.0")], submission=None, user="bert")
    with pytest.raises(AccessDenied):
        await site.queue.cancel(jobs=[], submission=1, user="bert")
    with pytest.raises(NotFound):
        await site.queue.cancel(jobs=[JobId("3.0")], submission=None, user="bert")
    assert (await site.queue.counts())[JobState.WAITING] == 2
    assert await site.queue.cancel(jobs=[], submission=None, user="bert") == 0


async def test_only_the_last_attempt_may_still_end_a_waiting_job(site: Site) -> None:
    await site.submit()
    jobs = []
    for name in ("w1", "w2"):
        await site.admit(name)
        jobs.append(await site.take(name))
        await site.listen(LEASE + 1)
        await site.queue.sweep()
    assert await site.state("1.0") is JobState.WAITING
    assert not await site.finish("w1", jobs[0], 1)
    assert await site.queue.alive(W1, [(JobId("1.0"), 1)], draining=False) == (Order.CONTINUE, ("1.0",))
    assert await site.state("1.0") is JobState.WAITING
    assert await site.finish("w2", jobs[1])
    assert await site.state("1.0") is JobState.DONE


async def test_a_loss_that_was_none_is_not_counted(site: Site) -> None:
    await site.admit("w1")
    await site.submit()
    job = await site.take("w1")
    for _ in range(5):
        await site.listen(LEASE + 1)
        await site.queue.sweep()
        assert await site.state("1.0") is JobState.WAITING
        await site.queue.alive(W1, [(job.job, 1)], draining=False)
        assert await site.state("1.0") is JobState.RUNNING
