"""What a search may look at: functions, names, constants, limits, constraints, starting programs and a template.

Everything combines with everything. What cannot be (no functions, limits that a seed breaks, a template that nobody can
fill) is a `GenomeError` when the space is made, or when it is first filled, that says what to change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from optlang.errors import did_you_mean
from optlang.search.programs.constraints import BEHAVIOURAL, Check, limit_checks, reach, structural, untyped
from optlang.search.programs.constraints import Limits as Limits
from optlang.search.programs.functions import FUNCTIONS, LION
from optlang.search.programs.genome import UPDATE, Form, Genome, GenomeError, from_text, to_text
from optlang.search.programs.template import Template
from optlang.search.programs.type_codes import codes

DEFAULT_FORM = Form()
def _default_functions() -> dict[str, float]:
    return {name: row.weight for name, row in FUNCTIONS.items() if row.weight > 0}


@dataclass(frozen=True)
class Space:
    """A search space. `functions` are weights by name, `names` what mutation may read besides slots and temporaries.

    `constants` is the closed range of the constants that a search makes; with `series` these are 1, 2 or 5 times a power of ten,
    or 1 less such a number, so that children meet again. Constraints: "elementwise" (no reductions, no
    matrices), "no model values", "loss scale" (the update does not change when the loss is scaled), "once F" (at most one
    call of a function), "reads NAME" and "never NAME" (for what the update depends on).
    """

    form: Form = DEFAULT_FORM
    functions: Mapping[str, float] = field(default_factory=_default_functions)
    names: tuple[str, ...] = ("w", "g", "t", "lr")
    constants: tuple[float, float] = (-100.0, 100.0)
    series: bool = False
    chance_of_constant: float = 0.3
    limits: Limits = field(default_factory=Limits)
    constraints: tuple[str, ...] = ()
    seeds: tuple[Genome, ...] = ()
    template: str = ""

    def __post_init__(self) -> None:
        problems = [*_wrong_fields(self), *_wrong_constraints(self)]
        if problems:
            raise GenomeError("\n".join(problems))
        if self.filled is not None:  # what stands in the template is left alone in seeds, too
            object.__setattr__(self, "seeds", tuple(map(self.filled.marked, self.seeds)))
        problems = [*_contradictions(self), *_wrong_seeds(self)]
        if problems:
            raise GenomeError("\n".join(problems))

    @classmethod
    def preset(cls, name: str, **fields: Any) -> Space:
        """"default": the functions that the operator table gives weights; "lion": those of Lion's search; "rich": all."""
        if name not in PRESETS:
            raise GenomeError(f"there is no set of functions {name!r}; choose one of {', '.join(PRESETS)}")
        return cls(functions=PRESETS[name](), **fields)

    @cached_property
    def filled(self) -> Template | None:
        """The template, read."""
        return Template.from_text(self.template) if self.template.strip() else None

    @cached_property
    def readable(self) -> tuple[str, ...]:
        """The names with values before the first statement that mutation may read."""
        banned = {words[1] for words in map(str.split, self.constraints) if words[0] == "never"}
        inputs = [name for name in self.names if name in self.form.inputs()]
        return tuple(name for name in (*inputs, *self.form.slots) if name not in banned)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The names that a statement may assign."""
        return (*self.form.slots, *self.form.temporaries)

    @cached_property
    def _checks(self) -> list[Check]:
        return [*limit_checks(self.limits), *(structural(text) for text in self.constraints if text not in BEHAVIOURAL)]

    def problem(self, genome: Genome) -> str:
        """Why a genome is not in the space, as the end of "it …"; empty where it is."""
        if len(genome) > self.limits.statements:
            return f"has {len(genome)} statements; at most {self.limits.statements} are allowed"
        if codes(genome, self.form) is None:
            return untyped(genome, self.form)
        for check in self._checks:
            if problem := check(genome, self.form):
                return problem
        return self.filled.problem(genome) if self.filled is not None else ""

    def holds(self, genome: Genome) -> bool:
        """Whether a genome is in the space: `problem`, without words."""
        if len(genome) > self.limits.statements or codes(genome, self.form) is None:
            return False
        for check in self._checks:
            if check(genome, self.form):
                return False
        return self.filled is None or not self.filled.problem(genome)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and texts."""
        return asdict(self) | {"seeds": [to_text(seed) for seed in self.seeds]}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Space:
        """Undoes `to_json`. Raises GenomeError."""
        form = kept["form"]
        low, high = kept["constants"]
        return cls(
            Form(tuple(form["slots"]), tuple(form["temporaries"]), form["scaled"]), dict(kept["functions"]), tuple(kept["names"]),
            (float(low), float(high)), kept["series"], kept["chance_of_constant"], Limits(**kept["limits"]), tuple(kept["constraints"]),
            tuple(map(from_text, kept["seeds"])), kept["template"],
        )  # fmt: skip


