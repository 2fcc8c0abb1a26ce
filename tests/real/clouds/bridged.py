"""Two controllers with a bridge between them; run in a network name space of its own. Prints what it sees, as JSON.

``unshare --net python -m tests.real.clouds.bridged DIRECTORY COUNT``
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.process_network import Bridge
from gridtide.errors import CloudError
from gridtide.model.ids import MachineId
from tests.real.clouds.machines import SITE, TREE, has_ended, make_tree_cloud, request

SCRIPT = """
ip -4 -o address show dev eth0 | awk '{print $4}'; ip route show default; tail -1 /etc/hosts; ip -o link | wc -l
exec /usr/bin/python3 -c '
import socket
server = socket.create_server(("", 7))
while True: server.accept()[0].sendall(socket.gethostname().encode())
'
"""
NETWORK = IPv4Network("10.99.0.0/26")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def links() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex() if name.startswith("gt"))


def make(directory: Path, site: str) -> ProcessCloud:
    return make_tree_cloud(directory / site, SCRIPT, site=f"{SITE}-{site}", bridge=Bridge("br0", NETWORK))


async def consoles(homes: list[Path]) -> list[list[str]]:
    """Of all machines, once each has told all or has ended."""
    for _ in range(3000):
        told = [(home / "console.log").read_text().splitlines() for home in homes]
        if all(len(lines) >= 4 or has_ended(home) for lines, home in zip(told, homes, strict=True)):
            break
        await asyncio.sleep(0.01)
    return told


async def ask(address: str) -> str:
    """The name of the machine that answers there."""
    for _ in range(1000):
        try:
            reader, writer = await asyncio.open_connection(address, 7)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        answer = (await reader.read()).decode()
        writer.close()
        return answer
    return "nobody"


async def main(directory: Path, count: int) -> None:
    clouds = [make(directory, site) for site in ("one", "two")]
    names = [f"grid-{number}" for number in range(count)]
    errors = []
    try:
        await clouds[0].launch([request("grid-0", image=TREE)])
    except CloudError as error:
        errors.append(str(error))
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", "10.99.0.1/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    answers = await clouds[0].launch([request("grid-0")])
    errors += [str(answer) for answer in answers.values() if isinstance(answer, CloudError)]
    try:
        await asyncio.gather(*(cloud.launch([request(name, image=TREE) for name in names]) for cloud in clouds))
        told = await consoles([directory / site / name for site in ("one", "two") for name in sorted(names)])
        document = {
            "errors": errors,
            "told": told,
            "links": links(),
            "answers": [await ask(lines[0].partition("/")[0]) for lines in told],
            "findings": [f"{each.subject}: {each.level}" for each in await clouds[0].check([TREE])],
        }
    finally:
        for cloud in clouds:
            await cloud.terminate([MachineId(name) for name in names])
    for _ in range(500):
        if not links():
            break
        await asyncio.sleep(0.01)
    print(json.dumps({**document, "left": links()}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
