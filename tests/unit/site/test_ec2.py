"""``type = "ec2"`` of a cloud: from the file to the driver."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_rate import Rate, Rates
from gridtide.drivers import make_cloud
from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName
from gridtide.site.changes import changes, refusal
from gridtide.site.ec2 import Ec2CloudSettings

from .conftest import Read
from .texts import with_section

EC2 = ('type = "ec2"', 'region = "eu-south-1"', 'shapes = { "m5.large" = { price = 0.107 }, "c5.xlarge" = {} }')


async def test_a_small_section_has_the_defaults_that_ec2_documents(read: Read) -> None:
    site = read(with_section("clouds.burst", *EC2))
    settings = site.clouds[CloudName("burst")]
    assert isinstance(settings, Ec2CloudSettings)
    assert list(settings.known_shapes() or ()) == ["m5.large", "c5.xlarge"]
    assert (settings.user_data_limit, settings.settle) == (16_384, 60.0)
    cloud = make_cloud(CloudName("burst"), settings, "torino")
    assert isinstance(cloud, Ec2Cloud)
    assert cloud.settings.rates == Rates()
    assert [(kind.name, kind.price, kind.disk) for kind in cloud.settings.types] == [
        ("m5.large", 0.107, 20_480),
        ("c5.xlarge", 0.0, 20_480),
    ]
    assert (cloud.settle, cloud.zones(), cloud.settings.spot) == (60.0, (), False)
    await cloud.close()


async def test_every_key_reaches_the_driver(read: Read, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("[default]\n")
    site = read(
        with_section(
            "clouds.burst",
            'type = "ec2"',
            'region = "eu-south-1"',
            'endpoint = "https://ec2.example.org/"',
            'profile = "torino"',
            'credentials = "keys"',
            'zones = ["eu-south-1b", "subnet-0a"]',
            'market = "spot"',
            'launch_template = "worker:3"',
            'key_pair = "admin"',
            'security_groups = ["sg-1", "sg-2"]',
            'instance_profile = "jobs"',
            'volume_type = "gp3"',
            'tags = { project = "alice" }',
            'timeout = "4 s"',
            "rates = { launch = { burst = 50, per_second = 20.5 } }",
            'shapes = { "m1.nano" = { cores = 1, memory = "1 GiB", disk = "30 GiB", gpus = 1 } }',
        )
    )
    cloud = make_cloud(CloudName("burst"), site.clouds[CloudName("burst")], "torino")
    assert isinstance(cloud, Ec2Cloud)
    settings = cloud.settings
    (kind,) = settings.types
    assert (kind.cores, kind.memory, kind.disk, kind.gpus) == (1, 1024, 30_720, 1)
    assert (settings.zones, settings.spot, settings.launch_template) == (
        ("eu-south-1b", "subnet-0a"),
        True,
        "worker:3",
    )
    assert (settings.key_pair, settings.security_groups, settings.instance_profile) == (
        "admin",
        ("sg-1", "sg-2"),
        "jobs",
    )
    assert (settings.volume_type, dict(settings.tags)) == ("gp3", {"project": "alice"})
    assert settings.rates.launch == Rate(50, 20.5)
    assert "https://ec2.example.org" in cloud.where
    await cloud.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('endpoint = "http://ec2.example.org"', "in the clear"),
        ('endpoint = "ec2.example.org"', "is not an endpoint"),
        ('endpoint = "https://key:secret@ec2.example.org"', "must not hold a user"),
        ('tags = { "gridtide:site" = "milano" }', "cannot be a tag of yours"),
        ('tags = { Name = "x" }', "cannot be a tag of yours"),
        ("rates = { launch = { burst = 0, per_second = 1 } }", "burst"),
        ('market = "free"', "market"),
        ('access_key = "AKIA"', "access_key"),
    ],
)
def test_what_cannot_be_is_said(read: Read, line: str, words: str) -> None:
    with pytest.raises(SiteFileError, match=words):
        read(with_section("clouds.burst", *EC2, line))


def test_a_site_without_shapes_is_refused(read: Read) -> None:
    with pytest.raises(SiteFileError, match="shapes"):
        read(with_section("clouds.burst", *EC2[:2], "shapes = {}"))


def test_prices_change_live_and_the_region_does_not(read: Read) -> None:
    old = read(with_section("clouds.burst", *EC2))
    new = read(with_section("clouds.burst", *EC2[:2], 'shapes = { "m5.large" = { price = 0.2 } }'))
    assert changes(old, new)
    assert refusal(old, new) is None
    moved = read(with_section("clouds.burst", EC2[0], 'region = "eu-north-1"', EC2[2]))
    assert "region" in str(refusal(old, moved))


def test_the_how_to_page_is_right(read: Read) -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/use-ec2.md").read_text(encoding="utf-8")
    whole = next(block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[site]" in block)
    site = read(whole)
    assert isinstance(site.clouds[CloudName("burst")], Ec2CloudSettings)
    spot = next(block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[clouds.spot]" in block)
    assert isinstance(read(whole + spot).clouds[CloudName("spot")], Ec2CloudSettings)
    (policy,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    allowed = {action for rule in policy["Statement"] for action in _list(rule["Action"])}
    assert allowed == {
        "ec2:CreateTags",
        "ec2:DescribeImages",
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeSpotInstanceRequests",
        "ec2:GetConsoleOutput",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
    }, "one for each call of the driver, and tags at launch"


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
