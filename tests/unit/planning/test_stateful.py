"""Planner and life cycle against a world of faults, step by step in any order.

``GRIDTIDE_STEPS=100000`` makes it as long as it is measured with; the default takes seconds.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gridtide.model.costs import Budget
from gridtide.model.machines import MachineState
from gridtide.model.rules import PerJobPolicy, QueuePolicy, SiteRules, TidePolicy, Wishes
from gridtide.model.workers import MAY_RUN_JOBS
from tests.unit.planning.tiny_site import SETTLE, TinySite
from tests.unit.planning.worlds import group, site

STEPS = int(os.environ.get("GRIDTIDE_STEPS", "20000"))
RULES_OF_ONE_RUN = 25
STEPS_OF_A_STRETCH = 40
MAXIMUM = 4

POLICIES: list[QueuePolicy | PerJobPolicy | TidePolicy] = [
    QueuePolicy(idle_for=60.0),
    QueuePolicy(idle_for=0.0, deploy_time=30.0),
    QueuePolicy(idle_for=20.0, threshold=2, waiting_time=20.0, jobs_per_worker=1),
    PerJobPolicy(idle_for=30.0),
    TidePolicy(idle_for=60.0, ahead=1.0),
]
BUDGETS = [None, None, Budget(per_day=2.0, longest_job=300.0)]
"""The last one is enough for two machines, and not for long."""

WISHES = [
    Wishes(),
    Wishes(),
    Wishes(),
    Wishes(hold=True),
    Wishes(maximum=1),
    Wishes(desired=2),
    Wishes(minimum=2),
    Wishes(closing=True),
]
DEATHS = [MachineState.STOPPED, MachineState.BROKEN, MachineState.GONE]

# How often what happens. Nothing is rare enough to be missed in a run, or so frequent that nothing else gets on.
WEIGHTS = {
    "time": 14,
    "submit": 3,
    "start": 10,
    "finish": 9,
    "cancel": 1,
    "boot": 6,
    "report": 3,
    "leave": 2,
    "die": 0.4,
    "read nodes": 5,
    "read machines": 5,
    "read demand": 5,
    "read all": 6,
    "answers": 10,
    "fail": 0.7,
    "plan": 22,
    "begin launch": 8,
    "end launch": 8,
    "begin orders": 7,
    "take orders": 7,
    "end orders": 7,
    "end machines": 7,
    "crash": 0.5,
    "wish": 0.6,
    "drain one": 0.4,
}


TAKEN: Counter[str] = Counter()


def rules_of(policy: QueuePolicy | PerJobPolicy | TidePolicy, budget: Budget | None = None) -> SiteRules:
    rules = site(group(maximum=MAXIMUM, policy=policy, join_deadline=200.0), settle=SETTLE, clouds=("private",))
    return replace(rules, clouds={name: replace(each, budget=budget) for name, each in rules.clouds.items()})


def step(world: TinySite, what: str, dice: Random) -> None:
    """One thing happens."""
    TAKEN["steps"] += 1

    def rarely() -> bool:
        return dice.random() < 0.1

    match what:
        case "time":
            world.now += dice.choice([0.0, 0.1, 0.1, 1.0, 3.0, 5.0, 15.0, dice.choice([15.0, 70.0])])
        case "submit":
            world.waiting += dice.choice([1, 3, 9])
        case "start":
            world.start_job()
        case "finish":
            world.finish_job()
        case "cancel":
            world.waiting = 0
        case "boot":
            world.boot()
        case "report":
            world.beat()
        case "leave":
            world.leave()
        case "die":
            world.stop_machine(dice.choice(DEATHS))
        case "read nodes":
            world.begin_nodes(empty=rarely(), unreachable=rarely())
        case "read machines":
            # A cloud that denies a machine of which nothing else is known cannot be told from one that never made it,
            # or has ended it: this one lies about others only.
            world.begin_machines(empty=rarely() and not world.unsettled())
        case "read demand":
            world.begin_demand(empty=rarely())
        case "read all":
            world.begin_nodes()
            world.begin_machines()
            world.begin_demand()
        case "answers":
            world.end_reads()
        case "fail":
            world.fail_reads()
        case "plan":
            world.decide()
        case "begin launch":
            world.begin_launch()
        case "end launch":
            lag = dice.choice([0.0, 0.0, SETTLE - 0.1])
            world.end_launch(refused=rarely(), lost=dice.random() < 0.3, lag=lag)
        case "begin orders":
            world.begin_orders()
        case "take orders":
            world.take_orders()
        case "end orders":
            world.end_orders(heard=not rarely())
        case "end machines":
            state = dice.choice([None, MachineState.ENDING, MachineState.GONE])
            world.end_machines(taken=not rarely(), state=state)
        case "crash":
            world.crash()
        case "wish":
            world.wishes = dice.choice(WISHES)
        case "drain one":
            world.want_drain(MAY_RUN_JOBS)


SEEN: Counter[str] = Counter()


class Faults(RuleBasedStateMachine):
    """Any interleaving of the world, the readings, the plans, the calls, faults and crashes."""

    @initialize(seed=st.integers(0, 2**32), policy=st.sampled_from(POLICIES), budget=st.sampled_from(BUDGETS))
    def begin(self, seed: int, policy: QueuePolicy | PerJobPolicy | TidePolicy, budget: Budget | None) -> None:
        self.world = TinySite(rules_of(policy, budget), seed)

    @rule(seed=st.integers(0, 2**32))
    def a_stretch_of_life(self, seed: int) -> None:
        """Many steps by the weights: so deep states are reached."""
        dice = Random(seed)
        for what in dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS_OF_A_STRETCH):
            step(self.world, what, dice)
            self.world.check()

    @rule(what=st.sampled_from(list(WEIGHTS)), seed=st.integers(0, 2**32))
    def one_thing(self, what: str, seed: int) -> None:
        """A single step of Hypothesis' own choice."""
        step(self.world, what, Random(seed))

    @rule()
    def a_whole_cycle(self) -> None:
        """All goes well for once."""
        for what in ("read all", "answers", "plan"):
            step(self.world, what, self.world.random)
        self.world.launch()
        self.world.give_orders()
        self.world.end_machines()

    @invariant()
    def nothing_is_doubled(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            SEEN.update(self.world.seen)
            self.world.calm_down()


Faults.TestCase.settings = settings(
    max_examples=max(STEPS // (RULES_OF_ONE_RUN * STEPS_OF_A_STRETCH // 4), 1),
    stateful_step_count=RULES_OF_ONE_RUN,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFaults = Faults.TestCase


def test_a_budget_is_met() -> None:
    """Steps without accidents, where a minimum keeps workers for longer than a budget bears."""
    calm = {**WEIGHTS, "time": 30, "fail": 0, "die": 0, "crash": 0, "wish": 0, "drain one": 0}
    met: Counter[str] = Counter()
    for seed in range(3):
        world = TinySite(rules_of(POLICIES[0], BUDGETS[-1]), seed)
        world.wishes = Wishes(minimum=2)
        dice = Random(seed)
        for what in dice.choices(list(calm), list(calm.values()), k=3000):
            step(world, what, dice)
            world.check()
        met.update(world.seen)
        world.calm_down()
    assert met["joined->draining budget"] > 0, met


def test_it_was_not_for_nothing() -> None:
    """The same steps without Hypothesis: jobs ran, workers came and went in every way."""
    world = TinySite(site(group(maximum=MAXIMUM, policy=POLICIES[0], join_deadline=200.0), settle=SETTLE), 1)
    dice = Random(3)
    for what in dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=20_000):
        step(world, what, dice)
        world.check()
    seen = world.seen
    assert seen["jobs"] > 100
    for edge in (
        "draining->drained drained-empty",
        "drained->terminating drained-empty",
        "draining->joined load-returned",
        "launching->failed launch-lost",
        "launching->booting found-by-tag",
        "booting->failed never-joined",
        "joined->draining idle",
        "joined->draining self-drained",
        "terminating->gone confirmed-gone",
    ):
        assert seen[edge] > 0, f"{edge}: {seen}"
    world.calm_down()


def test_as_many_steps_were_taken_as_asked_for() -> None:
    print(f"stateful steps: {TAKEN['steps']}")  # read by benchmarks/checks.py
    assert TAKEN["steps"] >= STEPS
