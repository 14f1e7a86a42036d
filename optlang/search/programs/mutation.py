"""Small changes to programs, each tried until the program fits its types and its space.

Those of Lion's search, with equal weights: insert a random statement, delete one, change one argument (Chen et al. 2023,
arXiv:2302.06675, appendix). New constants are drawn from N(0, 1), changed ones multiplied by 2^a with a from N(0, 1). And three
of ours: most inserted statements change nothing until another change reads them, so `wrap` and `remember` do both at once;
and constants are changed by themselves, too.
One more kind is one more function here with `@mutation`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import UPDATE, Argument, Genome, GenomeError, Statement, line
from optlang.search.programs.space import Space

TRIES = 400  # random changes before a program is given back as it is: in a crowded space nothing may fit
SCALED = 0.8  # of changes to a constant multiply it; the others draw anew
UNCHANGED = "nothing that fits was found"

Change = tuple[Genome, str]
Mutation = Callable[["Draws", Genome], "Change | None"]
MUTATIONS: dict[str, tuple[float, Mutation]] = {}


def mutation(name: str, weight: float) -> Callable[[Mutation], Mutation]:
    """Adds a kind of change. It gives the changed genome and what was done, or None where it finds nothing to change."""

    def added(change: Mutation) -> Mutation:
        MUTATIONS[name] = (weight, change)
        return change

    return added


class Draws:
    """Random choices within a space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.random = random.Random(0)
        usable = [(name, weight) for name, weight in space.functions.items() if weight > 0]
        self.functions = [name for name, _ in usable]
        self.sums = list(accumulate(weight for _, weight in usable))

    def function(self) -> str:
        return self.functions[bisect(self.sums, self.random.random() * self.sums[-1])]

    def constant(self) -> float:
        return self.bounded(self.random.gauss(0.0, 1.0))

    def bounded(self, value: float) -> float:
        low, high = self.space.constants
        return min(max(in_series(value) if self.space.series else value, low), high)

    def near(self, value: float) -> float:
        """A multiple of a constant; in series a decay or its distance from 1 is multiplied, as one tunes them."""
        factor = 2.0 ** self.random.gauss(0.0, 1.0)
        if self.space.series and 0.5 <= value < 1:
            return self.bounded(1 - (1 - value) * factor)
        return self.bounded(value * factor)

    def argument(self, names: Sequence[str]) -> Argument:
        """A constant, or a name that has a value."""
        if not names or self.random.random() < self.space.chance_of_constant:
            return self.constant()
        return names[int(self.random.random() * len(names))]

    def statement(self, names: Sequence[str], target: str = "") -> Statement:
        """A random call, into a random target if none is given."""
        function = self.function()
        args = tuple([self.argument(names) for _ in range(FUNCTIONS[function].operands)])
        return Statement(function, target or self.random.choice(self.space.targets), args)

    def names(self, genome: Sequence[Statement], place: int) -> list[str]:
        """What has a value before the statement at a place."""
        return list(dict.fromkeys([*self.space.readable, *[statement[1] for statement in genome[:place]]]))


@mutation("insert", 1.0)
def insert(draws: Draws, genome: Genome) -> Change | None:
    """One statement more."""
    place = draws.random.randrange(len(genome) + 1)
    new = draws.statement(draws.names(genome, place))
    return (*genome[:place], new, *genome[place:]), f"inserted `{line(new)}`"


@mutation("wrap", 0.5)
def wrap(draws: Draws, genome: Genome) -> Change | None:
    """One statement more between a value and one of its readers, which reads the new statement's result instead."""
    return _between(draws, genome, "")


@mutation("remember", 0.5)
def remember(draws: Draws, genome: Genome) -> Change | None:
    """A value and what a slot remembers become the slot's new value, which one of the value's readers reads instead."""
    return _between(draws, genome, draws.random.choice(draws.space.form.slots)) if draws.space.form.slots else None


def _between(draws: Draws, genome: Genome, slot: str) -> Change | None:
    """A new statement of a value and perhaps a slot, put before a reader of the value."""
    places = [(p, n) for p, n in _open(draws.space, genome) if type(genome[p][2][n]) is str]
    if not places:
        return None
    place, position = draws.random.choice(places)
    new = draws.statement(draws.names(genome, place), slot)
    needed: list[Argument] = [genome[place].args[position], *([slot] if slot else [])]
    if len(new.args) < len(needed):
        return None
    args = list(new.args)
    for own, name in zip(draws.random.sample(range(len(args)), len(needed)), needed, strict=True):
        args[own] = name
    new = new._replace(args=tuple(args))
    reader = _replaced(genome, place, position, new.target)
    if reader is None:
        return None
    return (*genome[:place], new, *reader[0][place:]), f"put `{line(new)}` before `{line(genome[place])}`"


@mutation("delete", 1.0)
def delete(draws: Draws, genome: Genome) -> Change | None:
    """One statement less."""
    free = [place for place, statement in enumerate(genome) if not statement.frozen]
    if not free:
        return None
    place = draws.random.choice(free)
    return (*genome[:place], *genome[place + 1 :]), f"deleted `{line(genome[place])}`"


