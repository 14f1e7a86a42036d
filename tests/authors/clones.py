"""What is needed of clones of repositories: their classes and functions, without what they import."""

from __future__ import annotations
import __future__

import ast
import contextlib
import copy
import functools
import logging
import math
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

KNOWN: dict[str, Any] = {  # what the files would import
    **{name: __import__(name) for name in ("copy", "math", "torch", "warnings")},
    **{name: getattr(typing, name) for name in ("Any", "Callable", "Dict", "Iterable", "List", "Optional", "Tuple", "Union")},
    "np": np, "th": torch, "nn": torch.nn, "optim": torch.optim, "F": torch.nn.functional, "Optimizer": Optimizer, "Tensor": Tensor,
    "reduce": functools.reduce, "deepcopy": copy.deepcopy, "dataclass": dataclass, "abstractmethod": lambda f: f, "ABC": object,
    "required": None, "ParamsT": Any, "DTensor": type(None), "Trainer": object, "wandb": SimpleNamespace(), "adamw_update": None,
    "lion_update": None, "require_version": lambda text: None, "_dispatch_sqrt": math.sqrt,
    "has_parameter_data": lambda p: True,
    "dist": SimpleNamespace(is_initialized=lambda: False, get_world_size=lambda: 1, get_rank=lambda: 0, all_gather=lambda **parts: None),
    "partial": functools.partial, "struct": SimpleNamespace(dataclass=dataclass),
    "jnp": np, "onp": np, "lax": SimpleNamespace(max=np.maximum, min=np.minimum, square=np.square), "OptimizerDef": SimpleNamespace,
    "cast": typing.cast, "ClassVar": typing.ClassVar, "logging": logging, "logger": logging.getLogger("theirs"),
    **{name: getattr(sys.modules[Optimizer.__module__], name) for name in (
        "_default_to_fused_or_foreach", "_disable_dynamo_if_unsupported", "_get_value", "_get_scalar_dtype", "_use_grad_for_differentiable",
    )},
    "LambdaLR": torch.optim.lr_scheduler.LambdaLR, "parameters_to_vector": torch.nn.utils.parameters_to_vector,
    "random": SimpleNamespace(split=lambda key, n: [key] * n, permutation=lambda key, n: np.arange(n),
                              rademacher=lambda key, shape: np.ones(shape)),
}  # fmt: skip


def repository(name: str) -> Path:
    place = FOLDER / name.replace("/", "+")
    return next(p for p in (place / "repo" / ".git", place / "repo", place / ".git", place) if (p / "HEAD").exists())


def git(name: str, *words: str) -> str:
    return subprocess.run(["git", f"--git-dir={repository(name)}", *words], check=True, capture_output=True, text=True).stdout


def revision(name: str, at: str = "HEAD") -> str:
    return git(name, "rev-parse", at).strip()


def classes(name: str, files: Iterable[str], at: str = "HEAD", more: Mapping[str, Any] | None = None) -> SimpleNamespace:
    """The classes and functions of files, without what the files import. `more`: what that would be, beside what is known here."""
    known = {**KNOWN, **(more or {})}
    for file in files:
        tree = ast.parse(git(name, "show", f"{at}:{file}"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                node.body = [part for part in node.body if not isinstance(part, ast.ImportFrom)]
            elif not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.List)):
                continue
            with contextlib.suppress(NameError), mock.patch.object(torch, "compile", lambda **how: lambda function: function):
                exec(compile(ast.Module([node], []), file, "exec", flags=__future__.annotations.compiler_flag), known)  # or it needs more
    return SimpleNamespace(**known)


def branch(name: str, file: str, choice: str) -> CodeType:
    """The part of a script that is run where an option has this value."""
    for node in ast.walk(ast.parse(git(name, "show", f"HEAD:{file}"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and ast.unparse(node.test.comparators[0]) == repr(choice):
            return compile(ast.Module(node.body, []), file, "exec")
    raise LookupError(f"{name}: {file} has no part for {choice}")


@contextlib.contextmanager
def given(function: Any, **names: Any) -> Iterator[None]:
    """Other meanings of names that a function of theirs finds around it."""
    with mock.patch.dict(function.__globals__, names):
        yield
