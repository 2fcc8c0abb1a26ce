"""The EC2 cloud passes the suite for cloud drivers, against moto."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.model.ids import MachineId
from gridtide.testing.cloud_bench import Fault, Step
from gridtide.testing.clouds import CloudBench, CloudConformance
from gridtide.testing.fault_proxy import FaultProxy, ec2_action
from gridtide.testing.http_boundary import HttpBoundary
from tests.real.ec2.account import IMAGE, Account, refusal

STEPS = {Step.LIST: "DescribeInstances", Step.LAUNCH: "RunInstances", Step.TERMINATE: "TerminateInstances"}
REFUSALS = {
    Fault.THROTTLE: refusal("RequestLimitExceeded", 503, **{"retry-after": "120"}),
    Fault.CREDENTIALS: refusal("AuthFailure", 401),
    Fault.CAPACITY: refusal("InsufficientInstanceCapacity", 500),
    Fault.QUOTA: refusal("VcpuLimitExceeded"),
}


class TestEc2Cloud(CloudConformance):
    title = "ec2"
    driver = Ec2Cloud

    @pytest.fixture(autouse=True)
    def _account(self, account: Account) -> None:
        self.account = account

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[Ec2Cloud] = []
        proxy = FaultProxy(self.account.address, name=ec2_action)

        def again() -> Ec2Cloud:
            made.append(self.account.cloud(endpoint=proxy.url, timeout=5.0))
            return made[-1]

        async def break_machine(machine: MachineId) -> None:
            await self.account.admin(lambda client: client.stop_instances(InstanceIds=[machine]))

        async with proxy:
            faults = HttpBoundary(proxy, STEPS, REFUSALS)
            try:
                yield CloudBench(
                    again(), again, self.account.add_foreign, break_machine, image=IMAGE, many=12, faults=faults
                )
            finally:
                for each in made:
                    await each.close()
