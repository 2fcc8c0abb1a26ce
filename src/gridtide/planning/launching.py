"""Launches for what has no place yet: all queues together, since they share the clouds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridtide.model.costs import Choose, price_per_core
from gridtide.model.ids import CloudName, GroupName
from gridtide.model.reasons import Cause, Reason
from gridtide.planning.evidence import count
from gridtide.planning.fitting import Kind, Load, add_machines, amount
from gridtide.planning.fleet import Fleet
from gridtide.planning.limits import Limits, Offering
from gridtide.planning.quotas import Contention, Quotas, Served, Standing
from gridtide.planning.scaling import LAUNCHED, Outcome
from gridtide.planning.spreading import small_room, spread_out

_Only = tuple[CloudName, GroupName]


@dataclass(slots=True)
class _Launcher:
    """Launches for the loads of one queue."""

    loads: Sequence[Load]
    fleets: Mapping[GroupName, Fleet]
    """Those in which demand may start something."""
    limits: Limits
    ahead: bool = False
    """They are jobs to come, and none of them waits."""

    def launch(self, contended: Mapping[CloudName, Contention], only: _Only | None = None) -> int:
        """How many: for all loads within the fair parts, or one machine of one group in one cloud beyond its part."""
        if only is None and any(fleet.aim.spread > 1 for fleet in self.fleets.values()):
            small = spread_out(self._choices(), self.loads, self.fleets, self.limits)
            return self._launch(small, contended, small=True) + self._launch(self._choices(), contended)
        return self._launch(self._choices(), contended, only=only)

    def _choices(self) -> list[Offering]:
        return [offer for fleet in self.fleets.values() for offer in fleet.offers]

    def _launch(
        self,
        choices: Sequence[Offering],
        contended: Mapping[CloudName, Contention],
        *,
        only: _Only | None = None,
        small: bool = False,
    ) -> int:
        offers = self._offers(choices, only)
        launched = 0

        def room(kind: Kind) -> int:
            offer = offers[id(kind)][1]
            contention = contended.get(offer.cloud)
            room = self.limits.room(offer)
            if small:
                room = min(room, small_room(offer.cloud, self.fleets[offer.group], self.limits))
            if only is not None:
                return min(room, 1 - launched)
            return room if contention is None else min(room, contention.room(offer))

        def take(kind: Kind, number: int) -> None:
            nonlocal launched
            offer = offers[id(kind)][1]
            fleet = self.fleets[offer.group]
            reason = _ahead_reason(fleet) if self.ahead else _launch_reason(fleet, offer, self.limits)
            fleet.launches.append(self.limits.take(offer, number, single_use=fleet.aim.single_use, reason=reason))
            if offer.cloud in contended:
                contended[offer.cloud].took(offer, number)
            launched += number

        add_machines(self.loads, [kind for kind, _ in offers.values()], room, take, LAUNCHED)
        return launched

    def _offers(self, choices: Sequence[Offering], only: _Only | None) -> dict[int, tuple[Kind, Offering]]:
        wanted = {key for load in self.loads if load.left for key in load.runs_on}
        kinds = [
            (_kind(offer, self.fleets[offer.group]), offer)
            for offer in choices
            if offer.key in wanted and only in (None, (offer.cloud, offer.group))
        ]
        return {id(kind): (kind, offer) for kind, offer in kinds}


def launch_for(outcomes: Sequence[Outcome], fleets: Sequence[Fleet], quotas: Quotas, limits: Limits) -> None:
    """Launch for all that is left, within the fair parts where a quota has to be shared out."""
    launchers = [_launcher(outcome, fleets, limits) for outcome in outcomes if outcome.unsure is None]
    while True:
        contended = quotas.contended()
        launched = sum(launcher.launch(contended) for launcher in launchers)
        if not contended or (not launched and not _spend_leftovers(contended, launchers, limits)):
            break
    for outcome in outcomes:
        if outcome.ahead:  # where a quota is shared out, no part has room for what nobody waits for
            _launcher(outcome, fleets, limits, ahead=True).launch(contended)
    for cloud, contention in contended.items():
        several = sum(bool(standing.has or standing.wants) for standing in contention.standings.values()) > 1
        for group in contention.standings if several else ():
            limits.note_share(group, cloud, contention.words(group))


def served(outcomes: Sequence[Outcome], fleets: Sequence[Fleet]) -> Served:
    """The loads of each queue that is known well enough, and its groups."""
    return [
        (
            outcome.loads if outcome.unsure is None else [],
            [fleet for fleet in fleets if fleet.rules.queue == outcome.queue],
        )
        for outcome in outcomes
    ]


def _launcher(outcome: Outcome, fleets: Sequence[Fleet], limits: Limits, *, ahead: bool = False) -> _Launcher:
    mine = {
        fleet.rules.name: fleet for fleet in fleets if fleet.rules.queue == outcome.queue and fleet.obstacle is None
    }
    return _Launcher(outcome.ahead if ahead else outcome.loads, mine, limits, ahead)


def _spend_leftovers(contended: Mapping[CloudName, Contention], launchers: list[_Launcher], limits: Limits) -> bool:
    """One machine from what is left because no part is a whole number of machines. False: nothing was launched."""
    for cloud, contention in sorted(contended.items()):
        held = any(
            contention.below(group) and limits.left(cloud, contention.unit) < standing.least
            for group, standing in contention.standings.items()
        )
        waiting = [] if held else [standing for standing in contention.standings.values() if standing.wants]
        for standing in sorted(waiting, key=_least_served_first):
            only = (cloud, standing.fleet.rules.name)
            if any(launcher.launch(contended, only) for launcher in launchers):
                return True
    return False


def _least_served_first(standing: Standing) -> tuple[float, float, str]:
    rules = standing.fleet.rules
    return ((standing.has + standing.least) / rules.share, standing.waiting_since, rules.name)


def _kind(offer: Offering, fleet: Fleet) -> Kind:
    order = (offer.group, offer.place, offer.shape.name)
    slots = fleet.aim.jobs_per_worker
    price = offer.shape.price if fleet.rules.choose is Choose.PRICE else None
    return Kind(offer.key, offer.rank, order, amount(offer.shape.resources), slots, price)


def _launch_reason(fleet: Fleet, offer: Offering, limits: Limits) -> Reason:
    """Why any, and why this one."""
    waiting = count(fleet.waiting or 0, "job")
    words = f"{waiting} waiting in queue {fleet.rules.queue} that group {fleet.rules.name} can run"
    if fleet.rules.choose is not Choose.ORDER:
        price = f"{offer.shape.name} of cloud {offer.cloud} costs {price_per_core(offer.shape):g} per core and hour"
        words = f"{words}; choose = {fleet.rules.choose}: {price}"
    passed = [other for other in fleet.offers if _before(other, offer) and not limits.room(other)]
    named = {other.cloud: other for other in reversed(passed)}  # the first one of each cloud tells enough
    return Reason(Cause.DEMAND, "; ".join([words, *(limits.why_not(named[cloud]).text for cloud in sorted(named))]))


def _before(other: Offering, offer: Offering) -> bool:
    """Whether it would be preferred to this one, cloud by cloud or by its price."""
    return (other.rank, other.place) < (offer.rank, offer.place) and other.cloud != offer.cloud


def _ahead_reason(fleet: Fleet) -> Reason:
    ahead = fleet.aim.ahead
    room = "" if ahead is None else f"room for {count(ahead.jobs, 'job')} ({ahead.each} each) is kept free: "
    return Reason(Cause.AHEAD, f"{room}so far may the load of group {fleet.rules.name} rise while a machine boots")
