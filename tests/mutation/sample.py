"""Which mutants are tried: of each part of the compiler some, drawn with a seed."""

from __future__ import annotations

import random
from itertools import zip_longest
from pathlib import Path

from .sites import Mutant, mutants

SEED = 2026
PARTS: dict[str, tuple[int, tuple[str, ...]]] = {  # how many, of what
    "lowering": (110, ("optlang/lower/",)),
    "simplification": (80, ("optlang/simplify/",)),
    "graph, plan and analyses": (
        100,
        (
            "optlang/ir/",
            "optlang/algebra/",
            *(f"optlang/{name}.py" for name in ("plan", "printing/precedence")),
            *(f"optlang/analysis/{name}.py" for name in ("zero_gradient", "degrees", "units", "nonnegative", "costs")),
        ),
    ),
    "backends": (250, ("optlang/backends/",)),
}


def part_of(file: str) -> str:
    return next(part for part, (_, places) in PARTS.items() if file.startswith(places))


def sample(root: Path, seed: int = SEED) -> list[Mutant]:
    """The mutants in the order in which they are tried: one of each part in turn."""
    drawn = []
    modules = sorted(path.relative_to(root).as_posix() for path in (root / "optlang").rglob("*.py"))
    for part, (count, places) in PARTS.items():
        every = [mutant for file in modules if file.startswith(places) for mutant in mutants(root, file)]
        drawn.append(random.Random(f"{seed} {part}").sample(every, count))
    turns = zip_longest(*(_spread(some, max(map(len, drawn))) for some in drawn))
    return [mutant for turn in turns for mutant in turn if mutant is not None]


def _spread(some: list[Mutant], length: int) -> list[Mutant | None]:
    """Over so many turns, as evenly as can be."""
    spread: list[Mutant | None] = [None] * length
    for i, mutant in enumerate(some):
        spread[i * length // len(some)] = mutant
    return spread
