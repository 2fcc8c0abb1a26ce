"""The QEMU cloud, with real machines, passes the suite for cloud drivers."""

import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from gridtide.clouds import process_table
from gridtide.clouds.qemu import QemuCloud
from gridtide.model.ids import CloudName, MachineId, ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.real.clouds.local_boundary import local_bench
from tests.real.clouds.machines import eventually, has_ended
from tests.real.qemu.images import image_store

# A machine that finds nothing to boot: firmware alone, which then waits without using the processor.
SHAPES = (Shape(ShapeName("tiny"), Resources(1, 32, 1)), Shape(ShapeName("small"), Resources(2, 64, 16)))
SITE = f"qemu-{os.getpid()}"


def make_cloud(directory: Path, site: str = SITE) -> QemuCloud:
    return QemuCloud(CloudName("local"), site, directory, SHAPES, image_store())


class TestQemuCloud(CloudConformance):
    title = "qemu"
    driver = QemuCloud

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "machines"

    def bench(self) -> AbstractAsyncContextManager[CloudBench]:
        async def break_machine(machine: MachineId) -> None:
            for number in process_table.marked([f"{SITE}/{machine}"])[f"{SITE}/{machine}"]:
                os.kill(number, signal.SIGKILL)
            await eventually(lambda: has_ended(self.directory / machine))

        def make(site: str | None) -> QemuCloud:
            return make_cloud(self.directory, site or SITE)

        return local_bench(self.directory, make, break_machine, shape=SHAPES[0].name, image="blank", many=12)
