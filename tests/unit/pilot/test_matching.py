"""Requirements against machines' ads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gridtide.errors import InvalidRequest
from gridtide.model.demand import Attribute
from gridtide.model.resources import Resources
from gridtide.pilot.matching import Host, Verdict, Verdicts, checked_host, digest_of, host_resources

MACHINE: dict[str, Attribute] = {"Cpus": 4, "Memory": 4096, "Arch": "X86_64", "Fast": True, "Load": 0.5}
NEED = Resources(2, 2048)


@pytest.mark.parametrize(
    ("requirements", "verdict"),
    [
        ("true", Verdict.YES),
        ("TARGET.Memory > 2000", Verdict.YES),
        ("other.Memory > 2000", Verdict.YES),
        ("Memory > 2000", Verdict.YES),
        ("target.MEMORY >= MY.RequestMemory", Verdict.YES),
        ("Memory >= RequestMemory * 3", Verdict.NO),
        ('Arch == "x86_64"', Verdict.YES),
        ('Arch =?= "x86_64"', Verdict.NO),
        ("Fast", Verdict.YES),
        ("!Fast", Verdict.NO),
        ("TARGET.Cpus", Verdict.YES),
        ("TARGET.Cpus - 4", Verdict.NO),
        ("TARGET.Arch", Verdict.NO),
        ('regexp("^X86", Arch)', Verdict.YES),
        ("Memory == Arch", Verdict.NO),
        ('KernelVersion == "6"', Verdict.UNKNOWN),
        ('versionGE(KernelVersion, "5.10")', Verdict.UNKNOWN),
        ('KernelVersion == "6" && Memory < 10', Verdict.NO),
        ('KernelVersion == "6" || Memory > 10', Verdict.YES),
        ("KernelVersion =?= undefined", Verdict.YES),
        ("1 / (Cpus - 4) > MY.RequestCpus", Verdict.NO),
    ],
)
def test_verdicts(requirements: str, verdict: Verdict) -> None:
    verdicts = Verdicts()
    host = verdicts.host(MACHINE)
    assert verdicts.judge(requirements, NEED, host) is verdict
    assert verdicts.judge(requirements, NEED, host) is verdict  # from the cache


@pytest.mark.parametrize("before", ["", "import htcondor2"], ids=["alone", "beside htcondor2"])
def test_names_mean_the_same_whatever_else_is_imported(before: str) -> None:
    program = (
        before
        + """
from gridtide.model.resources import Resources
from gridtide.pilot.jdl import parse
from gridtide.pilot.matching import Host, evaluate
host = Host({"Memory": 4096, "Arch": "X86_64"})
for text in ("Memory > 2000", "other.Memory > 2000", "RequestMemory > 2000", "MY.RequestMemory < Memory", "K == 1"):
    print(evaluate(text, Resources(1, 1024), host).value)
print(parse('Executable = "/x"; Requirements = MY.RequestMemory > 1 && RequestCpus == 1;').requirements)
"""
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["yes", "yes", "no", "yes", "unknown", "true"]


def test_verdicts_are_kept_per_need_and_machine() -> None:
    verdicts = Verdicts()
    text = "Memory >= MY.RequestMemory"
    assert verdicts.judge(text, Resources(1, 4096), verdicts.host(MACHINE)) is Verdict.YES
    assert verdicts.judge(text, Resources(1, 4097), verdicts.host(MACHINE)) is Verdict.NO
    assert verdicts.judge(text, Resources(1, 4097), verdicts.host({**MACHINE, "Memory": 9999})) is Verdict.YES


def test_a_catastrophic_pattern_ends_soon_and_does_not_match() -> None:
    host = Host({"Name": "a" * 60 + "!"})
    assert Verdicts().judge('regexp("(a+)+$", Name)', NEED, host) is Verdict.NO


def test_a_long_chain_that_the_library_cannot_evaluate_is_no_match() -> None:
    assert Verdicts().judge(" && ".join(["Cpus > 1"] * 400), NEED, Host(MACHINE)) in (Verdict.YES, Verdict.NO)


def test_digest_does_not_depend_on_order() -> None:
    assert digest_of({"a": 1, "b": "x"}) == digest_of({"b": "x", "a": 1}) != digest_of({"a": 1, "b": "y"})


def test_resources_of_a_machine() -> None:
    assert host_resources({"cpus": 2, "MEMORY": 100.9, "Arch": "x"}) == Resources(2, 100)


@pytest.mark.parametrize(
    "host",
    [
        {"Cpus": -1},
        {"Memory": "much"},
        {"Disk": True},
        {"Gpus": 1e300},
        {"a b": 1},
        {"": 1},
        {"x": "y" * 2000},
        {"x": float("nan")},
        {"x": float("inf")},
        {f"a{n}": n for n in range(300)},
    ],
)
def test_unsound_machines_are_refused(host: dict[str, Attribute]) -> None:
    with pytest.raises(InvalidRequest):
        host_resources(checked_host(host))
