"""A process that was held up (stopped, or suspended with its host) sends nothing that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

from gridtide.clouds import ec2_api, opennebula_api, openstack_api
from gridtide.clouds.ec2_rate import Rates
from gridtide.errors import CloudError, CloudUnavailable


@dataclass
class Endpoint:
    """Notes what reaches it, and refuses it."""

    address: str
    heard: list[str] = field(default_factory=list)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.heard.append(self.path)
            self.send_error(400)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


Call = Callable[[float], Coroutine[Any, Any, object]]
Made = tuple[threading.Lock, Call, Callable[[], None]]
"""What holds its threads up, a launch that ends in time or not at all, and what waits for its threads."""


def ec2(place: Path, address: str) -> Made:
    keys = place / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    api = ec2_api.Ec2Api("burst", ec2_api.Access("eu", address, credentials=keys, timeout=0.1), Rates())

    def launch(until: float) -> Coroutine[Any, Any, object]:
        return api.call(ec2_api.Kind.LAUNCH, lambda client: client.run_instances(MinCount=1, MaxCount=1), until)

    return api._making, launch, api._pool.shutdown


def openstack(place: Path, address: str) -> Made:
    file = place / "clouds.yaml"
    file.write_text(f"clouds: {{torino: {{auth_type: none, auth: {{endpoint: '{address}'}}}}}}")
    api = openstack_api.OpenstackApi("private", openstack_api.Access("torino", file), 1)
    session = Session(auth=NoAuth(endpoint=address))
    api._adapters[openstack_api.Service.COMPUTE] = (Adapter(session, endpoint_override=address), None)

    def launch(until: float) -> Coroutine[Any, Any, object]:
        return api.call(openstack_api.Service.COMPUTE, "POST", "/servers", until, body={})

    return api._connecting, launch, api._pool.shutdown


def opennebula(place: Path, address: str) -> Made:
    keys = place / "one_auth"
    keys.write_text("anna:secret")
    keys.chmod(0o600)
    api = opennebula_api.OpennebulaApi("one", opennebula_api.Access(address, keys), 1)

    def launch(until: float) -> Coroutine[Any, Any, object]:
        return api.call("template.instantiate", 1, read=lambda found: found, until=until, again=False)

    return api._connecting, launch, api._pool.shutdown


@pytest.mark.parametrize("make", [ec2, openstack, opennebula])
async def test_a_call_that_was_held_up_for_too_long_does_not_leave(
    make: Callable[[Path, str], Made], endpoint: Endpoint, tmp_path: Path
) -> None:
    lock, launch, end = make(tmp_path, endpoint.address)
    loop = asyncio.get_running_loop()
    with pytest.raises(CloudError):
        await launch(loop.time() + 1.0)
    in_time = len(endpoint.heard)
    assert in_time
    with lock, pytest.raises(CloudUnavailable):
        await launch(loop.time() + 0.2)
    await asyncio.to_thread(end)
    assert len(endpoint.heard) == in_time
