"""Broken site files: one clear line each, that says where, what, and what would be right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from gridtide.errors import SiteFileError
from gridtide.site.loader import LARGEST_FILE, load, problems

from .conftest import Write
from .texts import CLOUD, GROUP, QUEUE, SITE, SMALL, with_group, with_section

HERE = "#<"
"""Marks the line that the message must name, where the text allows for a comment."""

small = SMALL.replace
service, store, controller, shape = (
    partial(with_section, header) for header in ("service", "store", "controller", "clouds.local.shapes.big")
)


@dataclass(frozen=True)
class Broken:
    name: str
    text: str
    key: str
    """What the message must call the place: a dotted key, or words of the fault."""
    right: str
    """What the message must say would be right."""
    line: int | None = None
    """None: the line marked with HERE."""

    @property
    def true_line(self) -> int:
        if self.line is not None:
            return self.line
        return next(number for number, line in enumerate(self.text.splitlines(), 1) if HERE in line)


def queue(line: str) -> str:
    """The small site with one more line for its queue."""
    return SMALL.replace(QUEUE, f"{QUEUE}{line}\n")


def with_window(*lines: str, begins: str = 'begins = "0 8 * * *"', lasts: str = 'lasts = "1 h"') -> str:
    """The small site with a schedule of one window."""
    keys = [begins] if not any("begins" in line for line in lines) else []
    return with_group(
        "[groups.workers.policy]", 'type = "schedule"', "[[groups.workers.policy.windows]]", lasts, *keys, *lines
    )


WINDOW = "workers.policy.windows[0]"


def cloud(line: str) -> str:
    """The small site with one more line for its cloud."""
    return SMALL.replace(CLOUD, f"{CLOUD}{line}\n")


def marked(text: str) -> str:
    """With the mark at the last header."""
    before, _, after = text.rpartition("]\n")
    return f"{before}] {HERE}\n{after}"


CASES = [
    # not TOML
    Broken("empty", "", "empty", "gridtide init", 1),
    Broken("only comments", "# nothing\n\n", "empty", "gridtide init", 1),
    Broken("no quotes around a word", "[site]\nname = torino\n", "not TOML", "quotes", 2),
    Broken("no quotes around a duration", with_group("lease = 5 min"), "not TOML", '"5 min"', 11),
    Broken("no value", "[site]\nname =\n", "not TOML", "quotes", 2),
    Broken("no equals sign", "[site]\nname\n", "not TOML", "key = value", 2),
    Broken("unclosed string", '[site]\nname = "torino\n' + QUEUE, "not TOML", "", 2),
    Broken("unclosed long string", '[site]\nname = """torino\n' + QUEUE + CLOUD, "not TOML", "close it", 2),
    Broken("unclosed list", SITE + GROUP.replace('["local"]', '["local"') + CLOUD, "not TOML", "close it with ]", 5),
    Broken("unclosed list at the end", SMALL + 'shapes = [\n"a",\n', "not TOML", "close every [", 11),
    Broken("unclosed header", "[site\nname = 'x'\n", "not TOML", "[section]", 1),
    Broken("key twice", SITE + 'name = "x"\n\n', "not TOML", "once", 3),
    Broken("section twice", SMALL + QUEUE, "not TOML", "toml.io", 11),
    Broken("leading zero", with_group("minimum = 08"), "not TOML", "", 11),
    Broken("json", '{"site": {"name": "torino"}}\n', "not TOML", "toml.io", 1),
    # sections
    Broken("no site", QUEUE + CLOUD + GROUP, "[site] is missing", 'name = "..."', 1),
    Broken("no queue", SITE + CLOUD + GROUP, "no [queues.NAME]", "a queue at least", 1),
    Broken("no cloud", SITE + QUEUE + GROUP, "no [clouds.NAME]", "a cloud at least", 1),
    Broken("no group", SITE + QUEUE + CLOUD, "no [groups.NAME]", "a group at least", 1),
    Broken("misspelt section", small("[groups.workers]", "[group.workers] #<"), "group", "'groups'"),
    Broken("misspelt site", small("[site]", "[sites] #<"), "sites", "'site'"),
    Broken("unknown section", marked(with_section("zebra", "x = 1")), "zebra", "known: site, service"),
    Broken("key outside of a section", "maximum = 3 #<\n" + SMALL, "maximum", "known: site"),
    Broken("section as value", "groups = 3 #<\n" + SITE + QUEUE + CLOUD, "groups", "[groups.NAME]"),
    Broken("section as list", SITE + QUEUE + CLOUD + "[[groups]] #<\n", "groups", "[groups.NAME]"),
    Broken("named section as value", SITE + CLOUD + "[queues]\njobs = 3 #<\n" + GROUP, "queues.jobs", "[queues.jobs]"),
    Broken("section without name", SITE + CLOUD + '[queues]\ntype = "pilot" #<\n' + GROUP, "queues.type", "[queues"),
    Broken("site as text", 'site = "torino" #<\n' + QUEUE + CLOUD + GROUP, "site", "[site]"),
    # site
    Broken("no name", '[site] #<\nstate = "x"\n' + QUEUE + CLOUD + GROUP, "site.name", "add name"),
    Broken("name with capitals", small('"torino"', '"Torino T2" #<'), "site.name", "'torino-t2'"),
    Broken("name too long", small('"torino"', '"ttttttttttttttttttttt" #<'), "site.name", "at most 20"),
    Broken("empty name", small('"torino"', '"" #<'), "site.name", "a letter"),
    Broken("name is a number", small('"torino"', "2 #<"), "site.name", '"2"'),
    Broken(
        "state is a file", small("[queues.jobs]", 'state = "site.toml" #<\n[queues.jobs]'), "site.state", "a directory"
    ),
    Broken("state is empty", small("[queues.jobs]", 'state = "" #<\n[queues.jobs]'), "site.state", "relative"),
    Broken(
        "nobody's home",
        small("[queues.jobs]", 'state = "~nobody-at-all/x" #<\n[queues.jobs]'),
        "site.state",
        "whole path",
    ),
    Broken("state is a number", small("[queues.jobs]", "state = 3 #<\n[queues.jobs]"), "site.state", "in quotes"),
    Broken("unknown key", small("[queues.jobs]", 'statt = "x" #<\n[queues.jobs]'), "site.statt", "'state'"),
    # service
    Broken("no port", service('listen = "127.0.0.1" #<'), "service.listen", "HOST:PORT"),
    Broken("port too large", service('listen = "127.0.0.1:84700" #<'), "service.listen", "65535"),
    Broken("port as number", service("listen = 8470 #<"), "service.listen", "HOST:PORT"),
    Broken("bare IPv6", service('listen = "::1:8470" #<'), "service.listen", "HOST:PORT"),
    Broken("url with a mad port", service('url = "https://x:99999" #<'), "service.url", "https://"),
    Broken("everywhere without url", marked(service('listen = "0.0.0.0:8470"')), "service.url", "https://HOST:8470"),
    Broken("no TLS beyond loopback", service('listen = "10.1.2.3:8470"', 'tls = "off" #<'), "service.tls", '"auto"'),
    Broken("unknown TLS", service('tls = "on" #<'), "service.tls", '"auto", "off"'),
    Broken("certificate without key", service('tls = { certificate = "site.toml" } #<'), "service.tls.key", "add key"),
    Broken(
        "no such certificate",
        service("[service.tls]", 'certificate = "no.pem" #<', 'key = "site.toml"', 'authority = "site.toml"'),
        "service.tls.certificate",
        "relative paths",
    ),
    Broken(
        "certificate is a directory",
        service('tls = { certificate = ".", key = ".", authority = "." } #<'),
        "tls.certificate",
        "a file",
    ),
    Broken("url without scheme", service('url = "site.example.org:8470" #<'), "service.url", "https://"),
    Broken("url with password", service('url = "https://u:p@example.org" #<'), "service.url", "https://"),
    Broken(
        "plain url with TLS",
        service('listen = "10.1.2.3:8470"', 'url = "http://x.example.org:8470" #<'),
        "service.url",
        '"https://x.example.org:8470"',
    ),
    Broken("plain url to elsewhere", service('url = "http://x.example.org" #<'), "service.url", "https://"),
    Broken("AliEC2 for nobody", service('aliec2 = { group = "worker" } #<'), "service.aliec2.group", "'workers'"),
    Broken("AliEC2 switched on", service("aliec2 = true #<"), "service.aliec2", "{ key = ... }"),
    # store
    Broken("other database", store('url = "mysql://x/y" #<'), "store.url", "sqlite, postgresql+psycopg"),
    Broken("other driver", store('url = "postgresql://x/y" #<'), "store.url", "postgresql+psycopg://"),
    Broken("in memory", store('url = "sqlite://" #<'), "store.url", "sqlite:///site.sqlite"),
    Broken("not a URL", store('url = "site.sqlite" #<'), "store.url", "postgresql+psycopg://"),
    Broken("no database", store('url = "postgresql+psycopg://h" #<'), "store.url", "/gridtide"),
    Broken(
        "two passwords",
        store('url = "postgresql+psycopg://u:p@h/d"', 'password_file = "site.toml" #<'),
        "store.password_file",
        "out of the URL",
    ),
    Broken("password for a file", store('password_file = "site.toml" #<'), "store.password_file", "leave it out"),
    # controller
    Broken("duration without unit", controller("lease = 10 #<"), "controller.lease", '"10 s"'),
    Broken("duration in quotes without unit", controller('lease = "10" #<'), "controller.lease", '"10 s"'),
    Broken("unit of elsewhere", controller('warmup = "5m" #<'), "controller.warmup", '"5 min"'),
    Broken("unit of nowhere", controller('warmup = "5 fortnights" #<'), "controller.warmup", "units: ms, s, min"),
    Broken("negative duration", controller('warmup = "-5 s" #<'), "controller.warmup", '"5 min"'),
    Broken("too short", controller('lease = "10 ms" #<'), "controller.lease", 'at least "1 s"'),
    Broken("too long", controller('warmup = "4000 days" #<'), "controller.warmup", '"5 min"'),
    Broken("a date", controller("warmup = 2026-11-21 #<"), "controller.warmup", '"5 min"'),
    # queues.NAME and clouds.NAME
    Broken("no type", small('[queues.jobs]\ntype = "pilot"', "[queues.jobs] #<"), "queues.jobs.type", "pilot"),
    Broken("misspelt type", small('"pilot"', '"pilots" #<'), "queues.jobs.type", "'pilot'"),
    Broken("unknown type", small('"process"', '"abacus" #<'), "clouds.local.type", "known: ec2, "),
    Broken("type is a number", small('"process"', "3 #<"), "clouds.local.type", '"ec2"'),
    Broken("second pilot queue", with_section("queues.more", 'type = "pilot" #<'), "queues.more.type", "any number"),
    Broken("name of a queue", small("[queues.jobs]", "[queues.Jobs_1] #<"), "queues.Jobs_1", "'jobs-1'"),
    Broken("unknown key of a driver", queue("maximum_loses = 3 #<"), "queues.jobs.maximum_loses", "'maximum_losses'"),
    Broken("negative", queue("maximum_losses = -1 #<"), "queues.jobs.maximum_losses", "at least 0"),
    Broken("quota misspelt", cloud("quota = { core = 3 } #<"), "clouds.local.quota.core", "'cores'"),
    Broken("size without unit", cloud("quota = { memory = 3 } #<"), "clouds.local.quota.memory", '"3 MiB"'),
    Broken("size of elsewhere", cloud('quota = { memory = "3G" } #<'), "clouds.local.quota.memory", '"3 GiB"'),
    Broken("no shapes", cloud("shapes = {} #<"), "clouds.local.shapes", "at least one"),
    Broken("shape without memory", marked(shape("cores = 8")), "clouds.local.shapes.big.memory", "add memory"),
    Broken("shape's key misspelt", shape("core = 8 #<", 'memory = "2 GiB"'), "clouds.local.shapes.big.core", "'cores'"),
    Broken(
        "shape without cores", shape("cores = 0 #<", 'memory = "2 GiB"'), "clouds.local.shapes.big.cores", "at least 1"
    ),
    Broken("memory of zero", shape("cores = 1", 'memory = "0 GiB" #<'), "clouds.local.shapes.big.memory", '"2 GiB"'),
    Broken(
        "name of a shape",
        marked(with_section('clouds.local.shapes."very big"', "cores = 1", 'memory = "2 GiB"')),
        "clouds.local.shapes.'very big'",
        "letters, digits",
    ),
    Broken(
        "price without end",
        shape("cores = 1", 'memory = "2 GiB"', "price = inf #<"),
        "clouds.local.shapes.big.price",
        "for example 0.25",
    ),
    Broken(
        "price in quotes",
        shape("cores = 1", 'memory = "2 GiB"', 'price = "1" #<'),
        "clouds.local.shapes.big.price",
        "without quotes",
    ),
    Broken("budget of nothing", cloud("budget = { per_day = 0 } #<"), "clouds.local.budget.per_day", "40.0"),
    Broken("budget without end", cloud("budget = { per_day = inf } #<"), "clouds.local.budget.per_day", "0.25"),
    Broken(
        "budget misspelt",
        cloud('budget = { per_day = 9, longest = "1 h" } #<'),
        "clouds.local.budget.longest",
        "'longest_job'",
    ),
    Broken(
        "job of a year",
        cloud('budget = { per_day = 9, longest_job = "365 days" } #<'),
        "clouds.local.budget.longest_job",
        "30 days",
    ),
    Broken("unit of a week", cloud('billing = { unit = "7 days" } #<'), "clouds.local.billing.unit", '"24 h"'),
    Broken("minimum of a week", cloud('billing = { minimum = "7 days" } #<'), "clouds.local.billing.minimum", '"24 h"'),
    Broken("a budget without prices", cloud("budget = { per_day = 9 } #<"), "clouds.local.budget", "'1core'"),
    Broken(
        "a budget and one shape without a price",
        cloud(
            'shapes = { a = { cores = 1, memory = "1 GiB", price = 1 }, b = { cores = 1, memory = "1 GiB" } }\n'
            "budget = { per_day = 9 } #<"
        ),
        "clouds.local.budget",
        "'b'",
    ),
    # groups.NAME
    Broken("chosen by nothing", with_group('choose = "luck" #<'), "groups.workers.choose", "'price'"),
    Broken("limit in quotes", with_group('price_limit = "1" #<'), "groups.workers.price_limit", "without quotes"),
    Broken(
        "no maximum",
        SITE + QUEUE + CLOUD + '[groups.w] #<\nqueue = "jobs"\nclouds = ["local"]\n',
        "groups.w.maximum",
        "add maximum",
    ),
    Broken("unknown queue", small('queue = "jobs"', 'queue = "job" #<'), "workers.queue", "'jobs'"),
    Broken(
        "unknown cloud", small('clouds = ["local"]', 'clouds = ["local",\n"lokal"] #<'), "workers.clouds[1]", "'local'"
    ),
    Broken("cloud twice", small('clouds = ["local"]', 'clouds = ["local",\n"local"] #<'), "workers.clouds[1]", "once"),
    Broken("clouds is not a list", small('clouds = ["local"]', 'clouds = "local" #<'), "workers.clouds", '["local"]'),
    Broken("no cloud in a group", small('clouds = ["local"]', "clouds = [] #<"), "workers.clouds", "at least one"),
    Broken("unknown shape", with_group('shapes = ["1cores"] #<'), "workers.shapes[0]", "'1core'"),
    Broken("shape twice", with_group('shapes = ["1core", "1core"] #<'), "workers.shapes[1]", "once"),
    Broken("number in quotes", small("maximum = 4", 'maximum = "4" #<'), "workers.maximum", "4 without quotes"),
    Broken("a fraction", small("maximum = 4", "maximum = 4.5 #<"), "workers.maximum", "whole number"),
    Broken("true for a number", small("maximum = 4", "maximum = true #<"), "workers.maximum", "for example 3"),
    Broken("too many", small("maximum = 4", "maximum = 10000000 #<"), "workers.maximum", "at most"),
    Broken("minimum above maximum", with_group("minimum = 5 #<"), "workers.minimum", "at most 4"),
    Broken("policy as text", with_group('policy = "queue" #<'), "workers.policy", 'type = "queue"'),
    Broken("policy without type", with_group('policy = { idle_for = "5 min" } #<'), "workers.policy.type", "elastiq"),
    Broken("misspelt policy", with_group('policy = { type = "elastic" } #<'), "workers.policy.type", "'elastiq'"),
    Broken(
        "key of another policy",
        with_group("[groups.workers.policy]", 'type = "fixed"', "count = 1", 'idle_for = "1 s" #<'),
        "workers.policy.idle_for",
        "count",
    ),
    Broken(
        "policy's key misspelt",
        with_group("[groups.workers.policy]", 'type = "queue"', 'idle_fro = "1 s" #<'),
        "workers.policy.idle_fro",
        "'idle_for'",
    ),
    Broken("fixed without count", with_group('policy = { type = "fixed" } #<'), "workers.policy.count", "add count"),
    Broken(
        "fixed above maximum", with_group('policy = { type = "fixed", count = 5 } #<'), "workers.policy.count", "0 to 4"
    ),
    Broken(
        "fixed below minimum",
        with_group("minimum = 2", 'policy = { type = "fixed", count = 1 } #<'),
        "workers.policy.count",
        "2 to 4",
    ),
    Broken(
        "low above high",
        with_group("[groups.workers.policy]", 'type = "load"', "high = 0.2", "low = 0.2 #<"),
        "workers.policy.low",
        "less than 0.2",
    ),
    Broken(
        "load in per cent",
        with_group("[groups.workers.policy]", 'type = "load"', "high = 50 #<"),
        "workers.policy.high",
        "at most 1",
    ),
    Broken(
        "load without fresh heartbeats",
        with_group('heartbeat = "1 min"', "[groups.workers.policy]", 'type = "load"', 'heard_within = "119 s" #<'),
        "workers.policy.heard_within",
        "at least 2 min",
    ),
    Broken("window without line of cron", with_window('begins = "8:00" #<'), f"{WINDOW}.begins", "mon-fri"),
    Broken("window at the 61st minute", with_window('begins = "61 8 * * *" #<'), f"{WINDOW}.begins", "mon-fri"),
    Broken("window of seconds", with_window('begins = "0 0 8 * * *" #<'), f"{WINDOW}.begins", "five fields"),
    Broken("window that never comes", with_window('begins = "0 0 31 2 *" #<'), f"{WINDOW}.begins", "mon-fri"),
    Broken("window of a book", with_window(f'begins = "{"1," * 200} * * * *" #<'), f"{WINDOW}.begins", "at most 200"),
    Broken("window without length", marked(with_window(lasts="")), f"{WINDOW}.lasts", "add lasts"),
    Broken("window above the group", with_window("maximum = 5 #<"), f"{WINDOW}.maximum", "at most 4"),
    Broken("window above itself", with_window("maximum = 2", "desired = 3 #<"), f"{WINDOW}.desired", "at most 2"),
    Broken("too warm", with_window("warm = 5 #<"), f"{WINDOW}.warm", "at most 4"),
    Broken("window of another key", with_window("target = 5 #<"), f"{WINDOW}.target", "unknown"),
    Broken(
        "zone of nowhere",
        with_group("[groups.workers.policy]", 'type = "schedule"', 'zone = "Europe/Roma" #<'),
        "workers.policy.zone",
        "Europe/Rome",
    ),
    Broken(
        "zone of the disk",
        with_group("[groups.workers.policy]", 'type = "schedule"', 'zone = "../../etc/passwd" #<'),
        "workers.policy.zone",
        "Europe/Rome",
    ),
    Broken(
        "schedule of a schedule",
        with_group("[groups.workers.policy]", 'type = "schedule"', 'follow = { type = "schedule" } #<'),
        "workers.policy.follow.type",
        "queue",
    ),
    Broken(
        "schedule that follows too many",
        with_group("[groups.workers.policy]", 'type = "schedule"', 'follow = { type = "fixed", count = 9 } #<'),
        "workers.policy.follow.count",
        "0 to 4",
    ),
    Broken(
        "schedule that follows nobody",
        with_group("[groups.workers.policy]", 'type = "schedule"', 'follow = { type = "fixd" } #<'),
        "workers.policy.follow.type",
        "'fixed'",
    ),
    Broken("lease too short", with_group('lease = "20 s" #<'), "workers.lease", "heartbeat of 10 s"),
    Broken("heartbeat too long", with_group('heartbeat = "5 min" #<'), "workers.heartbeat", "heartbeat of 5 min"),
    Broken("image is a date", with_group("image = 2026-11-21 #<"), "workers.image", "in quotes"),
    Broken("image is empty", with_group('image = "" #<'), "workers.image", "leave it out"),
    Broken("image is a book", with_group(f'image = "{"x" * 1001}" #<'), "workers.image", "at most 1000"),
    Broken(
        "huge attribute", with_group("attributes = { A = 9223372036854775808 } #<"), "workers.attributes.A", "63 bits"
    ),
    Broken("attribute is a list", with_group("attributes = { A = [1] } #<"), "workers.attributes.A", "X86_64"),
    Broken("attribute is not a number", with_group("attributes = { A = nan } #<"), "workers.attributes.A", "X86_64"),
    Broken(
        "attribute's name",
        with_group('attributes = { "a-b" = 1 } #<'),
        "workers.attributes.a-b",
        "letters, digits and '_'",
    ),
    Broken(
        "attribute that is measured",
        with_group("attributes = { cpus = 64 } #<"),
        "workers.attributes.cpus",
        "leave it out",
    ),
    Broken(
        "attribute of Gridtide",
        with_group('attributes = { GridtideGroup = "x" } #<'),
        "workers.attributes.GridtideGroup",
        "begin",
    ),
    Broken(
        "no such context file",
        with_group('context = { files = ["site.toml", "no.yaml"] } #<'),
        "workers.context.files[1]",
        "relative paths",
    ),
    Broken("context is a list", with_group('context = ["no.yaml"] #<'), "workers.context", "{ key = ... }"),
    Broken("dotted key", with_group('context.filles = ["x"] #<'), "workers.context.filles", "'files'"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_clear_line(case: Broken, write: Write) -> None:
    path = write(case.text)
    with pytest.raises(SiteFileError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}:{case.true_line}:"), line
    assert case.key in line
    assert case.right in line
    assert "Input should" not in line
    assert "pydantic" not in line.lower()


def test_there_are_many_of_them() -> None:
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


def test_all_problems_are_told_in_order_of_lines(write: Write) -> None:
    text = SMALL.replace('"torino"', '"T"').replace('"pilot"', '"pilott"').replace("maximum = 4", "maximun = 4")
    found = problems(write(text))
    assert [(one.position.line if one.position else 0, one.keys) for one in found] == [
        (2, ("site", "name")),
        (4, ("queues", "jobs", "type")),
        (10, ("groups", "workers", "maximun")),
    ]
    with pytest.raises(SiteFileError, match=r"site\.name"):
        load(write(text))


def test_lines_count_and_not_the_order_of_sections(write: Write) -> None:
    text = GROUP.replace("= 4", "= -4") + CLOUD + QUEUE.replace("pilot", "pilott") + SITE.replace("torino", "T")
    assert [one.keys[0] for one in problems(write(text))] == ["groups", "queues", "site"]
    with pytest.raises(SiteFileError, match=r"groups\.workers\.maximum"):
        load(write(text))


def test_a_good_file_has_no_problems(write: Write) -> None:
    assert problems(write(SMALL)) == []


# --- files that cannot even be read


def the_line(path: Path) -> str:
    with pytest.raises(SiteFileError) as caught:
        load(path)
    assert [str(one) for one in problems(path)] == [str(caught.value)]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    line = the_line(tmp_path / "no.toml")
    assert "no such file" in line
    assert "gridtide init" in line


def test_a_directory(tmp_path: Path) -> None:
    assert f"{tmp_path / 'site.toml'}" in the_line(tmp_path)


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in the_line(tmp_path / "pipe")


def test_no_permission(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SMALL)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    line = the_line(path)
    assert "Permission denied" in line
    assert "mode" in line


def test_a_path_through_a_file(write: Write) -> None:
    assert "Not a directory" in the_line(write(SMALL) / "site.toml")


def test_a_name_too_long_for_the_system(tmp_path: Path) -> None:
    assert "cannot be read" in the_line(tmp_path / ("x" * 300))


def test_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b"#" * 10_000_000)
    assert "larger than 1 MiB" in the_line(path)


