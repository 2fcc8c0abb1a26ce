"""A real HTCondor pool for tests: collector, negotiator and schedds in name spaces of their own, up in two seconds.

Each pool has a loopback address of its own, so any number of them run side by side. Everything must authenticate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gridtide.clock import SystemClock
from gridtide.model.ids import QueueName
from gridtide.queues.htcondor.access import PoolPlace
from gridtide.queues.htcondor.errors import PoolIncomplete
from gridtide.queues.htcondor.queue import HTCondorQueue, PoolSettings
from gridtide.queues.htcondor.tokens import SigningKey, masked, mint
from tests.real.htcondor.capsule import Capsule
from tests.real.images import tree

PORT: Final = 9618
DOMAIN: Final = "pool.test"

_PLACE: Final = """\
COLLECTOR_HOST = {address}:{port}
CONDOR_HOST = {address}
SHARED_PORT_PORT = {port}
NETWORK_INTERFACE = {address}
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False
NO_DNS = True
DEFAULT_DOMAIN_NAME = {domain}
NETWORK_HOSTNAME = cm.{domain}
UID_DOMAIN = {domain}
TRUST_DOMAIN = {domain}
COLLECTOR_NAME = {domain}
SCHEDD_NAME = first@{domain}
"""
_SECURITY: Final = """\
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_CLIENT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_READ_AUTHENTICATION = REQUIRED
SEC_READ_ENCRYPTION = REQUIRED
SEC_READ_INTEGRITY = REQUIRED
ALLOW_READ = *@{domain} condor_pool@*
ALLOW_WRITE = *@{domain} condor_pool@*
ALLOW_ADMINISTRATOR = condor@{domain} root@{domain} condor_pool@*
ALLOW_DAEMON = condor@{domain} condor_pool@*
ALLOW_NEGOTIATOR = condor@{domain} condor_pool@*
"""
HOW_TO: Final = Path(__file__).parents[3] / "docs/how-to/htcondor-pool.md"

_SPEED: Final = """\
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 5
SCHEDD_MIN_INTERVAL = 1
JOB_START_DELAY = 0
JOB_START_COUNT = 50
COLLECTOR_UPDATE_INTERVAL = 5
NEGOTIATOR_UPDATE_INTERVAL = 5
MASTER_UPDATE_INTERVAL = 5
UPDATE_INTERVAL = 5
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_FACTOR = 1.0
CLASSAD_LIFETIME = 30
COLLECTOR_QUERY_WORKERS = 4
SHADOW_WORKLIFE = 0
MAX_JOBS_PER_OWNER = 1000000
MAX_JOBS_PER_SUBMISSION = 1000000
USE_PROCD = False
"""
_SECOND: Final = """\
SCHEDD2 = $(SCHEDD)
SCHEDD2_ARGS = -f -local-name second
SECOND.SCHEDD_NAME = second@{domain}
SECOND.SCHEDD_LOG = $(LOG)/Schedd2Log
SECOND.SPOOL = $(LOCAL_DIR)/lib/condor/spool2
SECOND.HISTORY = $(LOCAL_DIR)/lib/condor/spool2/history
SECOND.SCHEDD_ADDRESS_FILE = $(LOCAL_DIR)/lib/condor/spool2/.schedd_address
SECOND.SCHEDD_DAEMON_AD_FILE = $(LOCAL_DIR)/lib/condor/spool2/.schedd_classad
"""


def administrators_lines() -> str:
    """What the how-to tells a pool's administrator to add, word by word."""
    return HOW_TO.read_text(encoding="utf-8").partition("```config\n")[2].partition("```")[0]


