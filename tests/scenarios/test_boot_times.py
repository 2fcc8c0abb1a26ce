"""Boot times are learned, and a fleet that has become slower finds its way back by itself."""

from __future__ import annotations

import asyncio

import pytest

from gridtide.clouds.fake import CloudFault
from gridtide.model.boots import BootKey, BootReport, Phase
from gridtide.model.reasons import Cause
from gridtide.model.rules import QueuePolicy
from gridtide.model.workers import WorkerState
from gridtide.planning.eta import eta_of
from gridtide.planning.joining import SHORTEST, UNKNOWN, join_deadline
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import CLOUD, GROUP, SHAPE, Site, scenario

MINUTE, HOUR = 60.0, 3600.0
KEY = BootKey(CLOUD, SHAPE.name, "thin")
SHORT_IDLE = QueuePolicy(idle_for=30.0)


def learning(boot_time: float, **more: float) -> Site:
    """A site whose workers come and go quickly."""
    return Site(maximum=6, policy=SHORT_IDLE, boot_time=boot_time, join_deadline=None, image="thin", **more)  # type: ignore[arg-type]


async def round_of(site: Site, jobs: int = 6) -> None:
    """Jobs come, are done, and the workers leave."""
    done = site.queue.count(FakeJobState.DONE)
    site.queue.submit(jobs, duration=60)
    site.controller.queue_changed(site.queue.name)
    await site.until(lambda: site.queue.count(FakeJobState.DONE) == done + jobs, within=6 * HOUR, what="the work")
    await site.until(lambda: not site.workers and site.machines() == 0, within=HOUR, what="the end")


async def wasted(site: Site) -> int:
    """Machines that were ended because they did not join."""
    events = await site.store.events(kind="worker", limit=100_000)
    return sum(
        each.event.reason is not None
        and each.event.reason.cause is Cause.NEVER_JOINED
        and each.event.text == WorkerState.FAILED.value
        for each in events
    )


async def deadline(site: Site) -> float:
    """What a worker launched now would get."""
    last = (await site.store.past_workers(group=GROUP, limit=1))[0]
    return join_deadline(site.controller.rules.groups[GROUP], last, site.controller.boot_times)


@scenario
async def test_the_deadline_is_learned_and_survives_a_restart() -> None:
    """Start: nothing known. Do: one round of workers that boot in 20 s. Expected: 10 min before, a minute after, and
    the same for the next controller; every worker knows its image."""
    async with learning(20.0) as site:
        await site.up()
        site.queue.submit(6, duration=60)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: len(site.workers) == 6, within=MINUTE)
        assert {worker.image for worker in site.workers} == {"thin"}
        assert join_deadline(site.controller.rules.groups[GROUP], site.workers[0], {}) == UNKNOWN
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 6, within=HOUR)
        await site.until(lambda: not site.workers, within=HOUR)
        times = site.controller.boot_times[KEY]
        assert times.count == 6
        assert times.median == pytest.approx(20.0, abs=1.0)
        assert await deadline(site) == pytest.approx(max(SHORTEST, 3 * (times.p95 or 0.0)))
        before = dict(site.controller.boot_times)
        await site.restart()
        assert dict(site.controller.boot_times) == before
        assert await wasted(site) == 0


@scenario
async def test_a_fleet_that_becomes_slower_finds_back() -> None:
    """Start: boots of 20 s are known. Do: from now on they take 100 s, and later 1000 s.

    Expected: a few machines are given up, then all join; in the rounds after that none is wasted.
    """
    async with learning(20.0) as site:
        await site.up()
        await round_of(site)
        assert await deadline(site) < 100.0
        site.cloud.boot_time = 100.0
        await round_of(site)
        lost = await wasted(site)
        assert 1 <= lost <= 6, "one round of machines at most"
        await round_of(site)
        await round_of(site)
        assert await wasted(site) == lost
        site.cloud.boot_time = 1000.0
        await round_of(site)
        again = await wasted(site) - lost
        assert 1 <= again <= 12
        await round_of(site)
        assert await wasted(site) == lost + again
        assert 1000.0 < await deadline(site) <= HOUR


@scenario
async def test_when_every_other_machine_is_slow_the_slow_ones_are_learned_too() -> None:
    """Start: boots of 20 s are known. Do: every other machine takes 200 s from now on.

    Expected: quick ones that join meanwhile do not make the site forget the others: after a while none is wasted.
    """
    async with learning(20.0) as site:
        await site.up()
        await round_of(site)
        made = 0

        def alternate(_machine: object) -> None:
            nonlocal made
            made += 1
            site.cloud.boot_time = 200.0 if made % 2 else 20.0

        site.cloud.on_made.append(alternate)
        for _ in range(8):
            await round_of(site)
        lost = await wasted(site)
        for _ in range(4):
            await round_of(site)
        assert await wasted(site) == lost
        assert await deadline(site) >= 3 * 190.0


