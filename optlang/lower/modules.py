"""Files as modules: which rules, functions and routes a file defines, and what it imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from optlang import library, ops
from optlang.errors import MOST_FINDINGS, Diagnostic, OptError, Source, Span, did_you_mean
from optlang.front import parser, syntax
from optlang.front.foreign import LIBRARIES, NOT_HERE, SAID_HERE
from optlang.lower.context import IMPLICIT

Definition = syntax.Rule | syntax.Def | syntax.Route

RESERVED = frozenset([*IMPLICIT, "loss", "true", "false", "dtype", "named", *ops.CALLS, *ops.CONSTANTS, *ops.FACTS])


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
