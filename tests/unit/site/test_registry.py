"""Drivers bring their own settings: built in, registered, or found by entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from pydantic import Field, IPvAnyAddress, model_validator

from gridtide.clouds.fake import FakeCloud
from gridtide.clouds.protocol import Cloud
from gridtide.drivers import make_cloud, make_queue
from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName, GroupName, QueueName
from gridtide.model.rules import OtherPolicy, Policy, SchedulePolicy
from gridtide.queues.fake import FakeQueue
from gridtide.queues.protocol import Queue
from gridtide.site.drivers import CloudSettings, PilotQueueSettings, ProcessCloudSettings, QueueSettings
from gridtide.site.loader import load, problems
from gridtide.site.policies import POLICIES, PolicySettings
from gridtide.site.registry import CLOUDS, QUEUES, register_cloud, register_queue
from gridtide.site.schema import schema
from gridtide.testing.clocks import ManualClock

from .conftest import Read, Write
from .texts import SMALL

BALLOONS = SMALL.replace('"process"', '"balloons"\ncolour = "red"')


class BalloonSettings(CloudSettings):
    """Settings as another driver would bring them."""

    type: Literal["balloons"] = Field(description="Balloons.")
    colour: Literal["red", "blue"] = Field(description="Of the balloons.")
    helium: bool = Field(default=True, description="Whether they fly.")

    lift: float = Field(default=0.5, description="Of each.")
    tether: IPvAnyAddress | None = Field(default=None, description="What holds them.")

    @model_validator(mode="after")
    def _red_ones_fly(self) -> BalloonSettings:
        if self.colour == "red" and not self.helium:
            raise ValueError("red balloons\nneed helium")
        return self


@pytest.fixture(autouse=True)
def forget_balloons() -> Iterator[None]:
    yield
    CLOUDS.forget("balloons")


class Install:
    """Puts packages on the path, as pip leaves them there: an entry point each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self._monkeypatch = monkeypatch
        self._directory = directory

    def __call__(self, value: str, *, kind: str = "cloud", name: str = "balloons", package: str = "party") -> None:
        place = self._directory / package
        about = place / f"{package}-1.2.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[gridtide.{kind}_settings]\n{name} = {value}\n")
        self._monkeypatch.syspath_prepend(place)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    return Install(monkeypatch, tmp_path / "packages")


def test_the_built_in_ones() -> None:
    assert QUEUES.names() == ["aliec2", "htcondor", "pilot", "slurm"]
    assert CLOUDS.names() == ["ec2", "openstack", "process", "qemu"]


def test_a_registered_driver(read: Read) -> None:
    register_cloud("balloons", BalloonSettings)
    register_cloud("balloons", BalloonSettings)  # imported twice: harmless
    settings = read(BALLOONS).clouds[CloudName("local")]
    assert isinstance(settings, BalloonSettings)
    assert (settings.colour, settings.settle, settings.quota.machines) == ("red", 60.0, None)
    assert "BalloonSettings" in schema()["$defs"]


def test_shapes_that_only_the_cloud_knows_are_not_judged(write: Write) -> None:
    register_cloud("balloons", BalloonSettings)
    assert problems(write(BALLOONS + 'shapes = ["m1.huge"]\n')) == []


def test_its_faults_are_told_like_all_others(write: Write) -> None:
    register_cloud("balloons", BalloonSettings)
    path = write(BALLOONS.replace('"red"', '"green"').replace("maximum = 4", 'maximum = 4\nshapes = ["x"]'))
    with pytest.raises(SiteFileError) as caught:
        load(path)
    assert str(caught.value) == (f"{path}:7:1: clouds.local.colour: is not one of its values (one of: 'red' or 'blue')")
    path = write(BALLOONS.replace("colour", "color"))
    assert [str(one) for one in problems(path)] == [
        f"{path}:7:1: clouds.local.color: unknown key (did you mean 'colour'?)"
    ]