def test_the_largest_file_is_still_read(write: Write) -> None:
    comment = LARGEST_FILE - len(SMALL)
    assert problems(write(SMALL + "#" * comment)) == []
    assert "larger" in str(problems(write(SMALL + "#" * (comment + 1)))[0])


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(SMALL.encode() + b"# caf\xe9\n")
    line = the_line(path)
    assert line.startswith(f"{path}:11:6: ")
    assert "UTF-8" in line


def test_utf16(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(SMALL.encode("utf-16"))
    assert "UTF-8" in the_line(path)


def test_a_byte_order_mark_and_windows_lines_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load(path).name == "torino"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").replace("maximum", "maximun").encode())
    assert the_line(path).startswith(f"{path}:10:1: ")


def test_bottomless_brackets(write: Write) -> None:
    assert "nested too deeply" in the_line(write("a = " + "[" * 200_000))


def test_a_context_file_that_may_not_be_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(with_group('context = { files = ["site.toml"] }'))
    monkeypatch.setattr(os, "access", lambda *_: False)
    line = the_line(path)
    assert "groups.workers.context.files[0]" in line
    assert "may not read" in line


def test_a_context_file_that_goes_away_while_it_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(with_group('context = { files = ["site.toml"] }'))

    def vanish(self: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "read_bytes", vanish)
    line = the_line(path)
    assert "groups.workers.context.files[0]" in line
    assert "No such file" in line


def test_what_a_broken_section_hides_is_not_held_against_others(write: Write) -> None:
    text = GROUP + SITE + CLOUD + "[queues]\njobs = 3\n"
    assert [one.keys for one in problems(write(text))] == [("queues", "jobs")]
    text = SMALL.replace("[queues.jobs]", "[queue.jobs]")
    assert [one.keys for one in problems(write(text))] == [("queue",)]
    text = "queues = 3\n" + GROUP + SITE + CLOUD
    assert [one.keys for one in problems(write(text))] == [("queues",)]


def test_a_state_directory_below_one_that_is_closed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SMALL.replace("[queues.jobs]", 'state = "closed/state"\n[queues.jobs]'))
    stat = Path.stat

    def refuse(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if "closed" in self.parts:
            raise PermissionError(13, "Permission denied")
        return stat(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refuse)
    line = the_line(path)
    assert "site.state" in line
    assert "Permission denied" in line
