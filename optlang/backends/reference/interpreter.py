"""The values of expressions, straight from their definition: NumPy float64, one node at a time, only what is asked for.

Evaluation starts from what is wanted and puts what is missing on a stack. So a `branch` computes its condition and then
one side, a reduction `per model` waits for every parameter, and a deep expression needs no deep recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from optlang import meaning
from optlang.backends import arrays
from optlang.backends.base import Step, StepError
from optlang.backends.places import Place, Value, layout, pad, shape_of, spread
from optlang.backends.reference.leaves import leaf
from optlang.host import MAPS, Missing, combine
from optlang.ir import Node, fold, of_matrix, walk
from optlang.ops import CALLS, MATRIX_OPS
from optlang.types import Extent, runs

Wanted = tuple[Node, Place]


class Code:
    """What is known about the expressions of a program before any step."""

    def __init__(self, roots: Iterable[Node]) -> None:
        roots = list(roots)
        order = walk(roots)
        facts = fold(roots, lambda node, args: node.op == "fact" or any(args))
        self.uncertain = {node for node in order if facts[node]}  # may need a fact that a parameter does not have
        self.gathering = {node for node in order if _gathers(node)}
        self.matrices = set(filter(of_matrix, order))
        self.windowed = {node for node in order if node.op in MAPS and node.type.window}
        self.plain = {  # what is computed from operands at the same place, and their levels
            node: tuple((arg, arg.type.extent.level) for arg in node.args)
            for node in order
            if node.op != "branch" and node.op not in CALLS and node not in self.gathering
        }


def _gathers(node: Node) -> bool:
    """Whether a node reduces to one value per group or model."""
    return node.op in meaning.OVER_VALUES and isinstance(node.value, Extent) and node.value.level in ("group", "model")


class Run:
    """The values of one program's expressions in one step. Call it under `numpy.errstate(all="ignore")`."""

    def __init__(self, rule: str, code: Code, step: Step) -> None:
        self.rule, self.code, self.step = rule, code, step
        self.model = layout(step)

    def __call__(self, wanted: Sequence[Wanted]) -> list[Value]:
        """The values of expressions at places; those of a coarser extent come as they are. Raises StepError."""
        homes = [(node, place.at[node.type.extent.level]) for node, place in wanted]
        self._demand(homes)
        return [_known(place.values[node], place) for node, place in homes]

    def _demand(self, stack: list[Wanted]) -> None:
        stack = stack[::-1]
        plain = self.code.plain
        while stack:
            node, place = stack[-1]
            if node in place.values:
                stack.pop()
                continue
            if node in plain:
                needed = [(arg, place.at[level]) for arg, level in plain[node]]
            else:
                needed = self._needs(node, place)
            missing = [(n, p) for n, p in needed if n not in p.values]
            if missing:
                stack += missing
            else:
                stack.pop()
                self._settle(node, place, needed)

    def _needs(self, node: Node, place: Place) -> list[Wanted]:
        """What must be known before a node that is not plain."""
        if node.op == "branch":
            return [_next_of_branch(node, place)]
        values, *share = node.args
        if node.op in CALLS:
            return [at(values, p) for p in self.model.cells]
        return [(values, p) for p in place.reached(values.type.extent.level)] + [at(arg, place) for arg in share]

    def _settle(self, node: Node, place: Place, needed: list[Wanted]) -> None:
        """Computes a node whose operands are known. A call on the training loop answers for all parameters at once."""
        if node in self.code.matrices and len(place.shape) < 2:
            raise StepError(_not_a_matrix(node, place))
        if node.op in CALLS:
            points = [_known(p.values[n], p) for n, p in needed]
            answers = self._ask(node.op, points)
            if node.op == "loss_at":
                place.values[node] = answers[0]
                return
            for cell, answer in zip(self.model.cells, answers, strict=True):
                cell.values[node] = answer
        else:
            place.values[node] = self._value(node, place, needed)

    def _value(self, node: Node, place: Place, needed: list[Wanted]) -> Value:
        if not needed:
            return leaf(node, place, self.step, self.rule)
        args = [p.values[n] for n, p in needed]
        if node.op == "branch":
            lost = isinstance(args[0], Missing)
            return args[0] if lost else spread(args[0], needed[0][0].type, node.type, place.shape)
        if node.op in MAPS:
            if node in self.code.windowed:
                args = _aligned(node, args, place)
            return combine(node.op, args) if node in self.code.uncertain else MAPS[node.op](*args)
        args = [_known(p.values[n], p) for n, p in needed]
        if node.op in meaning.OVER_VALUES:
            return _reduced(node, args, place)
        return _STRUCTURAL[node.op](args, place)

    def _ask(self, op: str, points: list[Value]) -> list[Value]:
        """One pass over the model at a point given for every parameter of the step."""
        call = self.step.asked(op)
        if call is None:
            raise StepError(f"rule `{self.rule}` needs {CALLS[op]}; call `optimizer.step(closure)` with a closure that returns the loss")
        shapes = [p.shape for p in self.model.cells]
        spreads = [np.broadcast_to(x, shape) for x, shape in zip(points, shapes, strict=True)]
        given = [arrays.like(cell.weights, x) for cell, x in zip(self.step.cells, spreads, strict=True)]
        if op == "loss_at":
            return [arrays.read(call(given)).reshape(())]
        answers = call(given)
        found = [arrays.read(x) for x in answers]
        if [x.shape for x in found] != shapes:
            raise StepError(f"rule `{self.rule}`: `{op}` gave shapes {[x.shape for x in found]} for parameters of shapes {shapes}")
        return found


