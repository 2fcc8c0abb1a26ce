"""The OpenStack cloud passes the suite for cloud drivers, against real Nova."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.openstack import OpenstackCloud
from gridtide.model.ids import MachineId
from gridtide.testing.cloud_bench import Fault, Step
from gridtide.testing.clouds import CloudBench, CloudConformance
from gridtide.testing.fault_proxy import Answer, FaultProxy
from gridtide.testing.http_boundary import HttpBoundary
from tests.real.openstack.inside.plane import IMAGE
from tests.real.openstack.nova import END, LAUNCH, LIST, nova_call, refusal
from tests.real.openstack.project import Project

STEPS = {Step.LIST: LIST, Step.LAUNCH: LAUNCH, Step.TERMINATE: END}
REFUSALS = {
    Fault.THROTTLE: Answer(429, b"", {"retry-after": "120"}),
    Fault.CREDENTIALS: refusal(401, "unauthorized", "The request you have made requires authentication."),
    Fault.CAPACITY: refusal(400, "badRequest", "No more IP addresses available on network 1."),
    Fault.QUOTA: refusal(403, "forbidden", "Quota exceeded for cores: Requested 1, but already used 2 of 2"),
}
LACKS: dict[tuple[Fault, Step | None], str] = {
    (Fault.LAG, Step.LIST): "Nova lists a server as soon as it has accepted it, from the database it was written to",
    (Fault.HANG, Step.LIST): "a launch looks at the listing first, since there is no client token",
}


class TestOpenstackCloud(CloudConformance):
    title = "openstack"
    driver = OpenstackCloud

    @pytest.fixture(autouse=True)
    def _project(self, project: Project) -> None:
        self.project = project

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[OpenstackCloud] = []
        proxy = FaultProxy(self.project.compute, name=nova_call)

        def again() -> OpenstackCloud:
            made.append(self.project.cloud(endpoint=proxy.url))
            return made[-1]

        async def add_foreign() -> MachineId:
            return await asyncio.to_thread(self.project.add_foreign)

        async def break_machine(machine: MachineId) -> None:
            await asyncio.to_thread(self.project.stop, machine)

        async with proxy:
            faults = HttpBoundary(proxy, STEPS, REFUSALS, LACKS)
            try:
                yield CloudBench(
                    again(), again, add_foreign, break_machine, image=IMAGE, many=7, patience=60.0, faults=faults
                )
            finally:
                for each in made:
                    await each.close()
