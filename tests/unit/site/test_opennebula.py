"""``type = "opennebula"`` of a cloud: from the file to the driver."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gridtide.clouds.opennebula import OpennebulaCloud
from gridtide.clouds.opennebula_api import Access
from gridtide.clouds.opennebula_machine import USER_DATA_LIMIT, OpennebulaSettings, TemplateChoice
from gridtide.drivers import make_cloud
from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName, ShapeName
from gridtide.site.changes import changes, refusal
from gridtide.site.opennebula import OpennebulaCloudSettings

from .conftest import Read
from .texts import with_section

NAME = CloudName("private")
ENDPOINT = 'endpoint = "https://one.example.org:2633/RPC2"'
SMALL = ('type = "opennebula"', ENDPOINT, 'credentials = "one_auth"', "shapes = { small = {} }")


@pytest.fixture(autouse=True)
def _credentials(tmp_path: Path) -> None:
    (tmp_path / "one_auth").write_text("gridtide:secret\n")


async def test_a_small_section(read: Read, tmp_path: Path) -> None:
    settings = read(with_section("clouds.private", *SMALL)).clouds[NAME]
    assert isinstance(settings, OpennebulaCloudSettings)
    assert (list(settings.known_shapes() or ()), settings.user_data_limit) == (["small"], USER_DATA_LIMIT)
    cloud = make_cloud(NAME, settings, "torino")
    assert isinstance(cloud, OpennebulaCloud)
    assert cloud.settings == OpennebulaSettings(templates=(TemplateChoice(ShapeName("small"), "small"),))
    assert cloud.access == Access("https://one.example.org:2633/RPC2", tmp_path / "one_auth")
    assert (cloud.tag, cloud.zones(), cloud.where) == ("torino/private", (), "private (one.example.org:2633)")
    await cloud.close()


async def test_every_key_reaches_the_driver(read: Read, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    settings = read(
        with_section(
            "clouds.private",
            *SMALL[:-1],
            'authority = "ca.pem"',
            'clusters = ["physics", "0"]',
            'networks = ["workers", "7"]',
            'placement = "5 min"',
            "calls = 3",
            'timeout = "7 s"',
            'settle = "9 s"',
            'shapes = { big = { template = "worker", price = 0.1, cores = 8, memory = "16 GiB", disk = "9 GiB", '
            "gpus = 2 } }",
        )
    ).clouds[NAME]
    cloud = make_cloud(NAME, settings, "torino")
    assert isinstance(cloud, OpennebulaCloud)
    assert cloud.settings == OpennebulaSettings(
        templates=(TemplateChoice(ShapeName("big"), "worker", 0.1, 8, 16_384, 9216, 2),),
        clusters=("physics", "0"),  # type: ignore[arg-type]
        networks=("workers", "7"),
        placement=300.0,
        calls=3,
    )
    assert (cloud.access.authority, cloud.access.timeout, cloud.settle) == (tmp_path / "ca.pem", 7.0, 9.0)
    await cloud.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('endpoint = "one.example.org"', "is not an endpoint"),
        ('endpoint = "https://user:secret@one.example.org/RPC2"', "must not hold a user"),
        ('endpoint = "https://one.example.org/RPC2?x=1"', "is not an endpoint"),
        ('endpoint = "http://one.example.org:2633/RPC2"', "secrets over a network in the clear"),
        ('credentials = "nowhere"', "there is no file"),
        ("shapes = {}", "shapes"),
        ('clusters = ["a\\" | true"]', "cannot be a cluster's name"),
        ("calls = 0", "calls"),
        ('password = "secret"', "password"),
        ('shapes = { "a b" = {} }', "cannot be a shape's name"),
    ],
)
def test_what_cannot_be_is_said(read: Read, line: str, words: str) -> None:
    key = line.partition(" ")[0]
    lines = [each for each in SMALL if not each.startswith(key)]
    with pytest.raises(SiteFileError, match=words) as raised:
        read(with_section("clouds.private", *lines, line))
    assert "user:secret" not in str(raised.value)


def test_a_tunnel_of_this_host_needs_no_encryption(read: Read) -> None:
    lines = [each for each in SMALL if each != ENDPOINT]
    assert read(with_section("clouds.private", *lines, 'endpoint = "http://127.0.0.1:2633/RPC2"'))


def test_prices_change_live_and_the_endpoint_does_not(read: Read) -> None:
    old = read(with_section("clouds.private", *SMALL))
    new = read(with_section("clouds.private", *SMALL[:-1], "shapes = { small = { price = 0.2 } }"))
    assert changes(old, new)
    assert refusal(old, new) is None
    moved = read(with_section("clouds.private", *SMALL).replace("one.example.org", "two.example.org"))
    assert refusal(old, moved) is not None


def test_the_how_to_page_is_right(read: Read) -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/use-opennebula.md").read_text(encoding="utf-8")
    (whole,) = re.findall(r"```toml\n(\[site\].*?)```", page, re.DOTALL)
    settings = read(whole).clouds[NAME]
    assert isinstance(settings, OpennebulaCloudSettings)
    assert {each.template for each in settings.shapes.values()} == {"worker", None}
