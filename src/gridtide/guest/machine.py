"""The first program of a machine whose image is Gridtide's own (process 1). It only ever runs in a machine.

It brings the network up, grows the file system to the disk, reads the seed, does what the context says, starts the
agent (as an unprivileged user, unless the context calls for root: a batch system's daemons need it), reaps what jobs
leave behind, starts an agent that was killed again (which finds what runs), and powers the machine off when the agent
has left. Standard library only, as few imports as possible:
each costs a boot milliseconds. docs/explanation/boot.md tells the whole story.

A machine may be *saved* while it waits for its seed and continued many times (``gridtide.wait`` on the kernel's
command line): what must differ between two such machines (time, random numbers) is renewed when the seed appears.
"""

from __future__ import annotations

import binascii
import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

Json = dict[str, Any]

HOME = "/var/lib/gridtide"
AGENT = "/usr/lib/gridtide/agent.py"
USER = 988
"""The user that ``gridtide.guest.install`` made."""
ROOT = 0
SEED = "/dev/vdb"
SECTOR = 2048
MOST_SEED = 64 << 20
LOOK_EVERY = 0.02
"""Seconds between two looks for the seed of a machine that waits to be saved."""
BIRTH = 1.0
"""Seconds before an agent that was killed is started again, doubling."""
ADDRESS, NETMASK, GATEWAY = "10.0.2.15", "255.255.255.0", "10.0.2.2"
"""QEMU's user network (its documentation, "SLIRP"): always these, so that no machine waits for DHCP."""
DNS = "10.0.2.3"
EVERYWHERE = "0.0.0.0"  # noqa: S104  a route's destination, nothing is bound to it


def say(text: str) -> None:
    """One line on the console."""
    os.write(2, f"gridtide: {' '.join(text.split())}\n".encode())


