"""Modules for optax take the steps of the reference in float64: every other rule here, all of them by `make optax`. 45 seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stepping import finite, shapes_for

import optlang
from optlang import ir, library, meaning, philox
from optlang.backends.optax import refuses
from optlang.backends.optax.helpers import HELPERS
from optlang.backends.optax.spell import kinds_of, spell
from optlang.ir import Routing
from optlang.ops import CALLS, OPS
from optlang.printing.precedence import Piece

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

GOLDEN = Path(__file__).parent / "golden/optax"
EVERYTHING = "OPTLANG_EVERYTHING" in os.environ
SHAPES = [(4, 3), (3, 4), (5,), (2, 3, 2)] if EVERYTHING else [(4, 3), (5,)]
CLAIMED = [name for name in library.names() if not refuses(optlang.Rule(name).program)]


@pytest.fixture(autouse=True)
def wide() -> Any:
    with jax.enable_x64(True):
        yield


def namespace(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "made"}
    exec(compile(text, "<module>", "exec"), found)
    if "_draw" in found:
        found["_draw"] = draws
    return found


def draws(distribution: str, site: int, place: int, t: Any, seed: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """Ours, where the module has JAX's own."""
    return jnp.asarray(philox.draw(distribution, shape, int(t), site, seed, place), dtype)


def made(text: str, name: str, **settings: Any) -> Any:
    return namespace(text)[name.lower()](**settings)


