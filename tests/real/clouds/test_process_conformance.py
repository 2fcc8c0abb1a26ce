"""The process cloud, with real processes, passes the suite for cloud drivers: without an image, and with a tree."""

import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from gridtide.clouds.process import ProcessCloud
from gridtide.model.ids import MachineId
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.real.clouds.local_boundary import local_bench
from tests.real.clouds.machines import (
    SHAPES,
    SITE,
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

    def bench(self) -> AbstractAsyncContextManager[CloudBench]:
        async def break_machine(machine: MachineId) -> None:
            await kill_machine(self.directory / machine)

        def make(site: str | None) -> ProcessCloud:
            return make_cloud(self.directory, site=site or SITE)

        return local_bench(self.directory, make, break_machine, shape=SHAPES[0].name, image=None, many=60)


class TestProcessCloudWithATree(CloudConformance):
    title = "process, tree"
    driver = ProcessCloud

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "machines"

    def bench(self) -> AbstractAsyncContextManager[CloudBench]:
        async def break_machine(machine: MachineId) -> None:
            await eventually(lambda: inside(machine) == ["sleep"])
            os.kill(first_of(machine), signal.SIGKILL)
            await eventually(lambda: has_ended(self.directory / machine))

        def make(site: str | None) -> ProcessCloud:
            return make_tree_cloud(self.directory, site=site or SITE)

        return local_bench(self.directory, make, break_machine, shape=SHAPES[0].name, image=TREE, many=30)
