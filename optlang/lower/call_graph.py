"""What a definition calls, directly or not, and what follows from that: whether it remembers, draws, and by which names."""

from __future__ import annotations

from collections.abc import Iterable

from optlang import ops
from optlang.errors import Span
from optlang.front import syntax
from optlang.front.walk import blocks_of, calls_of
from optlang.lower.modules import Definition, Module


def _called(item: Definition, module: Module) -> tuple[str, ...]:
    """The names that a definition of a module calls itself."""
    if isinstance(item, syntax.Route):
        return ()
    if id(item) not in module.called:
        module.called[id(item)] = tuple(dict.fromkeys(call.func for _, call in calls_of(item.body)))
    return module.called[id(item)]


def reached(item: Definition, module: Module) -> list[tuple[Definition, Module]]:
    """A definition and all that it calls, directly or not, each with its module."""
    found: dict[int, tuple[Definition, Module]] = {}
    waiting = [(item, module)]
    while waiting:
        item, module = waiting.pop()
        if id(item) not in found:
            found[id(item)] = item, module
            waiting.extend(filter(None, map(module.find, _called(item, module))))
    return list(found.values())


def any_memory(item: Definition, module: Module) -> bool:
    """Whether a definition keeps state or hypers of its own between steps, directly or through what it calls."""
    if "memory" not in (known := module.facts.setdefault(item.name, {})):
        known["memory"] = any(_remembers(x) for x, _ in reached(item, module))
    return known["memory"]


def _remembers(item: Definition) -> bool:
    return isinstance(item, syntax.Rule) or (isinstance(item, syntax.Def) and _declares_state(item.body))


def is_pure(item: Definition, module: Module) -> bool:
    """Whether a definition has neither memory nor random draws: the same arguments then give the same value."""
    if "pure" not in (known := module.facts.setdefault(item.name, {})):
        draws = any(not ops.DRAWS.keys().isdisjoint(_called(x, home)) for x, home in reached(item, module) if isinstance(x, syntax.Def))
        known["pure"] = not any_memory(item, module) and not draws
    return known["pure"]


def instances_of(body: Iterable[syntax.Statement], module: Module) -> dict[Span, str]:
    """A name for every call with memory, by the place of the call: checkpoints are read by these names."""
    names: dict[Span, str] = {}
    taken: set[str] = set()
    last: dict[str, int] = {}
    for holder, call in calls_of(body):
        found = module.find(call.func)
        if found is not None and any_memory(*found):
            name = base = holder or call.func
            number = last.get(base, 1)
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            names[call.func_span], last[base] = name, number
            taken.add(name)
    return names


def _declares_state(body: Iterable[syntax.Statement]) -> bool:
    """States of a `repeat` are loop variables and do not count."""
    for statement in body:
        if isinstance(statement, syntax.State):
            return True
        if not isinstance(statement, syntax.Repeat) and any(_declares_state(inner) for inner in blocks_of(statement)):
            return True
    return False