def at(node: Node, place: Place) -> Wanted:
    """Where the value of an expression that is needed at a place is known."""
    return node, place.at[node.type.extent.level]


def _next_of_branch(node: Node, place: Place) -> Wanted:
    """The condition; once it is known the side that it chooses, and never the other."""
    condition, home = at(node.args[0], place)
    if condition not in home.values or isinstance(home.values[condition], Missing):
        return condition, home
    return at(node.args[1] if home.values[condition] else node.args[2], place)


def _aligned(node: Node, args: list[Value], place: Place) -> list[Value]:
    """Windows of small values beside those of larger ones."""
    dims = len(shape_of(node.type.extent, place.shape))
    return [pad(x, dims) if arg.type.window else x for x, arg in zip(args, node.args, strict=True)]


def _reduced(node: Node, args: list[Value], place: Place) -> Value:
    """Over the window, over runs, over rows and columns, or over everything: then `args` begins with one value per place."""
    share = args[len(args) - len(node.args) + 1 :]
    if node.value == "window":
        return meaning.OVER_WINDOW[node.op](args[0], 0, *share)[0]
    reduction = meaning.OVER_VALUES[node.op]
    if node.value.run:
        return reduction(np.reshape(args[0], runs(place.numel, node.value.run)), -1, *share)
    if node.value.level == "array":
        axes = tuple(axis for axis, size in ((-2, node.value.rows), (-1, node.value.cols)) if size == 1)
        return reduction(args[0], axes, *share)
    parts = [np.ravel(x) for x in args[: len(args) - len(share)]]
    return reduction(np.concatenate(parts) if len(parts) > 1 else parts[0], 0, *share)[0]


_STRUCTURAL: dict[str, Callable[[list[Value], Place], Value]] = {
    "matmul": lambda args, place: np.matmul(args[0], args[1]),
    "spread": lambda args, place: np.repeat(args[0], place.numel // len(args[0]) if len(args[0]) else 0).reshape(place.shape),
    "transpose": lambda args, place: meaning.transposed(args[0]),
    "eigenvectors": lambda args, place: meaning.eigenvectors(args[0]),
    "descending": lambda args, place: meaning.descending(args[0]),
    "inverse": lambda args, place: meaning.inverse(args[0]),
    "orthonormal": lambda args, place: meaning.orthonormal(args[0]),
    "as_matrix": lambda args, place: meaning.flatten(args[0]),
    "as_param": lambda args, place: args[0].reshape(place.shape),
    "push": lambda args, place: meaning.push(args[0], args[1]),
}


# --------------------------------------------------------------------------------------------------------- messages

ADVICE = (
    "send it to another rule with `route { when rank >= 2 use … otherwise use … }`, or choose inside the rule with "
    "`when rank >= 2 { … } else { … }`"
)


def _known(value: Value, place: Place) -> Value:
    if isinstance(value, Missing):
        raise StepError(f"{place.name}: `{value.fact}` is needed, and a parameter of shape {place.shape} has none; {ADVICE}")
    return value


def _not_a_matrix(node: Node, place: Place) -> str:
    words = {"state": f"the state `{node.value}`", "input": f"the input `{node.value}`", "matmul": "`@`", "transpose": "`.T`",
             "random": "a draw"}  # fmt: skip
    what = words.get(node.op, f"`{node.op}`") + ("" if node.op in MATRIX_OPS else f" per {node.type.extent}")
    return f"{place.name} has shape {place.shape}, but {what} needs a matrix (rank 2 or more); {ADVICE}"
