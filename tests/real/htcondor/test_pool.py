"""What the queue does with a real pool: fit, slots, drains, accidents, rights."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gridtide.clouds.protocol import Level
from gridtide.model.demand import NodeState, Offer
from gridtide.model.ids import ShapeName, WorkerId
from gridtide.model.resources import Resources, Shape
from gridtide.queues.htcondor.errors import PoolRefuses, PoolUnreachable
from gridtide.queues.htcondor.queue import HTCondorQueue
from gridtide.testing.queues import SHAPE, host, offer, worker
from tests.real.htcondor.bench import WHY, Site, children_of, shown
from tests.real.htcondor.pool import Pool, queue_of, running_pool

# --- demand


async def test_mixed_jobs_of_two_schedds_are_counted_by_what_they_need(pool: Pool, site: Site) -> None:
    pool.sleep(600, 3)
    pool.sleep(600, 2, "request_cpus = 2", schedd="second@pool.test")
    pool.sleep(600, 4, "request_cpus = 16")
    pool.sleep(600, 1, "requirements = HasGhost =?= true && TARGET.Memory > 10")
    pool.sleep(600, 1, "hold = true")
    pool.submit("universe = local\nexecutable = /bin/sleep\narguments = 0.1")
    rows = {(row.need.cores, bool(row.runs_on)): row for row in await site.rows(offer(SHAPE))}
    assert {key: row.count for key, row in rows.items()} == {(1, True): 3, (2, True): 2, (16, False): 4, (1, False): 1}
    assert rows[1, True].label == "1 core, 64 MiB memory, 1 MiB disk"
    assert "no shape has that: cores, at most 2" in rows[16, False].label
    assert rows[1, False].label.endswith("no worker would have HasGhost is true")
    assert abs(rows[1, True].oldest_since - time.time()) < 60


async def test_what_a_group_advertises_makes_its_jobs_fit_before_a_worker_is_there(pool: Pool, site: Site) -> None:
    pool.sleep(600, 1, 'requirements = Colour == "green"')
    plain = offer(SHAPE)
    green = Offer(plain.group, Shape(ShapeName("green"), SHAPE.resources), {**plain.attributes, "Colour": "green"})
    (row,) = await site.rows(plain, green)
    assert row.runs_on == {green.key}


async def test_what_an_earlier_worker_said_is_known_of_the_next(pool: Pool, site: Site) -> None:
    pool.sleep(600, 1, "requirements = OpSysMajorVer > 90")
    assert (await site.rows(offer(SHAPE)))[0].runs_on  # nobody knows yet what such a machine runs
    await site.start("conform-one")
    (row,) = await site.rows(offer(SHAPE))
    assert not row.runs_on
    assert "OpSysMajorVer > 90" in row.label


async def test_jobs_know_which_nodes_of_others_they_could_run_on(pool: Pool, site: Site) -> None:
    for name, colour in (("red", "red"), ("blue", "blue"), ("crimson", "red")):
        code = _ADVERTISE.format(name=name, more=f"'Colour': '{colour}', 'Cpus': 4, 'Start': True")
        assert run_python(pool.client("condor", pool.token("condor", "ADVERTISE_STARTD", "READ")), code) == "done"
    pool.sleep(600, 1, 'requirements = Colour == "red"', "request_cpus = 64")
    (row,) = await site.rows()
    assert row.node_kinds is None  # nobody has looked at the colours of nodes yet
    kinds = {node.name: node.kind for node in await site.queue.nodes()}
    (row,) = await site.rows()
    assert kinds["red.gridtide"] == kinds["crimson.gridtide"] != kinds["blue.gridtide"]
    assert row.node_kinds == frozenset({kinds["red.gridtide"]})


# --- nodes


async def test_static_slots_are_one_node(pool: Pool, site: Site) -> None:
    site.queue = queue_of(pool, site.home / "static", static_slots=True)
    node = await site.start("conform-static", Shape(ShapeName("three"), Resources(3, 3000, 100)))
    node = await site.until("conform-static", lambda node: node.total.cores == 3)
    assert (node.total.memory, node.free.cores) == (3000, 3)
    pool.sleep(600, 2)
    await site.until("conform-static", lambda node: node.running == 2 and node.free.cores == 1)
    await site.queue.drain({WorkerId("conform-static"): WHY})
    await site.until("conform-static", lambda node: node.state is NodeState.DRAINING)


async def test_a_claim_without_a_job_is_not_idle(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    pool.sleep(1, 2)
    node = await site.until("conform-one", lambda node: node.running > 0)
    states: set[tuple[str, str, int]] = set()
    for _ in range(60):
        node = await site.until("conform-one", lambda node: True)
        states |= {(state, activity, node.running) for _, state, activity in pool.status("Name", "State", "Activity")}
        if not node.running:
            break
        await asyncio.sleep(0.1)
    assert not node.running
    assert node.idle_since is not None
    assert abs(node.idle_since - time.time()) < 10


# --- drains


async def test_a_running_job_survives_drain_cancel_and_drain(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    # A job that gives up its right to finish is the one that HTCondor's own drain would end at once.
    cluster = pool.sleep(7, 1, "max_job_retirement_time = 0")
    await site.until("conform-one", lambda node: node.running == 1)
    one = WorkerId("conform-one")
    assert await site.queue.drain({one: WHY}) == {one: None}
    pool.sleep(600, 2)
    node = await site.until("conform-one", lambda node: node.state is NodeState.DRAINING)
    assert node.running == 1
    assert await site.queue.undrain([one]) == {one: None}
    await site.until("conform-one", lambda node: node.running == 2)  # one of the waiting jobs came in
    assert await site.queue.drain({one: WHY}) == {one: None}
    await site.until("conform-one", lambda node: node.state is NodeState.DRAINING and node.running == 1)
    done = pool.manager.run("condor_history", str(cluster), "-af", "NumJobStarts", "ExitCode").split()
    assert done == ["1", "0"]
    assert len(await site.rows(offer(SHAPE))) == 1  # the other one waits: nothing was started since


async def test_the_machine_drains_itself_when_its_lease_is_lost(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    batch, capsule = site.machines["conform-one"].batch, site.machines["conform-one"].capsule
    capsule.run(*batch.drain)
    await site.until("conform-one", lambda node: node.state is NodeState.DRAINED)
    outcome = await site.queue.undrain([WorkerId("conform-one")])
    assert "drains by itself" in str(outcome[WorkerId("conform-one")])
    capsule.run(*batch.resume)
    await site.until("conform-one", lambda node: node.state is NodeState.ACCEPTING)
    pool.sleep(600)
    await site.until("conform-one", lambda node: node.running == 1)
    assert capsule.processes(batch.busy[0])


# --- rights and secrets


async def test_a_pool_that_is_not_there_or_does_not_want_us(pool: Pool, tmp_path: Path) -> None:
    stranger = tmp_path / "gridtide"
    stranger.write_bytes(b"another key, of another pool, as long")
    refused = queue_of(pool, tmp_path / "refused", signing_key=stranger)
    place = replace(refused._settings.place, collector=f"{pool.address}:9")
    missing = queue_of(pool, tmp_path / "missing", place=place)
    try:
        with pytest.raises(PoolRefuses):
            await refused.demand([])
        with pytest.raises(PoolUnreachable, match="does not answer"):
            await missing.nodes()
        assert [finding.level for finding in await missing.check()] == [Level.ERROR]
    finally:
        await refused.close()
        await missing.close()


async def test_a_worker_may_only_advertise_and_only_itself(pool: Pool, site: Site) -> None:
    orders = await site.queue.join(worker("conform-one"), host("conform-one"))
    assert orders.batch is not None
    token = next(file.content for file in orders.batch.files if file.path.endswith("tokens.d/gridtide")).strip()
    client = pool.client("worker", token)
    assert run_python(client, _SUBMIT).startswith("refused")
    # The collector answers nothing to an ad, but lists the one and not the other.
    for name in ("conform-one", "conform-two"):
        assert run_python(client, _ADVERTISE.format(name=name, more="")) == "done"
    assert pool.status("GridtideWorker", constraint='regexp("^conform", GridtideWorker)') == [["conform-one"]]
    await site.queue.forget([WorkerId("conform-one")])
    assert run_python(client, _LIST) == "done"


_SUBMIT = """
import htcondor2
try:
    ad = htcondor2.Collector().query(htcondor2.AdType.Schedd)[0]
    htcondor2.Schedd(ad).submit(htcondor2.Submit({"executable": "/bin/true"}))
    print("done")
