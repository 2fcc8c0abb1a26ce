"""Where the service listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridtide.cli.locate import ServiceFile, write_service_file
from gridtide.clock import SystemClock
from gridtide.service.server import bind
from gridtide.serving import listen
from gridtide.site.loader import load
from gridtide.site.site import Site
from gridtide.testing.live_site import site_text


@pytest.fixture
def site(tmp_path: Path) -> Site:
    file = tmp_path / "site.toml"
    file.write_text(site_text())
    site = load(file)
    site.state.mkdir(parents=True)
    return site


def listened_before(site: Site, port: int) -> None:
    write_service_file(site.state, ServiceFile(f"http://127.0.0.1:{port}", None, None, None))


def test_a_port_of_the_kernels_choosing_is_kept_over_restarts(site: Site) -> None:
    first = listen(site, SystemClock())
    port = first.bound.getsockname()[1]
    first.close()
    listened_before(site, port)
    again = listen(site, SystemClock())
    assert (again.url, again.instead_of) == (first.url, None)
    again.close()


def test_another_port_is_told(site: Site) -> None:
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    listened_before(site, port)
    other = listen(site, SystemClock())
    assert other.bound.getsockname()[1] != port
    assert other.instead_of == port
    other.close()
    taken.close()
