"""Live reload: what has changed, and what cannot change while the site runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridtide.errors import SiteFileError
from gridtide.site.changes import changes, refusal

from .conftest import Read
from .texts import SMALL, with_group, with_section


def test_nothing_changed(read: Read) -> None:
    site = read(SMALL)
    assert changes(site, read(SMALL + "# a comment\n")) == []
    assert refusal(site, read(SMALL)) is None


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (SMALL, SMALL.replace("= 4", "= 6"), "groups.workers.maximum: 4 -> 6"),
        (SMALL, with_group("minimum = 1"), "groups.workers.minimum: 0 -> 1"),
        (with_group("minimum = 1"), SMALL, "groups.workers.minimum: 1 -> 0"),
        (SMALL, with_group('lease = "90 s"'), "groups.workers.lease: 10 min -> 90 s"),
        (SMALL, with_group('image = "a b"'), "groups.workers.image: left out -> 'a b'"),
        (SMALL, with_group('shapes = ["1core"]'), "groups.workers.shapes: [] -> ['1core']"),
        (SMALL, with_group("attributes = { Fast = true }"), "groups.workers.attributes.Fast: added"),
        (with_group("attributes = { Fast = true }"), SMALL, "groups.workers.attributes.Fast: removed"),
        (
            with_group("attributes = { Fast = true }"),
            with_group("attributes = { Fast = false }"),
            "groups.workers.attributes.Fast: true -> false",
        ),
        (SMALL, with_group('policy = { type = "per_job" }'), "groups.workers.policy.type: tide -> per_job"),
        (
            SMALL,
            with_group('policy = { type = "tide", idle_for = "1 h" }'),
            "groups.workers.policy.idle_for: 30 min -> 1 h",
        ),
        (
            with_group('policy = { type = "queue" }'),
            with_group('policy = { type = "queue", deploy_time = "2 min" }'),
            "groups.workers.policy.deploy_time: left out -> 2 min",
        ),
        (SMALL, with_section("controller", 'batch_window = "1 s"'), "controller.batch_window: 50 ms -> 1 s"),
        (
            SMALL,
            with_section("service", 'url = "https://x.example.org"'),
            "service.url: left out -> 'https://x.example.org'",
        ),
        (SMALL, with_section("service", 'aliec2 = { group = "workers" }'), "service.aliec2: left out -> a table"),
        (
            SMALL,
            SMALL.replace('"process"', '"process"\nquota = { memory = "3 GiB" }'),
            "clouds.local.quota.memory: left out -> 3 GiB",
        ),
        (
            with_section("clouds.local.shapes.s", "cores = 1", 'memory = "1 GiB"'),
            with_section("clouds.local.shapes.s", "cores = 1", 'memory = "1536 MiB"'),
            "clouds.local.shapes.s.memory: 1 GiB -> 1536 MiB",
        ),
        (SMALL, with_section("clouds.other", 'type = "process"'), "clouds.other: added"),
        (with_section("clouds.other", 'type = "process"'), SMALL, "clouds.other: removed"),
    ],
)
def test_one_line_per_key(read: Read, old: str, new: str, line: str) -> None:
    before = read(old)
    after = read(new)
    assert changes(before, after) == [line]
    assert refusal(before, after) is None


def test_new_contents_of_a_context_file(read: Read, tmp_path: Path) -> None:
    text = with_group('context = { files = ["a.sh", "b.sh"] }')
    (tmp_path / "a.sh").write_text("1")
    (tmp_path / "b.sh").write_text("secret 1")
    old = read(text)
    (tmp_path / "b.sh").write_text("secret 2")
    assert changes(old, read(text)) == ["groups.workers.context.files[1]: b.sh has other contents"]


@pytest.mark.parametrize(
    ("new", "keys"),
    [
        (SMALL.replace("torino", "turin"), "site.name"),
        (SMALL.replace("[queues.jobs]", 'state = "other"\n[queues.jobs]'), "site.state"),
        (with_section("service", 'listen = "127.0.0.1:1"'), "service.listen"),
        (with_section("service", 'tls = "off"'), "service.tls"),
        (with_section("store", 'url = "sqlite:///other.sqlite"'), "store.url"),
        (SMALL.replace('"pilot"', '"pilot"\nstorage = "x"'), "queues.jobs.storage"),
        (SMALL.replace('"process"', '"process"\ndirectory = "x"'), "clouds.local.directory"),
        (SMALL.replace("torino", "turin") + '[service]\nlisten = "127.0.0.1:1"\n', "site.name, service.listen"),
    ],
)
def test_what_takes_a_restart_is_refused_by_name(read: Read, new: str, keys: str) -> None:
    old = read(SMALL)
    error = refusal(old, read(new))
    assert isinstance(error, SiteFileError)
    line = str(error)
    assert f"cannot change while the site runs: {keys} (" in line
    assert "restart to change" in line
    assert str(old.path) in line
    assert len(changes(old, read(new))) == keys.count(",") + 1


def test_a_table_that_takes_a_restart_takes_it_for_all_its_keys(read: Read, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    old = read(
        with_section("service", 'tls = { certificate = "site.toml", key = "site.toml", authority = "site.toml" }')
    )
    new = read(with_section("service", 'tls = { certificate = "site.toml", key = "other", authority = "site.toml" }'))
    assert "service.tls.key" in str(refusal(old, new))


def test_a_password_is_not_told(read: Read) -> None:
    old = read(with_section("store", 'url = "postgresql+psycopg://u:hunter1@db/x"'))
    new = read(with_section("store", 'url = "postgresql+psycopg://u:hunter2@db/x"'))
    assert changes(old, new) == ["store.url: changed"]
    assert "hunter" not in str(refusal(old, new))
