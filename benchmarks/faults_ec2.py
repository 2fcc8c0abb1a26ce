"""A fifth of all calls to EC2's API fail: the production controller and driver, moto behind a proxy that spoils calls.

The machines of moto run nothing: their agents and their batch queue are played here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from tests.real.ec2.account import IMAGE, SIZE, Account, moto, refusal, with_types

from benchmarks.figures import Figure
from benchmarks.played_site import PlayedCloud, PlayedSite
from gridtide.clouds.ec2_rate import Rates
from gridtide.model.resources import Resources
from gridtide.queues.fake import FakeJobState
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault, ec2_action

MIX: Final = (
    Answer(500),
    refusal("RequestLimitExceeded", 503),
    Answer(429, b"slow down"),
    HttpFault.HANG,
    HttpFault.HANG_AFTER,
    HttpFault.REFUSED,
    HttpFault.LOST,
    HttpFault.CUT,
)
PART: Final = 0.2
TIMEOUT: Final = 2.0
"""Seconds for a call. The default of 10 suits the distance to a real region; moto is on this host, and loaded."""
PATIENCE: Final = 240.0
"""Seconds after which a run counts as stuck."""


@dataclass(slots=True)
class Outcome:
    """Of one run."""

    reached: float = float("inf")
    """Seconds until all workers had joined."""
    ended: float = float("inf")
    """Seconds until all were gone again."""
    doubled: int = 0
    """Workers that ever had two machines."""
    lost: int = 0
    """Machines that live and belong to no worker."""
    killed: int = 0
    """Jobs that ran on a machine when it was ended."""
    unfinished: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    struck: int = 0


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Reach a target and leave it again, without faults and with them."""
    workers = 6 if quick else 60
    directory.mkdir(parents=True)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # thousands of lines otherwise
    with moto() as address:
        account = Account(address, directory)
        calm = asyncio.run(run(account, workers, 0.0))
        rough = asyncio.run(run(account, workers, PART))
    total = sum(rough.calls.values())
    note = f"{workers} workers; {rough.struck} of {total} calls spoilt; {calm.reached:.1f} s without faults"
    yield Figure("ec2 faults: machines lost", rough.lost, "machines", "==", 0, note)
    yield Figure("ec2 faults: workers with two machines", rough.doubled, "workers", "==", 0, note)
    yield Figure("ec2 faults: jobs killed", rough.killed + rough.unfinished, "jobs", "==", 0, note)
    yield Figure("ec2 faults: time to the target", rough.reached / calm.reached, "x", "<=", 2.0, note)
    launching = sum(calm.calls[call] for call in ("RunInstances", "TerminateInstances", "DescribeImages"))
    yield Figure("ec2: calls per worker, listings aside", launching / workers, "calls", "<=", 3.0, note)


async def run(account: Account, workers: int, part: float, seed: int = 1) -> Outcome:
    """Two jobs per worker: all machines are made, then drained and ended when the jobs are done."""
    await asyncio.to_thread(account.empty)
    outcome = Outcome()
    async with FaultProxy(account.address, seed=seed, name=ec2_action) as proxy:
        proxy.mix(part, MIX)
        cloud = account.cloud(with_types(rates=Rates(), page=1000), endpoint=proxy.url, timeout=TIMEOUT)
        site = PlayedSite(PlayedCloud(cloud, account.look, "m5.large", IMAGE, SIZE, workers=workers))
        site.queue.submit(2 * workers, need=Resources(1, 1024, 1024), duration=5.0)
        running = asyncio.create_task(site.run())
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await _until(lambda: len(site.joined) >= workers)
                outcome.reached = time.monotonic() - began
                await _until(lambda: not site.controller.workers)
                outcome.ended = time.monotonic() - began
        except TimeoutError:
            pass  # the figures tell: nothing reached, or machines left
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await cloud.close()
        outcome.calls, outcome.struck = proxy.calls, sum(proxy.struck.values())
    known = {worker.machine for worker in site.controller.workers.values()}
    outcome.lost = sum(each["InstanceId"] not in known for each in account.instances())
    outcome.doubled = sum(number > 1 for number in Counter(site.workers_of.values()).values())
    outcome.killed = site.killed
    outcome.unfinished = 2 * workers - site.queue.count(FakeJobState.DONE)
    return outcome


async def _until(holds: Callable[[], bool]) -> None:
    """What is looked at changes in many places."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