def test_its_own_checks_are_told_at_its_section(write: Write) -> None:
    register_cloud("balloons", BalloonSettings)
    path = write(BALLOONS.replace('"red"', '"red"\nhelium = false'))
    assert [str(one) for one in problems(path)] == [f"{path}:5:1: clouds.local: red balloons need helium"]
    path = write(BALLOONS.replace('"red"', '"red"\nhelium = []'))
    line = f"{path}:8:1: clouds.local.helium: must be true or false, not a list (without quotes)"
    assert [str(one) for one in problems(path)] == [line]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lift = []", "clouds.local.lift: must be a number, not a list (for example 0.5)"),
        ("lift = 07:32:00", "clouds.local.lift: must be a number, not a date or time (for example 0.5)"),
        ('tether = "x"', "clouds.local.tether: value is not a valid ipv4 or ipv6 address"),
    ],
)
def test_types_that_only_plug_ins_use(write: Write, line: str, words: str) -> None:
    register_cloud("balloons", BalloonSettings)
    path = write(BALLOONS.replace('"red"', f'"red"\n{line}'))
    assert [str(one) for one in problems(path)] == [f"{path}:8:1: {words}"]


def test_one_name_one_model() -> None:
    with pytest.raises(ValueError, match="cloud type 'process' is registered twice"):
        register_cloud("process", CloudSettings)
    register_queue("pilot", PilotQueueSettings)
    assert CLOUDS.model("process") is ProcessCloudSettings


def test_a_plug_in_is_found_by_its_entry_point(read: Read, install: Install) -> None:
    assert CLOUDS.package("balloons") == CLOUDS.package("process") == ""
    install(f"{__name__}:BalloonSettings")
    assert CLOUDS.names() == ["balloons", "ec2", "openstack", "process", "qemu"]
    assert type(read(BALLOONS).clouds[CloudName("local")]).__name__ == "BalloonSettings"
    assert CLOUDS.package("balloons") == "party 1.2"
    assert CLOUDS.hidden() == {}


class FailsAtOnce:
    """Stands for a module that fails while it is imported."""

    def __getattr__(self, name: str) -> object:
        raise ZeroDivisionError("a fault of its own")


fails_at_once = FailsAtOnce()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_module:Settings", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{__name__}:NoSettings", "cannot be loaded: AttributeError: "),
        (f"{__name__}:fails_at_once.x", "cannot be loaded: ZeroDivisionError: a fault of its own"),
        ("gridtide.errors:SiteFileError", "has no settings: gridtide.errors:SiteFileError is no CloudSettings"),
        ("gridtide.site.drivers:PilotQueueSettings", "has no settings"),
        ("gridtide.site.units:parse_size", "has no settings"),
    ],
)
def test_a_broken_plug_in_harms_only_who_uses_it(write: Write, install: Install, value: str, words: str) -> None:
    install(value)
    assert problems(write(SMALL)) == []
    assert "balloons" not in str(schema())
    (problem,) = problems(write(BALLOONS))
    assert "clouds.local.type" in str(problem)
    assert f"cloud type 'balloons' of party 1.2 {words}" in str(problem)
    assert "install a version" in str(problem)


def test_two_packages_with_one_type(write: Write, install: Install) -> None:
    install(f"{__name__}:BalloonSettings")
    install(f"{__name__}:BalloonSettings", package="fair")
    (problem,) = problems(write(BALLOONS))
    assert "cloud type 'balloons' is brought by fair 1.2 and party 1.2 (uninstall all but one of them)" in str(problem)
    assert CLOUDS.names().count("balloons") == 1


def test_gridtides_own_types_cannot_be_replaced(read: Read, install: Install) -> None:
    install(f"{__name__}:BalloonSettings", name="process")
    assert type(read(SMALL).clouds[CloudName("local")]) is ProcessCloudSettings
    assert CLOUDS.hidden() == {"process": "party 1.2"}
    assert CLOUDS.package("process") == ""


# --- what a plug-in makes of its settings


class Own(OtherPolicy):
    """A policy of its own."""


MADE: list[object] = []


class SteadySettings(PolicySettings):
    """A policy whose settings make what the test says."""

    type: Literal["steady"] = Field(description="Steady.")

    def policy(self) -> Policy:
        made = MADE[-1]
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[return-value]


