"""The programs of an optimizer: one, or those of a route; each is compiled once for each value of the settings that shape it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from optlang import ir
from optlang.analysis.live_states import without_dead
from optlang.backends import NAMES, backend
from optlang.backends.base import Executable, Math
from optlang.backends.cache.programs import simplified
from optlang.backends.formats import Storage
from optlang.backends.overflow import guarded
from optlang.backends.torch import TorchExecutable
from optlang.errors import did_you_mean
from optlang.ops import ASKING, CALLS
from optlang.plan import refuses_others, sees_all
from optlang.printing.fingerprint import fingerprint_of, text_of
from optlang.runtime import precision
from optlang.runtime.distributed.sharded import reduces
from optlang.runtime.groups.naming import Naming
from optlang.runtime.groups.settings import Settings
from optlang.runtime.steps import captured

Relower = Callable[[dict[str, Any]], "ir.Program | ir.Routing"]
MATH = ("safe", "strict", "fast")
Guard = Literal["found", "scaled"] | None  # whether gradients may have overflowed, and whether they are still scaled


class CompileOptions(NamedTuple):
    """How rules are compiled: where, how freely, and in which formats states, weights and products are (see `precision`)."""

    backend: str = "auto"
    math: Math = "safe"
    state: precision.Asked = None
    weights: str = "nearest"
    products: str = "fp32"

    def storage(self, program: ir.Program) -> Storage:
        return precision.storage(program, self.state, self.weights, self.products)

    def compiled(self, program: ir.Program, guard: Guard = None, parts: bool = False) -> Executable:
        wanted = program if guard is None else guarded(program, guard == "scaled")
        if parts:
            return TorchExecutable(simplified(wanted, self.math), parts=True)
        return backend(self.backend).compile(wanted, self.math, self.storage(program))

    @property
    def is_plain(self) -> bool:
        return not self.state and self.weights == "nearest"

    def __str__(self) -> str:
        state = ", ".join(f"{name} {form}" for name, form in self.state.items()) if isinstance(self.state, Mapping) else self.state
        kept = [f"state {state}"] if state else []
        kept += [f"weights {self.weights}"] if self.weights != "nearest" else []
        kept += [f"products {self.products}"] if self.products != "fp32" else []
        return ", ".join([f"backend {self.backend}", f"{self.math} math", *kept])


class Case:
    """One program with its settings. `label` names it in the groups of a route and is empty for a rule alone."""

    def __init__(
        self, label: str, case: ir.Case, place: int, options: CompileOptions, relower: Relower, as_betas: bool = False
    ) -> None:
        self.label, self.condition, self.program = label, case.condition, without_dead(case.program)
        self.dropped = {s.name for s in case.program.states} - {s.name for s in self.program.states}  # nothing reads them
        self.settings = Settings(case.program.name, case.program.hypers, case.settings, as_betas)
        self.baked = [h.name for h in case.program.hypers if h.baked]
        self.shared = {level: [s.name for s in self.program.states if s.type.extent.level == level] for level in ("group", "model")}
        self.sees_all = bool(label) and sees_all(self.program)
        self.asks = {op for op in (*ASKING, "random") if self.program.uses(op)}
        self._place, self._options, self._relower = place, options, relower
        self.options = str(options)
        self._programs: dict[tuple[Any, ...], ir.Program] = {self._key(self.settings.defaults): self.program}
        self._executables: dict[tuple[Any, ...], Executable] = {}
        self._moved: dict[tuple[Any, ...], str] = {}
        self._identities: dict[tuple[Any, ...], tuple[str, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For cloudpickle, which sends classes by their contents: what steps is made anew where it arrives."""
        return {**self.__dict__, "_executables": {}}

    def _key(self, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(hypers[name] for name in self.baked)

    def shaped(self, hypers: Mapping[str, Any]) -> ir.Program:
        """The program for these values of the hypers that shape it."""
        key = self._key(hypers)
        if key not in self._programs:
            prefix = f"{self.program.name}." if self.label else ""
            found = self._relower({prefix + name: value for name, value in zip(self.baked, key, strict=True)})
            self._programs[key] = without_dead(found.cases[self._place].program if isinstance(found, ir.Routing) else found)
        return self._programs[key]

    def executable(
        self, hypers: Mapping[str, Any], differentiable: bool = False, guard: Guard = None, parts: bool = False
    ) -> tuple[tuple[Any, ...], Executable]:
        """What steps such parameters, with a key that tells one shape from another. `guard`: gradients may have overflowed;
        `parts`: other processes hold the rest of some parameters."""
        parts = parts and self.reduces
        key = (*self._key(hypers), differentiable, guard, parts)
        if key not in self._executables:
            program = self.shaped(hypers)
            self._executables[key] = _differentiable(program) if differentiable else self._options.compiled(program, guard, parts)
        return (self.label, *key), self._executables[key]

    def moved(self, hypers: Mapping[str, Any]) -> str:
        """What changes where the gradient is 0, for hypers that are 0 or shape what is computed; see `still`."""
        decided = {h.name: hypers[h.name] for h in self.program.hypers if h.kind != "real" or hypers[h.name] == 0}
        key = tuple(decided.items())
        if key not in self._moved:
            from optlang.analysis.zero_gradient import moved  # noqa: PLC0415 - of sparse gradients alone

            self._moved[key] = moved(self.shaped(hypers), decided)
        return self._moved[key]

    def compiled(self, program: ir.Program) -> Executable:
        """Another program for the same states, as the rule is."""
        return self._options.compiled(program)

    def identity(self, group: Mapping[str, Any]) -> tuple[str, str]:
        """The fingerprint and the equations of the program for the settings of a group, or for the defaults where they are wrong."""
        try:
            hypers: Mapping[str, Any] = self.settings.read(dict(group), "")
        except (TypeError, ValueError):
            hypers = self.settings.defaults
        key = self._key(hypers)
        if key not in self._identities:
            program = self.shaped(hypers)
            self._identities[key] = fingerprint_of(program), text_of(program)
        return self._identities[key]

    @cached_property
    def reduces(self) -> bool:
        """Whether a part of a parameter needs more than its own elements."""
        return reduces(self.program)

    @cached_property
    def waits(self) -> str:
        """Why the host must take part in a step; empty where it need not."""
        return "the reference computes on the host" if self._options.backend == "reference" else captured.refuses(self.program)

    def check_capturable(self) -> None:
        """Raises ValueError for a rule that needs the host in the middle of a step."""
        if self.waits:
            raise ValueError(f"{self.program.name} cannot be capturable: {self.waits}. Leave capturable=False and step outside of graphs; "
                             "set it back if it was torch.compile that set it: on a GPU it does, where it compiles what reads "
                             "`param_groups`")  # fmt: skip

    def check_weights(self, named: Sequence[tuple[str, Any]]) -> None:
        """Raises ValueError for parameters whose number type the format of weights is not for."""
        precision.check_weights(self._options.weights, named)

    @property
    def keeps_float32(self) -> bool:
        return self._options.is_plain

    def storage(self, hypers: Mapping[str, Any]) -> Storage:
        """How the states of parameters with such hypers are stored."""
        return self._options.storage(self.shaped(hypers))

    def is_shared(self, state: str) -> bool:
        """Whether parameters share it: a state per group or model."""
        return any(state in names for names in self.shared.values())

    def check_together(self, settings: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> None:
        """Raises ValueError where groups differ in what must be one for all of them."""
        self._check_shapes(settings)
        if "random" in self.asks and len(seeds := {group.get("seed", 0) for group in groups}) > 1:
            raise ValueError(f"{self.program.name}: groups have the seeds {', '.join(map(str, seeds))}; one seed serves all of them")
        if self.asks & {"loss", "loss_at"} and len({group.get("maximize", False) for group in groups}) > 1:
            raise ValueError(f"{self.program.name} reads the loss, which cannot be maximized by one group and minimized by another")

    def _check_shapes(self, settings: Sequence[Mapping[str, Any]]) -> None:
        if len(settings) < 2 or not self.baked or len({self._key(hypers) for hypers in settings}) < 2:
            return
        whole = _values_of_all(self.program)
        if whole:
            names = [name for name in self.baked if len({hypers[name] for hypers in settings}) > 1]
            raise ValueError(
                f"{self.program.name} has {whole}, so all groups need the same {', '.join(names)}, which shapes the program"
            )


def _differentiable(program: ir.Program) -> Executable:
    from optlang.runtime.steps.differentiable import Differentiable  # noqa: PLC0415 - only who learns settings pays for it

    return Differentiable(program)


def cases_of(what: ir.Program | ir.Routing, relower: Relower, options: CompileOptions) -> list[Case]:
    """The cases of a rule or route. Raises ValueError for an unknown backend or format, or a program that the backend refuses."""
    chosen = _checked_backend(options.backend)
    if options.math not in MATH:
        raise ValueError(f"there is no math {options.math!r}: choose one of {', '.join(MATH)}")
    written = list(what.cases) if isinstance(what, ir.Routing) else [ir.Case(None, what, {})]
    for case in written:
        _refuse(case.program, chosen, len(written) > 1)
    precision.check(what.name, [without_dead(case.program) for case in written], options.state, options.weights, options.products, chosen)
    labels = _labels([case.program.name for case in written]) if isinstance(what, ir.Routing) else [""]
    as_betas = len(written) > 1 and any(Naming(h.name for h in case.program.hypers).pair for case in written)
    return [Case(label, case, place, options, relower, as_betas) for place, (label, case) in enumerate(zip(labels, written, strict=True))]


def _checked_backend(name: str) -> str:
    if name not in NAMES:
        near = did_you_mean(str(name), NAMES)
        advice = f"did you mean {near!r}?" if near else f"choose one of {', '.join(NAMES)}"
        raise ValueError(f"there is no backend {name!r}: {advice}")
    return name


def _refuse(program: ir.Program, chosen: str, in_route: bool) -> None:
    reason = backend(chosen).refuses(program)
    if reason:
        raise ValueError(f"the backend {chosen!r} cannot run {program.name}: {reason}")
    if in_route and (why := refuses_others(without_dead(program))):
        raise ValueError(f"{program.name} cannot be a rule of a route: {why}")


def _has_values_per_model(program: ir.Program) -> bool:
    return any(node.type.extent.level == "model" and node.op not in ("loss", "loss_at") for node in ir.walk(program.roots()))


def _values_of_all(program: ir.Program) -> str:
    """What a program computes that needs all of its parameters at once."""
    if _has_values_per_model(program):
        return "values per model"
    return next((what for op, what in CALLS.items() if program.uses(op)), "")


def _labels(names: list[str]) -> list[str]:
    from optlang.printing.identifiers import numbered  # noqa: PLC0415 - of routes alone

    labels: list[str] = []
    for name in names:
        labels.append(numbered(name, labels))
    return labels