PRESETS: dict[str, Callable[[], dict[str, float]]] = {
    "default": _default_functions,
    "lion": lambda: {name: FUNCTIONS[name].weight or 0.1 for name in LION},
    "rich": lambda: {name: row.weight or 0.05 for name, row in FUNCTIONS.items()},
}


# ---------------------------------------------------------------------------------------------------- what cannot be


def _wrong_fields(space: Space) -> list[str]:
    found = []
    unknown = [name for name in (*space.functions, *space.limits.functions) if name not in FUNCTIONS]
    found += [f"there is no function `{name}`{_near(name)}; there are {', '.join(FUNCTIONS)}" for name in unknown]
    if not any(weight > 0 for weight in space.functions.values()):
        found.append("the set of functions is empty; give at least one a weight above 0, as in functions={'add': 1}")
    if any(not weight >= 0 or math.isinf(weight) for weight in space.functions.values()):
        found.append("weights of functions are finite numbers from 0")
    low, high = space.constants
    if not low <= high:
        found.append(f"no constant is from {low:g} to {high:g}; give the smaller bound first")
    if not 0 <= space.chance_of_constant <= 1:
        found.append(f"a chance of {space.chance_of_constant:g} is not from 0 to 1")
    limits = {"statements": space.limits.statements, "depth": space.limits.depth}
    low_limits = [(name, value) for name, value in limits.items() if value is not None and value < 1]
    found += [f"a limit of {value} {name} leaves no program; give at least 1" for name, value in low_limits]
    if UPDATE not in space.form.temporaries:
        found.append(f"`{UPDATE}`, which holds the update, must be among the temporaries")
    odd = [name for name in space.names if name not in space.form.inputs() and name != "lr"]
    found += [f"`{name}` is not an input; these are {', '.join(space.form.inputs())}" for name in odd]
    return found


def _near(name: str) -> str:
    near = did_you_mean(name, FUNCTIONS)
    return f": did you mean `{near}`?" if near else ""


_NAMED = {"once": "a function, as in `once sign`", "reads": "a name, as in `reads g`", "never": "a name, as in `never t`"}


def _wrong_constraints(space: Space) -> list[str]:
    found = []
    names = {*space.form.inputs(), *space.form.slots}
    for text in space.constraints:
        word, _, name = text.partition(" ")
        if text in ("elementwise", "no model values", *BEHAVIOURAL):
            continue
        if word not in _NAMED:
            known = ["elementwise", "no model values", *BEHAVIOURAL, "once F", "reads NAME", "never NAME"]
            found.append(f"there is no constraint `{text}`; choose from {', '.join(known)}")
        elif name not in (FUNCTIONS if word == "once" else names):
            found.append(f"`{text}`: {word} wants {_NAMED[word]}")
    return found


def _contradictions(space: Space) -> list[str]:
    both = sorted(_named(space, "reads") & _named(space, "never"))
    found = [f"`reads {name}` and `never {name}` exclude each other; drop one" for name in both]
    usable = [name for name, weight in space.functions.items() if weight > 0]
    too_far = {"elementwise": lambda f: not reach(f).elementwise, "no model values": lambda f: reach(f).over_model}
    for text, banned in too_far.items():
        if text in space.constraints and all(map(banned, usable)):
            found.append(f"no function of the space satisfies `{text}`; allow others or drop the constraint")
    if all(space.limits.functions.get(name) == 0 for name in usable):
        found.append("the limits allow no call of any function of the space; raise one of them")
    if space.limits.slots == 0 and _named(space, "reads") & set(space.form.slots):
        found.append("a limit of 0 slots and a constraint that reads one exclude each other; raise the limit")
    template = space.filled
    if template is not None:
        found += _template_problems(space, template)
    return found


def _named(space: Space, word: str) -> set[str]:
    return {text.partition(" ")[2] for text in space.constraints if text.startswith(f"{word} ")}


def _template_problems(space: Space, template: Template) -> list[str]:
    found = []
    if template.least > space.limits.statements:
        found.append(f"the template needs {template.least} statements, the limit is {space.limits.statements}; raise it")
    calls = Counter(statement.function for statement in template.fixed)
    limits = {**dict.fromkeys(_named(space, "once"), 1), **space.limits.functions}
    found += [f"the template calls `{f}` {calls[f]} times, the limit is {most}; raise it" for f, most in limits.items() if calls[f] > most]
    odd = sorted({s.target for s in template.fixed} - set(space.targets) - set(space.form.inputs()))
    found += [f"the template assigns `{name}`, which the form does not have; add it to its temporaries" for name in odd]
    return found


def _wrong_seeds(space: Space) -> list[str]:
    found = []
    low, high = space.constants
    for number, seed in enumerate(space.seeds, 1):
        if problem := space.problem(seed):
            found.append(f"seed {number} {problem}; it is\n{to_text(seed)}")
        free = [arg for s in seed if not s.frozen for arg in s.args if isinstance(arg, float)]
        outside = [c for c in free if not low <= c <= high]
        found += [f"seed {number} has the constant {c:g}, which is not from {low:g} to {high:g}; widen the range" for c in outside]
    return found
