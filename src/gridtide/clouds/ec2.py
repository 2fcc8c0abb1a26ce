"""Machines of Amazon EC2, or of any endpoint that speaks its API.

One RunInstances call per worker: user-data (which holds a join token of its own) and tags are equal for all machines
of one call. Its client token is made from the worker's id, so that a repeated call makes no second machine. Listings
have 1000 machines in a page, terminates 500 in a call. docs/explanation/ec2-cloud.md tells why, and counts the calls.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gridtide.clouds import ec2_check
from gridtide.clouds.ec2_api import Access, Ec2Api, Kind
from gridtide.clouds.ec2_errors import TokenUsed
from gridtide.clouds.ec2_images import Images
from gridtide.clouds.ec2_machine import (
    USER_DATA_LIMIT,
    Ec2Settings,
    InstanceType,
    Seen,
    client_token,
    launch_parameters,
    seen,
)
from gridtide.clouds.ec2_types import Types
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.clouds.refusals import MachineNotFound, NotAuthorized
from gridtide.errors import CloudError, CloudUnavailable, LaunchRejected
from gridtide.model.ids import CloudName, MachineId, WorkerId, Zone
from gridtide.model.machines import Machine, Machines, MachineState
from gridtide.model.resources import Resources, Shape

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, RunInstancesRequestTypeDef

LAUNCHES: Final = 6
"""Launch calls under way at once. RunInstances answers in 1 to 3 s: fewer would not reach its rate of two a second."""
LAUNCH_PATIENCE: Final = 55.0
READ_PATIENCE: Final = 18.0
"""Seconds that a bulk launch, and any other call of the protocol, may take with all repetitions. Longer than the
controller's own deadlines (60 s and 20 s unless the site file changes them), and it would not wait for the answer."""
_BULK: Final = 500
"""Machines in one terminate. EC2 takes 1000; fewer share the fate of one that cannot be ended."""

_MACHINE_ID: Final = re.compile(r"i-[0-9a-f]{8,17}", re.ASCII)
_DYING: Final = ["marked-for-termination", "marked-for-stop"]
_LIVING: Final = frozenset({MachineState.STARTING, MachineState.RUNNING})


