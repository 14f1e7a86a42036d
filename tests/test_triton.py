"""Triton kernels: in the interpreter beside the reference, and compiled for GPUs that are not here. One minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gallery_facts import mark
from stepping import cell, is_ambiguous, program, shapes_for
from test_torch_layouts import shelf
from torch import Tensor
from torch_pairs import Pair, tensors

import optlang
from optlang import ir, philox
from optlang.backends.kernels import passes
from optlang.backends.kernels.handed import stored
from optlang.backends.triton import building, source
from optlang.backends.triton.order import used_at_once
from optlang.types import ELEMENT, TENSOR, needs_matrix

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")

NOT_YET = ("×", "quantile", "window", "real[")  # products of matrices and what they leave, sorting, windows
SHAPES = ((3, 4), (5,), (1,), (), (0,), (2, 3, 2, 2), (4, 2075))  # the last: a chunk that is whole, and one that is not


def pair(rule: ir.Program, given: list[Tensor], **settings: Any) -> Pair:
    from optlang.backends.triton import BACKEND

    return Pair(rule, given, executable=BACKEND.compile(rule, "safe"), **settings)


def kernels(both: Pair) -> list[Any]:
    found: Any = both.ours
    return [kernel for kernel in found._functions._kernels.values() if kernel is not None]


@pytest.mark.parametrize("name", [name for name, rule in shelf().items() if not is_ambiguous(rule)])
def test_library(name: str) -> None:
    """Step by step from the same stored numbers, in float32."""
    rule = shelf()[name]
    both = pair(rule, tensors(shapes_for(rule, SHAPES)))
    matrices = any(node.op in ("matmul", "as_matrix") or needs_matrix(node.type.extent) for node in ir.walk(rule.roots()))
    both.tolerance *= 30 if matrices else 1
    for _ in range(2):
        both.step()
    found: Any = both.ours
    for key, kernel in found._functions._kernels.items():
        refused = passes.refuses(stored(found._functions._outputs[key[0]]()), lined=True)
        assert (kernel is None) == bool(refused), refused or "no kernel was made"
        assert not refused or any(word in refused for word in NOT_YET), refused


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["adamw", "lion", "lamb"])
def test_number_types(name: str, dtype: torch.dtype) -> None:
    both = pair(optlang.Rule(name).program, tensors(SHAPES, dtype))
    for _ in range(2):
        both.step()
    assert kernels(both)


MAPS = [
    "abs", "sign", "sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "floor", "ceil", "round",
]  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_maps(name: str) -> None:
    both = pair(program(f"rule R {{ x = {name}(g)  w' = w - 0.1*where(isfinite(x), x, 0) }}"), tensors([(40,), (3, 3)]))
    both.step()
    assert kernels(both)


@pytest.mark.parametrize(
    "text",
    [
        "x = where(isnan(g/0*0) or g < 0, max(g, w), min(g, w))", "x = mod(g, w)", "x = atan2(g, w)", "x = g^3 + abs(w)^0.7",
        "x = g - mean(g)", "x = g/norm(g)*count(g)", "x = max(g) - min(g) + 0*g", "x = where(count(g) > 1, std(g), 0) + 0*g",
        "x = clip(g, -1, 1)", "x = where(not (g > w) and g != 0, 1, -1)", "x = norm(g - mean(g)) + 0*w", "x = normal()*g + uniform()",
        "x = rademacher() + exponential()",
    ],
)  # fmt: skip
def test_expressions(text: str) -> None:
    both = pair(program(f"rule R {{ {text}  w' = w - 0.1*x }}"), tensors(SHAPES))
    for _ in range(2):
        both.step()
    assert kernels(both)


def test_draws_come_from_loops_and_what_is_done_is_stored_before_more_is_drawn() -> None:
    """A state that is read later is not."""
    drawn = [" + ".join(["normal()"] * 3 + ["uniform()"] * 2)] * 3
    text = f"rule R {{ state m = 0  state v = 0  m' = {drawn[0]}  v' = v + {drawn[1]} + max(m')  w' = w - 0.1*(m' + v' + m*({drawn[2]})) }}"
    both = pair(program(text), tensors(SHAPES))
    for _ in range(2):
        both.step()
    [loaded] = kernels(both)
    lines = [line.strip().split(" ")[0] for line in loaded.kernel.text.split("def pass_1")[1].split("else:")[0].splitlines()]
    assert "for" in lines and len([line for line in lines if line == "drawn"]) >= 4
    assert max(place for place, line in enumerate(lines) if line == "drawn") > lines.index("tl.store(p2")


def test_a_network_keeps_few_values_at_once() -> None:
    """Of 20 that it reads of each element; what is computed is the same."""
    read = [f"q{n} = g*{n + 2}.5 + abs(w - {n})" for n in range(20)]
    neurons = [" + ".join(f"{n}.{k + 1}*q{n}" for n in range(20)) for k in range(4)]
    hidden = [f"h{k} = max({some}, 0)" for k, some in enumerate(neurons)]
    text = "\n".join(["rule R {", *read, *hidden, "w' = w - h0*h1/(h2 + h3^2) }"])
    found = [node for node in ir.walk([program(text).weights]) if node.type.extent == ELEMENT]
    after = used_at_once(found)
    assert set(after) == set(found) and len(after) == len(found)
    assert all(after.index(arg) < place for place, node in enumerate(after) for arg in node.args if arg in after)
    assert most_at_once(after) < 12 < 20 < most_at_once(found)


def most_at_once(nodes: list[ir.Node]) -> int:
    """Values that are still to be read."""
    last = {arg: place for place, node in enumerate(nodes) for arg in node.args}
    return max(sum(last.get(node, -1) > place for node in nodes[: place + 1]) for place in range(len(nodes)))


def test_where_registers_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are read in each round, sums are one number, and all is as the reference has it."""
    monkeypatch.setattr(source, "CROWDED", 0)
    text = """rule R { hyper lr = 0.1 in (0, inf)  hyper bool sure = true  state m = 0
      m' = 0.9*m + g + 0.01*normal() + 0.01*normal()
      x = sum(m'^2) + max(abs(w))  y = mean(m'/x)
      w' = w - lr*where(sure, m'/(x + y), g) }"""
    both = pair(program(text), tensors([(5,), (4, 2075)]), lr=0.1, sure=True)
    for _ in range(2):
        both.step()
    [loaded] = kernels(both)
    assert "near + " in loaded.kernel.text and "s0 = " not in loaded.kernel.text


