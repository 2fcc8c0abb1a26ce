"""Machines with a network of their own: addresses of a range, never one twice, and none is kept."""

import json
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

from tests.real.clouds.machines import TREE
from tests.real.images import tree_store

COUNT = 12


def test_two_controllers_share_a_bridge(tmp_path: Path) -> None:
    tree_store(TREE)
    command = ["unshare", "--net", sys.executable, "-m", "tests.real.clouds.bridged", str(tmp_path), str(COUNT)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    no_bridge, no_image = document["errors"]
    assert no_bridge.startswith("bridge br0 has no IPv4 address: No such device (ip link add br0 type bridge; ")
    assert "only machines with one have a network of their own" in no_image
    addresses = [lines[0] for lines in document["told"]]
    assert len(set(addresses)) == 2 * COUNT
    names = sorted(f"grid-{number}" for number in range(COUNT)) * 2
    for name, (address, route, host, links) in zip(names, document["told"], strict=True):
        alone, _, length = address.partition("/")
        assert length == "24", "as long as the bridge's"
        assert alone in {str(each) for each in IPv4Network("10.99.0.0/26")} - {"10.99.0.0", "10.99.0.1"}
        assert route.split() == ["default", "via", "10.99.0.1", "dev", "eth0"]
        assert host == f"{alone} {name}"
        assert links == "2", "loopback and its own"
    assert document["answers"] == names, "each is reached at its address"
    assert len(document["links"]) == 2 * COUNT
    assert "bridge: ok" in document["findings"]
    assert document["left"] == []
