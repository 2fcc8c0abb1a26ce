"""Credentials that end soon are told in the log, cloud by cloud."""

from __future__ import annotations

import asyncio
from random import Random

from structlog.testing import capture_logs

from gridtide import expiry
from gridtide.clock import LoopClock
from gridtide.clouds.fake import FakeCloud
from gridtide.clouds.protocol import Cloud, Finding, HasCredentials, Level
from gridtide.errors import CloudUnavailable
from gridtide.model.ids import CloudName, ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.sim import virtual_time

SHAPE = Shape(ShapeName("one"), Resources(1, 1024, 1024))


class Ending(FakeCloud):
    """With credentials that a test speaks for."""

    says: Finding | Exception | None = None
    """None: never."""
    asked = 0

    async def credentials(self) -> Finding:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        if self.says is None:
            await asyncio.Event().wait()
        assert self.says is not None
        return self.says


def cloud(kind: type[FakeCloud], name: str) -> FakeCloud:
    return kind(CloudName(name), LoopClock(), Random(1), shapes=(SHAPE,))


def test_what_ends_soon_is_told_again_and_again_and_nothing_else() -> None:
    async def main() -> None:
        soon, fine, silent, broken = (cloud(Ending, name) for name in ("soon", "fine", "silent", "broken"))
        plain = cloud(FakeCloud, "plain")
        assert not isinstance(plain, HasCredentials)
        for each, says in (
            (soon, Finding("credentials", Level.WARNING, "they expire tomorrow", "renew them")),
            (fine, Finding("credentials", Level.OK, "they do not expire")),
            (broken, CloudUnavailable("no")),
        ):
            assert isinstance(each, Ending)
            each.says = says
        clouds: dict[CloudName, Cloud] = {each.name: each for each in (silent, broken, fine, plain)}
        with capture_logs() as told:
            watching = asyncio.create_task(expiry.watch(lambda: clouds))
            await asyncio.sleep(expiry.EVERY / 2)
            assert told == []
            clouds[soon.name] = soon  # a changed site file
            await asyncio.sleep(2 * expiry.EVERY)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert isinstance(soon, Ending)
        assert soon.asked == 2
        assert [(each["log_level"], each["cloud"], each["state"]) for each in told] == [
            ("warning", "soon", "they expire tomorrow")
        ] * 2

    virtual_time.run(main())
