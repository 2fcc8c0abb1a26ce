"""What a worker's machine is told, so that it becomes an execution point of the pool.

The configuration below is the last that HTCondor reads in that machine, so it holds whatever the image says. What it
must never lose is told beside each line. Reference: HTCondor manual, "Configuration Macros".
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from gridtide.model.workers import Worker
from gridtide.queues.htcondor.tokens import SigningKey, mint, worker_key
from gridtide.queues.protocol import Batch, JoinOrders, OrderedFile, OrderedService

DOMAIN: Final = "gridtide"
"""What stands behind the @ of all our identities. The pool's administrator admits ``*@gridtide``."""

CONTROLLER: Final = f"controller@{DOMAIN}"
"""We, in the pool and in our workers. No worker is called like this: its id has a hyphen."""

DRAIN: Final = "GridtideDrain"
"""Attribute of each slot: 0, or the number of the order that told it to take no more jobs."""

LEASE_LOST: Final = "GridtideLeaseLost"
"""Attribute of each slot: true when the agent drains the machine because its lease is over."""

WORKER: Final = "GridtideWorker"
"""Attribute of all ads of a worker's machine: its id."""

SINGLE_USE: Final = "GridtideSingleUse"
"""Attribute of each slot: whether the worker is for one job alone."""

WORKER_SCOPES: Final = ("ADVERTISE_STARTD", "ADVERTISE_MASTER", "READ")
"""All that a worker may do in the pool. It can neither submit nor look into a schedd's secrets."""

TOKEN_LIFE: Final = 366 * 86_400.0
"""Seconds. A worker needs its token again whenever the collector was restarted, and a job may run for weeks; shorter,
and such a worker would vanish from the pool under its running job. The token is good for that one worker's ads alone,
and of no use once its machine is gone."""

_PLACE: Final = "/etc/condor"
_SCRIPT: Final = f"{_PLACE}/gridtide-prepare"
# Sorts behind the configuration itself, and so is read after it.
_LEASE_FILE: Final = f"{_PLACE}/config.d/99-gridtide.lease.config"
# Ten years: "never" would be read as "at once" by some versions.
_NEVER: Final = 315_360_000

# Run again after a failure, so each step can be repeated. $1, if given: the collector's loopback address. In QEMU's
# user network the host's loopback is behind 10.0.2.2, and addresses must be the same inside and outside; machines that
# share the host's network stay on its loopback.
_PREPARE: Final = f"""#!/bin/sh
set -e
chmod 700 {_PLACE}/passwords.d {_PLACE}/tokens.d
for place in /run/condor /run/lock/condor /var/log/condor /var/spool/condor /var/lib/condor/execute; do
    install -d -o condor -g condor "$place"
done
grep -q "[[:space:]]$(hostname)$" /etc/hosts || echo "127.0.1.1 $(hostname)" >> /etc/hosts
[ -n "$1" ] || exit 0
device=$(ip -4 -o address show 2>/dev/null | sed -n 's/^[0-9]*: *\\([^ ]*\\) .* 10[.]0[.]2[.]15[/].*/\\1/p')
if [ -n "$device" ]; then
    echo 1 > "/proc/sys/net/ipv4/conf/$device/route_localnet"
    ip route replace table local unicast "$1/32" via 10.0.2.2 dev "$device" src 10.0.2.15
else
    file={_PLACE}/config.d/97-gridtide-loopback.config
    printf 'NETWORK_INTERFACE = 127.0.0.1\\nBIND_ALL_INTERFACES = False\\n' > $file
fi
"""

# No job was started, and none is about to be.
_ONE_JOB: Final = " && JobStarts =?= 0 && (NumDynamicSlots ?: 0) == 0"

