"""The torch backend on every number type and memory layout, each step taken from the reference's stored numbers.

Each rule is asked in one of the wide number types and one of 16 bits in turn; OPTLANG_EVERYTHING=1 asks all four.
"""

from __future__ import annotations

import os
from functools import cache

import pytest
import torch
from stepping import is_ambiguous, program, shapes_for
from torch import Tensor
from torch_pairs import COMPILED, EAGER, Pair, tensors

from optlang import library
from optlang.backends.torch import TorchBackend
from optlang.backends.torch.listing import source
from optlang.ir import Program, Routing
from optlang.rules import Rule

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
MATRICES = [(4, 6), (1, 5), (3, 1), (2, 3, 4), (4, 2, 3, 3)]
SHAPES = [*MATRICES, (), (0,), (1,), (7,), (1, 1), (0, 3)]


@cache
def shelf() -> dict[str, Program]:
    """Every program of the library."""
    found: dict[str, Program] = {}
    for name in library.names():
        made = Rule(name).program
        if isinstance(made, Routing):
            found |= {f"{made.name}.{case.program.name}": case.program for case in made.cases}
        else:
            found[name] = made
    return found


STEADY = [name for name, rule in shelf().items() if not is_ambiguous(rule)]
TYPES = DTYPES if "OPTLANG_EVERYTHING" in os.environ else ()
IN_TURN = [(name, dtype) for i, name in enumerate(STEADY) for dtype in TYPES or DTYPES[i % 2 :: 2]]


def rule(body: str) -> Program:
    return program(f"rule R {{ hyper lr = 0.1 in (0, inf)\n{body}\n}}")


# ---------------------------------------------------------------------------------------------------- number types


@pytest.mark.parametrize(("name", "dtype"), IN_TURN, ids=lambda x: str(x).removeprefix("torch."))
def test_every_rule_takes_the_steps_of_the_reference(name: str, dtype: torch.dtype) -> None:
    """To the rounding of float32 (float64), and for 16 bits one rounding more at the end."""
    shapes = shapes_for(shelf()[name], SHAPES)
    pair = Pair(shelf()[name], tensors(shapes, dtype))
    pair.tolerance *= 30 if shapes != SHAPES else 1  # rounds of matrix products
    for _ in range(3):
        pair.step()
    kept = [x for cell in pair.taken.cells for x in cell.state.values() if x.is_floating_point()]
    assert {x.dtype for x in kept} <= {torch.float64 if dtype == torch.float64 else torch.float32}


# --------------------------------------------------------------------------------------------------------- layouts

LAYOUTS = ["transposed", "every second", "a slice", "channels last", "a column", "a part of a buffer"]


def strided(kind: str) -> Tensor:
    [base] = tensors([(6, 4, 4, 8)])
    return {
        "transposed": base[0, 0].T,
        "every second": base[0, :, ::2, :].transpose(0, 1),
        "a slice": base[0, 0, 1:3, 2:5],
        "channels last": base.contiguous(memory_format=torch.channels_last),
        "a column": base[0, 0, :, 3],
        "a part of a buffer": base.view(-1)[5:29].view(4, 6),
    }[kind]


