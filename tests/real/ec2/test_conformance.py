"""The EC2 cloud passes the suite for cloud drivers, against moto."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.model.ids import MachineId
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.real.ec2.account import IMAGE, Account


class TestEc2Cloud(CloudConformance):
    @pytest.fixture(autouse=True)
    def _account(self, account: Account) -> None:
        self.account = account

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[Ec2Cloud] = []

        def again() -> Ec2Cloud:
            made.append(self.account.cloud())
            return made[-1]

        async def break_machine(machine: MachineId) -> None:
            await self.account.admin(lambda client: client.stop_instances(InstanceIds=[machine]))

        try:
            yield CloudBench(again(), again, self.account.add_foreign, break_machine, image=IMAGE, many=12)
        finally:
            for each in made:
                await each.close()
