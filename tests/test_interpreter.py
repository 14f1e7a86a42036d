"""Evaluation on demand against a plain evaluator that computes every node everywhere, on random programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import cell, step_of

from optlang import ir, meaning, ops, philox
from optlang.backends.base import Step, StepError
from optlang.backends.reference.interpreter import Code, Run
from optlang.ir import G, Node, T, W, const, make
from optlang.types import COL, ELEMENT, GROUP, MATRIX, MODEL, ROW, TENSOR, Extent, Type, TypeProblem

SHAPE_OF = {ELEMENT: (3, 2), ROW: (3, 1), COL: (1, 2), MATRIX: (1, 1)}
STATES = {f"s{i}": extent for i, extent in enumerate([ELEMENT, ROW, COL, TENSOR, GROUP, MODEL])}
LEAVES = [W, G, T, ir.hyper("lr"), ir.fact("rows"), const(2), const(-0.5), ir.random("normal", 1), ir.random("uniform", 2, MODEL)]
LEAVES += [ir.state(name, Type("real", extent)) for name, extent in STATES.items()]
OPS = ["add", "sub", "mul", "maximum", "where", "branch", "abs", "sqrt", "lt", "sum", "mean", "amax", "count", "quantile", "matmul",
       "transpose", "tanh"]  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> list[Node]:
    """Some expressions that share parts. What does not fit by its types is not made."""
    pool = list(LEAVES)
    for _ in range(draw(st.integers(1, 12))):
        op = draw(st.sampled_from(OPS))
        pick = st.sampled_from(pool)
        args = [draw(pick) for _ in range(ops.OPS[op].operands)]
        value = draw(st.sampled_from([ROW, COL, MATRIX, TENSOR, GROUP, MODEL])) if ops.OPS[op].role == "reduce" else None
        try:
            pool.append(make(op, args, value))
        except TypeProblem:
            continue
    return pool[len(LEAVES) :] or [W]


def a_step() -> Step:
    random = np.random.default_rng(4)
    cells = [cell(random.normal(size=(3, 2)), random.normal(size=(3, 2)), index=i, group=i // 2, t=i + 1, lr=0.1) for i in range(3)]
    step = step_of(*cells, seed=6)
    for name, extent in STATES.items():
        for holder in {MODEL: [step.model], GROUP: list(step.groups.values())}.get(extent, [c.state for c in cells]):
            holder[name] = random.normal(size=SHAPE_OF.get(extent, ()))
    return step


class Eager:
    """Every node at every place, operands first; the values of a node are one per cell, group or model."""

    def __init__(self, step: Step, roots: list[Node]) -> None:
        self.step = step
        self.values: dict[tuple[Node, str], np.ndarray] = {}
        self.groups = sorted(step.groups)
        self.where = [f"c{c.index}" for c in step.cells] + [f"g{k}" for k in self.groups] + ["m"]
        for node in ir.walk(roots):
            for place in self.places(node):
                self.values[node, place] = self.compute(node, place)

    def places(self, node: Node) -> list[str]:
        letters = {"host": "cgm", "model": "m", "group": "g"}.get(node.type.extent.level, "c")
        return [p for p in self.where if p[0] in letters]

    def look(self, node: Node, place: str) -> np.ndarray:
        level = node.type.extent.level
        if level == "model":
            return self.values[node, "m"]
        if level == "group" and place[0] == "c":
            return self.values[node, f"g{self.step.cells[int(place[1:])].group}"]
        return self.values[node, place]

    def inside(self, place: str, level: str) -> list[str]:
        if level == "model" or place[0] == "c":
            return [place]
        if level == "group":
            return [f"g{k}" for k in self.groups] if place == "m" else [place]
        return [f"c{c.index}" for c in self.step.cells if place == "m" or f"g{c.group}" == place]

    def compute(self, node: Node, place: str) -> np.ndarray:
        if not node.args:
            return np.asarray(self.leaf(node, place))
        if ops.OPS[node.op].role == "reduce":
            return self.reduce(node, place)
        args = [self.look(arg, place) for arg in node.args]
        if node.op == "branch":
            chosen = args[1] if args[0] else args[2]
            return np.broadcast_to(chosen, SHAPE_OF.get(node.type.extent, np.shape(chosen)))
        if node.op in ("matmul", "transpose"):
            return args[0] @ args[1] if node.op == "matmul" else args[0].T
        return np.asarray(meaning.maps()[node.op](*args))

    def reduce(self, node: Node, place: str) -> np.ndarray:
        first, *share = node.args
        share = [self.look(q, place) for q in share]
        if node.value.level == "array":
            axes = tuple(a for a, dim in ((-2, node.value.rows), (-1, node.value.cols)) if dim == 1)
            return meaning.OVER_VALUES[node.op](self.look(first, place), axes, *share)
        parts = [np.ravel(self.look(first, p)) for p in self.inside(place, first.type.extent.level)]
        return meaning.OVER_VALUES[node.op](np.concatenate(parts), 0, *share)[0]

    def leaf(self, node: Node, place: str):
        cells = [c for c in self.step.cells if place in ("m", f"g{c.group}", f"c{c.index}")]
        t = max(c.t for c in cells)
        match node.op:
            case "w":
                return cells[0].weights
            case "g":
                return cells[0].gradient
            case "t":
                return float(t)
            case "hyper":
                return cells[0].hypers[node.value]
            case "fact":
                return float(cells[0].facts[node.value])
            case "const":
                return node.value * 1.0
            case "state":
                holder = self.step.model if place == "m" else self.step.groups[int(place[1:])] if place[0] == "g" else cells[0].state
                return holder[node.value]
        stream = 0xFFFFFFFF if place == "m" else cells[0].index
        return philox.draw(node.value[0], SHAPE_OF.get(node.type.extent, ()), t, node.value[1], self.step.seed, stream)


@settings(max_examples=150)
@given(programs())
def test_on_demand_gives_what_computing_everything_gives(roots):
    step = a_step()
    with np.errstate(all="ignore"):
        run = Run("Test", Code(roots), step)
        eager = Eager(step, roots)
        for node in roots:
            found = run([(node, place) for place in run.model.cells])
            for c, value in zip(step.cells, found, strict=True):
                place = f"c{c.index}"
                np.testing.assert_allclose(value, eager.look(node, place), rtol=1e-12, atol=1e-12)


@settings(max_examples=50)
@given(programs(), st.randoms())
def test_values_do_not_depend_on_what_is_asked_first(roots, random):
    step = a_step()
    with np.errstate(all="ignore"):
        one, other = Run("Test", Code(roots), step), Run("Test", Code(roots), step)
        wanted = [(node, i) for node in roots for i in range(3)]
        shuffled = random.sample(wanted, len(wanted))
        together = dict(zip(wanted, one([(n, one.model.cells[i]) for n, i in wanted]), strict=True))
        for node, i in shuffled:
            np.testing.assert_array_equal(other([(node, other.model.cells[i])])[0], together[node, i])


def test_only_what_is_asked_for_is_computed():
    costly = make("tanh", (ir.mul(W, const(3)),))
    choice = ir.branch(make("gt", (T, const(5))), costly, W)
    run = Run("Test", Code([choice]), step_of(cell([1.0])))
    run([(choice, run.model.cells[0])])
    known = run.model.cells[0].values
    assert choice in known
    assert costly not in known
    assert costly.args[0] not in known


def test_a_shared_value_is_computed_once():
    asked = []

    def grad(points):
        asked.append(points)
        return points

    there = make("grad", (ir.add(W, const(1)),))
    node = ir.add(ir.mul(there, there), make("sum", (there,), MODEL))
    run = Run("Test", Code([node]), step_of(cell([1.0]), cell([5.0], index=1), grad=grad))
    assert [x.tolist() for x in run([(node, p) for p in run.model.cells])] == [[4 + 8], [36 + 8]]
    assert len(asked) == 1


def test_a_flat_matrix_of_a_vector_is_refused_by_name():
    node = make("sum", (make("as_matrix", (W,)),), Extent("array", "rows", 1, "flat"))
    run = Run("Test", Code([node]), step_of(cell([1.0])))
    with pytest.raises(StepError, match=r"`p0` has shape \(1,\), but `as_matrix` needs a matrix"):
        run([(node, run.model.cells[0])])