@pytest.mark.parametrize("backend", [EAGER, COMPILED], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_weights_of_any_strides(kind: str, backend: TorchBackend) -> None:
    """Nothing around the parameter changes."""
    weights = strided(kind)
    whole = torch.empty(0).set_(weights.untyped_storage())
    inside = torch.zeros_like(whole, dtype=torch.bool)
    torch.as_strided(inside, weights.shape, weights.stride(), weights.storage_offset()).fill_(True)
    before = whole.clone()
    pair = Pair(shelf()["adamw"], [weights], backend=backend)
    for _ in range(2):
        pair.step()
    assert torch.equal(whole[~inside], before[~inside])
    assert not torch.equal(whole[inside], before[inside])


@pytest.mark.parametrize("name", ["adamw", "MuonWithAdamW.Muon", "adafactor"])
def test_parameters_of_all_layouts_in_one_step(name: str) -> None:
    kinds = [kind for kind in LAYOUTS if name == "adamw" or kind != "a column"]
    pair = Pair(shelf()[name], [strided(kind) for kind in kinds] + tensors([(4, 8), (3, 2)]))
    pair.tolerance *= 30
    for _ in range(2):
        pair.step()


def test_strides_do_not_compile_again() -> None:
    from torch._dynamo.utils import counters

    text = "a = g @ g.T\n w' = w - lr*(a @ w)/(1 + norm(a)) - lr*mean(g per row)"
    shapes = [(4, 6), (8, 5), (3, 7)]
    with torch._dynamo.config.patch(error_on_recompile=True):
        pair = Pair(rule(text), [*tensors(shapes), *(x.T for x in tensors(shapes)), strided("a slice")], backend=COMPILED)
        pair.step()
        made = counters["stats"]["unique_graphs"]
        pair.step()
    assert counters["stats"]["unique_graphs"] == made


def test_a_convolution_in_channels_last_is_the_same_matrix() -> None:
    [plain] = tensors([(4, 3, 2, 2)])
    other = plain.clone(memory_format=torch.channels_last)
    Pair(rule("x = as_matrix(g)\n y = x @ x.T @ x\n w' = w - lr*as_param(y/(1 + norm(y)))"), [plain, other]).step()


def test_a_gradient_of_other_strides() -> None:
    pair = Pair(shelf()["adamw"], tensors([(4, 6), (5, 3)]))
    pair.gradient = lambda like: torch.randn(tuple(reversed(like.shape)), generator=pair.generator).T  # type: ignore[method-assign]
    pair.step()
    pair.step()


# ------------------------------------------------------------------------------------------------------- features

FEATURES = {
    "all extents": """
      state r per row = 0   state c per col = 0   state m per matrix = 0
      state s per tensor = 0   state u per group = 0   state v per model = 0
      r' = 0.5*r + mean(g per row) + max(w per row)   c' = min(g per col) - sum(w per col) + c
      m' = m + mean(r' per matrix) + norm(g per matrix)
      s' = s/2 + std(g) + max(abs(w))   u' = mean(g^2 per group) + u   v' = v/2 + sum(s' per model) + max(abs(g) per model)
      w' = w - lr*(g*r' + c'*m' + s')/(1 + abs(u') + abs(v'))""",
    "a window of rows": """
      state h[3] per row = nan
      h' = push(h, mean(g per row))
      w' = w - lr*g*mean(h')/(1 + max(h') - min(h') + quantile(h', 0.4))""",
    "a condition that stays true": """
      state late per tensor = false
      late' = late or norm(g) > 2.2
      when late' { w' = w - lr*sign(g) } else { w' = w - lr*g }""",
    "weights to evaluate with": "state z = w\n state a = w\n z' = z - lr*g\n a' = a + (z' - a)/t\n eval = a'\n w' = 0.1*z' + 0.9*a'",
    "places exchanged": "state a = w\n state b = 1\n a' = b\n b' = a\n w' = b",
    "transposed": "state m = 0\n m' = m + (g.T + w.T).T\n w' = w - lr*m",
    "products": "a = g @ g.T\n w' = w - lr*(a @ w + (g.T @ g @ w.T).T)/(1 + norm(a per matrix))",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["float64", "bfloat16"])
@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_means_what_the_reference_says(feature: str, dtype: torch.dtype) -> None:
    pair = Pair(rule(FEATURES[feature]), tensors(MATRICES, dtype), groups=[0, 1, 0, 1, 1])
    pair.tolerance *= 10
    for _ in range(4):
        pair.step()


# ------------------------------------------------------------------------------------------------- generated text


def test_names_of_a_file_cannot_meet_names_of_the_text() -> None:
    body = """
      state s = 0   state torch = 0   state counter = 0   state first = 0
      state ops = 0   state x = 0   state x_2 = 0   state final = 0
      s' = s + g   torch' = torch + s'   counter' = counter - g   first' = first + w
      ops' = ops*2 + g   x' = x + 1   x_2' = x + x_2   final' = final + g
      None = s' + torch'   print = None*2   lambda = print + counter'   __import__ = lambda + first'   β1 = __import__ + ops'
      w' = w - lr*(β1 + x' + x_2' + final')/100"""  # fmt: skip
    pair = Pair(rule(body), tensors([(3, 2), (4,)], torch.float64))
    for _ in range(3):
        pair.step()


def test_texts_of_a_file_stay_out_of_the_code() -> None:
    made = program("rule R \"''' import os #\" { hyper lr = 0.1 in (0, inf) \"] import os\"\n w' = w - lr*g }")
    assert "import os" not in source(made)


def test_numbers_are_numbers() -> None:
    text = "w' = where(g > -inf, w - 1e-300*g + (0 - 2.5)*g - 1e308*0, nan) + min(inf, 1) - 1"
    Pair(rule(text), tensors([(5,)], torch.float64)).step()
