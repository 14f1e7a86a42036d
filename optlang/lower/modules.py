"""Files as modules: which rules, functions and routes a file defines, and what it imports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from optlang import library, ops
from optlang.errors import MOST_FINDINGS, Diagnostic, OptError, Source, Span, did_you_mean
from optlang.front import parser, syntax
from optlang.front.foreign import LIBRARIES, NOT_HERE, SAID_HERE

Definition = syntax.Rule | syntax.Def | syntax.Route

RESERVED = frozenset(["w", "g", "t", "loss", "true", "false", "dtype", "named", *ops.CALLS, *ops.CONSTANTS, *ops.FACTS])


@dataclass
class Module:
    """The definitions that a file can see, each with the module it was written in."""

    file: syntax.File
    own: dict[str, Definition] = field(default_factory=dict)
    seen: dict[str, tuple[Definition, Module]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    imports: dict[str, Module] = field(default_factory=dict)
    facts: dict[str, dict[str, bool]] = field(default_factory=dict)  # what is known of each definition
    called: dict[int, tuple[str, ...]] = field(default_factory=dict)  # the names that definitions call, by what these are

    def report(self, code: str, message: str, span: Span, pointer: str = "", help: str = "") -> None:
        self.diagnostics.append(Diagnostic(code, message, span, pointer, help, source=self.file.source))

    def find(self, name: str) -> tuple[Definition, Module] | None:
        """A rule, function or route visible under this name."""
        return self.seen.get(name)

    def names(self, *kinds: type) -> list[str]:
        return [name for name, (item, _) in self.seen.items() if isinstance(item, kinds)]


def read(file: syntax.File, loading: tuple[str, ...] = ()) -> Module:
    """The module of a parsed file, its imports resolved. Findings are in `diagnostics`, those of imported files left out."""
    module = Module(file)
    for item in file.items:
        if len(module.diagnostics) >= MOST_FINDINGS:
            break
        if isinstance(item, syntax.Import):
            _import(module, item, loading)
        else:
            _define(module, item)
    return module


def _define(module: Module, item: Definition) -> None:
    if item.name in RESERVED or item.name in ops.BUILTINS:
        what = "a reserved name" if item.name in RESERVED else "a builtin"
        module.report("N04", f"`{item.name}` is {what} and cannot be defined again", item.name_span, "choose another name")
    elif item.name in module.seen:
        module.report("N03", f"`{item.name}` is defined twice", item.name_span, "second definition",
                      "rename one of them; a file has one namespace for rules, functions, routes and imports")  # fmt: skip
    else:
        module.own[item.name] = item
        module.seen[item.name] = (item, module)


def _import(module: Module, item: syntax.Import, loading: tuple[str, ...]) -> None:
    if not item.module:  # it could not be read, which has been said
        return
    try:
        other = load(item.module, module.file.source, loading)
    except OptError as error:
        reason = error.diagnostics[0].message
        advice = "no library is needed: its functions are builtins, or in `std`" if item.module in LIBRARIES else error.diagnostics[0].help
        module.report("N08", f"cannot import from `{item.module}`: {reason}", item.module_span, "", advice)
        return
    module.imports[item.module] = other
    for name in item.names:
        if len(module.diagnostics) < MOST_FINDINGS:
            _bring(module, other, item.module, name)


def _bring(module: Module, other: Module, where: str, name: syntax.Name) -> None:
    found = other.own.get(name.id)
    if found is None:
        near = did_you_mean(name.id, other.own)
        advice = f"did you mean `{near}`?" if near else f"`optlang show {where}` prints what it holds"
        module.report("N08", f"`{where}` has no `{name.id}`", name.span, "not defined there", advice)
    elif name.id in module.seen:
        module.report("N03", f"`{name.id}` is defined twice", name.span, "already defined or imported")
    else:
        module.seen[name.id] = (found, other)


_read_already: dict[tuple[str, str], Module] = {}


def load(name: str, beside: Source, loading: tuple[str, ...] = ()) -> Module:
    """The module `name`: a file of the library, or one beside the importing file. Raises OptError."""
    source = library.find_import(name, beside)
    key = (source.name, source.text)
    if source.name in loading:
        raise library.problem("N08", f"the files import each other: {' -> '.join([*loading, source.name])}",
                              "move what both need into a third file")  # fmt: skip
    if key not in _read_already or not _is_as_it_was(_read_already[key], source):
        file, found = parser.parse(source)
        if any(d.severity == "error" for d in found):
            raise OptError(found)
        _read_already[key] = read(file, (*loading, source.name))
    return _read_already[key]


def _is_as_it_was(module: Module, source: Source) -> bool:
    """Whether what a module imported is what a source of the same text would import now."""
    try:
        return all(
            (found := library.find_import(name, source)) == other.file.source and _is_as_it_was(other, found)
            for name, other in module.imports.items()
        )
    except OptError:
        return False


def standard_names() -> list[str]:
    """What `std` defines, for advice about a missing import."""
    return list(load("std", Source("")).own)


def advice_about(name: str, module: Module) -> str:
    """What to do about the name of a rule or function that a file does not know."""
    if wanted := _of_library(name):
        return f"`{wanted}` is a rule of the library: begin the file with `from {wanted.lower()} import {wanted}`"
    if name in SAID_HERE:
        return f"write `{SAID_HERE[name]}`"
    if name in NOT_HERE:
        return NOT_HERE[name]
    if near := did_you_mean(name, [*ops.BUILTINS, *module.names(syntax.Rule, syntax.Def), *standard_names()]):
        return f"did you mean `{near}`?"
    return "define it, or import it with `from FILE import NAME`"


@cache
def _of_library(name: str) -> str | None:
    """The rule of the library with this name, in the library's letters."""
    known = load(name, Source("")).own if name.lower() in library.names() else {}
    return next((own for own, item in known.items() if own.lower() == name.lower() and isinstance(item, syntax.Rule)), None)


