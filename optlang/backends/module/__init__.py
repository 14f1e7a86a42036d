"""The module backend: a standalone, readable Python module with a `torch.optim.Optimizer`, which needs torch alone.

Nothing of a `.opt` file enters the text but printed numbers, identifiers made safe, and quoted or escaped text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from optlang import __version__, ir
from optlang.analysis.constant_conditions import without_constant_conditions
from optlang.analysis.live_states import without_dead
from optlang.backends.module.capturing import for_graphs, partable
from optlang.backends.module.exposure import with_states
from optlang.backends.module.helpers import HELPERS, imports_for, named_at_once, used_by
from optlang.backends.module.kernel import jitted, why_none
from optlang.backends.module.layout import documentation
from optlang.backends.module.leaves import RESERVED
from optlang.backends.module.loops import Relower, of_case, rolled
from optlang.backends.module.route import WORDS, front
from optlang.backends.module.scene import Role, TooDeep
from optlang.backends.module.weighted import weighted
from optlang.backends.module.writer import Writer
from optlang.ir import Program, Routing
from optlang.ops import CALLS
from optlang.plan import is_gathering, refuses_others, sees_all
from optlang.printing.identifiers import Names

Baked = Mapping[str, Any]


def generate(what: Program | Routing, baked: Baked | None = None, relower: Relower | None = None, triton: bool = False) -> str:
    """The text of a module for a rule, or for a route with the rules that it uses.

    `baked`: the values that shaped the program, where not the defaults. `relower(baked)` gives the program for other such
    values; with it, the length of a loop may stay a hyper. `triton`: with a kernel for each rule that goes element by element. Raises
    ValueError with the reason for what `refuses` refuses, and where a kernel is wanted and no rule can have one.
    """
    if isinstance(what, Routing):
        return generate_routing(what, baked, relower, triton)
    _check(what)
    name = Names(RESERVED).fresh(what.name)
    return _module(name, what.doc, [_class(_with_defaults(what, baked or {}), name, relower, "alone", triton)], triton=triton)


def generate_routing(routing: Routing, baked: Baked | None = None, relower: Relower | None = None, triton: bool = False) -> str:
    """The text of a module for a route: a class for each rule, and one that sends parameters to them."""
    names = Names((*RESERVED, *WORDS))
    name = names.fresh(routing.name)
    classes = [names.fresh(case.program.name) for case in routing.cases]
    roles = [_role(case.program, len(routing.cases)) for case in routing.cases]
    writers = []
    for place, (case, cls) in enumerate(zip(routing.cases, classes, strict=True)):
        _check(case.program, roles[place])
        prefix = f"{case.program.name}."
        own = {key.removeprefix(prefix): value for key, value in (baked or {}).items() if key.startswith(prefix)}
        shaped = _with_defaults(case.program, {**case.settings, **own})
        writers.append(_class(shaped, cls, of_case(relower, place, prefix), roles[place], triton))
    return _module(name, routing.doc, writers, [front(routing, name, writers)], triton)


def _role(program: Program, count: int) -> Role:
    """How a rule takes part in the steps of a route of so many rules."""
    program = without_dead(program)
    if count > 1 and (why := refuses_others(program)):
        raise ValueError(f"{program.name} cannot be a rule of a route: {why}")
    waits = sees_all(program) or any(program.uses(op) for op in CALLS)
    return "looking around" if count > 1 and waits else "in a route"


def _with_defaults(program: Program, baked: Baked) -> Program:
    """Hypers that were given another value start from it."""
    return replace(program, hypers=tuple(h._replace(default=baked.get(h.name, h.default)) for h in program.hypers))


def _class(program: Program, name: str, relower: Relower | None, role: Role, triton: bool) -> Writer:
    """The class of a rule; choices by numbers of the step are parted into two sides where each only says what states become."""
    for several in (True, False):
        if partable(without_constant_conditions(program), several):
            as_written = partial(_as_written, several=several)
            probe = _written(program, name, relower, role, triton, as_written)
            if probe.text() and not probe.update.chooses:
                return _written(program, name, relower, role, triton, as_written)
    return _written(program, name, relower, role, triton, _as_written)


def _as_written(program: Program, several: bool | None = None) -> Program:
    program = without_constant_conditions(program)
    return for_graphs(program, () if several is None else partable(program, several))


def _written(
    program: Program, name: str, relower: Relower | None, role: Role, triton: bool, as_written: Callable[[Program], Program]
) -> Writer:
    def again(baked: dict[str, Any]) -> Program | Routing:
        assert relower is not None
        what = relower(baked)
        return what if isinstance(what, Routing) else as_written(what)

    live = without_dead(program)
    program = as_written(program)
    short, loops, counts = rolled(as_written(live), None if relower is None else again)
    short, sums = weighted(short)
    names = Writer(program, short, name, {**loops, **sums}, counts, role).exposed()
    return Writer(with_states(program, names), with_states(short, names), name, {**loops, **sums}, counts, role, live, triton)


def _module(name: str, doc: str, writers: Sequence[Writer], more: Sequence[str] = (), triton: bool = False) -> str:
    """Imports, the classes, and what their methods call; before them only what Python must know when it meets them."""
    about = f"{name}: {doc}" if doc else name
    kernels = [writer.kernel for writer in writers if writer.kernel is not None]
    if triton and not kernels:
        why = why_none(writers[0].update)
        raise ValueError(f"{name} has no kernel for one parameter alone: {why}: leave `triton` out for a module without one")
    body = "\n\n\n".join([*(writer.text() for writer in writers), *more, *[jitted(kernels)] * bool(kernels)])
    called = used_by(body)
    first = [helper for helper in called if helper in named_at_once(body)]
    texts = {helper: HELPERS[helper].strip("\n") for helper in called}
    code = "\n\n\n".join([*map(texts.pop, first), body, *texts.values()])
    needed = "torch, and Triton for its kernel on a GPU" if kernels else "torch alone"
    head = f'"""{documentation(textwrap.shorten(about, 1000))}\n\nGenerated by optlang {__version__} from a rule; needs {needed}.\n"""\n'
    imports = "\n".join(imports_for(code))
    return f"{head}\n{imports}\n\n\n{code}\n"


# -------------------------------------------------------------------------------------------------------- refusals


def _check(program: Program, role: Role = "alone") -> None:
    reason = refuses(program, role)
    if reason:
        raise ValueError(f"{program.name} cannot be written as a module: {reason}")


def refuses(program: Program, role: Role = "alone") -> str:
    """Why a program cannot be written as a module, or an empty string."""
    if program.unreadable:
        return f"{program.unreadable}; the torch backend runs it"
    starts = [s.name for s in program.states if any(is_gathering(n) for n in ir.walk([s.init]))]
    if starts:
        return f"its state `{starts[0]}` starts from a value of several parameters, before they are collected; let it start from a number"
    if program.evaluation is not None and _needs_others(program):
        return "its `eval` reads values per group or model; keep them in a state per tensor"
    try:
        Writer(program, without_dead(program), "Rule", {}, {}, role).text()
    except TooDeep:
        return "its blocks are nested more deeply than Python allows"
    return ""


def _needs_others(program: Program) -> bool:
    assert program.evaluation is not None
    nodes = ir.walk([program.evaluation])
    return any(n.op in CALLS or n.type.extent.level in ("group", "model") for n in nodes)