def boot_clock() -> float:
    """Seconds since the kernel began."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Unusable(Exception):
    """This machine cannot do anything useful; the text says why."""


# --- the seed: a NoCloud disk -----------------------------------------------------------------------------------------


def read_seed(device: str) -> dict[str, bytes] | None:
    """Files of the first directory of an ISO 9660 image, by name in lower case; None when there is none yet.

    Read past the page cache: a machine that was saved while it waited must not see what was there before. The layout
    is ECMA-119, sections 8.4 and 9.1; names as Rock Ridge has them (IEEE P1282, "NM"), else as they are.
    """
    handle = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        volume = read_sectors(handle, 16, 1)
        if volume[:6] != b"\x01CD001":
            return None
        if volume[40:72].decode("ascii", "replace").strip().upper() != "CIDATA":
            raise Unusable("the seed disk is not labelled CIDATA")
        place, size = record(volume[156:190])
        files = {}
        for name, (where, length) in entries(read_sectors(handle, place, sectors(size))[:size]):
            files[name] = read_sectors(handle, where, sectors(length))[:length]
        return files
    finally:
        os.close(handle)


def sectors(size: int) -> int:
    """So many are needed."""
    if size > MOST_SEED:
        raise Unusable(f"the seed disk is damaged: a file of {size} bytes")
    return (size + SECTOR - 1) // SECTOR


def read_sectors(handle: int, first: int, count: int) -> bytes:
    """``O_DIRECT`` wants aligned memory: an anonymous mapping is."""
    if not count:
        return b""
    with mmap.mmap(-1, count * SECTOR) as buffer:
        done = os.preadv(handle, [buffer], first * SECTOR)
        if done != count * SECTOR:
            raise Unusable("the seed disk is damaged: it ends too early")
        return buffer[:]


def record(data: bytes) -> tuple[int, int]:
    """Place and size of what a directory record describes."""
    return struct.unpack_from("<I", data, 2)[0], struct.unpack_from("<I", data, 10)[0]


def entries(directory: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, place and size of each file."""
    offset = 0
    while offset < len(directory):
        length = directory[offset]
        if length == 0:  # records do not cross sectors
            offset = (offset // SECTOR + 1) * SECTOR
            continue
        data = directory[offset : offset + length]
        offset += length
        if len(data) < 34 or data[25] & 2:
            continue
        name_length = data[32]
        name = data[33 : 33 + name_length].decode("ascii", "replace").split(";")[0].rstrip(".")
        extension = data[33 + name_length + (1 - name_length % 2) :]
        yield (rock_ridge_name(extension) or name).lower(), record(data)


def rock_ridge_name(extension: bytes) -> str:
    """The name in the system use area, if there is one."""
    name, offset = b"", 0
    while offset + 4 <= len(extension) and extension[offset + 2] >= 4:
        if extension[offset : offset + 2] == b"NM":
            name += extension[offset + 5 : offset + extension[offset + 2]]
        offset += extension[offset + 2]
    return name.decode("utf-8", "replace")


def await_seed(waits: bool) -> tuple[dict[str, bytes], bool]:
    """The seed's files. A machine that is to be saved waits; any other must have it now. And how long it waited."""
    told = False
    while True:
        try:
            files = read_seed(SEED)
        except FileNotFoundError:
            raise Unusable(f"there is no seed disk ({SEED})") from None
        if files is not None:
            return files, told
        if not waits:
            raise Unusable(f"there is no seed on {SEED}")
        if not told:
            say("ready to be saved")
            told = True
        time.sleep(LOOK_EVERY)


# --- the machine ------------------------------------------------------------------------------------------------------


def mount_all() -> ctypes.CDLL:
    """What programs expect to find. A machine without one of them can still work."""
    library = ctypes.CDLL(None, use_errno=True)
    for kind, place, options in (
        ("sysfs", "/sys", None),
        ("tmpfs", "/run", b"mode=0755"),
        ("devpts", "/dev/pts", None),
        ("tmpfs", "/dev/shm", b"mode=1777"),  # noqa: S108
        ("cgroup2", "/sys/fs/cgroup", None),
    ):
        try:
            os.makedirs(place, exist_ok=True)
        except OSError:
            continue
        if library.mount(kind.encode(), place.encode(), kind.encode(), 0, options):
            say(f"{place} is not mounted: {os.strerror(ctypes.get_errno())}")
    return library


def bring_up_network() -> None:
    """Loopback, and the one interface with its fixed address and route."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with channel:
        for name, address, netmask in (("lo", "127.0.0.1", "255.0.0.0"), ("eth0", ADDRESS, NETMASK)):
            interface = name.encode()
            fcntl.ioctl(channel, 0x8916, struct.pack("16s16s", interface, internet(address)))  # SIOCSIFADDR
            fcntl.ioctl(channel, 0x891C, struct.pack("16s16s", interface, internet(netmask)))  # SIOCSIFNETMASK
            fcntl.ioctl(channel, 0x8914, struct.pack("16sh14x", interface, 0x41))  # SIOCSIFFLAGS: up, running
        route = struct.pack(  # struct rtentry: destination, gateway, netmask, flags (up, gateway), the rest is 0
            "8x16s16s16sH70x",
            internet(EVERYWHERE),
            internet(GATEWAY),
            internet(EVERYWHERE),
            3,
        )
        fcntl.ioctl(channel, 0x890B, route)  # SIOCADDRT
    write("/etc/resolv.conf", f"nameserver {DNS}\n", 0o644)


def internet(address: str) -> bytes:
    """``struct sockaddr_in``."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def grow_file_system() -> None:
    """To the whole disk. The kernel does it while the file system is mounted (linux/fs/ext4/ioctl.c)."""
    with open("/sys/class/block/vda/size") as file:
        size = int(file.read()) * 512
    block = os.statvfs("/").f_frsize
    handle = os.open("/", os.O_RDONLY)
    try:
        fcntl.ioctl(handle, 0x40086610, struct.pack("Q", size // block))  # EXT4_IOC_RESIZE_FS
    finally:
        os.close(handle)


def name_machine(name: str) -> None:
    """Host name, and the name for itself."""
    socket.sethostname(name)
    write("/etc/hostname", name + "\n", 0o644)
    write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n", 0o644)


def write(path: str, content: str | bytes, mode: int, owner: int | None = None) -> None:
    """A whole file with just these rights."""
    data = content if isinstance(content, bytes) else content.encode()
    new = path + ".gridtide-new"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fchmod(handle, mode)
        if owner is not None:
            os.fchown(handle, owner, owner)
    finally:
        os.close(handle)
    os.rename(new, path)


def renew(files: Mapping[str, bytes]) -> None:
    """Time and random numbers, from the host: a saved machine has those of the moment when it was saved."""
    launched = meta(files).get("launched")
    if launched is not None and abs(float(launched) - time.time()) > 1.0:
        time.clock_settime(time.CLOCK_REALTIME, float(launched))
    fresh = files.get("random-seed", b"")
    if fresh:
        handle = os.open("/dev/urandom", os.O_WRONLY)
        try:
            # RNDADDENTROPY and RNDRESEEDCRNG (random(4)): counted, and used from the next byte on.
            fcntl.ioctl(handle, 0x40085203, struct.pack("ii", len(fresh) * 8, len(fresh)) + fresh)
            fcntl.ioctl(handle, 0x5207)
        finally:
            os.close(handle)
    random = sys.modules.get("random")
    if random is not None:
        random.seed()


def meta(files: Mapping[str, bytes]) -> dict[str, str]:
    """``meta-data``: lines of ``key: value``."""
    lines = files.get("meta-data", b"").decode("utf-8", "replace").splitlines()
    return {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


# --- the context ------------------------------------------------------------------------------------------------------


def read_context(files: Mapping[str, bytes]) -> Json:
    """The agent's context, as an object."""
    content = files.get("user-data")
    if content is None:
        raise Unusable("the seed has no user-data")
    try:
        context = json.loads(content)
    except ValueError:
        raise Unusable("the user-data is not in the format 'agent': this image understands no other") from None
    if not isinstance(context, dict) or context.get("version") != 1:
        raise Unusable("the user-data is no context of version 1")
    return context


def agent_user(context: Json) -> int:
    """Root for nothing less than a plain true."""
    return ROOT if context.get("privileged") is True else USER


def apply(context: Json) -> None:
    """Write the files and run the scripts of a context; one that fails is told, and the machine goes on."""
    for item in context.pop("files", ()):
        try:
            place(item)
        except (OSError, ValueError, KeyError, TypeError) as error:
            name = item.get("path") if isinstance(item, dict) else item
            say(f"file {name} was not written: {error}")
    for item in context.pop("scripts", ()):
        run_script(item)


def fetch(context: Json) -> list[Json]:
    """The scripts that did not fit: asked of the service until it answers (docs/worker-protocol.md)."""
    import ssl
    import urllib.error
    import urllib.request

    reader = os.urandom(24).hex()
    trust = ssl.create_default_context(cadata=context["ca"]) if context.get("ca") else None
    pause = 1.0
    while True:
        for address in context["service"]:
            headers = {"Authorization": "Bearer " + context["join_token"], "Gridtide-Reader": reader}
            request = urllib.request.Request(address + "/v1/worker/context", headers=headers)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=30, context=trust) as answer:  # noqa: S310
                    scripts: list[Json] = json.load(answer)["scripts"]
                    return scripts
            except urllib.error.HTTPError as error:
                if error.code in (401, 403, 404, 409):
                    raise Unusable(f"the service refused the rest of the context ({error.code})") from None
            except (OSError, ValueError, KeyError) as error:
                say(f"the rest of the context is not there yet: {error}")
        time.sleep(pause)
        pause = min(pause * 2, 30.0)


def place(item: Json) -> None:
    """One file."""
    path = item["path"]
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("the path must be absolute")
    content = binascii.a2b_base64(item["base64"]) if "base64" in item else item["content"].encode()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path, content, int(item.get("mode", "0644"), 8))


def run_script(item: Json) -> None:
    """As root, with the console as its output, to its end."""
    try:
        name, content = str(item["name"]), item["content"]
        path = "/run/gridtide-script"
        write(path, content, 0o700)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        say(f"a script was not run: {error}")
        return
    child = os.fork()
    if child == 0:
        try:
            os.execve(path, [path], dict(ENVIRONMENT))  # noqa: S606
        except OSError as error:
            say(f"script {name}: {error.strerror}")
        os._exit(127)
    _, status = os.waitpid(child, 0)
    if status:
        say(f"script {name} failed: {ended(status)}")


def ended(status: int) -> str:
    """In words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"


ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": HOME}


# --- the agent --------------------------------------------------------------------------------------------------------


def start_agent(agent: ModuleType, user: int) -> int:
    """Fork a process that is the agent; the module is loaded already, which saves a start of Python."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.chdir(HOME)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    sys.argv = [AGENT, "--context", HOME + "/context.json"]
    status = 70
    try:
        status = agent.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 70
    except BaseException:  # noqa: BLE001  this process must never go on as process 1
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
    return 0  # never reached: os._exit does not return


def tend(agent: ModuleType, user: int) -> str:
    """Until the agent leaves by itself. One that is killed is started again; other processes are only buried."""
    pause = BIRTH
    child, began = start_agent(agent, user), boot_clock()
    while True:
        number, status = os.wait()
        if number != child:
            continue
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, 1, 2):
            return f"the agent left: {ended(status)}"
        say(f"the agent ended: {ended(status)}; it is started again")
        pause = BIRTH if boot_clock() - began > 60 else min(pause * 2, 30.0)
        time.sleep(pause)
        child, began = start_agent(agent, user), boot_clock()


def power_off(library: ctypes.CDLL) -> None:
    """What is on the disk is thrown away with the machine: nothing is written back."""
    library.reboot(0x4321FEDC)


def prepare() -> ModuleType:
    """Everything that needs no seed; returns the agent's module, loaded."""
    bring_up_network()
    try:
        grow_file_system()
    except OSError as error:
        say(f"the file system was not grown: {error.strerror}")
    os.makedirs(HOME, exist_ok=True)
    os.chmod(HOME, 0o700)
    sys.path.insert(0, os.path.dirname(AGENT))
    return __import__("agent")


def live(agent: ModuleType, began: float) -> str:
    """From the seed to the agent's end."""
    with open("/proc/cmdline") as file:
        waits = "gridtide.wait" in file.read().split()
    files, continued = await_seed(waits)
    origin = boot_clock() if continued else 0.0
    if continued:
        began = 0.0
    found = boot_clock() - origin
    renew(files)
    context = read_context(files)
    name_machine(str(context.get("worker") or meta(files).get("local-hostname") or "worker"))
    if context.pop("fetch", False):
        context.setdefault("scripts", []).extend(fetch(context))
    apply(context)
    context["shutdown"] = "exit"  # process 1 powers the machine off
    # Only now: a machine that was saved before it was told may become of either kind.
    user = agent_user(context)
    os.chown(HOME, user, user)
    write(HOME + "/context.json", json.dumps(context), 0o600, user)
    boot = {"origin": origin, "user_space": began, "context": found, "agent": boot_clock() - origin}
    write(HOME + "/boot.json", json.dumps(boot), 0o600, user)
    return tend(agent, user)


def main() -> None:
    """Never returns: the kernel panics when process 1 ends."""
    began = float(sys.argv[1]) if len(sys.argv) > 1 else boot_clock()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    library = mount_all()
    try:
        reason = live(prepare(), began)
    except Unusable as problem:
        reason = str(problem)
    except Exception:  # noqa: BLE001  the one barrier: a machine that is of no use must not stay up
        import traceback

        traceback.print_exc()
        reason = "a defect, see above"
    say(f"{reason}; powering off")
    power_off(library)


if __name__ == "__main__":
    main()