class Ec2Cloud:
    """One account in one region. ``site``: of the site and the cloud's section together, it is the machines' tag."""

    def __init__(
        self, name: CloudName, site: str, access: Access, settings: Ec2Settings, *, settle: float = 60.0
    ) -> None:
        self.name = name
        self.settle = settle
        self.settings = settings
        self._tag = f"{site}/{name}"
        self.where = f"{name} ({access.endpoint or access.region})"
        self.foreign = access.endpoint is not None
        """Whether it may not be Amazon's."""
        self.api = Ec2Api(self.where, access, settings.rates)
        self.images = Images(self.api)
        self._types = Types(self.api, settings.types)
        self._launches = asyncio.Semaphore(LAUNCHES)

    # --- the protocol

    def zones(self) -> tuple[Zone, ...]:
        """Where machines may be, in order of preference; empty: anywhere."""
        return self.settings.zones

    async def shapes(self) -> tuple[Shape, ...]:
        """The site file's instance types; those that the cloud does not have are left out."""
        until = self._until(READ_PATIENCE)
        await self._types.learn(self._types.unwritten, until)
        return self._types.shapes()

    async def machines(self) -> Machines:
        """All of the account in the region, a page at a time; and which spot machines have been given notice."""
        until = self._until(READ_PATIENCE)
        listed = await self._list([], until)
        await self._types.learn_if_told({each.type for each in listed}, until)
        ours = [each for each in listed if each.spot and each.worker is not None and each.state in _LIVING]
        notices = await self._notices(until) if ours else {}
        return tuple(self._machine(each, notices.get(each.id, "")) for each in listed)

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """A call per worker, as many at once as the rate allows. One whose turn does not come in time is Throttled."""
        until = self._until(LAUNCH_PATIENCE)
        wanted = {request.worker: request for request in requests}
        answers = await asyncio.gather(*(self._launch(request, until) for request in wanted.values()))
        return dict(zip(wanted, answers, strict=True))

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """In bulk; where one machine spoils the call, halves of it, down to that one."""
        until = self._until(READ_PATIENCE)
        answers: dict[MachineId, CloudError | None] = dict.fromkeys(machines)
        real = [machine for machine in answers if _MACHINE_ID.fullmatch(machine)]
        for start in range(0, len(real), _BULK):
            answers.update(await self._terminate(real[start : start + _BULK], until))
        return answers

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """Credentials, endpoint, instance types, images, and a launch that EC2 is told not to carry out."""
        return await ec2_check.findings(self, images, self._until(READ_PATIENCE))

    async def credentials(self) -> Finding:
        """How they are and when they end. Raises CloudError."""
        return ec2_check.credentials(await self.api.credentials(), datetime.now(UTC))

    async def console(self, machine: MachineId, *, most: int) -> bytes | None:
        """What EC2 keeps: up to 64 KB, minutes behind, and for an hour after the end."""
        if not _MACHINE_ID.fullmatch(machine):
            return None
        try:
            text = await self.api.call(
                Kind.READ,
                lambda client: client.get_console_output(InstanceId=machine).get("Output", ""),
                self._until(READ_PATIENCE),
            )
        except MachineNotFound:
            return None
        return text.encode()[-most:] if most else b""

    async def close(self) -> None:
        """Machines live on."""
        self.api.close()

    # --- listing

    async def _list(self, filters: Sequence[FilterTypeDef], until: float) -> list[Seen]:
        def page(client: EC2Client, token: str) -> tuple[list[Seen], str]:
            at = {"NextToken": token} if token else {}
            answer = client.describe_instances(Filters=filters, MaxResults=self.settings.page, **at)  # type: ignore[arg-type]
            rows = [seen(each, self._tag) for found in answer["Reservations"] for each in found["Instances"]]
            return rows, answer.get("NextToken", "")

        # A machine may move from page to page while they are read.
        return list({each.id: each for each in await self.api.pages(page, until)}.values())

    async def _notices(self, until: float) -> dict[MachineId, str]:
        """Spot machines that will be taken away within two minutes, with EC2's words."""

        def page(client: EC2Client, token: str) -> tuple[list[tuple[MachineId, str]], str]:
            at = {"NextToken": token} if token else {}
            dying: list[FilterTypeDef] = [{"Name": "status-code", "Values": _DYING}]
            answer = client.describe_spot_instance_requests(Filters=dying, MaxResults=self.settings.page, **at)  # type: ignore[arg-type]
            rows = [
                (MachineId(each.get("InstanceId", "")), each["Status"].get("Message") or each["Status"]["Code"])
                for each in answer["SpotInstanceRequests"]
                if each.get("Status", {}).get("Code") in _DYING
            ]
            return rows, answer.get("NextToken", "")

        return dict(await self.api.pages(page, until))

    def _machine(self, each: Seen, notice: str) -> Machine:
        zone = Zone(each.subnet if each.subnet in self.settings.zones else each.zone)
        resources = self._types.resources(each.type)
        if not resources.cores:
            resources = Resources(cores=each.cores)
        return Machine(each.id, each.worker, each.state, resources, zone or None, each.message, notice)

    # --- making and ending

    async def _launch(self, request: LaunchRequest, until: float) -> MachineId | CloudError:
        kind = self._types.offered.get(request.shape)
        try:
            if kind is None:
                known = ", ".join(self._types.offered)
                raise LaunchRejected(
                    f"no shape is called {request.shape!r}", where=self.where, remedy=f"use one of: {known}"
                )
            if len(request.user_data) > USER_DATA_LIMIT:
                what = f"its user-data has {len(request.user_data)} bytes, EC2 takes {USER_DATA_LIMIT}"
                raise LaunchRejected(what, where=self.where, remedy="let the machine fetch its context")
            wanted = await self.parameters(request, kind, until)
            async with self._launches:
                return await self.api.call(
                    Kind.LAUNCH,
                    lambda client: MachineId(client.run_instances(**wanted)["Instances"][0]["InstanceId"]),
                    until,
                )
        except TokenUsed:
            return await self._launched_before(request.worker, until)
        except CloudError as error:
            return error

    async def parameters(self, request: LaunchRequest, kind: InstanceType, until: float) -> RunInstancesRequestTypeDef:
        """What EC2 is asked for. The image is the group's, else the launch template's. Raises CloudError."""
        written = self.settings.launch_template
        template = await self.images.template(written, until) if written else {}
        name = request.image or template.get("ImageId")
        if name is None:
            what = f"group {request.group} names no image" + (
                f", nor does launch template {written}" if written else ""
            )
            raise LaunchRejected(what, where=self.where, remedy='add image = "NAME" to the group')
        image = await self.images.find(name, until)
        return launch_parameters(request, kind, image, self.settings, self._tag, template)

    async def _launched_before(self, worker: WorkerId, until: float) -> MachineId | CloudError:
        """An earlier launch, with another join token, made a machine: it is the worker's."""
        token: FilterTypeDef = {"Name": "client-token", "Values": [client_token(self._tag, worker)]}
        try:
            found = await self._list([token], until)
        except CloudError as error:
            return CloudUnavailable(f"it has a machine, and which one cannot be told: {error}", where=self.where)
        if not found:
            return CloudUnavailable("it has a machine that is not listed yet", where=self.where)
        return min(found, key=lambda each: (each.state is MachineState.GONE, each.id)).id

    async def _terminate(self, machines: Sequence[MachineId], until: float) -> Mapping[MachineId, CloudError | None]:
        try:
            await self.api.call(
                Kind.TERMINATE,
                lambda client: client.terminate_instances(InstanceIds=machines)["TerminatingInstances"],
                until,
            )
        except (LaunchRejected, NotAuthorized) as error:
            # About one of them (it is gone, protected, not ours by the policy), and EC2 then ends none, or some.
            if len(machines) > 1:
                half = len(machines) // 2
                first = await self._terminate(machines[:half], until)
                return {**first, **await self._terminate(machines[half:], until)}
            return {machines[0]: None if isinstance(error, MachineNotFound) else error}
        except CloudError as error:
            return dict.fromkeys(machines, error)
        return dict.fromkeys(machines)

    def _until(self, patience: float) -> float:
        return asyncio.get_running_loop().time() + patience
