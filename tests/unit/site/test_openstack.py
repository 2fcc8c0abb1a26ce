"""``type = "openstack"`` of a cloud: from the file to the driver."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gridtide.clouds.openstack import OpenstackCloud
from gridtide.clouds.openstack_machine import FlavorChoice, OpenstackSettings
from gridtide.drivers import make_cloud
from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName, ShapeName
from gridtide.site.changes import changes, refusal
from gridtide.site.openstack import OpenstackCloudSettings

from .conftest import Read
from .texts import with_section

NAME = CloudName("private")
SMALL = ('type = "openstack"', 'profile = "torino"')


async def test_a_small_section(read: Read) -> None:
    settings = read(with_section("clouds.private", *SMALL)).clouds[NAME]
    assert isinstance(settings, OpenstackCloudSettings)
    assert (settings.known_shapes(), settings.user_data_limit, settings.settle) == (None, 49_149, 60.0)
    cloud = make_cloud(NAME, settings, "torino")
    assert isinstance(cloud, OpenstackCloud)
    assert cloud.settings == OpenstackSettings()
    assert (cloud.tag, cloud.zones(), cloud.where) == ("torino/private", (), "private (torino)")
    await cloud.close()


async def test_every_key_reaches_the_driver(read: Read, tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {}\n")
    settings = read(
        with_section(
            "clouds.private",
            *SMALL,
            'clouds_file = "clouds.yaml"',
            'region = "RegionTwo"',
            'project = "alice"',
            'zones = ["b", "a"]',
            'networks = ["workers", "storage"]',
            'security_groups = ["out"]',
            'key_pair = "admin"',
            'server_group = "spread"',
            'volume = { size = "40 GiB", type = "ssd" }',
            'image_properties = { os_distro = "debian" }',
            "config_drive = true",
            'tags = { department = "physics" }',
            "calls = 3",
            'timeout = "7 s"',
            'shapes = { "m1.large" = { price = 0.1, disk = "9 GiB", gpus = 2 }, "m1.small" = {} }',
        )
    ).clouds[NAME]
    assert list(settings.known_shapes() or ()) == ["m1.large", "m1.small"]
    cloud = make_cloud(NAME, settings, "torino")
    assert isinstance(cloud, OpenstackCloud)
    assert cloud.settings == OpenstackSettings(
        flavors=(
            FlavorChoice(ShapeName("m1.large"), 0.1, 9216, 2),
            FlavorChoice(ShapeName("m1.small")),
        ),
        zones=("b", "a"),  # type: ignore[arg-type]
        networks=("workers", "storage"),
        security_groups=("out",),
        key_pair="admin",
        server_group="spread",
        config_drive=True,
        volume=40_960,
        volume_type="ssd",
        image_properties={"os_distro": "debian"},
        tags={"department": "physics"},
        calls=3,
    )
    assert "RegionTwo" in cloud.where
    await cloud.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('networks = "workers"', r'\["workers"\]'),
        ("networks = []", '"none"'),
        ('tags = { "gridtide:site" = "milano" }', "cannot be metadata of yours"),
        ('tags = { "a/b" = "x" }', "letters, digits"),
        ("calls = 0", "calls"),
        ('volume = { type = "ssd" }', "size"),
        ('password = "secret"', "password"),
        ('clouds_file = "nowhere.yaml"', "there is no file"),
    ],
)
def test_what_cannot_be_is_said(read: Read, line: str, words: str) -> None:
    with pytest.raises(SiteFileError, match=words):
        read(with_section("clouds.private", *SMALL, line))


@pytest.mark.parametrize("networks", ['"auto"', '"none"', '["one"]'])
def test_networks(read: Read, networks: str) -> None:
    assert read(with_section("clouds.private", *SMALL, f"networks = {networks}")).clouds[NAME]


def test_prices_change_live_and_the_project_does_not(read: Read) -> None:
    old = read(with_section("clouds.private", *SMALL))
    new = read(with_section("clouds.private", *SMALL, 'shapes = { "m1.large" = { price = 0.2 } }'))
    assert changes(old, new)
    assert refusal(old, new) is None
    for line in ('project = "alice"', 'region = "RegionTwo"'):
        assert refusal(old, read(with_section("clouds.private", *SMALL, line))) is not None


def test_the_how_to_page_is_right(read: Read, tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {}\n")
    page = (Path(__file__).parents[3] / "docs/how-to/use-openstack.md").read_text(encoding="utf-8")
    whole, more = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert isinstance(read(whole).clouds[NAME], OpenstackCloudSettings)
    with_more = whole.replace('networks = ["workers"]\n', f'networks = ["workers"]\n{more}')
    settings = read(with_more).clouds[NAME]
    assert isinstance(settings, OpenstackCloudSettings)
    assert settings.zones == ("nova", "gpu")
