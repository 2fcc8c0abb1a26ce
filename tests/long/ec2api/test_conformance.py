"""The EC2 cloud passes the suite for cloud drivers on a second endpoint: ec2-api, completed, before real Nova."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.model.ids import MachineId
from gridtide.testing.clouds import CloudBench, CloudConformance
from gridtide.testing.fault_proxy import FaultProxy, ec2_action
from gridtide.testing.http_boundary import HttpBoundary
from tests.long.ec2api.endpoint import Tenant
from tests.real.ec2.test_conformance import REFUSALS, STEPS
from tests.real.openstack.inside.plane import IMAGE
from tests.real.openstack.project import until


class TestEc2CloudOnOpenstack(CloudConformance):
    title = "ec2, ec2-api"
    driver = Ec2Cloud

    @pytest.fixture(autouse=True)
    def _tenant(self, tenant: Tenant) -> None:
        self.tenant = tenant

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[Ec2Cloud] = []
        proxy = FaultProxy(self.tenant.address, name=ec2_action, patience=240.0)

        def again() -> Ec2Cloud:
            made.append(self.tenant.cloud(endpoint=proxy.url))
            return made[-1]

        async with proxy:
            faults = HttpBoundary(proxy, STEPS, REFUSALS)
            try:
                yield CloudBench(
                    again(), again, self._add_foreign, self._break, image=IMAGE, many=7, patience=240.0, faults=faults
                )
            finally:
                for each in made:
                    await each.close()

    async def test_a_machine_that_is_being_ended_says_so(self) -> None:
        """ec2-api calls a machine running until Nova has deleted it. The controller repeats the order until it has."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            await bench.cloud.terminate([one])
            await bench.until_ended(one)

    async def _add_foreign(self) -> MachineId:
        def add() -> MachineId:
            tags = {"ResourceType": "instance", "Tags": [{"Key": "gridtide:site", "Value": "milano/burst"}]}
            (machine,) = self.tenant.run(TagSpecifications=[tags])
            until(lambda: self.tenant.state(machine) == "running", "the foreign machine does not run", 240.0)
            return machine

        return await asyncio.to_thread(add)

    async def _break(self, machine: MachineId) -> None:
        def stop() -> None:
            until(lambda: self.tenant.state(machine) == "running", "it does not run", 240.0)
            self.tenant.client.stop_instances(InstanceIds=[machine])
            until(lambda: self.tenant.state(machine) == "stopped", "it does not stop", 240.0)

        await asyncio.to_thread(stop)
