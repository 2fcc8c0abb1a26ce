"""``status workers plan explain events``, for people and for programs."""

from __future__ import annotations

import json

import pytest

from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState
from tests.unit.cli import samples
from tests.unit.cli.conftest import HandClock, Run, lines
from tests.unit.cli.fake_service import Answer, FakeService, refuse


def test_status_shows_groups_sources_and_reasons(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/status", Answer(document=samples.status(samples.worker())))
    ran = ask("status")
    assert ran.code == 0
    assert ran.stderr == ""
    text = ran.stdout
    assert "torino" in text
    assert "3 waiting, 1 running, 2 done" in text
    (row,) = [line for line in lines(text) if line.startswith("grid")]
    assert row.split()[:7] == ["grid", "0", "1", "joined", "0", "8", "auto"]
    assert row.endswith("3 jobs wait and 1 worker is coming")
    assert any(line.split()[:3] == ["queue/pool/demand", "fresh", "2.0"] for line in lines(text))
    assert any(
        "cloud/local/machines" in line and "stale" in line and "timed out after 20 s" in line for line in lines(text)
    )
    assert any("queue/pool/nodes" in line and "missing" in line for line in lines(text))


def test_a_held_and_pinned_group_says_so(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/groups", Answer(document=samples.groups(Wishes(desired=4, hold=True, closing=True))))
    ran = ask("scale", "grid")
    assert "4 held closing" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "route", "document"),
    [
        (("status",), "/v1/status", samples.status(samples.worker())),
        (("workers",), "/v1/workers", samples.workers(samples.worker())),
        (("plan",), "/v1/plan", samples.plan()),
        (("explain", "grid"), "/v1/explain/grid", samples.explanation()),
        (("eta", "grid"), "/v1/groups/grid/eta", samples.eta()),
        (("events",), "/v1/events", {"events": [samples.event()], "next": 1}),
    ],
)
def test_json_is_the_document_of_the_service(
    ask: Run, service: FakeService, arguments: tuple[str, ...], route: str, document: object
) -> None:
    service.on("GET", route, Answer(document=document))  # type: ignore[arg-type]
    ran = ask(*arguments, "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.document == document


def test_workers_are_listed_with_what_they_are(ask: Run, service: FakeService) -> None:
    gone = samples.worker("grid-aaaaaaaa", WorkerState.FAILED)
    service.on("GET", "/v1/workers", Answer(document=samples.workers(samples.worker(), gone)))
    rows = lines(ask("workers").stdout)
    found = next(row for row in rows if row.startswith("grid-k3v9q2ab"))
    assert "local/a" in found
    assert "small" in found
    assert "joined" in found
    assert "3 min ago" in found
    assert "it runs 1 job" in found
    assert any(row.startswith("grid-aaaaaaaa") and "failed" in row for row in rows)


def test_workers_asks_for_what_was_named(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/workers", Answer(document=samples.workers()))
    ran = ask("workers", "--past", "--group", "grid", "--state", "gone", "--limit", "5")
    assert ran.stdout.strip() == "No workers"
    (asked,) = service.asked
    assert asked.query == {"past": "true", "group": "grid", "state": "gone", "limit": "5"}


def test_plan_names_every_action_with_its_reason(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/plan", Answer(document=samples.plan()))
    text = ask("plan").stdout
    rows = lines(text)
    assert any(r.startswith("launch") and "2 workers of shape small for grid in local, zone a" in r for r in rows)
    assert any(r.startswith("advance") and "grid-k3v9q2ab: draining -> drained (machine m-1)" in r for r in rows)
    assert any(r.startswith("terminate") and "busy" in r and "it runs 1 job" in r for r in rows)
    assert any(r.startswith("grid ") and "demand" in r for r in rows)
    assert any(r.startswith("pool") and "1 core, 1 GiB memory" in r for r in rows)


def test_an_empty_plan_says_that_nothing_would_be_done(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/plan", Answer(document=samples.plan(empty=True)))
    assert ask("plan").stdout.strip() == "Nothing would be done."


def test_explain_tells_state_reason_and_history(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/explain/grid-k3v9q2ab", Answer(document=samples.explanation()))
    rows = lines(ask("explain", "grid-k3v9q2ab").stdout)
    assert rows[0] == "grid-k3v9q2ab: joined, since 3 min"
    assert rows[1] == "because it runs 1 job"
    assert [row.split("  ")[1] for row in rows[2:]] == ["recorded", "the machine joined"]


BOOTS = "boots: 1 min 5 s in the middle, 1 min 36 s in 19 of 20 cases; from 12 boots"
NEXT = "next machine: small on local"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            [
                "about 1 min 5 s, in 19 of 20 cases at most 1 min 36 s",
                NEXT,
                f"{BOOTS} of this kind since 21:13:20",
            ],
        ),
        ({"free": True}, ["at once: a worker is free", NEXT, f"{BOOTS} of this kind since 21:13:20"]),
        ({"known": None}, ["not known yet: no such machine has joined before", NEXT]),
        (
            {"waiting": 3, "patience": 30.0},
            [
                "about 1 min 35 s, in 19 of 20 cases at most 2 min 6 s",
                "3 jobs that it can run wait already and come first",
                "30 s of it are the patience of the group's policy",
                NEXT,
                f"{BOOTS} of this kind since 21:13:20",
            ],
        ),
        (
            {"obstacle": Reason(Cause.AT_MAXIMUM, "8 of at most 8 workers\x1b[2J"), "known": None},
            ["not known: no machine would be launched now (8 of at most 8 workers\\x1b[2J)", NEXT],
        ),
        (
            {"obstacle": Reason(Cause.NO_SHAPE_FITS, "nothing to launch"), "known": None, "shape": None, "cloud": None},
            ["not known: no machine would be launched now (nothing to launch)"],
        ),
    ],
    ids=["known", "free", "not known", "with others", "obstacle", "nowhere"],
)
def test_eta_says_how_long_and_from_what(
    ask: Run, service: FakeService, changes: dict[str, object], expected: list[str]
) -> None:
    service.on("GET", "/v1/groups/grid/eta", Answer(document=samples.eta(**changes)))
    ran = ask("eta", "grid")
    assert (ran.code, ran.stderr) == (0, "")
    assert lines(ran.stdout) == expected


@pytest.mark.parametrize(
    ("shape", "image", "words"),
    [
        (None, "thin", "from 12 boots of this image, any shape, since 21:13:20"),
        (None, None, "from 12 boots of whatever kind on local since 21:13:20"),
    ],
)
def test_eta_names_boots_that_are_only_partly_alike(
    ask: Run, service: FakeService, shape: str | None, image: str | None, words: str
) -> None:
    document = samples.eta()
    assert isinstance(document, dict)
    boot = document["boot"]
    assert isinstance(boot, dict)
    service.on(
        "GET",
        "/v1/groups/grid/eta",
        Answer(document={**document, "image": "thin", "boot": {**boot, "shape": shape, "image": image}}),
    )
    rows = lines(ask("eta", "grid").stdout)
    assert rows[1] == "next machine: small on local, image thin"
    assert rows[2].endswith(words)


def test_a_subject_cannot_lead_to_another_route(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/explain/../tokens", Answer(document=samples.explanation()))
    assert ask("explain", "../tokens").code == 0


def test_events_filter_and_format(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/events", Answer(document={"events": [samples.event()], "next": 1}))
    ran = ask("events", "--subject", "grid", "--kind", "launch", "--after", "3", "--limit", "9")
    assert service.asked[0].query == {"subject": "grid", "kind": "launch", "after": "3", "limit": "9"}
    (row,) = lines(ran.stdout)
    assert row.endswith("launch grid: launched 2 workers (3 jobs wait and 1 worker is coming)  [controller]")


def test_following_events_goes_on_where_the_stream_broke(ask: Run, service: FakeService, clock: HandClock) -> None:
    clock.interrupt_after = 2
    first = b"\n" + json.dumps(samples.event(5, "five")).encode() + b"\n"
    second = json.dumps(samples.event(6, "six")).encode() + b"\n"
    service.on(
        "GET",
        "/v1/events",
        Answer(document={"events": [samples.event(4, "four")], "next": 4}),
        Answer(pieces=(first,), cut=True),
        Answer(pieces=(second,)),
    )
    ran = ask("events", "--follow", "--json")
    assert ran.code == 130
    assert [row["number"] for row in ran.documents if isinstance(row, dict)] == [4, 5, 6]
    assert [one.query.get("after") for one in service.asked] == [None, "4", "5"]
    assert ran.error == "gridtide: interrupted"


def test_following_ends_with_an_error_when_the_service_stays_away(ask: Run, service: FakeService) -> None:
    service.on(
        "GET", "/v1/events", Answer(document={"events": [], "next": None}), refuse(503, "StoreUnavailable", "busy")
    )
    ran = ask("events", "--follow")
    assert ran.code == 9
    assert "busy" in ran.error


def test_watching_without_a_terminal_writes_one_line_per_look(ask: Run, service: FakeService, clock: HandClock) -> None:
    clock.interrupt_after = 3
    service.on("GET", "/v1/status", Answer(document=samples.status()))
    ran = ask("status", "--watch", "--json")
    assert ran.code == 130
    assert len(ran.documents) == 3
    assert clock.at == pytest.approx(1_700_000_003.0)


def test_watching_bears_a_restart_of_the_service(ask: Run, service: FakeService, clock: HandClock) -> None:
    clock.interrupt_after = 2
    service.on("GET", "/v1/status", refuse(503, "StoreUnavailable"), Answer(document=samples.status()))
    ran = ask("status", "--watch", "--json")
    assert ran.code == 130
    assert len(ran.documents) == 1


def test_names_from_elsewhere_cannot_steer_the_terminal(ask: Run, service: FakeService) -> None:
    wild = samples.job(label="\x1b]0;owned\x07 wide 漢字 ☃")
    service.on("GET", "/v1/jobs", Answer(document={"jobs": [wild], "next": None}))
    text = ask("jobs").stdout
    assert "\x1b" not in text
    assert r"\x1b]0;owned\x07 wide 漢字 ☃" in text
