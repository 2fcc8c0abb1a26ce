"""What a good file says: defaults, paths, rules for the planner, generations."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName, GroupName, QueueName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import (
    CloudRules,
    FixedPolicy,
    LoadPolicy,
    PerJobPolicy,
    Policy,
    QueuePolicy,
    SchedulePolicy,
    TidePolicy,
    Window,
)
from gridtide.site.base import is_loopback
from gridtide.site.drivers import PilotQueueSettings, ProcessCloudSettings
from gridtide.site.loader import load
from gridtide.site.models import CertificateFiles, GroupSettings, Listen, ServiceSettings, StoreSettings
from gridtide.site.policies import FixedPolicySettings

from .conftest import Read, Write
from .texts import SMALL, with_group, with_section

WORKERS = GroupName("workers")


def test_the_smallest_site_has_safe_defaults(read: Read, tmp_path: Path) -> None:
    site = read(SMALL)
    assert (site.name, site.state, site.path) == ("torino", tmp_path / "state", tmp_path / "site.toml")
    assert site.service.url_on(8470) == "http://127.0.0.1:8470"
    assert not site.service.encrypted
    assert site.service.aliec2 is None
    assert site.store.connection_url() == f"sqlite:///{tmp_path}/state/gridtide.sqlite"
    controller = site.controller
    assert (controller.batch_window, controller.lease, controller.warmup) == (0.05, 10.0, 60.0)
    queue = site.queues[QueueName("jobs")]
    assert isinstance(queue, PilotQueueSettings)
    assert (queue.maximum_losses, queue.storage) == (3, tmp_path / "state/queues/jobs")
    cloud = site.clouds[CloudName("local")]
    assert isinstance(cloud, ProcessCloudSettings)
    assert cloud.directory == tmp_path / "state/clouds/local"
    assert cloud.shape_values()[1] == Shape(ShapeName("2core"), Resources(2, 2048, 4096), 0.0)
    assert [shape.name for shape in cloud.shape_values()] == ["1core", "2core", "4core"]
    group = site.groups[WORKERS]
    assert (group.minimum, group.join_deadline, group.lease, group.heartbeat) == (0, None, 600.0, 10.0)


def test_the_planner_gets_it_all(read: Read) -> None:
    text = with_group(
        "minimum = 1",
        'shapes = ["2core", "1core"]',
        'join_deadline = "3 min"',
        'lease = "4 min"',
        'attributes = { Arch = "X86_64", Fast = true, Score = 1.5, Rack = 3 }',
        "[controller]",
        'warmup = "5 s"',
    ).replace('"process"', '"process"\nquota = { cores = 8, memory = "16 GiB" }\nsettle = "2 s"')
    rules = read(text).rules()
    assert rules.name == "torino"
    assert rules.queues == ("jobs",)
    assert rules.warmup == 5.0
    assert rules.clouds == {"local": CloudRules(CloudName("local"), Quota(8, 16_384, 16), 2.0)}
    group = rules.groups[WORKERS]
    assert (group.queue, group.clouds, group.shapes) == ("jobs", ("local",), ("2core", "1core"))
    assert (group.minimum, group.maximum, group.join_deadline, group.lease) == (1, 4, 180.0, 240.0)
    assert group.policy == TidePolicy()
    assert dict(group.attributes) == {
        "Arch": "X86_64", "Fast": True, "Score": 1.5, "Rack": 3, "GridtideGroup": "workers", "GridtideSite": "torino",
    }  # fmt: skip
    assert {type(value) for value in group.attributes.values()} == {str, bool, float, int}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ('{ type = "queue" }', QueuePolicy(0, 0.0, None, 300.0, None)),
        (
            '{ type = "queue", threshold = 1, waiting_time = "2 s", jobs_per_worker = 3, idle_for = "4 s", '
            'deploy_time = "5 s" }',
            QueuePolicy(1, 2.0, 3, 4.0, 5.0),
        ),
        ('{ type = "elastiq" }', QueuePolicy(10, 100.0, 4, 3600.0, 600.0)),
        ('{ type = "elastiq", threshold = 2 }', QueuePolicy(2, 100.0, 4, 3600.0, 600.0)),
        ('{ type = "per_job" }', PerJobPolicy(300.0)),
        ('{ type = "per_job", idle_for = "1 min" }', PerJobPolicy(60.0)),
        ('{ type = "fixed", count = 4 }', FixedPolicy(4)),
        ('{ type = "load" }', LoadPolicy()),
        (
            '{ type = "load", high = 0.8, high_for = "1 s", low = 0, low_for = "2 s", cooldown = "3 s", add = 4, '
            'remove = 5, heard_within = "20 s" }',
            LoadPolicy(0.8, 1.0, 0.0, 2.0, 3.0, 4, 5, 20.0),
        ),
        ('{ type = "schedule" }', SchedulePolicy(())),
        (
            '{ type = "schedule", zone = "Europe/Rome", follow = { type = "fixed", count = 1 }, warm = 1, windows = '
            '[{ begins = " 0 8  * * mon-fri", lasts = "1 h", minimum = 1, maximum = 3, desired = 2, warm = 0 }] }',
            SchedulePolicy((Window("0 8 * * mon-fri", 3600.0, 1, 3, 2, 0),), "Europe/Rome", FixedPolicy(1), 1),
        ),
        ('{ type = "tide" }', TidePolicy()),
        ('{ type = "tide" }', TidePolicy(1800.0, 0.05, 10, 8.0)),
        (
            '{ type = "tide", idle_for = "5 min", ahead = 0, spread = 1, wait_worth = 0 }',
            TidePolicy(300.0, 0.0, 1, 0.0),
        ),
    ],
)
def test_policies(read: Read, policy: str, expected: Policy) -> None:
    assert read(with_group(f"policy = {policy}")).rules().groups[WORKERS].policy == expected


def test_figures_may_stand_on_their_limits(read: Read) -> None:
    site = read(with_group("minimum = 4", 'lease = "20001 ms"', "[controller]", 'lease = "1 s"', 'warmup = "0 s"'))
    assert site.groups[WORKERS].minimum == site.groups[WORKERS].maximum
    assert (site.groups[WORKERS].lease, site.controller.lease, site.controller.warmup) == (20.001, 1.0, 0.0)


def test_nothing_can_be_changed_afterwards(read: Read) -> None:
    site = read(SMALL)
    with pytest.raises(FrozenInstanceError):
        site.digest = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        site.groups[WORKERS].maximum = 7
    with pytest.raises(TypeError):
        site.groups[GroupName("x")] = site.groups[WORKERS]  # type: ignore[index]


def test_paths_start_at_the_file_and_not_where_one_stands(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir("/")
    text = SMALL.replace("[queues.jobs]", 'state = "../here/./{state}"\n[queues.jobs]')
    site = read(text.replace('"pilot"', '"pilot"\nstorage = "~/jobs"'))
    assert site.state == tmp_path.parent / "here/{state}"
    queue, cloud = site.queues[QueueName("jobs")], site.clouds[CloudName("local")]
    assert isinstance(queue, PilotQueueSettings)
    assert isinstance(cloud, ProcessCloudSettings)
    assert queue.storage == home / "jobs"
    assert cloud.directory == site.state / "clouds/local"


def test_a_relative_name_of_the_file_itself(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(SMALL)
    monkeypatch.chdir(tmp_path)
    assert load(Path("site.toml")).state == tmp_path / "state"


# --- the service


@pytest.mark.parametrize(
    ("lines", "encrypted", "url"),
    [
        (['listen = "127.0.0.1:0"'], False, "http://127.0.0.1:4711"),
        (['listen = "[::1]:8470"'], False, "http://[::1]:4711"),
        (['listen = "localhost:8470"', 'tls = "off"'], False, "http://localhost:4711"),
        (['listen = "10.1.2.3:8470"'], True, "https://10.1.2.3:4711"),
        (['listen = "site.example.org:8470"'], True, "https://site.example.org:4711"),
        (['listen = "0.0.0.0:8470"', 'url = "https://site.example.org/"'], True, "https://site.example.org"),
        (['url = "https://proxy.example.org/gridtide"'], False, "https://proxy.example.org/gridtide"),
        (['url = "http://10.0.2.2:8470"'], False, "http://10.0.2.2:8470"),
        (
            ['tls = { certificate = "site.toml", key = "site.toml", authority = "site.toml" }'],
            True,
            "https://127.0.0.1:4711",
        ),
    ],
)
def test_what_workers_call(read: Read, lines: list[str], encrypted: bool, url: str) -> None:
    service = read(with_section("service", *lines)).service
    assert service.encrypted is encrypted
    assert service.url_on(4711) == url


def test_its_own_certificate(read: Read, tmp_path: Path) -> None:
    site = read(
        with_section("service", 'tls = { certificate = "site.toml", key = "site.toml", authority = "site.toml" }')
    )
    assert site.service.tls == CertificateFiles(
        certificate=tmp_path / "site.toml", key=tmp_path / "site.toml", authority=tmp_path / "site.toml"
    )


def test_the_aliec2_routes_are_switched_on_by_name_of_a_group(read: Read) -> None:
    aliec2 = read(with_section("service", 'aliec2 = { group = "workers" }')).service.aliec2
    assert aliec2 is not None
    assert aliec2.group == "workers"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.2.2", True),  # QEMU's user network
        ("10.0.3.2", False),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("localhost.example.org", False),
        ("192.0.2.1", False),
    ],
)
def test_what_stays_in_the_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_listen_address_reads_back() -> None:
    for text in ("127.0.0.1:8470", "[::1]:0", "site.example.org:65535"):
        assert str(Listen.parse(text)) == text


# --- the store


def test_a_password_is_never_shown(read: Read) -> None:
    site = read(with_section("store", 'url = "postgresql+psycopg://gridtide:hunter2@db/gridtide"'))
    assert "hunter2" not in repr(site) + str(site) + str(site.store.model_dump()) + site.store.model_dump_json()
    assert site.store.connection_url() == "postgresql+psycopg://gridtide:hunter2@db/gridtide"


@pytest.mark.parametrize(
    "line",
    [
        'url = "postgresql://u:hunter2@db/x"',
        'url = "postgresql+psycopg://u:hunter2@db"',
        'url = "postgresql+psycopg://u:hunter2@db:port/x"',
        'url = "hunter2"',
        'url = ["hunter2"]',
        'uri = "postgresql+psycopg://u:hunter2@db/x"',
        'url = "postgresql+psycopg://u:hunter2@db/x"\npassword_file = "site.toml"',
        'url = "postgresql+psycopg://u:hunter2@db/x\n',
        "url = postgresql+psycopg://u:hunter2@db/x",
    ],
)
def test_not_even_in_an_error(write: Write, line: str) -> None:
    with pytest.raises(SiteFileError) as caught:
        load(write(with_section("store", line)))
    assert "hunter2" not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)


def test_a_password_from_a_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    site = read(with_section("store", 'url = "postgresql+psycopg://u@db/x"', 'password_file = "password"'))
    assert site.store.connection_url() == "postgresql+psycopg://u:p%40ss%2Fword@db/x"
    assert "p@ss" not in repr(site)


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe"])
def test_a_password_file_that_holds_none(read: Read, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    site = read(with_section("store", 'url = "postgresql+psycopg://u@db/x"', 'password_file = "password"'))
    with pytest.raises(SiteFileError, match="nothing else"):
        site.store.connection_url()


def test_a_password_file_that_went_away(read: Read, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    site = read(with_section("store", 'url = "postgresql+psycopg://u@db/x"', 'password_file = "password"'))
    (tmp_path / "password").unlink()
    with pytest.raises(SiteFileError, match="No such file"):
        site.store.connection_url()


@pytest.mark.parametrize("name", ["plain", "a b", "a?b", "a%20b", "a#b", "é"])
def test_any_state_directory_can_hold_the_database(read: Read, tmp_path: Path, name: str) -> None:
    site = read(SMALL.replace("[queues.jobs]", f'state = "{name}"\n[queues.jobs]'))
    assert make_url(site.store.connection_url()).database == str(tmp_path / name / "gridtide.sqlite")


def test_finding_a_state_directory_does_not_load_the_database_library(write: Write) -> None:
    """It would make every command slower by as much as all the rest of it takes."""
    code = "import sys; from pathlib import Path; from gridtide.site.loader import load; load(Path(sys.argv[1]));"
    code += "sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(write(SMALL))], check=False).returncode == 0


def test_sqlite_files_start_at_the_site_file(read: Read, tmp_path: Path) -> None:
    site = read(with_section("store", 'url = "sqlite:///data/x.sqlite"'))
    assert site.store.connection_url() == f"sqlite:///{tmp_path}/data/x.sqlite"
    assert (
        read(with_section("store", 'url = "sqlite:////srv/x.sqlite"')).store.connection_url()
        == "sqlite:////srv/x.sqlite"
    )


# --- context and generations


def site_with_context(read: Read, tmp_path: Path, **contents: bytes) -> Read:
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = ", ".join(f'"{name}"' for name in contents)
    return lambda image: read(with_group(f'image = "{image}"', f"context = {{ files = [{names}] }}"))


def test_context_files_are_kept_as_they_were_read(read: Read, tmp_path: Path) -> None:
    site = site_with_context(read, tmp_path, one=b"1", two=b"2")("image")
    (tmp_path / "one").write_bytes(b"changed")
    assert [(one.path.name, one.content) for one in site.context[WORKERS]] == [("one", b"1"), ("two", b"2")]
    assert "content" not in repr(site.context)


def test_a_generation_follows_image_and_context_and_nothing_else(read: Read, tmp_path: Path) -> None:
    def generation(image: str, **contents: bytes) -> str:
        return site_with_context(read, tmp_path, **contents)(image).generation(WORKERS)

    first = generation("i", a=b"1", b=b"2")
    assert len(first) == 12
    assert generation("i", a=b"1", b=b"2") == first
    others = {
        generation("j", a=b"1", b=b"2"),
        generation("i", a=b"2", b=b"1"),
        generation("i", b=b"2", a=b"1"),
        generation("i", a=b"1"),
        generation("i", a=b"12", b=b""),
        generation("i", a=b"1", c=b"2"),
        generation("i", a=b"1b2"),
        generation("ia", b=b"2"),
    }
    assert len(others) == 8
    assert first not in others
    plain = read(with_group('image = "i"')).generation(WORKERS)
    assert read(with_group('image = "i"', "minimum = 1")).generation(WORKERS) == plain


def test_the_digest_follows_the_file_and_its_context(read: Read, tmp_path: Path) -> None:
    first = site_with_context(read, tmp_path, a=b"1")("i").digest
    assert site_with_context(read, tmp_path, a=b"1")("i").digest == first
    assert site_with_context(read, tmp_path, a=b"2")("i").digest != first
    assert site_with_context(read, tmp_path, a=b"1")("j").digest != first


def test_a_context_file_that_is_too_large(write: Write, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(SiteFileError, match=r"site.toml:11:\d+: groups.workers.context.files\[0\].*larger than 1 MiB"):
        load(write(with_group('context = { files = ["large"] }')))


def test_settings_can_be_made_without_a_file(tmp_path: Path) -> None:
    """As tests of a driver do."""
    settings = ProcessCloudSettings(type="process", directory=tmp_path)
    assert settings.directory == tmp_path
    assert settings.quota.machines == 16
    assert StoreSettings(url=SecretStr("sqlite:////x")).connection_url() == "sqlite:////x"
    with pytest.raises(ValidationError, match="no default away from a site file"):
        StoreSettings()
    assert ServiceSettings(listen=Listen("127.0.0.1", 1), tls="off").url_on(2) == "http://127.0.0.1:2"
    group = GroupSettings(queue="q", clouds=("c",), maximum=1, policy=FixedPolicySettings(type="fixed", count=1))
    assert group.policy.policy() == FixedPolicy(1)
