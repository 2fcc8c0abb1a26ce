"""What a process cloud may say of images and networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridtide.drivers import make_cloud
from gridtide.model.ids import CloudName
from gridtide.site.drivers import ProcessCloudSettings
from gridtide.site.loader import load
from gridtide.site.problems import SiteFileProblem
from gridtide.site.site import Site

SITE = """
[site]
name = "test"

[service]
listen = "{listen}"

[queues.jobs]
type = "pilot"

[clouds.local]
type = "process"
{cloud}

[groups.workers]
queue = "jobs"
clouds = ["local"]
image = "batch-tree"
maximum = 2
"""

BRIDGED = 'network = "bridge"\nbridge = "br0"\naddresses = "10.99.0.0/24"\nimages = "images"'


def site(directory: Path, cloud: str, listen: str = "127.0.0.1:0") -> Site:
    path = directory / "site.toml"
    path.write_text(SITE.format(cloud=cloud, listen=listen))
    return load(path)


def test_a_bridge_with_addresses(tmp_path: Path) -> None:
    loaded = site(tmp_path, BRIDGED, "10.99.0.1:8470")
    settings = loaded.clouds[CloudName("local")]
    assert isinstance(settings, ProcessCloudSettings)
    assert (settings.network, settings.bridge, settings.addresses) == ("bridge", "br0", "10.99.0.0/24")
    assert settings.images == tmp_path / "images"
    assert make_cloud(CloudName("local"), settings, "test").name == "local"


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        ('network = "bridge"', r'network = "bridge" needs a bridge and addresses \(for example bridge = "br0"'),
        ('bridge = "br0"', r'bridge is given, but network is not "bridge"'),
        (BRIDGED.replace("/24", "/8"), r"addresses: '10\.99\.0\.0/8' is no range of IPv4 addresses \(for example"),
        (BRIDGED.replace("10.99.0.0", "10.99.0.1"), r"addresses: '10\.99\.0\.1/24' is no range of IPv4 addresses"),
        (BRIDGED.replace("br0", "a/b"), r"bridge: 'a/b' is not the name of a bridge"),
        (
            BRIDGED,
            r"service\.listen: workers of cloud 'local' have a network of their own and cannot call 127\.0\.0\.1:0",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, cloud: str, words: str) -> None:
    with pytest.raises(SiteFileProblem, match=words):
        site(tmp_path, cloud)
