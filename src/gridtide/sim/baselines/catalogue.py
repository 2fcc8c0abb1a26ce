"""Which models there are, and how one is run on a setting."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Final

from gridtide.errors import SiteFileError
from gridtide.sim.baselines.base import Baseline, Decision, Rule, Sight, towards
from gridtide.sim.baselines.cobald import LINEAR
from gridtide.sim.baselines.kubernetes import CLUSTER_AUTOSCALER, KARPENTER
from gridtide.sim.baselines.papers import ADAPT, HIST, REACT, REG
from gridtide.sim.baselines.run import run_baseline
from gridtide.sim.run import Progress, Run, simulate
from gridtide.sim.setting import Setting
from gridtide.sim.trace import Trace
from gridtide.site.policies import ElastiqPolicySettings

STATIC: Final = "static"
ELASTIQ: Final = "elastiq"
MODELS: Final = {each.name: each for each in (CLUSTER_AUTOSCALER, KARPENTER, LINEAR, REACT, ADAPT, HIST, REG)}
NAMES: Final = (STATIC, ELASTIQ, *MODELS)
"""In the order in which they are shown when all are asked for."""


def baseline_setting(setting: Setting, name: str) -> Setting:
    """The setting under the name of the model, so that its figures are told from Gridtide's.

    SiteFileError for one with faults, unless the production controller runs it: no other would be struck.
    """
    if setting.faults and name != ELASTIQ:
        raise SiteFileError(
            f"faults strike Gridtide's controller and its clouds, and the model of {name} has neither",
            where=setting.name,
            remedy="leave out the faults, or --baseline",
        )
    marked = replace(setting, name=f"model of {name}" if name != STATIC else "static at peak", baseline=name)
    if name != ELASTIQ:
        return marked
    groups = dict(setting.rules.groups)
    for key, group in groups.items():
        size = max(setting.shapes_of(group), key=lambda shape: shape.resources.cores)
        policy = ElastiqPolicySettings(type="elastiq", jobs_per_worker=max(size.resources.cores, 1)).policy()
        groups[key] = replace(group, policy=policy, shapes=(size.name,))
    return replace(marked, rules=replace(setting.rules, groups=groups))


def run_model(trace: Trace, setting: Setting, *, seed: int = 0, progress: Progress = lambda _: None) -> Run:
    """Replay a workload that was made to fit, with whatever the setting names: a model, or Gridtide itself."""
    name = setting.baseline
    if name is None or name == ELASTIQ:
        return simulate(trace, setting, seed=seed, progress=progress)
    model = static(peak(trace)) if name == STATIC else MODELS[name]
    return run_baseline(trace, setting, model, seed=seed, progress=progress)


def peak(trace: Trace) -> int:
    """Most cores at once when no job waits."""
    events = sorted(
        event for job in trace.jobs for event in ((job.submit, job.cores), (job.submit + job.runtime, -job.cores))
    )
    level = most = 0
    for _, change in events:
        level += change
        most = max(most, level)
    return most


def static(cores: int) -> Baseline:
    """Machines for the peak, from the first job to the last."""

    def rule(sight: Sight) -> Decision:
        return towards(sight, max(sight.capacity, ceil(cores / sight.cores)))

    def fresh() -> Rule:
        return rule

    return Baseline(STATIC, 60.0, fresh)
