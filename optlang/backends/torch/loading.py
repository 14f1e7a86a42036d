"""Generated texts as functions."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import torch

from optlang.backends.torch import ops as torch_ops
from optlang.backends.torch.code import CellCode

Function = Callable[..., Any]


def load(code: CellCode, frees: bool = False) -> Function:
    """The function of a generated text. The text is ours: names in it are sanitized, numbers are printed numbers. `frees`: each
    value goes as soon as it has been used for the last time."""
    namespace: dict[str, Any] = {"torch": torch, "ops": torch_ops}
    text = ast.parse(code.text)
    if frees:
        _free(text)
    exec(compile(text, _filed(code), "exec"), namespace)
    function: Function = namespace[code.name]
    return function


def _filed(code: CellCode) -> str:
    """A file name under which Python finds the text: torch below 2.13 compiles functions without source as if all were one."""
    name = f"<optlang {code.name} {sha256(code.text.encode()).hexdigest()[:12]}>"
    linecache.cache[name] = (len(code.text), None, code.text.splitlines(keepends=True), name)
    return name


def _free(text: ast.Module) -> None:
    """Deletes names behind the statements that use them last."""
    [function] = text.body
    assert isinstance(function, ast.FunctionDef)
    body: list[ast.stmt] = []
    used: set[str] = {arg.arg for arg in function.args.args} | {"torch", "ops"}
    for statement in reversed(function.body):
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - used
        used |= names
        if names and not isinstance(statement, ast.Return):
            body.append(ast.Delete([ast.Name(name, ast.Del()) for name in sorted(names)]))
        body.append(statement)
    function.body = body[::-1]
    ast.fix_missing_locations(text)
