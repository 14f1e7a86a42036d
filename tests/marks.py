"""Marks of rules in the records in docs: a rule whose equations, defaults or route have changed since is asked anew, and where it
matters what steps it, one whose code has changed (see `records`).

Code of kernels is what a compiler sees of it: neither comments nor functions that nothing calls.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from stepping import two_steps

import optlang
from optlang.backends.cpp import kernels
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.kernels import build
from optlang.backends.kernels import functions as kernel_functions
from optlang.backends.torch import functions
from optlang.backends.torch.code import CellCode
from optlang.backends.triton.building import OPTIONS
from optlang.backends.triton.kernels import TritonFunctions
from optlang.ir import Case, Routing
from optlang.printing.fingerprint import fingerprint_of


@cache
def mark_of(rule: str) -> str:
    """Eight digits that stand for a rule of the library, or of a text, as it is now."""
    made = optlang.Rule(rule).program
    cases = made.cases if isinstance(made, Routing) else (Case(None, made, {}),)
    said = [(repr(c.condition), sorted(c.settings.items()), fingerprint_of(c.program), [(h.name, h.default) for h in c.program.hypers])
            for c in cases]  # fmt: skip
    return sha256(repr(said).encode()).hexdigest()[:8]


def changed(rules: Iterable[str], marks: Mapping[str, str]) -> list[str]:
    """The rules that a record does not have as they are now."""
    return [rule for rule in rules if marks.get(rule) != mark_of(rule)]


# ------------------------------------------------------------------------------------------------------------------- code

SHAPES = [(90, 110), (9000,)]
BACKENDS = Path(optlang.__file__).parent / "backends"


@cache
def code_of(rule: str, backend: str) -> str:
    """Eight digits that stand for the texts by which a backend would take two steps of a rule in float32, and for what these call;
    those of `options` for what is tried with a kernel that spills."""
    if backend == "options":
        return _digits(OPTIONS)
    texts = [_module(rule)] if backend == "module" else sorted(_texts(rule)[backend])
    if backend == "cpp":
        return _digits([_bare(text) for text in texts])
    if backend == "triton":
        return _digits((texts, [_called(texts, BACKENDS / "triton" / name) for name in ("prelude.py", "storage.py")], OPTIONS[0]))
    beside = [_called(texts, BACKENDS / "torch" / "ops.py")] if backend == "torch" else []
    return _digits((texts, beside, ()))


def _digits(what: Any) -> str:
    return sha256(repr(what).encode()).hexdigest()[:8]


def _bare(text: str) -> str:
    """C++ without comments, indentation and empty lines."""
    lines = (re.sub(r"//.*", "", line).strip() for line in text.splitlines())
    return "\n".join(filter(None, lines))


def _called(texts: Iterable[str], path: Path) -> list[str]:
    """The definitions of a file that texts name, or that such definitions do, in its order and without their docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    made = {ast.unparse(one): _defined(one) for one in tree.body}
    found: set[str] = set()
    words = _words(texts)
    while new := {text for text, names in made.items() if text not in found and names & words}:
        found |= new
        words |= _words(new)
    return [text for text in made if text in found]


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement of a file defines; of one with others inside all of theirs."""
    nodes = [statement] if isinstance(statement, ast.FunctionDef) else list(ast.walk(statement))
    named = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    imported = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    return named | imported | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text)}


@cache
def _texts(rule: str) -> dict[str, set[str]]:
    """Of kernels in C++ and Triton, and of the functions for torch, which takes the steps."""
    found: dict[str, set[str]] = {"cpp": set(), "torch": set(), "triton": set()}
    cpp, make, write = CppFunctions(), TritonFunctions.made, functions.generate

    def library(text: str, **flags: Any) -> SimpleNamespace:
        found["cpp"].add(text)
        return SimpleNamespace(step=None)

    def made(self: TritonFunctions, bound: Any, outputs: Any) -> None:
        cpp.made(bound, outputs)
        loaded = make(self, bound, outputs)
        found["triton"] |= {loaded.kernel.text} if loaded is not None else set()

    def generate(*given: Any, **named: Any) -> CellCode:
        code = write(*given, **named)
        found["torch"].add(code.text)
        return code

    with (
        mock.patch.multiple(TritonFunctions, made=made, fits=lambda self, bound: True),
        mock.patch.object(functions, "generate", generate),
        mock.patch.object(kernel_functions, "kept_code", lambda make, *_: make()),
        mock.patch.object(kernels, "build", SimpleNamespace(library=library, NoCompiler=build.NoCompiler)),
    ):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            make_class, given = optlang.load(rule, backend="triton")._origin  # type: ignore[attr-defined]
            two_steps(make_class.__wrapped__(*given), SHAPES)  # one that has written nothing yet
        finally:
            torch.set_default_dtype(before)
    return found


def _module(rule: str) -> str:
    """The text of a rule's module; of a rule without one the reason."""
    try:
        return optlang.build(rule)
    except ValueError as problem:
        return str(problem)