@mutation("argument", 1.0)
def argument(draws: Draws, genome: Genome) -> Change | None:
    """Another argument in one place: for a constant mostly a multiple of it."""
    places = _open(draws.space, genome)
    if not places:
        return None
    place, position = draws.random.choice(places)
    old = genome[place].args[position]
    if isinstance(old, float) and draws.random.random() < SCALED:
        return _replaced(genome, place, position, draws.near(old))
    return _replaced(genome, place, position, draws.argument(draws.names(genome, place)))


@mutation("constant", 1.0)
def constant(draws: Draws, genome: Genome) -> Change | None:
    """Another value for one constant: all that the constants-only baseline does, and what rules gain most by at first."""
    places = [(p, n) for p, n in _open(draws.space, genome) if type(genome[p][2][n]) is float]
    if not places:
        return None
    place, position = draws.random.choice(places)
    old = genome[place].args[position]
    assert isinstance(old, float)
    return _replaced(genome, place, position, draws.near(old))


def in_series(value: float) -> float:
    """The nearest of ±1, 2 or 5 times a power of ten; between 0.5 and 1 the nearest number that is so far below 1."""
    if not value or not math.isfinite(value):
        return value
    if 0.5 < value < 1:
        return float(f"{1 - in_series(1 - value):.12g}")
    decade = math.floor(math.log10(abs(value)))
    nearest = min((m * 10.0**decade for m in (1, 2, 5, 10)), key=lambda one: abs(math.log(one / abs(value))))
    return math.copysign(float(f"{nearest:.12g}"), value)


def _open(space: Space, genome: Genome) -> list[tuple[int, int]]:
    """Arguments that may be changed: (statement, position). Of a template's statements only the holes."""
    found: list[tuple[int, int]] = []
    fixed = 0
    for place, (_, _, args, frozen) in enumerate(genome):
        if not frozen:
            found += _positions(place, len(args))
        elif space.filled is not None:
            found += [(place, position) for position in space.filled.holes(fixed)]
            fixed += 1
    return found


@cache
def _positions(place: int, count: int) -> list[tuple[int, int]]:
    """All arguments of a statement."""
    return [(place, position) for position in range(count)]


def _replaced(genome: Genome, place: int, position: int, value: Argument) -> Change | None:
    old = genome[place]
    if old.args[position] == value:
        return None
    new = old._replace(args=(*old.args[:position], value, *old.args[position + 1 :]))
    return (*genome[:place], new, *genome[place + 1 :]), f"`{line(old)}` became `{line(new)}`"


class Mutator:
    """Changes programs within a space. `only`: kinds of change, instead of all by their weights."""

    def __init__(self, space: Space, only: Sequence[str] = ()) -> None:
        self.space, self.draws = space, Draws(space)
        chosen = dict.fromkeys(only, 1.0) if only else {name: weight for name, (weight, _) in MUTATIONS.items() if weight > 0}
        self.kinds = [MUTATIONS[name][1] for name in chosen]
        self.sums = list(accumulate(chosen.values()))

    def __call__(self, genome: Genome, source: random.Random) -> Change:
        """A changed genome that the space holds, and what was changed; the genome itself where nothing fits."""
        self.draws.random = source
        for _ in range(TRIES):
            kind = self.kinds[bisect(self.sums, source.random() * self.sums[-1])]
            found = kind(self.draws, genome)
            if found is not None and self.space.holds(found[0]):
                return found
        return genome, UNCHANGED


class RandomPrograms:
    """Programs drawn at random, as long as the seeds are: the space without evolution."""

    def __init__(self, space: Space, lengths: Sequence[int] = ()) -> None:
        self.space, self.draws = space, Draws(space)
        self.lengths = tuple(lengths) or tuple(len(seed) for seed in space.seeds) or (min(8, space.limits.statements),)

    def __call__(self, source: random.Random) -> Genome:
        """One program of the space. Raises GenomeError where none is found: the constraints may leave nothing."""
        self.draws.random = source
        for _ in range(100 * TRIES):
            found = self._drawn(source)
            if found is not None and self.space.holds(found):
                return found
        raise GenomeError("no random program satisfies the constraints; loosen them, or search by evolution from a seed")

    def _drawn(self, source: random.Random) -> Genome | None:
        """Fixed statements of a template with random ones between them, or random ones alone; the last makes the update."""
        if self.space.filled is not None:
            return filled(self.draws)
        length = max(1, source.choice(self.lengths) + source.choice((-1, 0, 0, 1)))
        genome: list[Statement] = []
        for place in range(length):
            genome.append(self.draws.statement(self.draws.names(genome, place), UPDATE if place == length - 1 else ""))
        return tuple(genome)


def filled(draws: Draws) -> Genome:
    """The template of a space with its holes filled at random; whether that fits is another question."""
    template = draws.space.filled
    assert template is not None
    genome: list[Statement] = []
    room = draws.space.limits.statements - template.least
    for number, (least, most) in enumerate(template.gaps):
        more = draws.random.randint(0, min(most - least, room, 4))
        room -= more
        for left in range(least + more, 0, -1):
            ends = number == len(template.fixed) and left == 1 and all(s.target != UPDATE for s in genome)
            genome.append(draws.statement(draws.names(genome, len(genome)), UPDATE if ends else ""))
        if number < len(template.fixed):
            fixed = template.fixed[number]
            holes = template.holes(number)
            names = draws.names(genome, len(genome))
            args = tuple(draws.argument(names) if place in holes else arg for place, arg in enumerate(fixed.args))
            genome.append(fixed._replace(args=args))
    return tuple(genome)
