"""Planner and life cycle against a world of faults, step by step in any order.

``GRIDTIDE_STEPS=100000`` makes it as long as it is measured with; the default takes seconds.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gridtide.model.machines import MachineState
from gridtide.model.rules import PerJobPolicy, QueuePolicy, Wishes
from gridtide.model.workers import MAY_RUN_JOBS
from tests.unit.planning.tiny_site import SETTLE, TinySite
from tests.unit.planning.worlds import group, site

STEPS = int(os.environ.get("GRIDTIDE_STEPS", "4000"))
STEPS_OF_ONE_RUN = 100
MAXIMUM = 4

POLICIES = [
    QueuePolicy(idle_for=60.0),
    QueuePolicy(idle_for=0.0, deploy_time=30.0),
    QueuePolicy(idle_for=60.0, threshold=2, waiting_time=20.0, jobs_per_worker=1),
    PerJobPolicy(idle_for=30.0),
]


class Faults(RuleBasedStateMachine):
    """Any interleaving of the world, the readings, the plans, the calls, faults and crashes."""

    @initialize(seed=st.integers(0, 2**32), policy=st.sampled_from(POLICIES))
    def begin(self, seed: int, policy: QueuePolicy | PerJobPolicy) -> None:
        rules = group(maximum=MAXIMUM, policy=policy, join_deadline=200.0)
        self.site = TinySite(site(rules, settle=SETTLE, clouds=("private",)), seed)

    # --- the world

    @rule(duration=st.sampled_from([0.0, 0.1, 1.0, 3.0, 15.0, 70.0, 250.0]))
    def time_passes(self, duration: float) -> None:
        self.site.now += duration

    @rule(jobs=st.sampled_from([1, 3, 12]))
    def submit(self, jobs: int) -> None:
        self.site.waiting += jobs

    @rule(times=st.integers(1, 4))
    def jobs_start(self, times: int) -> None:
        for _ in range(times):
            self.site.start_job()

    @rule(times=st.integers(1, 4))
    def jobs_end(self, times: int) -> None:
        for _ in range(times):
            self.site.finish_job()

    @rule()
    def cancel_waiting(self) -> None:
        self.site.waiting = 0

    @rule(times=st.integers(1, 3))
    def machines_boot(self, times: int) -> None:
        for _ in range(times):
            self.site.boot()

    @rule(state=st.sampled_from([MachineState.STOPPED, MachineState.BROKEN, MachineState.GONE]))
    def a_machine_dies(self, state: MachineState) -> None:
        self.site.stop_machine(state)

    @rule()
    def an_agent_leaves(self) -> None:
        self.site.leave()

    @rule()
    def agents_report(self) -> None:
        self.site.beat()

    # --- readings, each begun and ended at its own time

    @rule(empty=st.sampled_from([False, False, False, True]), unreachable=st.sampled_from([False, False, False, True]))
    def nodes_are_read(self, empty: bool, unreachable: bool) -> None:
        self.site.begin_nodes(empty=empty, unreachable=unreachable)

    @rule(empty=st.sampled_from([False, False, False, True]))
    def machines_are_read(self, empty: bool) -> None:
        # A cloud that denies its machines for longer than a second reading takes cannot be told from one that ended
        # them: so this one lies only about machines that no worker is being ended for.
        self.site.begin_machines(empty=empty and not self.site.ending())

    @rule(empty=st.sampled_from([False, False, False, True]))
    def demand_is_read(self, empty: bool) -> None:
        self.site.begin_demand(empty=empty)

    @rule()
    def all_is_read(self) -> None:
        self.site.begin_nodes()
        self.site.begin_machines()
        self.site.begin_demand()
        self.site.end_reads()

    @rule()
    def answers_arrive(self) -> None:
        self.site.end_reads()

    @rule()
    def sources_fail(self) -> None:
        self.site.fail_reads()

    # --- the controller

    @rule(times=st.integers(1, 2))
    def plan(self, times: int) -> None:
        for _ in range(times):
            self.site.decide()

    @rule(
        outcome=st.sampled_from(["made", "made", "made", "refused", "lost"]),
        lag=st.sampled_from([0.0, 0.0, SETTLE - 0.1]),
    )
    def an_intent_is_executed(self, outcome: str, lag: float) -> None:
        self.site.launch(refused=outcome == "refused", lost=outcome == "lost", lag=lag)

    @rule(taken=st.sampled_from([True, True, False]), heard=st.sampled_from([True, True, False]))
    def orders_are_given(self, taken: bool, heard: bool) -> None:
        self.site.give_orders(taken=taken, heard=heard)

    @rule(
        taken=st.sampled_from([True, True, False]),
        state=st.sampled_from([None, MachineState.ENDING, MachineState.GONE]),
    )
    def machines_are_ended(self, taken: bool, state: MachineState | None) -> None:
        self.site.end_machines(taken=taken, state=state)

    @rule()
    def a_whole_cycle(self) -> None:
        self.all_is_read()
        self.site.decide()
        self.site.launch()
        self.site.give_orders()
        self.site.end_machines()

    @rule()
    def crash(self) -> None:
        self.site.crash()

    # --- operators

    @rule(
        wishes=st.sampled_from(
            [
                Wishes(),
                Wishes(),
                Wishes(hold=True),
                Wishes(maximum=1),
                Wishes(desired=2),
                Wishes(minimum=2),
                Wishes(closing=True),
            ]
        )
    )
    def operators_wish(self, wishes: Wishes) -> None:
        self.site.wishes = wishes

    @rule()
    def an_operator_drains_one(self) -> None:
        self.site.want_drain(MAY_RUN_JOBS)

    # --- what must hold

    @invariant()
    def nothing_is_doubled(self) -> None:
        if hasattr(self, "site"):
            self.site.check()

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.site.calm_down()


Faults.TestCase.settings = settings(
    max_examples=max(STEPS // STEPS_OF_ONE_RUN, 1),
    stateful_step_count=STEPS_OF_ONE_RUN,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFaults = Faults.TestCase
