"""The model of Lublin and Feitelson: rigid parallel jobs of supercomputers, batch and interactive.

Uri Lublin and Dror G. Feitelson, "The Workload on Parallel Supercomputers: Modeling the Characteristics of Rigid Jobs",
Journal of Parallel and Distributed Computing 63(11), 2003, pp. 1105-1122 (first as Lublin's thesis, 1999). Names and
values of the parameters are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gridtide.sim.chance import Chance, exp, log, power
from gridtide.sim.trace import TraceJob

BUCKETS: Final = 48
"""Half hours of a day."""
_BUCKET: Final = 86_400.0 / BUCKETS
_DAY_BEGINS: Final = 11
"""The daily cycle is a gamma density over buckets counted from this one on: the quietest time of the day."""
_LONGEST: Final = 12.0
"""Natural logarithm of the longest run time, almost two days."""
_LARGEST_GAP: Final = 13.0
"""Natural logarithm of the longest time between two jobs, five days."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Parameters of one kind of jobs."""

    serial: float
    """Part of the jobs that take one processor."""
    power_of_two: float
    """Part of the jobs whose size is a larger power of 2."""
    u_low: float
    u_mid: float
    u_high: float
    """Logarithm (base 2) of the size: uniform from low to mid with probability ``u_first``, else from mid to high."""
    u_first: float
    a1: float
    b1: float
    a2: float
    b2: float
    """Logarithm of the run time: gamma(a1, b1) with probability p, else gamma(a2, b2)."""
    pa: float
    pb: float
    """p = pa * size + pb: larger jobs run for longer."""
    a_arrival: float
    b_arrival: float
    """Logarithm of the time between arrivals in the rush hours: gamma(a, b)."""
    a_cycle: float
    b_cycle: float
    """Arrivals over the day: the density of gamma(a, b)."""
    all_day: float
    """By what ``a_arrival`` is multiplied so that it holds for the whole day."""


BATCH: Final = Kind(
    0.2927,
    0.6686,
    1.2,
    5.0,
    7.0,
    0.875,
    6.57,
    0.823,
    639.1,
    0.0156,
    -0.003,
    0.6986,
    6.0415,
    0.8531,
    6.1271,
    5.2740,
    1.0519,
)
INTERACTIVE: Final = Kind(
    0.1541,
    0.625,
    1.0,
    3.0,
    5.5,
    0.705,
    3.8351,
    0.6605,
    7.073,
    0.6856,
    -0.0118,
    0.9156,
    6.5510,
    0.6621,
    8.9186,
    3.6680,
    0.9797,
)


def lublin(seed: int, *, jobs: int, largest: int = 128, spread: float = 1.0) -> Iterator[TraceJob]:
    """Jobs of both kinds, in the order of their arrival.

    ``largest``: the machine's processors, of which no job takes more (the paper's was 128; batch jobs go up to it,
    interactive ones to a third). ``spread``: by what all times between arrivals are multiplied.
    """
    sources = [
        _Source(_scaled(kind, largest), Chance(seed, f"lublin/{name}"), name, largest, spread)
        for kind, name in ((BATCH, "batch"), (INTERACTIVE, "interactive"))
    ]
    for number in range(1, jobs + 1):
        source = min(sources, key=lambda each: each.next)
        yield source.draw(number)


def _scaled(kind: Kind, largest: int) -> Kind:
    """For another machine than the paper's: its advice is to move u_mid and u_high with the machine's size."""
    shift = log(max(largest, 2)) / log(2.0) - BATCH.u_high
    if not shift:
        return kind
    values = {name: getattr(kind, name) for name in Kind.__slots__}
    values["u_high"] = max(kind.u_high + shift, kind.u_low)
    values["u_mid"] = min(max(kind.u_mid + shift, kind.u_low), values["u_high"])
    return Kind(**values)


class _Source:
    """Jobs of one kind."""

    def __init__(self, kind: Kind, chance: Chance, name: str, largest: int, spread: float) -> None:
        self.next = 0.0
        self._kind, self._chance, self._name, self._largest, self._spread = kind, chance, name, largest, spread
        self._weights = _daily_cycle(kind)
        self._bucket = 0
        self._points = 0.0
        self._advance()

    def draw(self, number: int) -> TraceJob:
        """The next job."""
        at = self.next
        size = min(self._size(), self._largest)
        runtime = self._runtime(size)
        self._advance()
        return TraceJob(number, at * self._spread, runtime, size)

    def _size(self) -> int:
        kind, chance = self._kind, self._chance
        which = chance.uniform()
        if which < kind.serial:
            return 1
        if chance.happens(kind.u_first):
            exponent = chance.uniform(kind.u_low, kind.u_mid)
        else:
            exponent = chance.uniform(kind.u_mid, kind.u_high)
        if which < kind.serial + kind.power_of_two:
            exponent = float(int(exponent + 0.5))
        return max(1, int(power(2.0, exponent) + 0.5))

    def _runtime(self, size: int) -> float:
        kind, chance = self._kind, self._chance
        p = min(max(kind.pa * size + kind.pb, 0.0), 1.0)
        while True:
            first = chance.happens(p)
            logarithm = chance.gamma(kind.a1, kind.b1) if first else chance.gamma(kind.a2, kind.b2)
            if logarithm <= _LONGEST:
                return max(1.0, float(int(exp(logarithm))))

    def _advance(self) -> None:
        """A gap is worth points; each half hour of the day costs as many of them as is usual for it."""
        kind, chance = self._kind, self._chance
        while (gap := chance.gamma(kind.a_arrival * kind.all_day, kind.b_arrival)) > _LARGEST_GAP:
            pass
        points = self._points + exp(gap) / _BUCKET
        while points > self._weights[self._bucket % BUCKETS]:
            points -= self._weights[self._bucket % BUCKETS]
            self._bucket += 1
        self._points = points
        self.next = float(int((self._bucket + points / self._weights[self._bucket % BUCKETS]) * _BUCKET))


def _daily_cycle(kind: Kind) -> list[float]:
    """The weight of each half hour, 1 on average."""
    weights = [0.0] * BUCKETS
    for place in range(_DAY_BEGINS, BUCKETS + _DAY_BEGINS):
        density = gamma_below(place + 0.5, kind.a_cycle, kind.b_cycle) - gamma_below(
            place - 0.5, kind.a_cycle, kind.b_cycle
        )
        weights[(place - 1) % BUCKETS] = density
    mean = sum(weights) / BUCKETS
    return [weight / mean for weight in weights]


def gamma_below(x: float, shape: float, scale: float) -> float:
    """The probability that gamma(shape, scale) is below ``x``: the series for the incomplete gamma function, which
    converges everywhere and has no cancellation (Abramowitz and Stegun 6.5.29)."""
    x = x / scale
    if x <= 0.0:
        return 0.0
    term = total = 1.0 / shape
    place = shape
    while term > total * 1e-16:
        place += 1.0
        term *= x / place
        total += term
    return total * exp(shape * log(x) - x - _log_gamma(shape))


def _log_gamma(x: float) -> float:
    """Stirling's series, after moving the argument up to where it is exact enough."""
    product = 1.0
    while x < 12.0:
        product *= x
        x += 1.0
    series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x**3) + 1.0 / (1260.0 * x**5) - 1.0 / (1680.0 * x**7)
    return (x - 0.5) * log(x) - x + 0.5 * log(2.0 * 3.141592653589793) + series - log(product)