@scenario
async def test_an_image_that_never_joins_is_tried_ever_more_patiently_and_at_most_for_an_hour() -> None:
    """Start: boots of 20 s are known. Do: nothing joins any more for 12 h, then all is well again.

    Expected: few machines are tried; the deadline stays within an hour; five boots later it is a minute or so again.
    """
    async with learning(20.0) as site:
        await site.up()
        await round_of(site)
        launched = site.launches()
        site.cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL, seconds=12 * HOUR)
        site.queue.submit(6, duration=60)
        await asyncio.sleep(12 * HOUR)
        assert site.launches() - launched <= 6 + 12
        assert await deadline(site) <= HOUR
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 12, within=6 * HOUR)
        await site.until(lambda: not site.workers, within=HOUR)
        await round_of(site)
        assert await deadline(site) == pytest.approx(SHORTEST, abs=30.0)


@scenario
async def test_a_time_without_a_controller_ends_no_machine_that_boots() -> None:
    """Start: boots of 20 s are known, so a minute is given. Do: kill the controller while six machines boot, for 10 min.

    Expected: all six join when the next one leads, and nobody learns that a boot takes 10 min.
    """
    async with learning(20.0) as site:
        await site.up()
        await round_of(site)
        before = dict(site.controller.boot_times)
        site.queue.submit(6, duration=60)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: len(site.in_state(WorkerState.BOOTING)) == 6, within=MINUTE)
        booting = {worker.id for worker in site.workers}
        await site.kill()
        await asyncio.sleep(10 * MINUTE)
        await site.up()
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 6, within=2 * MINUTE)
        assert {worker.id for worker in site.workers} == booting
        assert await wasted(site) == 0
        assert dict(site.controller.boot_times) == before
        told = await site.controller.explain(min(booting))
        assert any("after its launch: cloud" in text for _, text in told.history)
        assert await site.store.boot(min(booting)) is None


@scenario
async def test_a_machine_that_joins_at_the_last_moment_is_let_in() -> None:
    """Start: boots of 20 s are known. Do: one machine hangs and is given up, others take as long as is left to them.

    Expected: the deadline of those that boot has grown by then, and their join tokens are still good.
    """
    async with learning(20.0) as site:
        await site.up()
        await round_of(site)
        limit = await deadline(site)
        site.cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL, times=1)
        site.queue.submit(1, duration=60)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: len(site.workers) == 1, within=MINUTE)
        await asyncio.sleep(limit / 2)
        site.cloud.boot_time = 2 * limit - 5.0
        site.queue.submit(4, duration=60)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: len(site.workers) == 5, within=MINUTE)
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 4, within=10 * MINUTE)
        assert await wasted(site) == 1
        assert site.world.refused == []


@scenario
async def test_phases_are_kept_told_and_used_for_the_next_estimate() -> None:
    """Start: a worker that boots. Do: it joins with a report, twice. Expected: one boot, whose phases add up; its line
    in the history; an estimate made of it."""
    async with learning(1e6, call_time=2.0) as site:
        await site.up()
        nothing = eta_of(site.controller._snapshot(), site.controller.rules, GROUP)
        assert nothing.known is None
        site.queue.submit(1, duration=60)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: len(site.in_state(WorkerState.BOOTING)) == 1, within=MINUTE)
        (worker,) = site.workers
        await asyncio.sleep(10.0)
        secret = site.join_secret(worker.id)
        report = BootReport(user_space=1.0, context=3.0, agent=4.0, now=6.0)
        first = await site.controller.join(worker.id, secret, "mine", {}, report)
        again = await site.controller.join(worker.id, secret, "mine", {}, BootReport())
        assert first.boot is not None
        assert again.boot is None
        assert await site.store.boot(worker.id) == first.boot
        phases = first.boot.phases
        assert sum(phases.values()) == pytest.approx(first.boot.seconds)
        assert phases[Phase.CLOUD] == pytest.approx(2.0, abs=0.1)
        assert [phases[phase] for phase in (Phase.KERNEL, Phase.USER_SPACE, Phase.CONTEXT, Phase.JOIN)] == [1, 2, 1, 2]
        (line,) = [text for _, text in (await site.controller.explain(worker.id)).history if text.startswith("joined")]
        assert "after its launch: cloud 2.0, firmware" in line
        assert "kernel 1.0, user space 2.0, context 1.0, join 2.0" in line
        assert site.controller.boot_times[KEY].count == 1
        found = eta_of(site.controller._snapshot(), site.controller.rules, GROUP)
        assert found.known is not None
        assert found.known.times.median == first.boot.seconds