except Exception as error:
    print("refused", error)
"""
_LIST = """
import htcondor2
htcondor2.Collector().query(htcondor2.AdType.Startd)
print("done")
"""
_ADVERTISE = """
import htcondor2, classad2
ad = classad2.ClassAd({{"MyType": "Machine", "Name": "slot1@{name}.gridtide", "GridtideWorker": "{name}",
                        "MyAddress": "<127.0.0.1:1>", "State": "Unclaimed", "Arch": "X86_64", "OpSys": "LINUX",
                        "HasFileTransfer": True, {more}}})
htcondor2.Collector().advertise([ad], "UPDATE_STARTD_AD")
print("done")
"""


def run_python(configuration: Path, code: str) -> str:
    """What the code says, with HTCondor's bindings in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CONDOR_CONFIG": str(configuration)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip() or done.stderr


async def test_no_secret_is_in_an_argument_or_environment_of_a_process(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    drain = asyncio.create_task(site.queue.drain({WorkerId("conform-one"): WHY}))
    secret = pool.site_key.secret
    seen = b""
    while not drain.done():
        seen += b"".join(shown(each) for each in children_of(os.getpid()))
        await asyncio.sleep(0)
    assert seen
    assert secret not in seen
    assert b"eyJ" not in seen  # how every token begins
    assert await drain == {WorkerId("conform-one"): None}


async def test_the_check_says_what_is_well(pool: Pool, site: Site) -> None:
    findings = await site.queue.check()
    assert [finding.level for finding in findings] == [Level.OK]
    assert "first@pool.test" in findings[0].text


async def test_the_check_says_what_could_end_a_job_or_keep_workers_out() -> None:
    more = "PREEMPTION_REQUIREMENTS = True\nALLOW_ADVERTISE_STARTD = condor@*\n"
    with running_pool(more=more) as pool:
        queue: HTCondorQueue = queue_of(pool, pool.home / "queue")
        findings = {finding.level: finding for finding in await queue.check() if finding.level is not Level.OK}
        await queue.close()
    assert "ADVERTISE_STARTD" in findings[Level.ERROR].text
    assert "PREEMPTION_REQUIREMENTS" in findings[Level.WARNING].text