def calls_of(body: Iterable[syntax.Statement]) -> list[tuple[str, syntax.Call]]:
    """Every call below some statements in source order, each with the name of the equation that holds it ('' if primed)."""
    found: list[tuple[str, syntax.Call]] = []
    for statement in body:
        holder = statement.target.id if isinstance(statement, syntax.Equation) and not statement.target.primed else ""
        found.extend((holder, call) for call in _calls(expressions_of(statement)))
        for inner in blocks_of(statement):
            found.extend(calls_of(inner))
    return found


def expressions_of(statement: syntax.Statement) -> list[syntax.Expr]:
    """The expressions of a statement itself, those of its blocks left out."""
    match statement:
        case syntax.Hyper(default=default):
            return [default]
        case syntax.State(window=window, init=init, shape=shape):
            return [*([] if window is None else [window]), *(shape or ()), init]
        case syntax.Every(period=period, start=start):
            return [period] if start is None else [period, start]
        case syntax.When(condition=condition):
            return [condition]
        case syntax.Repeat(count=count):
            return [count]
        case syntax.Input():
            return []
        case _:
            return [statement.value]


def blocks_of(statement: syntax.Statement) -> list[tuple[syntax.Statement, ...]]:
    match statement:
        case syntax.Every(body=body, otherwise=otherwise) | syntax.When(body=body, otherwise=otherwise):
            return [body, otherwise]
        case syntax.Repeat(body=body):
            return [body]
        case _:
            return []


def parts(expr: syntax.Expr) -> list[syntax.Expr]:
    """The operands of a written expression, left to right."""
    match expr:
        case syntax.Binary(left=left, right=right):
            return [left, right]
        case syntax.Unary(value=value) | syntax.Transpose(value=value):
            return [value]
        case syntax.Call(args=args):
            return [arg.value for arg in args if arg.value is not None]
        case _:
            return []


def every_part(roots: Iterable[syntax.Expr]) -> list[syntax.Expr]:
    """All expressions below the roots, in source order."""
    found: list[syntax.Expr] = []
    stack = list(roots)[::-1]
    while stack:
        expr = stack.pop()
        found.append(expr)
        stack.extend(reversed(parts(expr)))
    return found


def _calls(roots: Iterable[syntax.Expr]) -> list[syntax.Call]:
    found = [e for e in every_part(roots) if isinstance(e, syntax.Call)]
    return sorted(found, key=lambda call: call.span.start)


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