STEADY = SMALL + 'policy = { type = "steady" }\n'


@pytest.fixture
def steady(install: Install) -> Iterator[None]:
    install(f"{__name__}:SteadySettings", kind="policy", name="steady")
    yield
    POLICIES.forget("steady")


@pytest.mark.usefixtures("steady")
def test_a_policy_of_a_package(read: Read) -> None:
    MADE.append(Own())
    rules = read(STEADY).rules()
    assert rules.groups[GroupName("workers")].policy is MADE[-1]
    assert POLICIES.package("steady") == "party 1.2"


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (ZeroDivisionError("by zero"), "makes no policy of it: ZeroDivisionError: by zero"),
        (None, "makes no policy of it, but a NoneType"),
    ],
)
def test_a_policy_that_is_none(write: Write, made: object, words: str) -> None:
    MADE.append(made)
    (problem,) = problems(write(STEADY))
    assert f"groups.workers.policy: type 'steady' {words} (tell the authors" in str(problem)


@pytest.mark.usefixtures("steady")
def test_a_schedule_may_follow_it(read: Read, write: Write) -> None:
    schedule = SMALL + 'policy = { type = "schedule", follow = { type = "steady" } }\n'
    MADE.append(Own())
    policy = read(schedule).rules().groups[GroupName("workers")].policy
    assert isinstance(policy, SchedulePolicy)
    assert policy.follow is MADE[-1]
    MADE.append(ZeroDivisionError("by zero"))
    (problem,) = problems(write(schedule))
    assert "groups.workers.policy.follow: type 'steady' makes no policy of it: ZeroDivisionError" in str(problem)


class Nothing:
    """No driver at all."""


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (lambda: 1 / 0, "its driver cannot be made: ZeroDivisionError: division by zero"),
        (Nothing, "its driver is no Cloud: Nothing lacks some of its methods"),
    ],
)
def test_a_driver_that_is_none(driver: Callable[[], object], words: str) -> None:
    class BadSettings(BalloonSettings):
        """Makes something else."""

        def driver(self, name: CloudName, site: str) -> Cloud:
            return driver()  # type: ignore[return-value]

    with pytest.raises(SiteFileError) as caught:
        make_cloud(CloudName("sky"), BadSettings(type="balloons", colour="red"), "torino")
    assert str(caught.value) == f"clouds.sky: {words} (tell the authors of the package that brings it)"


def test_settings_without_a_driver() -> None:
    with pytest.raises(SiteFileError, match=r"clouds\.sky: no driver for clouds of type 'balloons' is installed"):
        make_cloud(CloudName("sky"), BalloonSettings(type="balloons", colour="red"), "torino")

    class PadSettings(QueueSettings):
        type: Literal["pad"] = "pad"

    with pytest.raises(SiteFileError, match=r"queues\.pad: no driver for queues of type 'pad' is installed"):
        make_queue(QueueName("pad"), PadSettings(), None)


def test_a_driver_of_a_package() -> None:
    made = FakeCloud(CloudName("sky"), ManualClock(), Random(1))

    class GoodSettings(BalloonSettings):
        """Makes a cloud."""

        def driver(self, name: CloudName, site: str) -> Cloud:
            assert (name, site) == ("sky", "torino")
            return made

    settings = GoodSettings(type="balloons", colour="red")
    assert make_cloud(CloudName("sky"), settings, "torino") is made


class PadSettings(QueueSettings):
    """A queue of a package."""

    type: Literal["pad"] = Field(description="A pad.")

    def driver(self, name: QueueName) -> Queue:
        return FakeQueue(name, ManualClock(), Random(1))


def test_a_queue_of_a_package(read: Read, install: Install) -> None:
    install(f"{__name__}:PadSettings", kind="queue", name="pad")
    try:
        settings = read(SMALL.replace('"pilot"', '"pad"')).queues[QueueName("jobs")]
        assert QUEUES.package("pad") == "party 1.2"
        assert make_queue(QueueName("jobs"), settings, None).name == "jobs"
    finally:
        QUEUES.forget("pad")
