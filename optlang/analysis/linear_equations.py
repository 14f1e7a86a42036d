"""Linear equations between scaling degrees over the rationals, solved as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

Pair = tuple[Fraction, Fraction]  # in the loss, in the parameter
ZERO: Pair = (Fraction(0), Fraction(0))
Unknown = tuple[str, object]  # ("hyper", name), ("state", name), ("input", name), ("free", number)


@dataclass(frozen=True, slots=True)
class Degree:
    """A constant part and multiples of unknown degrees."""

    known: Pair = ZERO
    unknown: Mapping[Unknown, Fraction] = field(default_factory=dict)

    def plus(self, other: Degree, times: Fraction = Fraction(1)) -> Degree:
        unknown = dict(self.unknown)
        for name, factor in other.unknown.items():
            unknown[name] = unknown.get(name, Fraction(0)) + times * factor
        known = (self.known[0] + times * other.known[0], self.known[1] + times * other.known[1])
        return Degree(known, {name: f for name, f in unknown.items() if f})

    def times(self, factor: Fraction) -> Degree:
        return Degree().plus(self, factor)


PURE = Degree()


class Equations:
    """What is known of each unknown, in terms of those that are still open."""

    def __init__(self) -> None:
        self.solution: dict[Unknown, Degree] = {}

    def equal(self, a: Degree, b: Degree) -> Pair | None:
        """Adds the equation a = b: solves it for one unknown. Where it cannot hold, answers with how far it is off."""
        rest = self.reduced(a.plus(b, Fraction(-1)))
        if rest.unknown:
            name = max(rest.unknown, key=_eagerness)
            factor = rest.unknown[name]
            others = replace(rest, unknown={n: f for n, f in rest.unknown.items() if n != name})
            self._learn(name, others.times(-1 / factor))
        return None if rest.unknown or rest.known == ZERO else rest.known

    def _learn(self, name: Unknown, value: Degree) -> None:
        for other, known in self.solution.items():
            if name in known.unknown:
                factor = known.unknown[name]
                without = replace(known, unknown={n: f for n, f in known.unknown.items() if n != name})
                self.solution[other] = without.plus(value, factor)
        self.solution[name] = value

    def reduced(self, degree: Degree) -> Degree:
        result = Degree(degree.known)
        for name, factor in degree.unknown.items():
            result = result.plus(self.solution.get(name, Degree(ZERO, {name: Fraction(1)})), factor)
        return result


def _eagerness(name: Unknown) -> tuple[int, str]:
    """Auxiliary unknowns are solved for first, hypers last."""
    return {"free": 3, "state": 2, "input": 1, "hyper": 0}[name[0]], str(name[1])


def pair_of(degree: Degree) -> Pair | None:
    return degree.known if not degree.unknown else None
