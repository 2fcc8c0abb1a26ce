"""The OpenNebula cloud passes the suite for cloud drivers, against a double of its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.opennebula import OpennebulaCloud
from gridtide.model.ids import MachineId
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.real.opennebula.server import POWEROFF
from tests.real.opennebula.tenant import IMAGE, Tenant


class TestOpennebulaCloud(CloudConformance):
    @pytest.fixture(autouse=True)
    def _tenant(self, tenant: Tenant) -> None:
        self.tenant = tenant

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[OpennebulaCloud] = []

        def again() -> OpennebulaCloud:
            made.append(self.tenant.cloud())
            return made[-1]

        async def break_machine(machine: MachineId) -> None:
            await self.tenant.admin(lambda nebula: nebula.put(machine, POWEROFF))

        try:
            yield CloudBench(again(), again, self.tenant.add_foreign, break_machine, image=IMAGE, many=12)
        finally:
            for each in made:
                await each.close()
