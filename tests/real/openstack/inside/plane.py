"""Brings a control plane up, inside its tree: ``python3 plane.py ADDRESS``. Standard library only.

Everything of it lies below /plane: ``state`` (database, keys, images) survives, if somebody keeps it; ``etc`` and
``log`` are made anew. Prints ``ready`` when every API answers and the compute node is up. A line on standard input
stops the daemons in order, so that the state can be kept; its end ends all, with the name spaces that this runs in.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PLANE = Path("/plane")
STATE, ETC, LOG, LIB = (PLANE / name for name in ("state", "etc", "log", "lib"))
SOCKET = PLANE / "mysql.sock"
PASSWORD = "testing"
FIRST_ADDRESS = "127.79.0.1"
"""What is written into a new database; a plane that starts from an old one replaces it by its own."""
DATABASES = ("keystone", "placement", "glance", "neutron", "nova_api", "nova", "nova_cell0")
SERVICES = ("glance", "placement", "neutron", "nova")
PORTS = {"keystone": 5000, "placement": 8778, "glance": 9292, "neutron": 9696, "nova": 8774}

FLAVORS = (("tiny", 1, 512, 1), ("large", 4, 8192, 40))
"""Name, cores, MiB of memory, GiB of disk."""
IMAGE = "worker-2026.11"
NETWORK = "private"

PASTE = Path("/more/usr/share")
GLANCE = ("glance.cmd.api", "--config-file", f"{ETC}/glance.conf")
NEUTRON = ("neutron.cmd.eventlet.server", "--config-file", f"{ETC}/neutron.conf")


def database(name: str) -> str:
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={SOCKET}&charset=utf8"


def client(section: str, user: str, address: str) -> str:
    return f"""
[{section}]
auth_url = http://{address}:5000/v3
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = {user}
password = {PASSWORD}
region_name = RegionOne
valid_interfaces = public
"""


def token(user: str, address: str) -> str:
    more = f"www_authenticate_uri = http://{address}:5000/v3\nservice_token_roles_required = true\n"
    return client("keystone_authtoken", user, address) + more


def configurations(address: str) -> dict[str, str]:
    """By file name."""
    keystone = f"""
[database]
connection = {database("keystone")}
[token]
expiration = 86400
[fernet_tokens]
key_repository = {STATE}/fernet
[fernet_receipts]
key_repository = {STATE}/fernet
[credential]
key_repository = {STATE}/credential
[cache]
enabled = true
backend = dogpile.cache.memory_pickle
# Each process has a cache of its own, and would not hear of an endpoint that another one made.
[catalog]
caching = false
[identity]
password_hash_rounds = 4
"""
    placement = f"""
[placement_database]
connection = {database("placement")}
[api]
auth_strategy = keystone
{token("placement", address)}
"""
    glance = f"""
[DEFAULT]
bind_host = {address}
workers = 0
enabled_backends = file:file
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {STATE}/images
[os_glance_staging_store]
filesystem_store_datadir = {STATE}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {STATE}/tasks
[database]
connection = {database("glance")}
[paste_deploy]
flavor = keystone
config_file = {PASTE}/glance-common/glance-api-paste.ini
[oslo_concurrency]
lock_path = {PLANE}/locks
{token("glance", address)}
"""
    neutron = f"""
[DEFAULT]
bind_host = {address}
core_plugin = ml2
service_plugins =
api_paste_config = {PASTE}/neutron-common/api-paste.ini
state_path = {PLANE}/neutron
transport_url = fake://
api_workers = 0
rpc_workers = 0
rpc_state_report_workers = 0
dhcp_agent_notification = false
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[database]
connection = {database("neutron")}
[oslo_concurrency]
lock_path = {PLANE}/locks
[quotas]
quota_port = -1
[ml2]
type_drivers = vxlan
tenant_network_types = vxlan
mechanism_drivers = everywhere
extension_drivers = port_security
[ml2_type_vxlan]
vni_ranges = 1:1000
{token("neutron", address)}
"""
    nova = f"""