_CONFIGURATION: Final = """\
# Written by Gridtide when this machine joined. Changes are lost.
DAEMON_LIST = MASTER STARTD
COLLECTOR_HOST = {collector}
CONDOR_HOST = {host}
TRUST_DOMAIN = {trust_domain}
UID_DOMAIN = {domain}
FILESYSTEM_DOMAIN = {worker}.{domain}
NETWORK_HOSTNAME = {worker}.{domain}
NO_DNS = True
DEFAULT_DOMAIN_NAME = {domain}
ENABLE_IPV6 = False

# Only connections from here to the pool: it asks us to call back.
USE_SHARED_PORT = True
SHARED_PORT_PORT = 0
CCB_ADDRESS = $(COLLECTOR_HOST)
# Several machines may share one address with the collector; sessions of a family would be mixed up.
SEC_USE_FAMILY_SESSION = False

SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_ENCRYPTION = REQUIRED
SEC_DEFAULT_INTEGRITY = REQUIRED
SEC_READ_AUTHENTICATION = REQUIRED
SEC_READ_ENCRYPTION = REQUIRED
SEC_READ_INTEGRITY = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_CLIENT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_TOKEN_DIRECTORY = {place}/tokens.d
SEC_TOKEN_SYSTEM_DIRECTORY = {place}/tokens.d
SEC_PASSWORD_DIRECTORY = {place}/passwords.d
ALLOW_READ = condor@{domain} root@{domain} {controller}
ALLOW_WRITE = condor@{domain} root@{domain}
ALLOW_DAEMON = condor@{domain} root@{domain}
ALLOW_ADMINISTRATOR = condor@{domain} root@{domain} {controller}
ALLOW_CONFIG = {controller}
ALLOW_NEGOTIATOR =

# The one thing that may be changed from outside, by the holder of this worker's own key.
ENABLE_RUNTIME_CONFIG = True
SETTABLE_ATTRS_CONFIG = {drain}
SETTABLE_ATTRS_ADMINISTRATOR =

{worker_attribute} = "{worker}"
GridtideGroup = "{group}"
GridtideShape = "{shape}"
GridtideGeneration = "{generation}"
{single} = {single_use}
{drain} = 0
{lease_lost} = False
STARTD_ATTRS = $(STARTD_ATTRS) {own_names}{attribute_names}
MASTER_ATTRS = $(MASTER_ATTRS) {worker_attribute}
{attributes}
START = ($(START)) && ({start}) && {drain} =?= 0 && {lease_lost} =!= True{one_job}

# Nothing ends a running job: no preemption, no eviction, and a retirement longer than any job.
RANK = 0
PREEMPT = False
KILL = False
SUSPEND = False
WANT_SUSPEND = False
WANT_VACATE = False
MAXJOBRETIREMENTTIME = {never}
SHUTDOWN_GRACEFUL_TIMEOUT = {never}

NUM_CPUS = {cores}
MEMORY = {memory}
NUM_SLOTS = {slots}
NUM_SLOTS_TYPE_1 = {slots}
SLOT_TYPE_1 = {slot_type}
SLOT_TYPE_1_PARTITIONABLE = {partitionable}
# A job gets what it asks for. Rounded up, fewer jobs would fit than were planned.
MODIFY_REQUEST_EXPR_REQUESTCPUS = RequestCpus
MODIFY_REQUEST_EXPR_REQUESTMEMORY = RequestMemory
MODIFY_REQUEST_EXPR_REQUESTDISK = RequestDisk

UPDATE_INTERVAL = {update_interval}
MASTER_UPDATE_INTERVAL = {update_interval}
# Start-up in seconds instead of half a minute.
ENABLE_KERNEL_TUNING = False
RUNBENCHMARKS = False
STARTD_DETECT_GPUS = {gpus}
ENABLE_URL_TRANSFERS = {url_transfers}
{plugins}
SINGULARITY =
DOCKER =
JAVA =
{more}
"""


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """What a pool asks of its workers, whatever their shape."""

    collector: str
    """ADDRESS:PORT as workers call it."""
    trust_domain: str
    """The pool's: tokens name it as their issuer."""
    static_slots: bool = False
    """One slot for each core instead of one that is divided as jobs ask."""
    start: str = "True"
    """What HTCondor calls START, besides what the image has."""
    url_transfers: bool = False
    update_interval: int = 60
    """Seconds between a node's words when nothing happens."""
    configuration: tuple[str, ...] = ()
    """Lines of HTCondor configuration that the site adds."""


def orders(
    worker: Worker, attributes: dict[str, str], settings: JoinSettings, site_key: SigningKey, now: float
) -> JoinOrders:
    """The files and services. ``attributes`` are ClassAd expressions by name."""
    subject = f"{worker.id}@{DOMAIN}"
    token = mint(
        site_key, issuer=settings.trust_domain, subject=subject, scopes=WORKER_SCOPES, issued=now, life=TOKEN_LIFE
    )
    key = worker_key(site_key, worker.id)
    host = settings.collector.rpartition(":")[0]
    files = (
        OrderedFile(_SCRIPT, _PREPARE, 0o700),
        OrderedFile(f"{_PLACE}/config.d/99-gridtide.config", configuration(worker, attributes, settings), 0o644),
        OrderedFile(f"{_PLACE}/tokens.d/gridtide", token + "\n"),
        OrderedFile(f"{_PLACE}/passwords.d/{key.name}", key.file_text()),
    )
    return JoinOrders(
        kind="batch",
        batch=Batch(
            files=files,
            prepare=((_SCRIPT, *((host,) if ip_address(host).is_loopback else ())),),
            services=(OrderedService("condor_master", ("/usr/sbin/condor_master", "-f")),),
            busy=("condor_starter",),
            drain=("sh", "-c", f"echo '{LEASE_LOST} = True' > {_LEASE_FILE} && condor_reconfig -daemon startd"),
            resume=("sh", "-c", f"rm -f {_LEASE_FILE} && condor_reconfig -daemon startd"),
        ),
    )


def configuration(worker: Worker, attributes: dict[str, str], settings: JoinSettings) -> str:
    """The file that HTCondor reads last."""
    size = worker.shape.resources
    slots = size.cores if settings.static_slots else 1
    return _CONFIGURATION.format(
        collector=settings.collector,
        host=settings.collector.rpartition(":")[0],
        trust_domain=settings.trust_domain,
        domain=DOMAIN,
        worker=worker.id,
        group=worker.group,
        place=_PLACE,
        controller=CONTROLLER,
        drain=DRAIN,
        lease_lost=LEASE_LOST,
        worker_attribute=WORKER,
        attributes="\n".join(f"{name} = {value}" for name, value in sorted(attributes.items())),
        attribute_names="".join(f" {name}" for name in sorted(attributes)),
        single=SINGLE_USE,
        single_use=worker.single_use,
        one_job=_ONE_JOB if worker.single_use else "",
        own_names=" ".join(
            (WORKER, "GridtideGroup", "GridtideShape", "GridtideGeneration", SINGLE_USE, DRAIN, LEASE_LOST)
        ),
        shape=worker.shape.name,
        generation=worker.generation,
        start=settings.start,
        never=_NEVER,
        cores=size.cores,
        memory=size.memory,
        slots=slots,
        slot_type="cpus=1" if settings.static_slots else "100%",
        partitionable=not settings.static_slots,
        update_interval=settings.update_interval,
        gpus=size.gpus > 0,
        url_transfers=settings.url_transfers,
        plugins="" if settings.url_transfers else "FILETRANSFER_PLUGINS =",
        more="\n".join(settings.configuration),
    )
