"""Rules as Python sees them: loaded from the library, a file or a text, and handed on to compiler and printers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang import library
from optlang.errors import Diagnostic, OptError, Source
from optlang.ir import Program, Routing
from optlang.resources import uncollected

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from optlang.backends.base import Math
    from optlang.compare.difference import Difference
    from optlang.compare.equivalence import Verdict
    from optlang.front.syntax import File
    from optlang.runtime.cases import CompileOptions


TEXT = "the text of a .opt file"


class Rule:
    """One rule or route, checked: its meaning as `program`, its printed forms, and the optimizers made from it.

    `what` is a library name, a path, or the text of a `.opt` file; `rule` names one of several. Raises OptError with every
    finding where the text is wrong.
    """

    def __init__(self, what: str | Path, rule: str | None = None) -> None:
        self._set(source_of(what), rule)

    @classmethod
    def from_source(cls, source: Source, rule: str | None = None) -> Rule:
        """A rule of a text that already has a name for messages."""
        made = cls.__new__(cls)
        made._set(source, rule)
        return made

    def _set(self, source: Source, rule: str | None) -> None:
        from optlang import diagnose, lower  # noqa: PLC0415 - a rule that an earlier process has kept is not read again

        source = library.pinned(source)
        whole: lower.Lowered = {}
        file, found = diagnose.read(source, lowered=whole)
        errors = [d for d in found if d.severity == "error"]
        if errors:
            raise OptError(errors)
        self.source = source
        self._file = file
        if not isinstance(rule, str | None):
            raise TypeError(f"`rule` is the name of a rule, not {type(rule).__name__}")
        self._item = lower.choose(file, _named_like_the_file(file) if rule is None else rule)
        self.program: Program | Routing = whole[self._item.name] if self._item.name in whole else self.lowered({})

    def lowered(self, baked: dict[str, Any]) -> Program | Routing:
        """The program for other values of the whole-number and truth hypers that shape it."""
        from optlang import lower  # noqa: PLC0415

        return lower.lower(self._file, self._item.name, baked)

    @property
    def name(self) -> str:
        return self._item.name

    @property
    def doc(self) -> str:
        """The text after the rule's name: as a rule its source."""
        return self._item.doc

    def optimizer(
        self, backend: str = "auto", math: Math = "safe", state: str | Mapping[str, str] | None = None, weights: str = "nearest",
        products: str = "fp32",
    ) -> type[Optimizer]:  # fmt: skip
        """A subclass of `torch.optim.Optimizer` named like the rule; see `load`."""
        from optlang.runtime import make_optimizer  # noqa: PLC0415 - torch is only imported when it is needed

        return make_optimizer(self.program, self.lowered, compile_options(backend, math, state, weights, products))

    def module(self, baked: Mapping[str, Any] | None = None, triton: bool = False) -> str:
        """The text of a Python module that needs torch alone. `baked`: values of the hypers that shape the program. `triton`: with a
        kernel in Triton, which steps parameters on a GPU, of rules that go element by element; ValueError where there is none."""
        from optlang.backends.module import generate  # noqa: PLC0415

        return generate(self.lowered(dict(baked)) if baked else self.program, baked, self.lowered, triton)

    def optax(self, baked: Mapping[str, Any] | None = None) -> str:
        """The text of a Python module with an `optax.GradientTransformation`, which needs jax and optax alone."""
        from optlang.backends.optax import generate  # noqa: PLC0415

        return generate(self.lowered(dict(baked)) if baked else self.program, baked, self.lowered)

    def latex(self) -> str:
        """The equations as LaTeX."""
        from optlang.printing.render import latex  # noqa: PLC0415

        return latex(self.program)

    def markdown(self) -> str:
        """A card: source, equations, hypers with their ranges, states."""
        from optlang.printing.render import markdown  # noqa: PLC0415

        return markdown(self.program)

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __repr__(self) -> str:
        return f"<Rule {self.name} of {self.source.name}>"


def compile_options(backend: str, math: Math, state: str | Mapping[str, str] | None, weights: str, products: str) -> CompileOptions:
    """How a rule is to be compiled; see `optlang.load`. Raises TypeError."""
    if not isinstance(state, str | Mapping | None):
        raise TypeError(f"`state` is a format, or formats by the names of states, not {type(state).__name__}")
    with uncollected():
        from optlang.runtime.cases import CompileOptions  # noqa: PLC0415 - torch is only imported when it is needed

    return CompileOptions(backend, math, state, weights, products)


def source_of(what: str | Path) -> Source:
    """A library name, a path or a text as a source. What has a brace or a line break is a text. Raises OptError, TypeError."""
    if isinstance(what, str) and any(mark in what for mark in "{\n"):
        return Source(what)
    return library.find(worded(what, f"a library name, a path or {TEXT}"))


