"""The embedded cloud: a machine is a directory and a process of this host. Needs no root and no package.

With an image (a tree) a machine has name spaces and a root of its own, which does need root: see
:mod:`gridtide.clouds.process_root`. docs/explanation/process-cloud.md tells why, and what this cloud does not protect
from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final

from gridtide.clouds import local_check, process_check, process_root, process_table
from gridtide.clouds.local import FirstProcess, LocalCloud
from gridtide.clouds.local_home import write_private
from gridtide.clouds.process_network import Bridge, Reserved
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.errors import ImageError, ImageNotFound
from gridtide.images.image import TreeImage
from gridtide.images.store import ImageStore, default_directory
from gridtide.model.ids import CloudName
from gridtide.model.resources import Shape

AGENT: Final = Path(__file__).resolve().parent.parent / "agent" / "agent.py"
"""What a machine runs."""


class ProcessCloud(LocalCloud):
    """Machines are processes of this host.

    ``python`` runs the agent of machines without an image. ``command`` replaces the agent altogether; it is run in the
    machine's directory, where it finds ``context.json``. ``bridge``: machines with an image have a network of their own
    there; None: they have the host's.
    """

    def __init__(
        self,
        name: CloudName,
        site: str,
        directory: Path,
        shapes: tuple[Shape, ...],
        python: str = sys.executable,
        settle: float = 0.0,
        command: tuple[str, ...] | None = None,
        *,
        images: ImageStore | None = None,
        bridge: Bridge | None = None,
    ) -> None:
        """ValueError for a site name that cannot be part of a file name."""
        super().__init__(name, site, directory, shapes, settle=settle)
        self._python = python
        self._given = command
        self._command = command or (python, "-I", str(AGENT), "--context", "context.json")
        self._images = images or ImageStore(default_directory())
        self._roots = process_root.Roots(AGENT)
        self._bridge = bridge
        self._bridge_address: IPv4Interface | None = None
        self._reserved = Reserved()

    def before_launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Look at the bridge. LaunchRejected when it cannot be used."""
        self._bridge_address = None if self._bridge is None else self._bridge.address()

    def furnish(self, request: LaunchRequest, shape: Shape, home: Path) -> None:
        """Home and temporary directory; or a root."""
        if request.image is None:
            if self._bridge is not None:
                raise self.rejected(
                    f"group {request.group} names no image, and only machines with one have a network of their own",
                    'add image = "NAME" to the group, or set network = "host"',
                )
            (home / "home").mkdir(mode=0o700)
            (home / "tmp").mkdir(mode=0o700)
            return
        image = self._image(request.image)
        try:
            self._roots.furnish(image, request.worker, home, with_agent=self._given is None)
        except ImageError as error:
            raise self.rejected(error.what, error.remedy) from None

    def instruct(self, request: LaunchRequest, home: Path) -> None:
        """The user-data is the agent's context."""
        if (home / "lower").is_symlink():
            process_root.instruct(request, home)
            return
        (home / "context.new").unlink(missing_ok=True)
        write_private(home / "context.new", request.user_data)
        (home / "context.new").rename(home / "context.json")

    def first_process(self, request: LaunchRequest, home: Path) -> FirstProcess:
        """The agent; or the user-data itself where it is a script, as cloud-init does it ("#!", User-Data Script)."""
        if (home / "lower").is_symlink():
            marker = (process_table.VARIABLE, self.marker(request.worker))
            return process_root.first_process(request, home, marker, self._given, self._network())
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "tmp"),
            "LANG": "C.UTF-8",
        }
        if not request.user_data.startswith(b"#!"):
            return FirstProcess(self._command, environment)
        script = home / "context.json"
        script.chmod(0o700)
        return FirstProcess((str(script),), environment)

    def look_over(self, images: Sequence[str]) -> Sequence[Finding]:
        """Python and agent; what machines with an image need, and the images."""
        findings = [local_check.python(self._python)]
        if self._given is None:
            findings.append(local_check.agent(AGENT))
        if images:
            findings.append(process_check.programs(bridged=self._bridge is not None))
        if self._bridge is not None:
            findings.append(process_check.bridge(self._bridge))
        return [*findings, *(process_check.image(self._images, name) for name in dict.fromkeys(images))]

    def _image(self, name: str) -> TreeImage:
        """CloudError when no machine can have it."""
        if os.geteuid() != 0:
            raise self.rejected(
                f"a machine with image {name} needs root, and this is user {os.geteuid()}", process_check.ROOT
            )
        try:
            image = self._images.use(name)
        except ImageError as error:
            raise ImageNotFound(error.what, where=error.where or self.name, remedy=error.remedy) from None
        if not isinstance(image, TreeImage):
            raise self.rejected(f"image {name} is a disk: a process has a tree", process_check.NOT_A_DISK)
        return image

    def _network(self) -> Mapping[str, str]:
        if self._bridge is None or self._bridge_address is None:
            return {}
        return self._bridge.variables(self._bridge_address, self._reserved)
