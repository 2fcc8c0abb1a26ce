"""Faults as users write them, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gridtide.errors import SiteFileError
from gridtide.sim.fault_file import FaultSettings, parse_fault
from gridtide.sim.faults import HABITS, Dial, Fault, FaultName, chaos, usual
from gridtide.sim.model_file import ModelSettings, make_setting, read_model
from gridtide.site.units import show_duration

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")


def test_a_name_alone_is_the_usual_fault_at_a_random_moment() -> None:
    assert parse_fault("partition") == usual(FaultName.PARTITION)
    assert parse_fault("partition").at is None


def test_everything_can_be_said() -> None:
    told = parse_fault("partition=at 2 days, for 20 min, cloud burst, share 0.25, every 3 h")
    assert told == Fault(FaultName.PARTITION, 172_800.0, 10_800.0, lasting=1200.0, cloud="burst", share=0.25)  # type: ignore[arg-type]
    assert parse_fault("clock-step=by -90 min").by == -5400.0
    assert parse_fault("stock-out=zone a,shape large").zone == "a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flood", "there is no fault 'flood'.*there are: stock-out, half-quota"),
        ("partition=at noon", "at: 'noon' is not a duration"),
        ("partition=share 2", "share: .*less than or equal to 1"),
        ("partition=by 5 s", "fault partition has no 'by'.*it has: cloud, for, share, at, every"),
        ("partition=until 5 s", "until: "),
        ("api-429=by -5 s", "time does not run backwards here"),
        ("partition=for 0 s", "for: "),
    ],
)
def test_what_makes_no_sense_is_told(text: str, told: str) -> None:
    with pytest.raises(SiteFileError, match=told):
        parse_fault(text)


def test_a_model_file_may_name_faults(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path.write_text(example)
    setting = make_setting(None, read_model(path))
    assert [each.name for each in setting.faults] == [FaultName.PARTITION, FaultName.SPOT_RECLAIM]
    path.write_text('[[faults]]\nname = "stock-out"\ncloud = "far"\n')
    with pytest.raises(SiteFileError, match=r"there is no cloud 'far'.*there are: cloud"):
        make_setting(None, read_model(path))
    path.write_text('[[faults]]\nname = "stock-out"\nby = "5 s"\n')
    with pytest.raises(SiteFileError, match="fault stock-out has no 'by'"):
        read_model(path)


def test_chaos_is_all_of_them_as_often_as_asked_for() -> None:
    assert [each.name for each in chaos()] == list(FaultName) == list(HABITS)
    assert [each.every for each in chaos(2.0)] == [habit.every / 2.0 for habit in HABITS.values()]
    assert make_setting(None, ModelSettings()).faults == ()


def rows(heading: str) -> list[list[str]]:
    part = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_lists_every_fault_as_it_is() -> None:
    def usually(name: FaultName) -> str:
        habit = HABITS[name]
        said = {Dial.LASTING: show_duration(habit.lasting), Dial.SHARE: f"{habit.share:g}"}
        said |= {Dial.BY: show_duration(habit.by)}
        return ", ".join(
            f"`{dial}`" + (f" {said[dial]}" if dial in said else "") for dial in Dial if dial in habit.dials
        )

    expected = [[f"`{name}`", habit.text, usually(name), show_duration(habit.every)] for name, habit in HABITS.items()]
    assert rows("The faults") == expected


def test_the_page_lists_every_key() -> None:
    keys = [field.alias or name for name, field in FaultSettings.model_fields.items()]
    assert [row[0] for row in rows("How they are written")] == [f"`{key}`" for key in keys]