class Pool:
    """A running pool; see :func:`running_pool`."""

    def __init__(self, home: Path, *, schedds: int = 1, more: str = "") -> None:
        self.home = home
        self.numbers = 0
        self.address = _own_address()
        self.collector = f"{self.address}:{PORT}"
        self.tree = tree("batch-tree")
        self.pool_key = SigningKey("POOL", secrets.token_hex(32).encode())
        self.site_key = SigningKey("gridtide", secrets.token_hex(32).encode())
        self.signing_key = home / "gridtide"
        self.signing_key.write_bytes(masked(self.site_key.secret))
        self.signing_key.chmod(0o600)
        self.manager = Capsule(self.tree, home / "manager", f"cm.{DOMAIN}")
        self.schedds = [f"{name}@{DOMAIN}" for name in ("first", "second")[:schedds]]
        self._configure(schedds, more)

    def _configure(self, schedds: int, more: str) -> None:
        daemons = "MASTER COLLECTOR NEGOTIATOR SCHEDD" + (" SCHEDD2" if schedds > 1 else "")
        place = _PLACE.format(address=self.address, port=PORT, domain=DOMAIN)
        parts = [f"DAEMON_LIST = {daemons}\n", place, _SECURITY.format(domain=DOMAIN), administrators_lines(), _SPEED]
        if schedds > 1:
            parts.append(_SECOND.format(domain=DOMAIN))
        self.manager.write("/etc/condor/config.d/50-test.config", "".join([*parts, more]))
        for key in (self.pool_key, self.site_key):
            self.manager.write(f"/etc/condor/passwords.d/{key.name}", key.file_content(), 0o600)
        (self.manager.upper / "etc/condor/passwords.d").chmod(0o700)
        self.manager.write("/etc/hosts", f"127.0.0.1 localhost\n{self.address} cm.{DOMAIN} cm\n")

    def start(self) -> None:
        """Start the daemons; :meth:`wait` waits for them."""
        self.manager.start()
        script = (
            "install -d -o condor -g condor /run/condor /run/lock/condor /var/log/condor /var/spool/condor "
            "/var/lib/condor/execute /var/lib/condor/spool2;"
            "id alice >/dev/null 2>&1 || useradd -m alice; exec /usr/sbin/condor_master -f"
        )
        self.manager.spawn(["sh", "-c", script])

    def wait(self, seconds: float = 30.0) -> None:
        """Until collector, negotiator and all schedds are listed."""
        end = time.monotonic() + seconds
        want = len(self.schedds) + 1
        while time.monotonic() < end:
            said = self.manager.run("condor_status", "-any", "-af", "MyType", check=False).split()
            if said.count("Scheduler") + said.count("Negotiator") >= want:
                return
            time.sleep(0.05)
        raise RuntimeError(f"the pool did not come up: {self.logs()}")

    def token(self, user: str, *scopes: str) -> str:
        """For a user of the pool, signed with the pool's own key."""
        subject = user if "@" in user else f"{user}@{DOMAIN}"
        return mint(
            self.pool_key,
            issuer=DOMAIN,
            subject=subject,
            scopes=scopes or ("READ", "WRITE"),
            issued=time.time(),
            life=3600,
        )

    def client(self, user: str, token: str | None = None) -> Path:
        """A configuration file (for CONDOR_CONFIG) of a client with this user's token."""
        place = self.home / f"client-{user}"
        tokens = place / "tokens.d"
        tokens.mkdir(parents=True, exist_ok=True)
        file = tokens / "token"
        file.touch(0o600)
        file.write_text((token or self.token(user)) + "\n", encoding="ascii")
        path = place / "config"
        settings = {
            "COLLECTOR_HOST": self.collector,
            "CONDOR_HOST": self.address,
            "NETWORK_INTERFACE": self.address,
            "UID_DOMAIN": DOMAIN,
            "TRUST_DOMAIN": DOMAIN,
            "NO_DNS": True,
            "DEFAULT_DOMAIN_NAME": DOMAIN,
            "ENABLE_IPV6": False,
            "USE_SHARED_PORT": False,
            "SEC_TOKEN_DIRECTORY": tokens,
            "SEC_CLIENT_AUTHENTICATION_METHODS": "IDTOKENS",
            "SEC_DEFAULT_AUTHENTICATION_METHODS": "IDTOKENS",
            "LOG": place,
        }
        path.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8")
        return path

    def submit(self, description: str, count: int = 1, schedd: str | None = None) -> int:
        """As alice; the cluster's number. ``description`` is a submit file without its queue statement."""
        where = ["-name", schedd] if schedd is not None else []
        said = self.manager.run(
            "condor_submit", *where, "-terse", "-", user="alice:alice", stdin=f"{description}\nqueue {count}\n"
        )
        return int(said.split(".")[0])

    def sleep(self, seconds: int, count: int = 1, *more: str, schedd: str | None = None) -> int:
        """Submit jobs that sleep."""
        lines = [
            "executable = /bin/sleep", "transfer_executable = false", f"arguments = {seconds}", "request_cpus = 1",
            "request_memory = 64", "request_disk = 1MB", "initialdir = /tmp", "should_transfer_files = yes",
            # Without this HTCondor waits a second before each job: it then sees by file times what the job has changed.
            "transfer_output_files = \"\"", *more,
        ]  # fmt: skip
        return self.submit("\n".join(lines), count, schedd)

    def jobs(self, *attributes: str, constraint: str = "true") -> list[list[str]]:
        """These attributes of the jobs, of all schedds."""
        said = []
        for schedd in self.schedds:
            said += self.manager.run(
                "condor_q", "-name", schedd, "-allusers", "-constraint", constraint, "-af", *attributes
            ).splitlines()
        return [line.split() for line in said]

    def status(self, *attributes: str, constraint: str = "true") -> list[list[str]]:
        """These attributes of all slots."""
        said = self.manager.run("condor_status", "-constraint", constraint, "-af", *attributes)
        return [line.split() for line in said.splitlines()]

    def remove_all_jobs(self) -> None:
        """From every schedd, whatever they do."""
        for schedd in self.schedds:
            self.manager.run("condor_rm", "-name", schedd, "-all", check=False)
            self.manager.run("condor_rm", "-name", schedd, "-all", "-forcex", check=False)

    def schedd_signal(self, name: str, number: signal.Signals) -> None:
        """To the schedd called ``first`` or ``second``."""
        for process in self.manager.processes("condor_schedd"):
            # Those that it forked for a question come and go.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                second = b"second" in Path(f"/proc/{process}/cmdline").read_bytes()
                if second == (name == "second"):
                    os.kill(process, number)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        places = sorted((self.manager.upper / "var/log/condor").glob("*Log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in places)

    def stop(self) -> None:
        """End it all at once."""
        self.manager.kill()


@contextlib.contextmanager
def running_pool(*, schedds: int = 1, more: str = "") -> Iterator[Pool]:
    """A pool for as long as the block lasts. ``more`` is added to its configuration."""
    home = Path(tempfile.mkdtemp(prefix="gridtide-pool-"))
    home.chmod(0o755)
    pool = Pool(home, schedds=schedds, more=more)
    try:
        pool.start()
        pool.wait()
        yield pool
    finally:
        pool.stop()
        shutil.rmtree(home, ignore_errors=True)


def _own_address() -> str:
    """A loopback address on which nobody listens at the pool's port."""
    while True:
        address = f"127.{random.randint(64, 126)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, PORT))
            except OSError:
                continue
        return address


async def settled(queue: HTCondorQueue) -> None:
    """Wait until the pool's collector is old enough to have heard of everybody."""
    for _ in range(300):
        try:
            await queue.nodes()
        except PoolIncomplete:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("the collector does not settle")


def queue_of(pool: Pool, storage: Path, **more: object) -> HTCondorQueue:
    """A driver for this pool, with short update intervals."""
    storage.mkdir(parents=True, exist_ok=True)
    given: dict[str, object] = {
        "place": PoolPlace(pool.collector, DOMAIN, pool.address),
        "signing_key": pool.signing_key,
        "storage": storage,
        "update_interval": 1.0,
    }
    return HTCondorQueue(QueueName("pool"), PoolSettings(**{**given, **more}), SystemClock())  # type: ignore[arg-type]
