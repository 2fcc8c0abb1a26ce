"""Nova in one process: API, conductor, scheduler and a compute node with the fake driver. Runs in the tree.

Nova's own functional tests do it like this: the services talk over an in-memory bus, and the compute node uses the
database itself. It starts in the time of one service, and needs no message broker.
"""

# ruff: noqa: I001 - the first one patches what the others use
import sys
from typing import Any

import nova.monkey_patch  # type: ignore[import-not-found]
import nova.conf  # type: ignore[import-not-found]
from nova import config, objects, service
from nova.compute import rpcapi as compute  # type: ignore[import-not-found]
from nova.conductor import rpcapi as conductor  # type: ignore[import-not-found]
from nova.scheduler import rpcapi as scheduler  # type: ignore[import-not-found]
from nova.virt import fake  # type: ignore[import-not-found]
from oslo_log import log  # type: ignore[import-not-found]
from oslo_service import service as launching  # type: ignore[import-not-found]

NODES = 10
"""Of the one compute service. For each machine that is made this Nova asks for the allocations of every other machine
of the same node: with one node, two hundred machines would take five times as long."""


def main() -> None:
    """Until it is killed."""
    init_host = fake.FakeDriver.init_host

    def with_nodes(driver: Any, host: str) -> None:
        init_host(driver, host)
        driver._set_nodes([f"{host}-{number}" for number in range(NODES)])

    fake.FakeDriver.init_host = with_nodes
    config.parse_args(sys.argv)
    log.setup(nova.conf.CONF, "nova")
    objects.register_all()
    objects.Service.enable_min_version_cache()
    launcher = launching.ServiceLauncher(nova.conf.CONF)
    for name, topic in (("conductor", conductor.RPC_TOPIC), ("scheduler", scheduler.RPC_TOPIC)):
        launcher.launch_service(service.Service.create(binary=f"nova-{name}", topic=topic))
    launcher.launch_service(service.WSGIService("osapi_compute"))
    launcher.launch_service(service.Service.create(binary="nova-compute", topic=compute.RPC_TOPIC))
    launcher.wait()


main()
