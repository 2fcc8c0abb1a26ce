"""Chance that gives the same bits on every machine.

The C library's ``exp`` and ``log`` differ in their last bit from one machine to the next, and a simulation amplifies a
last bit into another run. Here they are made of additions, multiplications, divisions and square roots alone, which
IEEE 754 rounds in one way only. The generator behind is Python's Mersenne Twister, whose ``random()`` is the same
everywhere.
"""

from __future__ import annotations

from math import frexp, ldexp, sqrt
from random import Random
from typing import Final

_LN2: Final = 0.6931471805599453
_LN2_HIGH: Final = 0.693147180369123816490
_LN2_LOW: Final = 1.90821492927058770002e-10
"""Together more digits of the logarithm of 2 than one float holds; the high part has zeros at its end, so that its
products with small whole numbers are exact."""
_SQRT_HALF: Final = 0.7071067811865476
_EXP_TERMS: Final = 14
_LOG_TERMS: Final = 12
"""Terms of the series: with fewer the last digits of a float are wrong, more change nothing."""


def exp(x: float) -> float:
    """e to the power of ``x``, within two units of the last place. OverflowError above 709."""
    if x > 709.0:
        raise OverflowError("exp of more than 709 is no float")
    if x < -745.0:
        return 0.0
    n = round(x / _LN2)
    rest = (x - n * _LN2_HIGH) - n * _LN2_LOW
    total = 1.0
    for k in range(_EXP_TERMS, 0, -1):
        total = 1.0 + rest * total / k
    return ldexp(total, n)


def log(x: float) -> float:
    """Natural logarithm, within two units of the last place. ValueError unless ``x`` is positive."""
    if x <= 0.0:
        raise ValueError("the logarithm of what is not positive")
    mantissa, n = frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa, n = mantissa * 2.0, n - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    total = 0.0
    for k in range(_LOG_TERMS, -1, -1):
        total = 1.0 / (2 * k + 1) + square * total
    return n * _LN2_HIGH + (2.0 * s * total + n * _LN2_LOW)


def power(base: float, exponent: float) -> float:
    """``base`` to the power of ``exponent``, for a positive base."""
    return exp(exponent * log(base))


class Chance:
    """Draws from the distributions that workloads are made of. ``name`` keeps independent streams of one seed apart."""

    __slots__ = ("_random",)

    def __init__(self, seed: int, name: str = "") -> None:
        # Text is hashed (SHA-512) by the generator itself: neighbouring seeds and names have nothing in common.
        self._random = Random(f"{seed}/{name}")  # noqa: S311  (a simulation, no secret)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """At least ``low``, less than ``high``."""
        return low + (high - low) * self._random.random()

    def happens(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def below(self, number: int) -> int:
        """A whole number from 0 to ``number - 1``."""
        return int(self._random.random() * number)

    def exponential(self, mean: float) -> float:
        """Waiting times of what happens at random, ``mean`` apart."""
        return -mean * log(1.0 - self._random.random())

    def normal(self, mean: float = 0.0, deviation: float = 1.0) -> float:
        """Marsaglia's polar method (SIAM Review 6, 1964)."""
        while True:
            u, v = self.uniform(-1.0, 1.0), self.uniform(-1.0, 1.0)
            s = u * u + v * v
            if 0.0 < s < 1.0:
                return mean + deviation * u * sqrt(-2.0 * log(s) / s)

    def lognormal(self, median: float, sigma: float) -> float:
        """``sigma`` is the standard deviation of the logarithm."""
        return median * exp(self.normal(0.0, sigma)) if sigma else median

    def gamma(self, shape: float, scale: float) -> float:
        """Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (ACM TOMS 26, 2000)."""
        if shape < 1.0:
            boost = power(1.0 - self._random.random(), 1.0 / shape)
            return boost * self.gamma(shape + 1.0, scale)
        d = shape - 1.0 / 3.0
        c = 1.0 / sqrt(9.0 * d)
        while True:
            x = self.normal()
            v = 1.0 + c * x
            if v <= 0.0:
                continue
            v = v * v * v
            if log(1.0 - self._random.random()) < 0.5 * x * x + d - d * v + d * log(v):
                return d * v * scale

    def pareto(self, least: float, index: float) -> float:
        """``least`` or more; the chance of exceeding x falls with x to the power of ``-index``."""
        return least / power(1.0 - self._random.random(), 1.0 / index)

    def geometric(self, mean: float) -> int:
        """1, 2, 3 ... with this mean."""
        if mean <= 1.0:
            return 1
        return 1 + int(log(1.0 - self._random.random()) / log(1.0 - 1.0 / mean))
