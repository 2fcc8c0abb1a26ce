"""Whether a machine, planned or real, would run a job: by HTCondor's own evaluator, in the asking process.

``htcondor2`` must be loaded: it switches the evaluator to HTCondor's rule for bare names (first the ad's own attribute,
then the other ad's).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import classad2

Verdict = dict[str, object]
"""``fits`` is "yes", "no" or "maybe" (it depends on what a machine of that kind has not told yet); ``why`` names the
parts of the requirements that do not hold."""

# What every startd finds out by itself, so that nobody writes it into a site file: it cannot be known before the first
# machine of a kind has joined, and a job that asks for it must not wait for ever for that machine.
_MEASURED: Final = frozenset({
    "clockday", "clockmin", "condorplatform", "condorversion", "consoleidle", "cpucachesize", "cpufamily",
    "cpumodelnumber", "detectedcpus", "detectedmemory", "hardwareaddress", "hascontainer", "hasdocker", "hasjava",
    "hasrotationalscratch", "hassingularity", "hasusernamespaces", "hasvm", "iswakeable", "kernelversion",
    "keyboardidle", "kflops", "loadavg", "microarch", "mips", "opsysandver", "opsyslegacy", "opsyslongname",
    "opsysmajorver", "opsysname", "opsysshortname", "opsysver", "totalcpus", "totaldisk", "totalloadavg",
    "totalmemory", "totalvirtualmemory", "utsnamemachine", "utsnamenodename", "utsnamerelease", "utsnamesysname",
    "utsnameversion", "virtualmemory",
})  # fmt: skip

_OWN: Final = re.compile(r"\bMY\.(\w+)", re.IGNORECASE)


def judge_all(jobs: Sequence[Mapping[str, str]], machines: Sequence[Mapping[str, str]]) -> Iterator[list[Verdict]]:
    """For each job, in order: what each machine, in order, makes of it."""
    targets = [(_ad(machine), machine) for machine in machines]
    for job in jobs:
        mine = _ad(job)
        numbers = [_number(mine, name) for name in ("RequestCpus", "RequestMemory", "RequestDisk", "RequestGPUs")]
        told = [judge(mine, target, _names(machine)) for target, machine in targets]
        yield [{"numbers": numbers, "walltime": _number(mine, "AllowedJobDuration")}, *told]


def judge(job: Any, machine: Any, known: frozenset[str]) -> Verdict:
    """One job and one machine. ``known`` are the names of what the machine told, in lower case."""
    wrong, maybe = [], True
    for clause in _clauses(job, "Requirements"):
        value = _value(job, clause, machine)
        if not _true(value):
            wrong.append(_shown(clause))
            maybe = maybe and _may_yet_hold(job, clause, known)
    for clause in _clauses(machine, "Start"):
        if not _true(_value(machine, clause, job)):
            wrong.append(f"the worker's START: {_shown(clause)}")
            maybe = False
    if not wrong:
        return {"fits": "yes", "why": []}
    return {"fits": "maybe" if maybe else "no", "why": wrong}


def split(text: str) -> list[str]:
    """The parts of a conjunction, without the brackets around them. A text that is none is its own only part."""
    text = _unwrapped(text.strip())
    outside = list(_outside(text))
    if any(letter == "?" and text[at + 1 : at + 2] != "=" and text[at - 1] != "=" for at, letter in outside):
        return [text]  # binds less than &&: the whole is no conjunction
    if any(text.startswith("||", at) for at, _ in outside):
        return [text]
    cuts = [at for at, _ in outside if text.startswith("&&", at)]
    if not cuts:
        return [text]
    ends = [*cuts, len(text)]
    starts = [0, *(at + 2 for at in cuts)]
    return [piece for start, end in zip(starts, ends, strict=True) for piece in split(text[start:end])]


def _outside(text: str) -> Iterator[tuple[int, str]]:
    """The letters that stand in no brackets and no quotes, with their positions; closing brackets belong to them."""
    depth, quote, position = 0, "", 0
    while position < len(text):
        letter = text[position]
        if quote:
            if letter == "\\":
                position += 1
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0:
                yield position, letter
        elif depth == 0:
            yield position, letter
        position += 1


def _unwrapped(text: str) -> str:
    """Without brackets that enclose all of it."""
    while text.startswith("(") and next(_outside(text), (0, ""))[0] == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _clauses(ad: Any, name: str) -> list[str]:
    tree = ad.lookup(name) if name in ad else None
    return [] if tree is None else split(str(tree))


def _value(mine: Any, clause: str, target: Any) -> object:
    try:
        return classad2.ExprTree(clause).eval(scope=mine, target=target)
    except classad2.ClassAdException:
        return classad2.Value.Error


def _true(value: object) -> bool:
    return isinstance(value, bool | int | float) and not isinstance(value, classad2.Value) and bool(value)


def _may_yet_hold(job: Any, clause: str, known: frozenset[str]) -> bool:
    return any(name in _MEASURED and name not in known for name in _machine_names(job, clause))


def _machine_names(job: Any, clause: str) -> set[str]:
    """What a clause asks of the machine, in lower case."""
    names = (name.lower() for name in job.externalRefs(classad2.ExprTree(_own_resolved(job, clause))))
    return {name.removeprefix("target.") for name in names if name and not name.startswith("my.")}


def _own_resolved(job: Any, clause: str) -> str:
    """The clause with each attribute of the job's own that it lacks undefined: with ``htcondor2`` loaded the evaluator
    drops the ``MY.`` of such a name, as though the machine were asked."""
    return _OWN.sub(lambda own: own[0] if own[1] in job else "undefined", clause)


def machine_names(job: Mapping[str, str]) -> list[str]:
    """What a job's requirements ask of machines, in lower case."""
    ad = _ad(job)
    tree = ad.lookup("Requirements") if "Requirements" in ad else None
    return [] if tree is None else sorted(_machine_names(ad, str(tree)))


def _shown(clause: str) -> str:
    return " ".join(_unwrapped(clause).replace("TARGET.", "").split())


def _number(ad: Any, name: str) -> float | None:
    value = ad.eval(name) if name in ad else None
    if isinstance(value, bool | int | float) and not isinstance(value, classad2.Value):
        return float(value)
    return None


def _names(machine: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name.lower() for name in machine)


def _ad(expressions: Mapping[str, str]) -> Any:
    ad = classad2.ClassAd()
    for name, text in expressions.items():
        ad[name] = classad2.ExprTree(text)
    return ad
