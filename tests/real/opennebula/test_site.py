"""A whole site: the real command, the pilot queue, the real driver; machines of the double are processes here."""

import secrets

from gridtide.testing.live_site import LiveSite
from tests.real.opennebula.hosts import Hosts
from tests.real.opennebula.tenant import Tenant

SITE = """
[site]
name = "{name}"

[service]
listen = "127.0.0.1:0"

[queues.jobs]
type = "pilot"

[clouds.private]
type = "opennebula"
endpoint = "{endpoint}"
credentials = "one_auth"
settle = "1 s"
shapes = {{ small = {{}} }}

[groups.workers]
queue = "jobs"
clouds = ["private"]
image = "worker-2026.11"
maximum = 2
policy = {{ type = "queue", idle_for = "1 s" }}
context = {{ format = "agent" }}
"""


def test_jobs_bring_machines_and_their_end_takes_them_away(tenant: Tenant) -> None:
    name = f"live-{secrets.token_hex(5)}"
    tenant.credentials()
    text = SITE.format(name=name, endpoint=tenant.address)
    with Hosts(tenant.nebula, tenant.directory / "hosts", name) as hosts, LiveSite(tenant.directory, text) as site:
        submission = site.submit('Executable = "/bin/echo"; Arguments = "$(index)"; Array = 8;')
        assert site.wait_for_jobs(submission, timeout=120.0)["done"] == 8
        assert site.client.get(f"/v1/jobs/{submission}.7/log").text == "7\n"
        site.kill()
        site.start(wait=False)
        site.wait_for_service(timeout=90.0)
        site.wait_for_no_workers(timeout=90.0)
        site.wait_until(lambda: not tenant.living(), timeout=20.0, what="the machines to end")
        past = {each["id"] for each in site.get("/v1/workers", past="true")["workers"]}
        assert set(hosts.booted) == past
        assert len(hosts.booted) == len(past) <= 2, "none was doubled"
        assert tenant.nebula.calls["one.template.instantiate"] == len(past)
