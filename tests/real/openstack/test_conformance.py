"""The OpenStack cloud passes the suite for cloud drivers, against real Nova."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.clouds.openstack import OpenstackCloud
from gridtide.model.ids import MachineId
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.real.openstack.inside.plane import IMAGE
from tests.real.openstack.project import Project


class TestOpenstackCloud(CloudConformance):
    @pytest.fixture(autouse=True)
    def _project(self, project: Project) -> None:
        self.project = project

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        made: list[OpenstackCloud] = []

        def again() -> OpenstackCloud:
            made.append(self.project.cloud())
            return made[-1]

        async def add_foreign() -> MachineId:
            return await asyncio.to_thread(self.project.add_foreign)

        async def break_machine(machine: MachineId) -> None:
            await asyncio.to_thread(self.project.stop, machine)

        try:
            yield CloudBench(again(), again, add_foreign, break_machine, image=IMAGE, many=7, patience=60.0)
        finally:
            for each in made:
                await each.close()
