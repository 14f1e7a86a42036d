"""Functions that a generated module carries along where its rule needs them, as text, by subject. Each needs torch alone."""

from __future__ import annotations

import ast
import re

from optlang.backends.module.helpers import (
    asking,
    company,
    drawing,
    elements,
    kernels,
    matrices,
    options,
    saved,
    spread,
    statistics,
    values,
)

HELPERS: dict[str, str] = {
    name: text
    for subject in (options, spread, saved, values, statistics, drawing, matrices, elements, company, asking, kernels)
    for name, text in subject.TEXTS.items()
}

NAMED = {"collections.abc": ("Callable", "Iterable", "Iterator"), "contextlib": ("ExitStack", "contextmanager"),
         "difflib": ("get_close_matches",), "fnmatch": ("fnmatchcase",), "hashlib": ("sha256",),
         "typing": ("Any",)}  # fmt: skip
TRITON = ["", "try:", "    import triton  # type: ignore", "    import triton.language as tl  # type: ignore"]
NO_TRITON = ["except ImportError:", "    triton = None"]
NEEDS = re.compile(r"(?<![\w.])_[A-Za-z]\w*")


def used_by(text: str) -> list[str]:
    """The helpers that a text calls, and those that they call, each after those that it needs."""
    found: list[str] = []
    waiting = _called(text)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            waiting.extend(other for other in _called(HELPERS[name]) if other != name)
    if "_same_batch" in found:
        found.append("_random_state")
    return [name for name in HELPERS if name in found]


def _called(text: str) -> list[str]:
    words = set(NEEDS.findall(text))
    words |= {"_random_state"} if "_set_random_state" in words else set()
    return [name for name in HELPERS if name in words]


def named_at_once(text: str) -> set[str]:
    """The names that Python looks up while it reads classes: of decorators, bases, annotations, defaults and what a class assigns."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            decorators, result = (node.decorator_list, node.returns) if isinstance(node, ast.FunctionDef) else ([], None)
            waiting += [*decorators, node.args, *([result] if result else [])]
        else:
            found.append(node)
            waiting += ast.iter_child_nodes(node)
    return {node.id for node in found if isinstance(node, ast.Name)}


def imports_for(text: str) -> list[str]:
    """The lines that import what a module of this text needs."""
    lines = [f"import {name}" for name in ("functools", "math", "sys", "warnings") if re.search(rf"(?<![\w.]){name}\.", text)]
    for module, words in NAMED.items():
        used = [word for word in words if re.search(rf"(?<![\w.]){word}\b", text)]
        lines += [f"from {module} import {', '.join(used)}"] * bool(used)
    fake = ["from torch._subclasses import FakeTensor"] * ("FakeTensor" in text)
    through = ["from torch.overrides import TorchFunctionMode", "from torch.utils._pytree import tree_leaves, tree_map"]
    through *= "_Through" in text
    triton = [*TRITON, *["    from triton.language.extra import libdevice  # type: ignore"] * ("libdevice." in text), *NO_TRITON]
    triton *= "@triton.jit" in text
    optimizer = ["from torch.optim import Optimizer", "from torch.optim.optimizer import ParamsT"]
    return [*lines, "", "import torch", *fake, *optimizer, *through, *triton]