def noise(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def ours(cls: Any, shapes: list[tuple[int, ...]], steps: int, **settings: Any) -> tuple[list[Any], Any]:
    """The weights after each step, and the optimizer."""
    params = [torch.from_numpy(noise(s, i)).requires_grad_() for i, s in enumerate(shapes)]
    optimizer = cls([(f"p{i}", p) for i, p in enumerate(params)], **settings)
    rows = []
    for step in range(steps):

        def closure(step: int = step) -> float:
            for i, p in enumerate(params):
                p.grad = torch.from_numpy(noise(tuple(p.shape), 100 + 10 * step + i))
            return loss(step)

        for wanted in [i.name for case in optimizer.cases for i in case.program.inputs]:
            optimizer.inputs[wanted] = {p: torch.from_numpy(noise(tuple(p.shape), 7 + step) ** 2) for p in params}
        optimizer.step(closure)
        rows.append([p.detach().numpy().copy() for p in params])
    return rows, optimizer


def loss(step: int) -> float:
    return 1.5 + np.cos(step).item()


def theirs(transformation: Any, shapes: list[tuple[int, ...]], steps: int, program: Any, jit: bool = False) -> tuple[list[Any], Any, Any]:
    params = {f"p{i}": jnp.asarray(noise(s, i)) for i, s in enumerate(shapes)}
    state = transformation.init(params)
    update = jax.jit(transformation.update) if jit else transformation.update
    inputs = [] if isinstance(program, Routing) else program.inputs
    rows = []
    for step in range(steps):
        gradients = {f"p{i}": jnp.asarray(noise(s, 100 + 10 * step + i)) for i, s in enumerate(shapes)}
        more = {"value": loss(step)} if not isinstance(program, Routing) and program.uses("loss") else {}
        more |= {i.name: {k: jnp.asarray(noise(p.shape, 7 + step) ** 2) for k, p in params.items()} for i in inputs}
        changes, state = update(gradients, state, params, **more)
        params = optax.apply_updates(params, changes)
        rows.append([np.asarray(p) for p in params.values()])
    return rows, state, params


@pytest.mark.parametrize("name", CLAIMED if EVERYTHING else CLAIMED[::2])
def test_every_rule_takes_the_steps_of_the_reference(name: str) -> None:
    program = optlang.Rule(name).program
    shapes = shapes_for(program, SHAPES)
    cls = optlang.load(name, backend="reference")
    wanted, _ = ours(cls, shapes, 4)
    found, _, _ = theirs(made(optlang.build(name, to="optax"), program.name), shapes, 4, program)
    for one, other in zip(wanted, found, strict=True):
        finite(*one)
        for p, q in zip(one, other, strict=True):
            np.testing.assert_allclose(q, p, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", sorted(meaning.maps()))
def test_every_function_of_the_table_means_the_same_in_jax(name: str) -> None:
    numbers, is_truth = np.array([[0.25, 0.5, 1.5], [3.0, 1.25, 0.75], [0.5, 2.0, -4.0]]), ir.make("gt", (ir.G, ir.const(0)))
    truths = {"and": 2, "or": 2, "not": 1, "where": 1}.get(name, 0)
    values = [row > 1 if place < truths else row for place, row in enumerate(numbers[: OPS[name].operands])]
    node = ir.make(name, [is_truth if place < truths else leaf for place, leaf in enumerate([ir.G, ir.W, ir.G][: len(values)])])
    space = {"jnp": jnp, "jax": jax} | {f"x{place}": jnp.asarray(value) for place, value in enumerate(values)}
    exec(HELPERS["_sign"], space)
    found = eval(spell(node, [Piece(f"x{place}") for place in range(len(values))], kinds_of([node])).text, space)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(found, meaning.maps()[name](*values), rtol=1e-13)


def test_what_is_not_claimed_asks_the_model_again() -> None:
    left = {name for name in library.names() if name not in CLAIMED}
    programs = [optlang.Rule(name).program for name in left]
    assert all(not isinstance(p, Routing) and any(p.uses(op) for op in CALLS) for p in programs)
    assert len(CLAIMED) >= 119
    with pytest.raises(ValueError, match="SAM cannot be written as an optax transformation: it asks for gradients at other points"):
        optlang.build("sam", to="optax")


def test_a_route_takes_no_rule_that_needs_more_than_its_parameters() -> None:
    text = "rule A { w' = w - g/norm(g per model) } rule B { w' = w - loss*g } route R { when rank >= 2 use A() otherwise use B() }"
    with pytest.raises(ValueError, match="A: its values per model would be values of its own parameters only; use `per group`"):
        optlang.build(text, "R", to="optax")
    with pytest.raises(ValueError, match="B: it reads inputs or the loss"):
        optlang.build(text.replace("per model", "per group"), "R", to="optax")
    with pytest.raises(ValueError, match="A: its weights to evaluate with"):
        optlang.build("rule A { state a = w a' = a/2 + w'/2 w' = w - g eval = a' } route R { otherwise use A() }", "R", to="optax")


@pytest.mark.parametrize("name", ["adamw", "soap", "adafactor", "prodigy", "corefrozen"])
def test_steps_under_jit(name: str) -> None:
    program = optlang.Rule(name).program
    shapes = shapes_for(program, [(4, 3)])
    text, results = optlang.build(name, to="optax"), []
    for jit in (False, True):
        rows, _, _ = theirs(made(text, program.name), shapes, 3, program, jit)
        results.append(rows[-1])
    for p, q in zip(*results, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9)


@pytest.mark.parametrize("name", ["schedulefreeadamw", "entropysgd"])
def test_weights_to_evaluate_with(name: str) -> None:
    program, cls = optlang.Rule(name).program, optlang.load(name, backend="reference")
    space = namespace(optlang.build(name, to="optax"))
    _, optimizer = ours(cls, [(4, 3)], 3)
    _, state, params = theirs(space[program.name.lower()](), [(4, 3)], 3, program)
    optimizer.eval()
    found = space[f"{program.name.lower()}_eval_params"](state, params)
    np.testing.assert_allclose(found["p0"], optimizer.param_groups[0]["params"][0].detach().numpy(), rtol=1e-9)


FEATURES = {
    "windows": "rule R { state h[3] = nan state k[2] per model = 0 h' = push(h, g) k' = push(k, norm(g per model)) "
               "w' = w - 0.1*(mean(h') + quantile(h', 0.5) + max(h') - min(h')/count(h'))/(1 + sum(k')) }",
    "values of all": "rule R { state d per model = 1 a = mean(abs(g) per model) b = max(abs(g) per model) c = quantile(g per model, 0.3) "
                     "n = count(g per model) q = sum(norm(g per tensor) per model) d' = max(d, a/b) "
                     "w' = w - 0.1*d'*g/(1 + b + abs(c) + q)*(1 + 1/n) }",
    "values per group": "rule R { state d per group = 1 x = norm(g per group) d' = d + max(x per model) w' = w - 0.1*g/d' }",
    "rows and columns": "rule R { r = mean(g^2 per row) c = max(g^2 per col) w' = w - 0.1*g/(1 + sqrt(r)*c)*max(r per tensor) }",
    "blocks": "rule R { hyper bool flag = true state m = 0 state n = 0 every 2 { m' = m + g } else { m' = m } "
              "when flag { when t > 2 { n' = m' } else { n' = 2*m' } } w' = w - 0.1*(m' + n') }",
    "matrices when due": "rule R { state q = 0 every 2 { q' = g @ g.T @ g } w' = w - 0.01*q' }",
    "draws": "rule R { w' = w - 0.1*g*normal() + 0.01*rademacher() - 0.1*uniform(per model)*exponential() }",
    "names": "rule Lambda { hyper jnp = 0.5 in (0, inf) state state_ = 0 state optax = 1 optax' = optax + g state_' = optax' "
             "w' = w - jnp*state_' }",
    "numbers that Python would refuse": "rule R { hyper a = 0 in [0, 1] w' = w - min(1/a, 2)*g*a^0 }",
    "powers that Python would refuse": "rule R { hyper a = 0 in [0, 1] w' = w - 0.1*g*min(a^(-1), 2) }",
    "counts of one group": "rule R { x = norm(g per group) w' = w - 0.1*g/(count(x per model) + max(x per model)) }",
    "added": "rule R { w' = w + 0.1*g }",
    "added to a part": "rule R { w' = 0.9*w - 0.1*g }",
    "truths": "rule R { state seen = false seen' = not seen w' = w - 0.1*where(seen', g, 2*g) }",
    "facts": "rule R { k = abs(rank - 3) x = as_matrix(g) w' = w - 0.1*as_param(x/count(x per row) - (-k)*x/count(x)) }",
    "counts of groups": "rule R { state d per group = 1 d' = d + 1 w' = w - 0.1*g/(count(d per model) + sum(d' per model)) }",
    "runs": "rule R { state v per 2 = 0 state h[3] per 3 = nan v' = 0.5*v + sum(g^2 per 2) h' = push(h, norm(g per 3)) "
            "a = where(v' > 1, v', count(g per 2)) w' = w - 0.1*g/(1 + a*std(g per 4) + max(h') + mean(v' per model)) "
            "+ 0.01*tanh(count(g per 3)) }",
    "reports": "rule R { report size = norm(g per model) w' = w - 0.1*g }",
}  # fmt: skip


@pytest.mark.parametrize("what", FEATURES)
def test_every_kind_of_equation(what: str) -> None:
    assert not [d for d in optlang.check(FEATURES[what]) if d.severity == "error"], optlang.check(FEATURES[what])[0].to_text()
    program = optlang.Rule(FEATURES[what]).program
    shapes = shapes_for(program, [(4, 3), (2, 5)])
    wanted, optimizer = ours(optlang.loads(FEATURES[what], backend="reference"), shapes, 5)
    space = namespace(optlang.build(FEATURES[what], to="optax"))
    [factory] = [f for name, f in space.items() if name.strip("_") == program.name.lower()]
    found, state, _ = theirs(factory(), shapes, 5, program)
    for p, q in zip(wanted[-1], found[-1], strict=True):
        np.testing.assert_allclose(q, p, rtol=1e-9, atol=1e-12)
    for name, value in optimizer.reports.items():
        np.testing.assert_allclose(getattr(state, name), value)


# --------------------------------------------------------------------------------------------------------- at home in optax


def test_settings_are_checked_and_may_be_schedules() -> None:
    space = namespace(optlang.build("adamw", to="optax"))
    with pytest.raises(ValueError, match=r"beta1 is outside \[0, 1\): 1.5"):
        space["adamw"](beta1=1.5)
    with pytest.raises(ValueError, match=r"lr is outside \(0, inf\): nan"):
        space["adamw"](lr=float("nan"))
    transformation = optax.inject_hyperparams(space["adamw"])(lr=lambda count: 0.1 / (1 + count))
    params = jnp.ones(3)
    state = transformation.init(params)
    for wanted in (0.1, 0.05):
        changes, state = jax.jit(transformation.update)(jnp.ones(3), state, params)
        np.testing.assert_allclose(changes, -wanted * (1 + 0.01 * 1), rtol=1e-6)


def test_costly_sides_are_computed_when_due_and_others_always() -> None:
    assert "jax.lax.cond(" in optlang.build(FEATURES["matrices when due"], to="optax")
    assert "jax.lax.cond(" not in optlang.build("rule R { when norm(g) > 1 { u = 2*g } else { u = g } w' = w - u }", to="optax")


def test_it_says_which_settings_may_be_no_schedules() -> None:
    text = "rule R { hyper bool on = true hyper int k = 2 hyper lr = 0.1 when on { u = k*g } else { u = g } w' = w - lr*u }"
    assert "optax.inject_hyperparams, with on, k among its static_args." in optlang.build(text, to="optax")
    assert "static_args" not in optlang.build("lion", to="optax")


def test_it_joins_a_chain_and_keeps_number_types() -> None:
    space = namespace(optlang.build("lion", to="optax"))
    transformation = optax.chain(optax.clip_by_global_norm(1.0), space["lion"](lr=0.1))
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": (jnp.ones((2, 2), jnp.float32),)}
    state = transformation.init(params)
    changes, state = jax.jit(transformation.update)(params, state, params)
    stepped = optax.apply_updates(params, changes)
    assert [x.dtype for x in jax.tree.leaves(stepped)] == [jnp.bfloat16, jnp.float32]
    assert {x.dtype for x in jax.tree.leaves(state[1].m)} == {jnp.dtype("float32")}
    with pytest.raises(ValueError, match="call update"):
        transformation.update(params, state)


def test_a_route_sends_parameters_by_shape_and_name() -> None:
    text = """rule A { hyper lr = 0.1 in (0, inf) w' = w - lr*g } rule B { hyper lr = 1 in (0, inf) w' = w - lr*g }
      route R { when rank == 2 and not named("*embed*") use A(lr = 0.5) when numel > 3*rank use B() otherwise use A() }"""
    space = namespace(optlang.build(text, "R", to="optax"))
    transformation = space["r"](B={"lr": 0.25})
    params = {"embed": {"w": jnp.ones((2, 5))}, "out": {"w": jnp.ones((2, 5)), "b": jnp.ones(2)}}
    changes, _ = transformation.update(params, transformation.init(params), params)
    assert [float(x.ravel()[0]) for x in jax.tree.leaves(changes)] == [-0.25, -0.1, -0.5]


def test_a_route_without_otherwise() -> None:
    text = "rule A { w' = w - 0.1*g } rule B { w' = w - 0.2*g } route R { when rows > cols use A() when -rank == -2 use B() }"
    transformation = namespace(optlang.build(text, "R", to="optax"))["r"]()
    params = {"tall": jnp.ones((3, 2)), "wide": jnp.ones((2, 3))}
    changes, _ = transformation.update(params, transformation.init(params), params)
    assert [round(float(x.ravel()[0]), 6) for x in jax.tree.leaves(changes)] == [-0.1, -0.2]
    with pytest.raises(ValueError, match="no rule for b of shape"):
        transformation.init({"b": jnp.ones(3)})


def test_the_loss_and_inputs_are_asked_for() -> None:
    text = optlang.build("sps", to="optax")
    space, params = namespace(text), jnp.ones(2)
    assert "update needs value=..., the loss." in text
    with pytest.raises(ValueError, match="update needs value="):
        space["sps"]().update(params, space["sps"]().init(params), params)
    space = namespace(optlang.build("sophiag", to="optax"))
    with pytest.raises(ValueError, match="update needs curvature="):
        space["sophiag"]().update(params, space["sophiag"]().init(params), params)


def test_draws_are_the_same_again_for_the_same_seed_and_step() -> None:
    space: dict[str, Any] = {"__name__": "made"}
    exec(optlang.build("rule R { w' = w - normal() }", to="optax"), space)
    params = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    found = []
    for seed, count in ((0, 0), (0, 0), (1, 0), (0, 1)):
        transformation = space["r"](seed=seed)
        state = transformation.init(params)._replace(count=jnp.asarray(count))
        found.append(transformation.update(params, state, params)[0])
    np.testing.assert_array_equal(found[0]["a"], found[1]["a"])
    assert len({float(changes[name][0]) for changes in found for name in params}) == 6


def test_they_need_jax_and_optax_alone_and_pass_ruff(tmp_path: Path) -> None:
    for name in CLAIMED:
        (tmp_path / f"{name}_.py").write_text(optlang.build(name, to="optax"))
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    script = """
import sys
for name in ("torch", "optlang", "lark", "sympy"):
    sys.modules[name] = None
import jax.numpy as jnp
from muonwithadamw_ import muonwithadamw
params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
transformation = muonwithadamw(Muon={"lr": 0.1})
changes, _ = transformation.update(params, transformation.init(params), params)
assert all((x < 0).any() for x in changes.values())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_golden(name: str) -> None:
    """`OPTLANG_UPDATE_GOLDEN=1` writes them; then read them as a user would."""
    text, path = optlang.build(name, to="optax"), GOLDEN / f"{name}.txt"
    if os.environ.get("OPTLANG_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