@pytest.mark.parametrize("distribution", ["uniform", "rademacher", "normal", "exponential"])
def test_draws_are_those_of_philox(distribution: str) -> None:
    rule = program(f"rule R {{ w' = w + {distribution}() }}")
    both = pair(rule, [torch.zeros(5000, dtype=torch.float64)], seed=11)
    both.step()
    [site] = {node.value[1] for node in ir.walk(rule.roots()) if node.op == "random"}
    expected = torch.from_numpy(philox.draw(distribution, (5000,), 1, site, 11, 0))
    torch.testing.assert_close(both.weights[0], expected, rtol=1e-14, atol=1e-15)
    assert kernels(both)


def test_memory_that_is_not_aligned() -> None:
    """Parts of a buffer that begin anywhere, a column, and a transposed matrix."""
    base = torch.randn(3, 9001)
    both = pair(optlang.Rule("adamw").program, [base[0, 1:], base[1, ::2], base[2, 5:25].view(4, 5).T])
    for _ in range(2):
        both.step()
    assert kernels(both)


def test_a_step_repeats_itself() -> None:
    found = []
    for _ in range(2):
        both = pair(optlang.Rule("lamb").program, tensors(SHAPES))
        both.step()
        found.append([w.clone() for w in both.weights])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_without_the_interpreter_the_cpu_goes_the_torch_way() -> None:
    script = (
        "import torch, optlang; p = torch.ones(5).requires_grad_(); p.grad = torch.ones(5)\n"
        "o = optlang.load('lion', backend='triton')([p], lr=0.5); o.step(); assert p.tolist() == [0.5]*5, p"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=os.environ | {"TRITON_INTERPRET": "0"}, check=True)