def worded(what: object, wanted: str, *kinds: type) -> str:
    """What is given as a name, path or text. Raises TypeError for what is none of them."""
    if not isinstance(what, kinds or (str, os.PathLike)):
        given = what.__name__ if isinstance(what, type) else type(what).__name__
        decoded = "; `.decode()` makes text of bytes" if isinstance(what, bytes) else ""
        raise TypeError(f"{wanted} is wanted, not {given}{decoded}")
    return str(what)


def _named_like_the_file(file: File) -> str:
    """The rule that a file is named after; empty where there is none."""
    from optlang.front import syntax  # noqa: PLC0415

    stem = Path(file.source.name).stem.lower()
    return next((item.name for item in file.items if isinstance(item, syntax.Rule | syntax.Route) and item.name.lower() == stem), "")


def check(text: str, *, pedantic: bool = False, name: str = "<text>") -> list[Diagnostic]:
    """Every finding about the text of a `.opt` file; an empty list where there is none. `pedantic` adds lints."""
    from optlang import diagnose  # noqa: PLC0415

    return diagnose.diagnose(Source(worded(text, TEXT, str), name), pedantic)


def build(
    what: str | Path | Rule, rule: str | None = None, *, to: str = "module", baked: Mapping[str, Any] | None = None, triton: bool = False
) -> str:
    """Generated source text: `to="module"` is a standalone Python module, `to="optax"` one for JAX, `to="torch"` what the torch
    backend compiles.

    `what` is a library name, a path, the text of a rule or a Rule. `baked` gives the hypers that shape the program (the count of a
    `repeat`) other values than their defaults. `triton=True` puts a kernel into the module that steps parameters on a GPU in one pass,
    for rules that go element by element. Raises OptError, and ValueError for an unknown target, or where there is no such kernel.
    """
    found = what if isinstance(what, Rule) else Rule(what, rule)
    if baked is not None:
        _check_baked(found.program, baked)
    return generate(found, to, baked, triton)


def _check_baked(program: Program | Routing, baked: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError for what does not shape the program, and for values that a setting cannot have."""
    if not isinstance(baked, Mapping):
        raise TypeError(f"`baked` is values by the names of settings, not {type(baked).__name__}")
    several = [(f"{case.program.name}.", case.program) for case in program.cases] if isinstance(program, Routing) else [("", program)]
    shaping = {f"{prefix}{h.name}": h for prefix, one in several for h in one.hypers if h.kind != "real"}
    for name, value in baked.items():
        if name not in shaping:
            raise ValueError(f"{program.name} has no setting {name!r} that shapes it; those that may are: {', '.join(shaping) or 'none'}")
        hyper = shaping[name]
        if isinstance(value, bool) != (hyper.kind == "bool") or not isinstance(value, int):
            raise TypeError(f"{name} is a {'truth value' if hyper.kind == 'bool' else 'whole number'}, not {value!r}")
        if hyper.bounds is not None and not hyper.bounds.allows(hyper.name, value):
            raise ValueError(f"{name} = {value} is outside its range {hyper.bounds}")


def generate(rule: Rule, to: str, baked: Mapping[str, Any] | None = None, triton: bool = False) -> str:
    """Generated source text of a rule; see `build`."""
    if to == "module":
        return rule.module(baked, triton)
    if triton:
        raise ValueError(f"a kernel in Triton goes into a module, not into {to!r}: to='module', or leave `triton` out")
    if to == "optax":
        return rule.optax(baked)
    if to == "torch":
        from optlang.backends.torch.listing import source  # noqa: PLC0415

        return source(rule.lowered(dict(baked)) if baked else rule.program)
    raise ValueError(f"there is no target {to!r}: choose 'module', 'optax' or 'torch'")


def equivalent(a: Rule | str | Path, b: Rule | str | Path) -> Verdict:
    """Whether two rules take the same steps: proved by algebra, refuted by a counterexample, or open."""
    from optlang.compare.equivalence import equivalent as decide  # noqa: PLC0415

    return decide(*_programs(a, b))


def diff(a: Rule | str | Path, b: Rule | str | Path) -> Difference:
    """The second rule as the first one with changes, whatever their states are called, and whether both take the same steps.

    Raises OptError for a text that is wrong, ValueError for a route, of which the rules are compared one by one.
    """
    from optlang.compare.comparison import decided  # noqa: PLC0415

    return decided(*_programs(a, b))


def _programs(a: Rule | str | Path, b: Rule | str | Path) -> tuple[Program, Program]:
    return _program(a), _program(b)


def _program(what: Rule | str | Path) -> Program:
    found = (what if isinstance(what, Rule) else Rule(what)).program
    if isinstance(found, Routing):
        names = ", ".join(dict.fromkeys(case.program.name for case in found.cases))
        raise ValueError(f"{found.name} is a route: compare its rules one by one ({names})")
    return found
