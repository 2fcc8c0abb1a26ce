"""The process cloud, with real processes, passes the suite for cloud drivers: without an image, and with a tree."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import GroupName, MachineId, WorkerId
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.real.clouds.local_boundary import LocalBoundary
from tests.real.clouds.machines import (
    SHAPES,
    TREE,
    eventually,
    first_of,
    has_ended,
    inside,
    kill_machine,
    make_cloud,
    make_tree_cloud,
)


class TestProcessCloud(CloudConformance):
    title = "process"
    driver = ProcessCloud

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "machines"

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        cloud, neighbour = make_cloud(self.directory), make_cloud(self.directory, site="neighbour")

        async def add_foreign() -> MachineId:
            request = LaunchRequest(WorkerId("theirs"), GroupName("g"), SHAPES[0].name, None, None, b"{}")
            await neighbour.launch([request])
            return MachineId("theirs")

        async def break_machine(machine: MachineId) -> None:
            await kill_machine(self.directory / machine)

        def again() -> ProcessCloud:
            return make_cloud(self.directory)

        faults = LocalBoundary(self.directory)
        try:
            yield CloudBench(cloud, again, add_foreign, break_machine, many=60, wait=asyncio.sleep, faults=faults)
        finally:
            await faults.end()
            for each in (cloud, neighbour):
                await each.terminate([machine.id for machine in await each.machines() if machine.worker is not None])


class TestProcessCloudWithATree(CloudConformance):
    title = "process, tree"
    driver = ProcessCloud

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "machines"

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        cloud, neighbour = make_tree_cloud(self.directory), make_tree_cloud(self.directory, site="neighbour")

        async def add_foreign() -> MachineId:
            request = LaunchRequest(WorkerId("theirs"), GroupName("g"), SHAPES[0].name, None, TREE, b"{}")
            await neighbour.launch([request])
            return MachineId("theirs")

        async def break_machine(machine: MachineId) -> None:
            await eventually(lambda: inside(machine) == ["sleep"])
            os.kill(first_of(machine), signal.SIGKILL)
            await eventually(lambda: has_ended(self.directory / machine))

        def again() -> ProcessCloud:
            return make_tree_cloud(self.directory)

        faults = LocalBoundary(self.directory)
        try:
            yield CloudBench(cloud, again, add_foreign, break_machine, image=TREE, many=30, faults=faults)
        finally:
            await faults.end()
            for each in (cloud, neighbour):
                await each.terminate([machine.id for machine in await each.machines() if machine.worker is not None])