def test_a_kernel_that_cannot_be_built_is_one_line_and_torch_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from optlang.backends.triton import kernels as module

    def broken(text: str) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(module, "load", broken)
    both = pair(optlang.Rule("lion").program, tensors([(5,)]))
    with pytest.warns(RuntimeWarning, match=r"steps with torch instead of Triton, and slower: RuntimeError: Failed to find C compiler.$"):
        both.step()
    both.step()
    assert not kernels(both)


def test_tables_are_sent_again_where_something_moved() -> None:
    """Gradients elsewhere, weights elsewhere, other sizes: the same kernel, and always the right memory."""
    from optlang.backends.triton.tables import Tables

    both = pair(optlang.Rule("adamw").program, tensors([(40,), (9,)]))
    both.step()
    [loaded] = kernels(both)
    [[_, placed]] = loaded.tables.values()
    assert isinstance(placed, Tables)
    both.step()
    cell = both.taken.cells[0]
    cell.weights = cell.weights.clone()
    cell.state["m"] = cell.state["m"].clone()
    before = placed.known
    both.step()
    assert not (before == placed.known).all()
    del both.taken.cells[1]
    both.step()
    [[shapes, _]] = loaded.tables.values()
    assert shapes == ((40,),)


def test_parameters_without_elements_alone_launch_nothing() -> None:
    both = pair(optlang.Rule("adamw").program, tensors([(0,), (0, 4)]))
    both.step()
    assert kernels(both)


def test_steps_that_come_again_read_the_numbers_of_their_step() -> None:
    """Numbers of many steps are computed at once; from the fourth step on one of them is read."""
    found = []
    for backend in ("triton", "reference"):
        params = [x.requires_grad_() for x in tensors([(40,), (9,)])]
        optimizer: Any = optlang.load("adamw", backend=backend)(params, lr=0.1)
        for _ in range(5):
            for p in params:
                p.grad = p.detach() + 1
            optimizer.step()
        found.append(torch.cat([p.detach() for p in params]))
    torch.testing.assert_close(*found)


def test_values_per_model_come_again_too() -> None:
    """Sums of all parameters are found by kernels of one step that is taken again."""
    found = []
    for backend in ("triton", "reference"):
        params = [x.requires_grad_() for x in tensors([(40,), (9,)])]
        optimizer: Any = optlang.load("prodigy", backend=backend)(params)
        for _ in range(5):
            for p in params:
                p.grad = p.detach() + 1
            optimizer.step()
        found.append(torch.cat([*(p.detach() for p in params), optimizer.state[params[0]]["d"].reshape(1).to(params[0].dtype)]))
        if backend == "triton":
            [part] = optimizer._again.parts
            assert part.again is not None
    torch.testing.assert_close(*found)


def test_numbers_of_the_device_as_its_base_has_them() -> None:
    """Of a count and a setting that are tensors, also where a single one is counted and summed."""
    from optlang.backends.device_scalars import DeviceScalars
    from optlang.backends.triton.scalars import TritonScalars

    moving = [ir.power(ir.hyper("k"), ir.T), ir.mul(ir.hyper("lr"), ir.mul(ir.fact("numel"), ir.T))]
    nodes = [*moving, *(ir.make(op, (moving[1],), TENSOR) for op in ("count", "sum", "amax"))]
    cells = [cell(torch.ones(2), torch.ones(2), lr=torch.tensor(0.1), k=3.0) for _ in range(3)]
    for place, one in enumerate(cells):
        one.t = torch.tensor(float(place + 1))  # type: ignore[assignment]
    found, expected = (made(cells, torch.device("cpu")) for made in (TritonScalars(nodes, True), DeviceScalars(nodes)))
    assert torch.allclose(found, expected, rtol=1e-14) and found.shape == (3, len(nodes))


