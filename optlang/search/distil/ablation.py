"""What a rule can do without: parts are left out where that changes nothing measurable, over paired seeds.

Every shorter rule is trained from the same starts on the same batches as the rule as found, with that rule's best step size. A
part goes where on every task the interval of the mean difference (Student's t, 95 %) lies within the tolerance on both sides:
two one-sided tests of equivalence. What makes training better is not left out either, for short tasks are no judge of that, and
a simplification should not change what a rule does. Seeds are added until it is decided, at most twice. Differences are always
taken to the rule as found, so that small ones cannot add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optlang import ir
from optlang.ir import Node, Program, on_host, walk
from optlang.search.distil.listing import call_of, measure, targets
from optlang.search.distil.naming import LR
from optlang.search.programs.genome import constant
from optlang.search.programs.moves import Move, is_share, replaced

Array = Any  # numpy.ndarray
Evaluate = Callable[[Sequence[Program], Sequence[int]], Array]  # losses [programs, seeds] or [programs, tasks, seeds]
LEVEL = 0.95
DIGITS = 6  # literals with more are rounded, to as few as do
LOOKED_AT = 4  # seeds that every shorter rule is tried with before the best of them are measured
MEASURED = 6  # of those


@dataclass(frozen=True)
class Paired:
    """A mean difference over paired seeds with its interval, on one task; positive is worse."""

    mean: float
    low: float
    high: float
    seeds: int

    def within(self, tolerance: float) -> bool:
        return -tolerance <= self.low and self.high <= tolerance


def paired(losses: Array, others: Array, level: float = LEVEL) -> Paired:
    """`others` minus `losses`, seed by seed. A run that diverged makes the mean and the interval infinite."""
    from scipy.stats import t

    count = len(losses)
    with np.errstate(invalid="ignore"):
        apart = np.asarray(others, dtype=float) - np.asarray(losses, dtype=float)
    if count < 2 or not np.isfinite(apart).all():
        return Paired(math.inf, -math.inf, math.inf, count)
    half = float(t.ppf(0.5 + level / 2, count - 1) * apart.std(ddof=1) / math.sqrt(count))
    return Paired(float(apart.mean()), float(apart.mean()) - half, float(apart.mean()) + half, count)


@dataclass
class Ablation:
    """Trains shorter rules beside the rule as found. `tolerance` is on the scale of `evaluate`, by default 3 % of the loss.

    The first quarter of the seeds is looked at first, then half of them, then all.
    """

    found: Program
    evaluate: Evaluate
    seeds: Sequence[int] = tuple(range(64))
    tolerance: float = 0.03
    scaled: bool = False
    trained: int = 0  # trainings so far
    reference: Array = field(init=False)  # [tasks, seeds]

    def __post_init__(self) -> None:
        self.reference = self.losses([self.found], self.seeds)[0]
        if not np.isfinite(self.reference).all():
            raise ValueError(f"rule `{self.found.name}` diverges on {int((~np.isfinite(self.reference)).sum())} of {self.reference.size} "
                             "runs; there is nothing to compare shorter rules with")  # fmt: skip

    def losses(self, programs: Sequence[Program], seeds: Sequence[int]) -> Array:
        """[programs, tasks, seeds]; what is not a number counts as infinite."""
        losses = np.asarray(self.evaluate(programs, seeds), dtype=float)
        losses = losses[:, None, :] if losses.ndim == 2 else losses
        self.trained += losses.size
        return np.where(np.isnan(losses), np.inf, losses)

    def compared(self, program: Program) -> list[Paired]:
        """A rule against the rule as found, on every task, over as many seeds as decide."""
        count = len(self.seeds)
        looks = sorted({max(2, count // 4), max(2, count // 2), count})
        losses = np.empty((self.reference.shape[0], 0))
        results: list[Paired] = []
        for look in looks:
            losses = np.concatenate([losses, self.losses([program], self.seeds[losses.shape[1] : look])[0]], 1)
            results = [paired(mine[:look], other) for mine, other in zip(self.reference, losses, strict=True)]
            if self.passes(results) or any(r.low > self.tolerance or r.high < -self.tolerance or math.isinf(r.mean) for r in results):
                break
        return results

    def passes(self, results: Sequence[Paired]) -> bool:
        return all(result.within(self.tolerance) for result in results)

    def words(self, results: Sequence[Paired]) -> str:
        """A comparison as evidence."""
        names = getattr(self.evaluate, "names", None) or [f"task {n}" for n in range(1, len(results) + 1)]
        parts = [f"{r.mean:+.2%} ({r.low:+.2%} to {r.high:+.2%}) on {name}" for name, r in zip(names, results, strict=True)]
        return (f"loss at the end against the program as found: {', '.join(parts)}; {LEVEL:.0%} intervals over {results[0].seeds} paired "
                f"seeds, all within the tolerance of ±{self.tolerance:.2%}")  # fmt: skip

    def next(self, program: Program) -> tuple[Move, list[Paired]] | None:
        """The shortest of the shorter rules that trains alike; None where none does."""
        options = sorted(removals(program, self.scaled), key=lambda move: measure(move.program, self.scaled))
        if not options:
            return None
        few = self.seeds[:LOOKED_AT]
        looked = self.losses([move.program for move in options], few) - self.reference[:, : len(few)]
        looked = np.where(np.isfinite(looked), looked, 1e9)
        rough = 3 * np.maximum(self.tolerance, np.minimum(looked.std(2), 1.0))
        near = [move for move, apart, limit in zip(options, looked, rough, strict=True) if (np.abs(apart.mean(1)) <= limit).all()]
        for move in near[:MEASURED]:
            results = self.compared(move.program)
            if self.passes(results):
                return move, results
        return None

    def rounded(self, program: Program) -> tuple[Move, list[Paired]] | None:
        """The program with all its long literals rounded to as few digits as do."""
        for digits in range(2, DIGITS):
            changed = _rounded(program, digits)
            if changed is not None and changed.roots() != program.roots():
                results = self.compared(changed)
                if self.passes(results):
                    return Move(f"literals rounded to {digits} digits", changed), results
        return None


def removals(program: Program, scaled: bool = False) -> Iterator[Move]:
    """Shorter programs: an operation with one of its operands in its place, or a value for the whole tensor with 1."""
    now = measure(program, scaled)
    seen = set()
    host = on_host(program.roots())
    for node in dict.fromkeys(n for _, root in targets(program, scaled) for n in walk([root])):
        if not node.args or host[node] or is_share(node):
            continue
        for after in _instead(node):
            changed = replaced(program, {node: after})
            if changed is None or measure(changed, scaled)[:2] >= now[:2]:
                continue
            key = (changed.weights, *changed.updates.values())
            if key not in seen and _learns(changed):
                seen.add(key)
                yield Move(f"`{call_of(node).function}` left out", changed)


def _instead(node: Node) -> Iterator[Node]:
    for arg in node.args:
        if arg.type == node.type:
            yield arg
    if node.type.extent.level in ("tensor", "group", "model") and node.type.kind != "bool":
        yield ir.const(1.0)


def _learns(program: Program) -> bool:
    """Whether the gradient still reaches the weights."""
    return any(n is ir.G for n in walk(program.roots()))


def _rounded(program: Program, digits: int) -> Program | None:
    """Literals with many digits cut to fewer; of a share b near 1, those of 1 - b."""
    order = walk(program.roots())
    beside_lr = {a for n in order if n.op == "mul" and LR in n.args for a in n.args}  # goes into the step size anyway
    literals = [
        n for n in order if n.op == "const" and isinstance(n.value, float) and n not in beside_lr and len(_digits(n.value)) > digits
    ]
    return replaced(program, {n: constant(_short(float(n.value), digits)) for n in literals}) if literals else None


def _digits(value: float) -> str:
    mantissa = repr(abs(value)).split("e")[0]
    return mantissa.replace(".", "").strip("0")


def _short(value: float, digits: int) -> float:
    if 0.5 < value < 1:
        rest = float(f"{1 - value:.{digits - 1}e}")
        places = max(0, digits - 1 - math.floor(math.log10(rest)))
        return round(1 - rest, places)
    return float(f"{value:.{digits - 1}e}")


# ------------------------------------------------------------------------------------------------------- the evaluator


class Trained:
    """The batched trainer as an `Evaluate`: the logarithm of the held-out loss at the end, for each task.

    So a difference of 0.03 is 3 % of the loss. The step size is tuned for `program`, on each task, with the seeds `tuning`;
    `factor` stretches the tasks' horizon.
    Raises EntryError where the program cannot be trained.
    """

    def __init__(
        self,
        program: Program,
        names: Sequence[str] = ("digits-mlp", "photo-autoencoder"),
        tuning: Sequence[int] = (100_001, 100_002),
        factor: float = 1.0,
    ) -> None:
        from optlang.search.training.fitness import rate, tune
        from optlang.search.training.tasks import task

        self.names = tuple(names)
        self.tasks = [task(name).longer(factor) for name in names]
        tuned = [tune([program], one, tuning)[0] for one in self.tasks]
        self.lr = {name: rate(best.best) for name, best in zip(names, tuned, strict=True)}

    def __call__(self, programs: Sequence[Program], seeds: Sequence[int]) -> Array:
        with np.errstate(all="ignore"):
            parts = [np.log(self._losses(name, one, programs, seeds)) for name, one in zip(self.names, self.tasks, strict=True)]
        return np.stack(parts, 1)

    def _losses(self, name: str, task: Any, programs: Sequence[Program], seeds: Sequence[int]) -> Array:
        from optlang.search.training.trainer import Entry, EntryError, train

        losses = np.full((len(programs), len(seeds)), np.inf)
        places = list(range(len(programs)))
        while places:
            entries = [Entry(programs[place], {"lr": [self.lr[name]]} if _has_lr(programs[place]) else {}) for place in places]
            try:
                for place, outcome in zip(places, train(task, entries, seeds), strict=True):
                    losses[place] = outcome.losses[0]
                break
            except EntryError as refused:
                places.pop(refused.index)
        return losses


def _has_lr(program: Program) -> bool:
    return any(h.name == "lr" for h in program.hypers)
