"""Site files and model files as settings of a simulation, and the documentation of both."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from gridtide.errors import SiteFileError
from gridtide.model.costs import Billing
from gridtide.model.ids import CloudName, GroupName
from gridtide.model.machines import Quota
from gridtide.model.rules import QueuePolicy
from gridtide.sim.batch import Order, Placement
from gridtide.sim.cloud import BootTime, Outages, RateLimit, Reclaim
from gridtide.sim.csv_log import COLUMNS
from gridtide.sim.model_file import CloudModelSettings, ModelSettings, SimulatedShapeSettings, make_setting, read_model
from gridtide.sim.trace import Skip
from gridtide.sim.watch import Rule
from gridtide.site.drivers import CloudSettings
from gridtide.site.loader import load
from gridtide.site.registry import CLOUDS

DOCS = Path(__file__).parents[3] / "docs"

SITE = """
[site]
name = "torino"
[queues.jobs]
type = "pilot"
[clouds.local]
type = "process"
quota = { machines = 7 }
[clouds.local.shapes.small]
cores = 2
memory = "4 GiB"
price = 0.1
[groups.workers]
queue = "jobs"
clouds = ["local"]
maximum = 5
policy = { type = "queue", idle_for = "2 min" }
"""

MODEL = """
order = "in-order"
placement = "emptiest"
step = "10 s"
[clouds.local]
boot = { median = "90 s", sigma = 0.5 }
billing = { unit = "1 h", minimum = "0 s" }
launches = { per_second = 2.0, burst = 5 }
calls = { per_second = 10.0, burst = 20 }
outages = { between = "1 day", mean = "10 min" }
reclaim = { share = 0.3, after = "6 h" }
dead_on_arrival = 0.01
list_lag = "20 s"
end_time = "5 s"
[clouds.local.shapes.large]
cores = 8
memory = "16 GiB"
price = 0.4
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_site_file_decides_groups_shapes_policies_and_limits(tmp_path: Path) -> None:
    setting = make_setting(write(tmp_path / "site.toml", SITE), ModelSettings())
    (group,) = setting.groups
    assert (group.maximum, group.policy) == (5, QueuePolicy(idle_for=120.0))
    assert [(shape.name, shape.resources.memory, shape.price) for shape in setting.shapes_of(group)] == [
        ("small", 4096, 0.1)
    ]
    assert setting.clouds[CloudName("local")].quota == Quota(machines=7)
    assert setting.rules.groups == load(tmp_path / "site.toml").rules().groups


def test_the_model_file_decides_how_clouds_and_queue_behave(tmp_path: Path) -> None:
    setting = make_setting(write(tmp_path / "site.toml", SITE), read_model(write(tmp_path / "model.toml", MODEL)))
    model = setting.clouds[CloudName("local")]
    assert (setting.order, setting.placement, setting.step) == (Order.IN_ORDER, Placement.EMPTIEST, 10.0)
    assert (model.boot, model.billing) == (BootTime(90.0, 0.5), Billing(3600.0, 0.0))
    assert (model.launches, model.calls) == (RateLimit(2.0, 5), RateLimit(10.0, 20))
    assert (model.outages, model.reclaim) == (Outages(86_400.0, 600.0), Reclaim(0.3, 21_600.0))
    assert (model.dead_on_arrival, model.list_lag, model.end_time) == (0.01, 20.0, 5.0)
    assert [shape.name for shape in model.shapes] == ["small", "large"]


def test_a_site_with_several_queues_needs_a_name(tmp_path: Path) -> None:
    more = (
        SITE + '[queues.spawned]\ntype = "aliec2"\n[groups.vms]\nqueue = "spawned"\nclouds = ["local"]\nmaximum = 1\n'
    )
    site = write(tmp_path / "site.toml", more)
    with pytest.raises(SiteFileError, match="2 queues"):
        make_setting(site, ModelSettings())
    with pytest.raises(SiteFileError, match="no group serves a queue 'other'"):
        make_setting(site, ModelSettings(), queue="other")
    assert [group.name for group in make_setting(site, ModelSettings(), queue="jobs").groups] == ["workers"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('order = "random"\n', "order: is not one of its values|order: "),
        ("[clouds.local]\nbots = 1\n", "clouds.local.bots: unknown key"),
        ("[clouds.local]\nboot = { median = 120 }\n", "clouds.local.boot.median"),
        ("[clouds.local]\ndead_on_arrival = 2.0\n", "too large"),
        ("[clouds.local\n", "is no TOML"),
    ],
)
def test_a_wrong_model_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SiteFileError, match=told):
        read_model(write(tmp_path / "model.toml", text))