def test_a_graph_keeps_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a graph is recorded: the table is fetched from memory that stays, and is never written again."""
    from optlang.backends.base import StepError
    from optlang.backends.triton import tables

    both = pair(optlang.Rule("adamw").program, tensors([(40,), (9,)]))
    both.step()
    with monkeypatch.context() as patch:
        patch.setattr(tables, "is_capturing", lambda: True)
        patch.setattr(tables, "_held", held := [])
        both.step()
        both.step()
        [(_, shared, target), _] = held
        kept = target.clone()
        with pytest.raises(StepError, match="captured for the third time in a row"):
            both.step()
    both.step()
    assert torch.equal(shared[: len(kept)], kept[: len(shared)])
    assert torch.equal(target, kept)


def test_a_graph_wants_a_step_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from optlang.backends.base import StepError
    from optlang.backends.triton import tables

    monkeypatch.setattr(tables, "is_capturing", lambda: True)
    with pytest.raises(StepError, match="have not been stepped together before"):
        pair(optlang.Rule("lion").program, tensors([(5,)])).step()


# ------------------------------------------------------------------------------------------------------- machine code


@pytest.mark.parametrize(("spills", "chosen"), [((0,), 0), ((16, 0), 1), ((400, 12, 0), 2), ((400, 12, 80), 1)])
def test_options_with_which_nothing_is_spilled(spills: tuple[int, ...], chosen: int) -> None:
    """The first ones, or those with which the least is; no more are tried than it takes."""
    tried: list[Any] = []

    def spilled(options: Any) -> int:
        tried.append(options)
        return spills[len(tried) - 1]

    assert building.fitting(spilled) == building.OPTIONS[chosen]
    assert tried == list(building.OPTIONS[: len(spills)])


def test_what_is_spilled_is_told_from_a_table_of_the_program() -> None:
    """Triton counts memory of each thread, four bytes by four; the sine of a large angle looks into a table there."""
    text = ".local .align 4 .b8 \t__local_depot0[28];"
    for words, bytes_ in ((7, 0), (9, 8), (0, 0)):
        assert building.spilled(SimpleNamespace(run=None, n_spills=words, asm={"ptx": text})) == bytes_
    assert building.spilled(SimpleNamespace(run=None, n_spills=3, asm={"ptx": ""})) == 12
    assert building.spilled(SimpleNamespace(run=None, asm={"ptx": ""})) == 0


@pytest.mark.parametrize(("architecture", "part"), [(80, "0"), (90, "1")])
def test_machine_code(architecture: int, part: str) -> None:
    """Reads and writes of 16 bytes, nothing spilled: see `compiled_kernels`. Half of the kernels for either; OPTLANG_EVERYTHING=1: all."""
    script = Path(__file__).with_name("compiled_kernels.py")
    some = [] if "OPTLANG_EVERYTHING" in os.environ else [part]
    done = subprocess.run(
        [sys.executable, str(script), str(architecture), *some], env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        found = json.loads(line)
        wide = found["wide reads"], found["wide writes"]
        if found["kernel"].startswith("pass"):
            assert wide[0] >= found["tensors read"], found
            assert wide[1] >= found["tensors written"], found
        assert found["spilled"] == 0, found
        few = found["rule"] in ("adamw", "lion", "lamb") and found["stored"] == [None, "nearest"]
        assert found["registers"] <= (128 if few else 255), found


def test_machine_code_of_the_library_is_as_it_is_told() -> None:
    """`make machine-code` compiles what is missing in docs/triton.json."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    found = json.loads((docs / "triton.json").read_text(encoding="utf-8"))
    assert all(entry["mark"] == mark(rule) for rule, entry in found.items())
    assert not [rule for rule, entry in found.items() for kernel in entry["kernels"] if kernel["sm_80"][1] or kernel["sm_90"][1]]


def test_a_rule_without_kernels_is_refused_by_none() -> None:
    assert passes.refuses([]) == ""
