"""``gridtide sim``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gridtide.cli.exit_codes import ExitCode
from gridtide.sim.baselines.catalogue import NAMES
from gridtide.sim.watch import Rule, Violation, Watch
from tests.unit.cli.conftest import Run

DOCS = Path(__file__).parents[3] / "docs"

LOG = "submit,runtime,cores,group\n" + "".join(f"{60 * number},{300 + number},1,\n" for number in range(40)) + "bad\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def test_a_log_is_replayed(run: Run, log: Path) -> None:
    result = run("sim", str(log))
    assert result.code == ExitCode.OK, result.stderr
    assert re.search(r"jobs that ended\s+40", result.stdout)
    assert re.search(r"rules broken\s+0", result.stdout)
    assert "1 bad lines; the first: line 42 has 1 fields, the first line 4" in result.stderr


def test_json_has_every_yardstick_and_the_same_bits_each_time(run: Run, log: Path) -> None:
    first, second = (json.loads(run("sim", str(log), "--json", "--seed", "3").stdout) for _ in range(2))
    assert first == second
    (told,) = first["runs"]
    assert first["trace"]["bad_lines"] == 1
    assert first["trace"]["jobs"] == told["jobs"] == 40
    assert (told["killed"], told["violations"]) == (0, 0)
    assert told["waits"]["p95"] > 0
    assert 0 <= told["elasticity"]["instability"] <= 1
    assert len(told["digest"]) == 64
    other = json.loads(run("sim", str(log), "--json", "--seed", "4").stdout)
    assert other["runs"][0]["digest"] != told["digest"]


def test_policies_side_by_side(run: Run, log: Path) -> None:
    result = run("sim", str(log), "--policy", "queue, tide,per_job", "--json")
    assert result.code == ExitCode.OK, result.stderr
    told = {each["setting"]: each for each in json.loads(result.stdout)["runs"]}
    assert list(told) == ["standard, queue", "standard, tide", "standard, per_job"]
    assert told["standard, per_job"]["launches"] == 40
    assert len({each["digest"] for each in told.values()}) == 3
    alone = json.loads(run("sim", str(log), "--json").stdout)["runs"][0]
    assert alone["digest"] == told["standard, queue"]["digest"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("tides", "no policy is called 'tides' (there are: elastiq, fixed, load, per_job, queue, schedule, tide)"),
        ("queue,", "no policy is called ''"),
        ("fixed", "fixed needs settings: count (write them in a site file, and name it with --site)"),
    ],
)
def test_a_policy_that_cannot_be_had(run: Run, log: Path, named: str, said: str) -> None:
    result = run("sim", str(log), "--policy", named)
    assert result.code == ExitCode.USAGE
    assert said in result.stderr.replace("\n", " ")


def test_two_sites_side_by_side_and_a_report(run: Run, log: Path, tmp_path: Path) -> None:
    sites = []
    for name, idle in (("quick", "30 s"), ("slow", "20 min")):
        text = (DOCS / "how-to" / "replay-your-log.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"```toml\n(# site.*?)```", text, re.DOTALL)
        path = tmp_path / f"{name}.toml"
        path.write_text(example.replace('idle_for = "5 min"', f'idle_for = "{idle}"'))
        sites.append(str(path))
    page = tmp_path / "report.html"
    result = run("sim", str(log), "--site", sites[0], "--site", sites[1], "--html", str(page), "--json")
    assert result.code == ExitCode.OK, result.stderr
    quick, slow = json.loads(result.stdout)["runs"]
    assert (quick["setting"], slow["setting"]) == ("quick.toml", "slow.toml")
    assert quick["core_hours"] < slow["core_hours"]
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 4
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!#)', html) == [], "the page needs nothing but itself"
    before = page.read_bytes()
    run("sim", str(log), "--site", sites[0], "--site", sites[1], "--html", str(page), "--json")
    assert page.read_bytes() == before


def test_models_of_other_autoscalers_stand_beside_it(run: Run, log: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("sim", str(log), "--baseline", "react,static", "--html", str(page))
    assert result.code == ExitCode.OK, result.stderr
    assert "standard" in result.stdout
    assert "model of react" in result.stdout
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 5
    assert "not its code" in html
    told = json.loads(run("sim", str(log), "--baseline", "react, static,react", "--json").stdout)["runs"]
    assert [each["baseline"] for each in told] == [None, "react", "static"]
    assert [each["setting"] for each in told] == ["standard", "model of react", "static at peak"]
    assert {each["jobs"] for each in told} == {40}
    everyone = json.loads(run("sim", str(log), "--baseline", "all", "--json").stdout)["runs"]
    assert [each["baseline"] for each in everyone] == [None, *NAMES]


def test_days_and_first_jobs(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("submit,runtime\n" + "".join(f"{43_200 * number},60\n" for number in range(10)))
    for options, jobs in ((("--days", "2-3"), 4), (("--days", "2"), 2), (("--jobs", "3"), 3)):
        assert json.loads(run("sim", str(path), "--json", *options).stdout)["trace"]["jobs"] == jobs


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("none.swf",), ExitCode.DESCRIPTION, "cannot be read"),
        (("grid", "--jobs", "50", "--days", "0-1"), ExitCode.USAGE, "names no days"),
        (("grid", "--baseline", "react,hpa"), ExitCode.USAGE, "no model is called 'hpa'"),
        (("grid", "--jobs", "50", "--days", "9"), ExitCode.DESCRIPTION, "no job was submitted"),
        (("grid", "--site", "none.toml"), ExitCode.DESCRIPTION, "no such file"),
        (("grid", "--model", "none.toml"), ExitCode.DESCRIPTION, "cannot be read"),
        (("grid", "--jobs", "5", "--html", "no/where.html"), ExitCode.USAGE, "cannot be written"),
    ],
)
def test_wrong_words_are_one_line(run: Run, arguments: tuple[str, ...], code: ExitCode, told: str) -> None:
    result = run("sim", *arguments)
    assert result.code == code
    assert told in result.stderr.splitlines()[-1]


def test_a_broken_rule_is_a_failure(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(watch: Watch) -> None:
        watch.found.append(Violation(0.0, Rule.ORPHAN, "machine 7"))
        watch.counts[Rule.ORPHAN] = 1

    monkeypatch.setattr(Watch, "attach", attach)
    result = run("sim", str(log))
    assert result.code == ExitCode.FAILED
    assert "1 rule broken; the first: a machine of ours that nobody knows: machine 7" in result.stderr


def test_faults_by_name_and_at_random(run: Run, log: Path) -> None:
    said = ("--fault", "spot-reclaim=at 20 min, share 1", "--fault", "controller-kill=at 5 min", "--json")
    result = run("sim", str(log), *said)
    assert result.code == ExitCode.OK, result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    assert told["faults"] == {"controller-kill": 1, "spot-reclaim": 1}
    assert told["lost"] > 0
    assert (told["jobs"], told["killed"], told["violations"]) == (40, 0, 0)
    assert told["events"] > told["launches"]
    chaos = json.loads(run("sim", str(log), "--chaos", "20", "--json").stdout)
    assert sum(chaos["runs"][0]["faults"].values()) > 5
    assert chaos["runs"][0]["violations"] == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [("flood", "there is no fault 'flood'"), ("stock-out=cloud far", "there is no cloud 'far'")],
)
def test_a_fault_that_there_is_not(run: Run, log: Path, fault: str, told: str) -> None:
    result = run("sim", str(log), "--fault", fault)
    assert result.code not in (ExitCode.OK, ExitCode.FAILED)
    assert told in result.stderr
