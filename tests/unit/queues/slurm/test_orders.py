"""What a worker is told."""

import base64

from gridtide.model.ids import WorkerId
from gridtide.model.ports import FIRST, LAST, port_of
from gridtide.model.resources import Resources
from gridtide.queues.slurm.orders import NodeOrders, batch_of, node_line

KEY = bytes(range(128))


def orders(port: int | None = None, loopback: str = "") -> NodeOrders:
    return NodeOrders(
        WorkerId("grid-1a2b3c4d"), Resources(2, 1920), ("gridtide", "grid"), ("a:6817", "b:6817"), KEY, port, loopback
    )


def test_the_key_is_in_one_file_and_nowhere_else() -> None:
    batch = batch_of(orders())
    written = base64.b64encode(KEY).decode()
    assert [file.path for file in batch.files if written in file.content] == ["/etc/gridtide-slurm/munge.key.base64"]
    assert next(file.mode for file in batch.files if written in file.content) == 0o600
    assert written not in repr(batch)
    assert not any(written in word for service in batch.services for word in service.command)


def test_slurmd_is_a_dynamic_node() -> None:
    _, slurmd = batch_of(orders(port=12_345)).services
    assert slurmd.command[1:] == (
        "-D", "-Z", "-N", "grid-1a2b3c4d", "--conf-server", "a:6817,b:6817",
        "--conf", "CPUs=2 RealMemory=1920 Feature=gridtide,grid Port=12345",
    )  # fmt: skip


def test_lines_of_nodes() -> None:
    assert node_line(Resources(1, 10, 0, 2), ("a",), None) == "CPUs=1 RealMemory=10 Feature=a Gres=gpu:2"


def test_the_address_of_a_loopback_controller_is_handed_on() -> None:
    assert batch_of(orders()).prepare == (("/etc/gridtide-slurm/prepare",),)
    assert batch_of(orders(loopback="127.78.1.1")).prepare == (("/etc/gridtide-slurm/prepare", "127.78.1.1"),)


def test_a_worker_drains_itself_with_a_reason_that_is_ours() -> None:
    batch = batch_of(orders())
    assert batch.drain == (
        "scontrol", "update", "nodename=grid-1a2b3c4d", "state=drain", "reason=gridtide: its lease is over",
    )  # fmt: skip
    assert batch.resume[-1] == "state=undrain"


def test_ports_follow_from_the_worker_alone() -> None:
    ports = [port_of(WorkerId(f"grid-{number:08x}")) for number in range(5000)]
    assert ports == [port_of(WorkerId(f"grid-{number:08x}")) for number in range(5000)]
    assert FIRST <= min(ports) <= max(ports) <= LAST
    assert len(set(ports)) > 4000, "they are spread"
