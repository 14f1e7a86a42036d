"""Numbers known before the step by one function of Python's own floats: the same numbers as NumPy's, several times as quick.

Functions of C's library are called where NumPy may round otherwise: generated C++ calls the same (see `numbers` of the backends).
Where mathematics leaves something undefined or too large, Python raises: whoever calls then asks NumPy, which has an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from optlang.ir import Node
from optlang.meaning import maps, number
from optlang.ops import ROWS
from optlang.type_rules import real

Array = Any  # numpy.ndarray
Function = Callable[..., tuple[float | bool, ...]]
NO_ANSWER = (ArithmeticError, ValueError)  # what Python raises where NumPy has NaN, an infinity, or an infinite whole number
OF_C = frozenset(row.name for row in ROWS if row.typing is real and hasattr(math, row.name))  # C's library has them by these names, too


def _of_c(name: str, otherwise: Callable[..., Array]) -> Callable[..., Array]:
    """An operator of single numbers as C's library rounds it, which generated C++ calls: NumPy's own may differ in the last bit."""
    function = getattr(math, name)

    def found(*args: Array) -> Array:
        try:
            return np.float64(function(*args))
        except NO_ANSWER:
            return otherwise(*args)

    return found


MAPS = {name: _of_c(name, function) if name in OF_C else function for name, function in maps().items()}
SPELLED = {  # exact, or rounded as IEEE 754 says, wherever it is computed
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}", "abs": "abs({0})", "sqrt": "sqrt({0})",
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}", "eq": "{0} == {1}", "ne": "{0} != {1}",
    "and": "{0} and {1}", "or": "{0} or {1}", "not": "not {0}", "where": "{1} if {0} else {2}", "branch": "{1} if {0} else {2}",
}  # fmt: skip


def function(order: Sequence[Node], wanted: Sequence[Node], given: Sequence[Node]) -> Function | None:
    """Takes the values of leaves in the order of `given`; gives those of `wanted`. `order`: all nodes, operands first. None where an
    operator is no map. Call it under `numpy.errstate(all="ignore")`."""
    if any(node.args and node.op not in SPELLED and node.op not in MAPS for node in order):
        return None
    names = {node: f"x{place}" for place, node in enumerate(order)}
    space: dict[str, Any] = {"sqrt": math.sqrt}
    lines = [f"{names[node]} = {'bool' if node.type.kind == 'bool' else 'float'}({names[node]})" for node in given]
    for node in order:
        if node.op == "const":
            space[names[node]] = number(node.value).item()
        elif node.args:
            text = SPELLED.get(node.op) or f"numpy_{node.op}({', '.join(f'{{{k}}}' for k in range(len(node.args)))}).item()"
            space |= {} if node.op in SPELLED else {f"numpy_{node.op}": MAPS[node.op]}
            lines.append(f"{names[node]} = {text.format(*(names[arg] for arg in node.args))}")
    lines.append(f"return ({''.join(f'{names[node]}, ' for node in wanted)})")
    exec(f"def found({', '.join(names[node] for node in given)}):\n" + "".join(f"    {line}\n" for line in lines), space)
    made: Function = space["found"]
    return made
