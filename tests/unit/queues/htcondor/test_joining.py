"""What a worker's machine is told."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from gridtide.model.resources import Resources, Shape
from gridtide.queues.htcondor.joining import JoinSettings, configuration, orders
from gridtide.queues.htcondor.tokens import SigningKey, worker_key
from gridtide.queues.protocol import Batch
from gridtide.testing.queues import SHAPE, worker

KEY = SigningKey("gridtide", b"a secret of the site")
SETTINGS = JoinSettings("192.0.2.1:9618", "pool.test")


def settings_of(text: str) -> dict[str, str]:
    """As HTCondor reads them; the last one holds."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def batch(settings: JoinSettings = SETTINGS) -> Batch:
    made = orders(worker("grid-1"), {"Colour": '"red"'}, settings, KEY, 1000.0)
    assert made.kind == "batch"
    assert made.batch is not None
    return made.batch


def file(name: str) -> str:
    (found,) = (each.content for each in batch().files if each.path == name)
    return found


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return found


def test_a_worker_may_advertise_and_read_and_nothing_else() -> None:
    told = claims(file("/etc/condor/tokens.d/gridtide"))
    assert told["scope"] == "condor:/ADVERTISE_STARTD condor:/ADVERTISE_MASTER condor:/READ"
    assert (told["sub"], told["iss"]) == ("grid-1@gridtide", "pool.test")
    assert 365 < (told["exp"] - told["iat"]) / 86_400 < 367


def test_the_worker_gets_its_own_key_and_not_the_sites() -> None:
    key = worker_key(KEY, "grid-1")
    assert file(f"/etc/condor/passwords.d/{key.name}") == key.file_text()
    assert not any(KEY.secret.decode() in each.content for each in batch().files)


def test_secrets_are_readable_for_root_alone_and_shown_nowhere() -> None:
    made = batch()
    assert {each.path: each.mode for each in made.files if "tokens.d" in each.path or "passwords.d" in each.path} == {
        "/etc/condor/tokens.d/gridtide": 0o600,
        "/etc/condor/passwords.d/gridtide-grid-1": 0o600,
    }
    assert file("/etc/condor/tokens.d/gridtide").strip() not in repr(made)
    assert not any("eyJ" in word for command in (*made.prepare, made.drain, made.resume) for word in command)


def test_nothing_in_the_configuration_ends_a_running_job() -> None:
    told = settings_of(configuration(worker("grid-1"), {}, SETTINGS))
    assert all(told[name] == "False" for name in ("PREEMPT", "KILL", "SUSPEND", "WANT_SUSPEND", "WANT_VACATE"))
    assert told["RANK"] == "0"
    assert int(told["MAXJOBRETIREMENTTIME"]) == int(told["SHUTDOWN_GRACEFUL_TIMEOUT"]) > 86_400 * 365


def test_only_the_controller_may_set_only_the_drain() -> None:
    told = settings_of(configuration(worker("grid-1"), {}, SETTINGS))
    assert told["SETTABLE_ATTRS_CONFIG"] == "GridtideDrain"
    assert told["SETTABLE_ATTRS_ADMINISTRATOR"] == ""
    assert told["ALLOW_CONFIG"] == "controller@gridtide"
    assert told["START"].endswith("&& GridtideDrain =?= 0 && GridtideLeaseLost =!= True")


def test_the_worker_has_the_size_that_was_planned() -> None:
    gpus = replace(worker("grid-1"), shape=Shape(SHAPE.name, Resources(3, 5000, 100, 1)))
    told = settings_of(configuration(gpus, {}, SETTINGS))
    assert (told["NUM_CPUS"], told["MEMORY"], told["STARTD_DETECT_GPUS"]) == ("3", "5000", "True")
    assert (told["NUM_SLOTS_TYPE_1"], told["SLOT_TYPE_1"], told["SLOT_TYPE_1_PARTITIONABLE"]) == ("1", "100%", "True")
    static = settings_of(configuration(gpus, {}, replace(SETTINGS, static_slots=True)))
    assert (static["NUM_SLOTS_TYPE_1"], static["SLOT_TYPE_1_PARTITIONABLE"]) == ("3", "False")


def test_what_the_site_says_is_advertised_and_added() -> None:
    more = replace(SETTINGS, start='TARGET.Owner == "me"', configuration=("SLOT_WEIGHT = 1", "UPDATE_INTERVAL = 7"))
    told = settings_of(configuration(worker("grid-1"), {"Colour": '"red"'}, more))
    assert told["Colour"] == '"red"'
    assert told["STARTD_ATTRS"].split()[-1] == "Colour"
    assert '(TARGET.Owner == "me")' in told["START"]
    assert (told["SLOT_WEIGHT"], told["UPDATE_INTERVAL"]) == ("1", "7")


@pytest.mark.parametrize("single", [True, False])
def test_a_worker_for_one_job_starts_one(single: bool) -> None:
    one = worker("grid-1", single_use=single)
    assert ("JobStarts" in settings_of(configuration(one, {}, SETTINGS))["START"]) is single


def test_the_loopback_of_the_host_is_told_to_the_machine() -> None:
    assert batch().prepare == (("/etc/condor/gridtide-prepare",),)
    assert batch(replace(SETTINGS, collector="127.10.0.1:9618")).prepare == (
        ("/etc/condor/gridtide-prepare", "127.10.0.1"),
    )


def test_joining_again_gives_equivalent_orders() -> None:
    first, second = batch(), batch()
    assert [each.path for each in first.files] == [each.path for each in second.files]
    assert (first.prepare, first.services, first.busy) == (second.prepare, second.services, second.busy)