def test_what_cannot_be_simulated_is_told(tmp_path: Path) -> None:
    with pytest.raises(SiteFileError, match="cannot be read"):
        read_model(tmp_path / "none.toml")
    unknown = read_model(write(tmp_path / "model.toml", "[clouds.far]\n"))
    with pytest.raises(SiteFileError, match=r"there is no cloud 'far'.*there are: local"):
        make_setting(write(tmp_path / "site.toml", SITE), unknown)


class FarCloudSettings(CloudSettings):
    """A cloud that alone knows what its shapes have."""

    type: Literal["far"]


@pytest.fixture
def far_cloud() -> Iterator[str]:
    CLOUDS.register("far", FarCloudSettings)
    yield SITE.split("[clouds.local]")[0] + (
        '[clouds.burst]\ntype = "far"\n[groups.workers]\nqueue = "jobs"\nclouds = ["burst"]\nmaximum = 5\n'
    )
    CLOUDS.forget("far")


def test_shapes_that_the_cloud_alone_knows_are_asked_for_and_taken_from_the_model(
    tmp_path: Path, far_cloud: str
) -> None:
    site = write(tmp_path / "site.toml", far_cloud)
    with pytest.raises(SiteFileError, match=r"known to the cloud alone.*\[clouds.burst.shapes.NAME\] cores"):
        make_setting(site, ModelSettings())
    named = write(tmp_path / "named.toml", far_cloud + 'shapes = ["huge"]\n')
    model = read_model(write(tmp_path / "model.toml", MODEL.replace("clouds.local", "clouds.burst")))
    assert [shape.name for shape in make_setting(site, model).clouds[CloudName("burst")].shapes] == ["large"]
    with pytest.raises(SiteFileError, match=r"shape huge has.*\[clouds.burst.shapes.huge\]"):
        make_setting(named, model)


def test_the_standard_setting_is_the_one_that_is_documented() -> None:
    setting = make_setting(None, ModelSettings())
    (group,) = setting.groups
    assert group.name == GroupName("grid")
    shapes = setting.shapes_of(group)
    assert [shape.resources.cores for shape in shapes] == [8, 4, 2, 1]
    assert len({shape.price / shape.resources.cores for shape in shapes}) == 1
    assert setting.clouds[CloudName("cloud")].boot == BootTime(120.0, 0.25)
    assert setting.clouds[CloudName("cloud")].billing == Billing(1.0, 60.0)


def keys_of(page: str, heading: str) -> list[str]:
    """First column of the table under a heading."""
    part = page.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)


def test_every_key_of_a_model_file_is_documented() -> None:
    page = (DOCS / "reference" / "traces.md").read_text(encoding="utf-8")

    def names(model: type[BaseModel], *leave_out: str) -> list[str]:
        return [name for name in model.model_fields if name not in leave_out]

    assert keys_of(page, "Model file: the queue") == names(ModelSettings, "clouds", "faults")
    assert keys_of(page, "Model file: `[clouds.NAME]`") == names(CloudModelSettings, "shapes")
    assert keys_of(page, "Model file: `[clouds.NAME.shapes.SHAPE]`") == names(SimulatedShapeSettings)
    assert keys_of(page, "CSV") == list(COLUMNS)


def test_the_example_of_the_reference_can_be_used(tmp_path: Path) -> None:
    page = (DOCS / "reference" / "traces.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert tomllib.loads(example)
    assert read_model(write(tmp_path / "model.toml", example)).clouds


def test_why_jobs_are_left_out_and_what_is_watched_is_documented() -> None:
    traces = (DOCS / "reference" / "traces.md").read_text(encoding="utf-8")
    yardsticks = (DOCS / "explanation" / "yardsticks.md").read_text(encoding="utf-8")
    assert [skip for skip in Skip if skip.name.lower() not in traces] == []
    assert [rule for rule in Rule if rule.value not in yardsticks] == []
