"""Drivers bring their own settings: built in, registered, or found by entry points."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Literal

import pytest
from pydantic import Field, IPvAnyAddress, model_validator

from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName
from gridtide.site import registry
from gridtide.site.drivers import CloudSettings, PilotQueueSettings, ProcessCloudSettings
from gridtide.site.loader import load, problems
from gridtide.site.registry import CLOUDS, QUEUES, register_cloud, register_queue
from gridtide.site.schema import schema

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


def install(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """As if a package with this entry point were installed."""
    found = EntryPoint("balloons", value, "gridtide.cloud_settings")
    monkeypatch.setattr(registry, "entry_points", lambda group: [found] if group == found.group else [])


def test_the_built_in_ones() -> None:
    assert QUEUES.names() == ["aliec2", "htcondor", "pilot", "slurm"]
    assert CLOUDS.names() == ["ec2", "opennebula", "openstack", "process", "qemu"]


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


def test_a_plug_in_is_found_by_its_entry_point(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, f"{__name__}:BalloonSettings")
    assert CLOUDS.names() == ["balloons", "ec2", "opennebula", "openstack", "process", "qemu"]
    assert type(read(BALLOONS).clouds[CloudName("local")]).__name__ == "BalloonSettings"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_module:Settings", "cannot be loaded: No module named 'no_such_module'"),
        (f"{__name__}:NoSettings", "cannot be loaded"),
        ("gridtide.errors:SiteFileError", "has no settings model"),
        ("gridtide.site.drivers:PilotQueueSettings", "has no settings model"),
        ("gridtide.site.units:parse_size", "has no settings model"),
    ],
)
def test_a_broken_plug_in_harms_only_who_uses_it(
    write: Write, monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    install(monkeypatch, value)
    assert problems(write(SMALL)) == []
    assert "balloons" not in str(schema())
    (problem,) = problems(write(BALLOONS))
    assert "clouds.local.type" in str(problem)
    assert words in str(problem)
    assert "install a version" in str(problem)