[DEFAULT]
host = compute-0
my_ip = {address}
state_path = {PLANE}/nova
transport_url = fake://
compute_driver = fake.FakeDriver
osapi_compute_listen = {address}
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
periodic_fuzzy_delay = 0
report_interval = 5
reclaim_instance_interval = 0
[api]
auth_strategy = keystone
[api_database]
connection = {database("nova_api")}
[database]
connection = {database("nova")}
[wsgi]
api_paste_config = {PASTE}/nova-common/api-paste.ini
[oslo_concurrency]
lock_path = {PLANE}/locks
[scheduler]
discover_hosts_in_cells_interval = 2
[filter_scheduler]
host_subset_size = 10
enabled_filters = ComputeFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter
[glance]
api_servers = http://{address}:9292
[quota]
instances = 1000
cores = 10000
ram = 20000000
key_pairs = 100
[vnc]
enabled = false
[workarounds]
disable_rootwrap = true
{token("nova", address)}
{client("placement", "placement", address)}
{client("neutron", "neutron", address)}
{client("service_user", "nova", address)}
send_service_user_token = true
"""
    names = {"keystone": keystone, "placement": placement, "glance": glance, "neutron": neutron, "nova": nova}
    return {f"{name}.conf": text for name, text in names.items()}


class Plane:
    """Its daemons."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    # --- processes

    def run(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        """In the background, into a log."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(LIB),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "OS_KEYSTONE_CONFIG_DIR": str(ETC),
            "OS_PLACEMENT_CONFIG_DIR": str(ETC),
        }
        with open(LOG / f"{log}.log", "ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)

    def module(self, log: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """An entry point of OpenStack: Debian's own launchers are in packages that set services up."""
        code = f"import sys; sys.argv[0] = {log!r}; from {module} import main; sys.exit(main())"
        return self.run(log, "/usr/bin/python3", "-c", code, *arguments)

    def wsgi(self, name: str, file: str) -> None:
        """In one process, so that its cache is one. Without keep-alive, which http-socket does not have."""
        options = ["--master", "--die-on-term", "--processes=1", "--threads=8", "--enable-threads", "--lazy-apps"]
        where = ["--http-socket", f"{self.address}:{PORTS[name]}", "--wsgi-file", file, "--buffer-size", "65535"]
        more = ["--need-app", "--disable-logging", "--add-header", "Connection: close"]
        self.daemons[name] = self.run(name, "uwsgi", "--plugin", "python3", *where, *options, *more)

    def sql(self, text: str) -> None:
        command = ("mariadb", "--no-defaults", "-S", str(SOCKET))
        subprocess.run(command, input=text.encode(), check=True)

    # --- the database

    def start_database(self) -> None:
        options = ("--no-defaults", "--user=root", f"--datadir={STATE}/mysql")
        tables = "--innodb-file-per-table=0"
        if not (STATE / "mysql").is_dir():
            how = ("--skip-test-db", "--auth-root-authentication-method=normal", tables)
            done(self.run("mariadb-install", "mariadb-install-db", *options, *how), "mariadb-install-db")
        quick = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-log-bin", tables)
        small = ("--innodb-log-file-size=16M", "--innodb-buffer-pool-size=96M", "--performance-schema=OFF")
        place = (f"--socket={SOCKET}", "--skip-networking", "--skip-grant-tables", "--max-connections=400")
        more = ("--character-set-server=utf8", f"--pid-file={PLANE}/mysql.pid")
        self.daemons["mariadb"] = self.run("mariadb", "mariadbd", *options, *quick, *small, *place, *more)
        wait_for("the database", lambda: SOCKET.exists() and ping())

    def make_schemas(self) -> None:
        for name in DATABASES:
            self.sql(f"CREATE DATABASE {name} CHARACTER SET utf8;")
        for keys in ("fernet", "credential"):
            (STATE / keys).mkdir(mode=0o700)
        keystone = ("/usr/bin/keystone-manage", "--config-file", f"{ETC}/keystone.conf")
        for keys in ("fernet", "credential"):
            user = ("--keystone-user", "root", "--keystone-group", "root")
            done(self.run("keys", *keystone, f"{keys}_setup", *user), f"{keys} keys")
        neutron = ("--config-file", f"{ETC}/neutron.conf", "upgrade", "heads")
        side = {
            "keystone": self.run("sync-keystone", *keystone, "db_sync"),
            "placement": self.run(
                "sync-placement", "/usr/bin/placement-manage", "--config-file", f"{ETC}/placement.conf", "db", "sync"
            ),
            "glance": self.module("sync-glance", "glance.cmd.manage", *GLANCE[1:], "db_sync"),
            "neutron": self.module("sync-neutron", "neutron.db.migration.cli", *neutron),
        }
        nova = ("--config-file", f"{ETC}/nova.conf")
        for step in (
            ("api_db", "sync"),
            ("cell_v2", "map_cell0", "--database_connection", database("nova_cell0")),
            ("db", "sync"),
            ("cell_v2", "create_cell", "--name", "one"),
        ):
            done(self.module("sync-nova", "nova.cmd.manage", *nova, *step), f"nova-manage {' '.join(step)}")
        for name, process in side.items():
            done(process, f"the schema of {name}")
        url = f"http://{self.address}:5000/v3"
        urls = [word for kind in ("admin", "internal", "public") for word in (f"--bootstrap-{kind}-url", url)]
        region = ("--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne")
        done(self.run("sync-keystone", *keystone, "bootstrap", *region, *urls), "keystone-manage bootstrap")

    # --- services

    def start(self) -> None:
        """Returns when everything answers."""
        new = not (STATE / "complete").exists()
        for directory in (ETC, LOG, LIB, STATE, *(STATE / each for each in ("images", "staging", "tasks"))):
            directory.mkdir(parents=True, exist_ok=True)
        for name in ("locks", "neutron", "nova/instances"):
            (PLANE / name).mkdir(parents=True, exist_ok=True)
        for name, text in configurations(self.address).items():
            (ETC / name).write_text(text)
        self.start_database()
        if new:
            self.make_schemas()
            say("schemas made")
        else:
            replace = f"REPLACE(url, '{FIRST_ADDRESS}:', '{self.address}:')"
            self.sql(f"UPDATE keystone.endpoint SET url = {replace};")  # noqa: S608 - our own address
            self.sql("UPDATE nova.services SET last_seen_up = UTC_TIMESTAMP();")  # else "down" until its next report
        self.wsgi("keystone", "/usr/bin/keystone-wsgi-public")
        self.wsgi("placement", "/usr/bin/placement-api")
        self.daemons["glance"] = self.module("glance", *GLANCE)
        wait_for("keystone", lambda: answers(f"http://{self.address}:5000/v3"))
        if new:
            Content(self.address).identity()
        self.daemons["neutron"] = self.module("neutron", *NEUTRON)
        command = ("/usr/bin/python3", f"{LIB}/nova_all.py", "--config-file", f"{ETC}/nova.conf")
        wait_for("placement", lambda: answers(f"http://{self.address}:8778/"))
        self.daemons["nova"] = self.run("nova", *command)
        for name, port in PORTS.items():
            wait_for(name, lambda port=port: answers(f"http://{self.address}:{port}/"))
        say("all APIs answer")
        content = Content(self.address)
        wait_for("the compute node", content.compute_is_up)
        if new:
            content.resources()
            (STATE / "complete").touch()

    def stop(self) -> None:
        """In order, so that the state can be kept."""
        for name, process in reversed(self.daemons.items()):
            if name != "mariadb":
                process.kill()
                process.wait()
        self.sql("SHUTDOWN;")
        self.daemons["mariadb"].wait(60)

    def check(self) -> None:
        """SystemExit when a daemon has ended."""
        for name, process in self.daemons.items():
            if process.poll() is not None:
                sys.exit(f"{name} ended: {tail(name)}")


class Content:
    """What an administrator sets up, through the APIs."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.token = ""

    def call(self, service: str, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """The answer's JSON, or its headers when it has none."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {"X-Auth-Token": self.token, "Content-Type": kind, "Accept": "application/json"}
        url = f"http://{self.address}:{PORTS[service]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
            text = answer.read()
            return (json.loads(text) if text.strip() else {}), answer.headers

    def log_in(self) -> None:
        domain = {"id": "default"}
        user = {"name": "admin", "password": PASSWORD, "domain": domain}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": {"project": {"name": "admin", "domain": domain}}}}
        self.token = self.call("keystone", "POST", "/v3/auth/tokens", body)[1]["X-Subject-Token"]

    def identity(self) -> None:
        """Users of the services, and the catalog."""
        self.log_in()

        def make(what: str, more: dict[str, Any]) -> str:
            return str(self.call("keystone", "POST", f"/v3/{what}s", {what: more})[0][what]["id"])

        listed = self.call("keystone", "GET", "/v3/roles")[0]["roles"]
        roles = {each["name"]: each["id"] for each in listed}
        roles["service"] = roles.get("service") or make("role", {"name": "service"})
        project = make("project", {"name": "service", "domain_id": "default"})
        for name in SERVICES:
            user = make("user", {"name": name, "password": PASSWORD, "domain_id": "default"})
            for role in ("admin", "service"):
                self.call("keystone", "PUT", f"/v3/projects/{project}/users/{user}/roles/{roles[role]}")
        kinds = {"compute": "nova", "image": "glance", "placement": "placement", "network": "neutron"}
        for kind, name in kinds.items():
            service = make("service", {"type": kind, "name": name})
            url = f"http://{self.address}:{PORTS[name]}" + ("/v2.1" if kind == "compute" else "")
            place = {"service_id": service, "interface": "public", "region_id": "RegionOne", "url": url}
            make("endpoint", place)

    def compute_is_up(self) -> bool:
        """And can be scheduled to."""
        if not self.token:
            self.log_in()
        try:
            found = self.call("nova", "GET", "/v2.1/os-hypervisors")[0]["hypervisors"]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return bool(found) and all(each["state"] == "up" for each in found)

    def resources(self) -> None:
        """Flavours, an image, a network of everybody."""
        for name, cores, memory, disk in FLAVORS:
            flavor = {"name": name, "vcpus": cores, "ram": memory, "disk": disk}
            self.call("nova", "POST", "/v2.1/flavors", {"flavor": flavor})
        form = {"disk_format": "raw", "container_format": "bare", "visibility": "public"}
        image = self.call("glance", "POST", "/v2/images", {"name": IMAGE, "os_distro": "debian", **form})[0]["id"]
        self.call("glance", "PUT", f"/v2/images/{image}/file", bytes(4096), "application/octet-stream")
        wanted = {"network": {"name": NETWORK, "shared": True}}
        network = self.call("neutron", "POST", "/v2.0/networks", wanted)[0]["network"]["id"]
        subnet = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/16", "enable_dhcp": False}
        self.call("neutron", "POST", "/v2.0/subnets", {"subnet": subnet})


def done(process: "subprocess.Popen[bytes]", what: str) -> None:
    if process.wait() != 0:
        logs = "\n".join(tail(each.stem) for each in LOG.iterdir() if each.stat().st_size)
        sys.exit(f"{what} failed: {logs}")


def ping() -> bool:
    command = ("mariadb", "--no-defaults", "-S", str(SOCKET), "-e", "select 1")
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def answers(url: str) -> bool:
    """Whether HTTP is spoken there, whatever is said."""
    try:
        urllib.request.urlopen(url, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def wait_for(what: str, true: Any, patience: float = 180.0) -> None:
    end = time.monotonic() + patience
    while not true():
        PLANE_IS.check()
        if time.monotonic() > end:
            sys.exit(f"{what} does not come up: " + "\n".join(tail(name) for name in PLANE_IS.daemons))
        time.sleep(0.1)


def tail(log: str) -> str:
    text = (LOG / f"{log}.log").read_text(errors="replace")
    return f"--- {log}\n{text[-1500:]}"


def say(what: str) -> None:
    print(f"{what} at {time.monotonic() - BEGAN:.1f} s", flush=True)


if __name__ == "__main__":
    os.chdir("/")
    BEGAN = time.monotonic()
    PLANE_IS = Plane(sys.argv[1])
    PLANE_IS.start()
    say("ready")
    if sys.stdin.readline():
        PLANE_IS.stop()
        say("stopped")
        sys.stdin.read()
