"""The OpenNebula cloud passes the suite for cloud drivers, against a double of its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.opennebula import OpennebulaCloud
from gridtide.model.ids import MachineId
from gridtide.testing.cloud_bench import Fault, Step
from gridtide.testing.clouds import CloudBench, CloudConformance
from gridtide.testing.fault_proxy import Answer, FaultProxy, xmlrpc_method
from gridtide.testing.http_boundary import HttpBoundary
from tests.real.opennebula.server import POWEROFF
from tests.real.opennebula.tenant import IMAGE, Tenant
from tests.real.opennebula.test_faults import INSTANTIATE, answered

STEPS = {Step.LIST: "one.vmpool.info", Step.LAUNCH: INSTANTIATE, Step.TERMINATE: "one.vm.action"}
REFUSALS = {
    Fault.THROTTLE: Answer(429, b"", {"retry-after": "120"}),
    Fault.CREDENTIALS: answered(False, "User couldn't be authenticated, aborting call.", 0x0100),
    Fault.CAPACITY: answered(False, "Cannot get IP/MAC lease from virtual network 1.", 0x4000),
    Fault.QUOTA: answered(False, "user [2] limit of 2 reached for VMS quota in VM.", 0x0200),
}
LACKS: dict[tuple[Fault, Step | None], str] = {
    (Fault.LAG, Step.LIST): "a listing is read from the database that the launch was written to: nothing lags",
    (Fault.HANG, Step.LIST): "a launch looks at the listing first, since there is no client token",
}


class TestOpennebulaCloud(CloudConformance):
    title = "opennebula"
    driver = OpennebulaCloud

    @pytest.fixture(autouse=True)
    def _tenant(self, tenant: Tenant) -> None:
        self.tenant = tenant

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[OpennebulaCloud] = []
        proxy = FaultProxy(self.tenant.address.removesuffix("/RPC2"), name=xmlrpc_method)

        def again() -> OpennebulaCloud:
            made.append(self.tenant.cloud(endpoint=proxy.url, timeout=5.0))
            return made[-1]

        async def break_machine(machine: MachineId) -> None:
            await self.tenant.admin(lambda nebula: nebula.put(machine, POWEROFF))

        async with proxy:
            faults = HttpBoundary(proxy, STEPS, REFUSALS, LACKS)
            try:
                yield CloudBench(
                    again(), again, self.tenant.add_foreign, break_machine, image=IMAGE, many=12, faults=faults
                )
            finally:
                for each in made:
                    await each.close()
