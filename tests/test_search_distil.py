"""Found programs become rules: raw Lion becomes Lion, whatever comes out goes round all exports, and ablation is fair."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from test_search_proof import FORM, assert_same_steps, genomes

from optlang import ir
from optlang.compare.equivalence import equivalent
from optlang.compare.trial import refute
from optlang.ir import Program
from optlang.loading import loads
from optlang.rules import Rule
from optlang.search.distil.ablation import Ablation, Asked, paired
from optlang.search.distil.distillation import Distilled, distil
from optlang.search.distil.listing import listing, measure
from optlang.search.distil.naming import absorbed, named
from optlang.search.distil.removals import removals
from optlang.search.distil.trace import Trace
from optlang.search.distil.trained import Trained
from optlang.search.programs.genome import Form, Genome, from_text, to_program

RAW = from_text((Path(__file__).parents[1] / "examples" / "search" / "raw_lion" / "raw_lion.txt").read_text(encoding="utf-8"))
HALL = Path(__file__).parents[1] / "examples" / "search" / "digits_and_chars" / "results.json"
LION = Form(slots=("m", "v"), temporaries=("a", "b", "d", "q", "u"), scaled=False)
ADAMW = """
a = square(g)
b = tanh(w)                      # dead
m = interp(g, m, 0.9)
v = interp(a, v, 0.999)
c = sub(m, m)                    # 0
d = protected_sqrt(v)
u = protected_div(m, d)
u = add(u, c)
a = mul(w, 0.05)
u = add(u, a)
u = mul(u, 2.5)
"""
CLUMSY = """
a = mul(g, 0.1)
b = mul(m, 0.9)
m = add(a, b)
v = interp(g, v, 0.9)            # what m holds, once more
c = square(v)
c = protected_sqrt(c)
u = div(v, c)
d = abs(u)
u = mul(u, d)
"""
IDLE = """
a = exp(g)
a = add(a, 1.0)
b = reciprocal(a)
b = sub(b, 0.5)
m = interp(b, m, 0.95)
u = protected_div(m, 2.0)
"""


def test_raw_lion_is_shortened_by_algebra_alone() -> None:
    found = distil(RAW, LION, name="RawLion")
    counts = [step.statements for step in found.trace.steps]
    assert [counts[0], counts[1]] == [(21, 13), (13, 12)]
    assert [step.slots for step in found.trace.steps][:2] == [(2, 2), (2, 1)]
    assert "cosh" in found.trace.steps[1].before and "cosh" not in found.trace.steps[0].before
    names = " / ".join(step.name for step in found.trace.steps)
    assert "root of a square" in names and "averages merged" in names and "common factor" in names and "is its sign" in names
    assert "v' = interp(b, v, 0.9982196781841992)" in found.trace.end
    assert counts[-1][1] == len(listing(found.plain)) == 9
    assert {step.kind for step in found.trace.steps} == {"exact", "bounded"}


class Told:
    """A trainer that is told what a rule's loss is: `loss(program, seed, task)`."""

    def __init__(self, loss, tasks=("task",)) -> None:
        self.loss, self.tasks = loss, tasks
        self.asked: list[Asked] = []

    def losses(self, asked):
        self.asked += asked
        return [np.array([[self.loss(program, seed, one.task) for seed in one.seeds] for program in one.programs]) for one in asked]


class Table(Told):
    """A trainer for which everything trains alike but what lacks the sign, the averages, the decay or the step size."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0).normal(size=1000)
        super().__init__(lambda program, seed, _: 0.001 * noise[seed] + self.worse(program))

    @staticmethod
    def worse(program: Program) -> float:
        text = "\n".join(listing(program))
        signs = any(word in text for word in ("sign(", "abs(", "protected_sqrt("))
        needed = (signs, text.count("interp(") == 2, "0.46" in text, "lr" in text)
        return 0.5 * (len(needed) - sum(needed)) + 0.5 * (text.count("mul(") < 2)


def test_raw_lion_becomes_lion_where_training_does_not_miss_clip_and_arcsin() -> None:
    found = distil(RAW, LION, name="LionFound", trainer=Table(), seeds=range(8))
    assert len(listing(found.plain)) == 6 and len(found.program.states) == 1
    measured = {step.name for step in found.trace.steps if step.kind == "measured"}
    assert measured == {"`clip_global_norm` left out", "`asin` left out", "literals rounded to 2 digits"}
    assert {h.name: h.default for h in found.program.hypers} == pytest.approx(
        {"lr": 1e-3 * 0.0002171761734643951, "beta1": 0.9, "beta2": 0.9982, "weight_decay": 0.46}
    )
    assert equivalent(found.program, Rule("lion").program)


def test_the_trace_is_data() -> None:
    trace = distil(RAW, LION).trace
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace
    for text in (trace.to_text(), trace.to_markdown()):
        assert all(step.name in text and step.evidence in text for step in trace.steps)
    assert "21 → 9 statements" in trace.summary()


@pytest.mark.parametrize(
    ("text", "most", "slots", "hypers"),
    [
        (ADAMW, 7, 2, {"lr", "beta1", "beta2", "eps"}),
        (CLUMSY, 2, 1, {"lr", "beta"}),
        (IDLE, 6, 1, {"lr", "beta"}),
    ],
    ids=["adamw", "clumsy sign momentum", "idle protections"],
)
def test_other_found_programs_get_short_too(text: str, most: int, slots: int, hypers: set[str]) -> None:
    genome = from_text(text)
    found = distil(genome, FORM)
    assert len(listing(found.plain, True)) <= most and len(found.plain.states) == slots
    assert hypers <= {h.name for h in found.program.hypers}
    assert_round_trip(found)


def test_clumsy_sign_momentum_is_the_librarys() -> None:
    found = distil(from_text(CLUMSY), FORM, name="SignMomentum").program
    assert equivalent(found, Rule(SIGN_MOMENTUM).program)


SIGN_MOMENTUM = """
rule SignMomentum {
  hyper lr = 1e-3 in (0, inf)
  hyper beta = 0.9 in [0, 1)
  state m = 0
  m' = beta*m + (1 - beta)*g
  w' = w - lr*sign(m')
}"""


# ------------------------------------------------------------------------------------------------------------- exports


@pytest.mark.parametrize("place", range(10) if "OPTLANG_EVERYTHING" in os.environ else range(0, 10, 3))
def test_every_entry_of_a_hall_of_fame_goes_round_all_exports(place: int) -> None:
    """Of the longest search that is kept."""
    entry = json.loads(HALL.read_text(encoding="utf-8"))["hall of fame"][place]
    assert_round_trip(distil(from_text(entry["text"]), FORM, name=entry["rule"]))


def assert_round_trip(found: Distilled) -> None:
    """`.opt` text, torch module, SymPy and LaTeX say the same as the program."""
    again = Rule(found.opt())
    verdict = equivalent(again.program, found.program)
    assert verdict or (verdict.status == "open" and refute(again.program, found.program)[0] is None), verdict.to_text()
    assert_module_steps_alike(found)
    assert_sympy_agrees(found.program, found.sympy())
    latex = found.latex()
    assert latex.count("{") == latex.count("}") and "w" in latex


def assert_module_steps_alike(found: Distilled) -> None:
    made: dict[str, object] = {"__name__": "made"}
    exec(compile(found.module(), "made.py", "exec"), made)  # generated from the rule under test
    classes = [made[found.program.name], loads(found.opt(), backend="reference")]
    ends = []
    for cls in classes:
        w = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
        optimizer = cls([w])  # type: ignore[operator]
        for step in range(4):
            w.grad = torch.sin(3 * w.detach() + step)
            optimizer.step()
        ends.append(w.detach())
    assert torch.allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12)


def assert_sympy_agrees(program: Program, expressions: dict[str, object]) -> None:
    """The new values at some numbers, elementwise rules only."""
    import sympy

    from optlang.host import MAPS
    from optlang.meaning import number

    numbers = {"w": 0.3, "g": -0.7, "t": 3, **{h.name: h.default for h in program.hypers}, **{s.name: 0.2 for s in program.states}}
    if any(n.args and n.op not in MAPS for n in ir.walk(program.roots())):
        return
    with np.errstate(all="ignore"):
        values = ir.fold(
            program.roots(),
            lambda n, args: MAPS[n.op](*args) if args else number(n.value) if n.op == "const" else number(numbers[n.value or n.op]),
        )
    for name, node in {"w": program.weights, **program.updates}.items():
        expr = expressions[name]
        assert isinstance(expr, sympy.Expr)
        got = expr.subs({s: numbers[s.name] for s in expr.free_symbols}).evalf()
        if np.isfinite(values[node]) and got.is_real:
            assert float(got) == pytest.approx(float(values[node]), rel=1e-6, abs=1e-9)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(genomes())
def test_random_programs_go_round_as_rules(genome: Genome) -> None:
    found = distil(genome, FORM)
    again = Rule(found.opt()).program
    assert isinstance(again, Program)
    assert_same_steps(found.program, again)
    assert_same_steps(found.plain, at_defaults(found.program))


def at_defaults(program: Program) -> Program:
    """With all settings but the step size at their defaults for good."""
    table = {ir.hyper(h.name): ir.const(h.default) for h in program.hypers if h.name != "lr"}
    made = program.replaced(ir.substitute(program.all_roots(), table))
    return replace(made, hypers=tuple(h for h in made.hypers if h.name == "lr"))


def test_settings_have_the_values_that_they_stand_for() -> None:
    plain = to_program(from_text(ADAMW), FORM)
    rule = named(plain, "AdamWFound")
    assert {h.name: h.default for h in rule.hypers}["beta2"] == 0.999
    assert_same_steps(plain, at_defaults(rule))
    assert [s.name for s in rule.states] == ["m", "v"]
    text = "m = interp(g, m, 0.9)\na = square(g)\nv = interp(a, v, 0.999)\na = unbiased(m, 0.9)\nb = unbiased(v, 0.999)\nu = div(a, b)"
    rule = named(to_program(from_text(text), FORM))  # the bias of an average is corrected by its own share
    assert {"beta1", "beta2"} == {str(n.args[0].value) for n in ir.walk(rule.all_roots()) if n.op == "pow" and n.args[1] is ir.T}


def test_a_factor_goes_into_the_step_size_only_where_nothing_else_reads_it() -> None:
    free = to_program(from_text("u = mul(g, 0.25)"), FORM, lr=0.1)
    move = absorbed(free, True)
    assert move is not None and move.program.hyper("lr").default == pytest.approx(0.025)
    assert listing(move.program, True) == ("u = g",)
    bound = to_program(from_text("g = clip_global_norm(g, lr)\nu = mul(g, lr)\nu = mul(u, 0.25)"), LION)
    assert absorbed(bound) is None


# ------------------------------------------------------------------------------------------------------------ ablation


def test_intervals_of_paired_differences() -> None:
    from scipy import stats

    random = np.random.default_rng(1)
    a, b = random.normal(size=12), random.normal(size=12)
    result = paired(a, b)
    low, high = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((low, high))
    assert not paired(a, np.where(a > 0, np.inf, b)).within(math.inf) or math.isinf(paired(a, np.full(12, np.inf)).high)
    assert paired(a, a).within(0.0)


def test_what_matters_is_kept_and_what_does_not_goes() -> None:
    program = to_program(from_text("a = tanh(g)\nm = interp(a, m, 0.9)\nu = sign(m)"), FORM)

    def loss(program, seed, _):
        return 0.01 * (seed % 3) + ("sign(" not in "".join(listing(program, True)))

    kept = Ablation(program, Told(loss), range(8), scaled=True)
    move, results = kept.next(program) or pytest.fail("nothing could go")
    assert "sign(" in "".join(listing(move.program, True)) and results[0].mean == 0
    assert measure(move.program, True) < measure(program, True)


def test_better_is_not_left_out_either() -> None:
    """A simplification does not change what a rule does, for short tasks are no judge of it."""
    program = to_program(from_text("a = tanh(g)\nu = sign(a)"), FORM)
    trainer = Told(lambda p, seed, _: 1.0 - 0.2 * (p is not program) + 0.001 * seed)
    assert Ablation(program, trainer, range(8), scaled=True).next(program) is None


def test_every_task_has_to_agree() -> None:
    """Better on one and worse on the other is not the same on both."""
    program = to_program(from_text("a = tanh(g)\nu = sign(a)"), FORM)
    trainer = Told(lambda p, _, task: task * 0.2 * (p is not program), (-1, 1))
    assert Ablation(program, trainer, range(8), scaled=True).next(program) is None


def test_what_is_clearly_needed_is_tried_with_one_seed_on_one_task() -> None:
    program = to_program(from_text("a = tanh(g)\nm = interp(a, m, 0.9)\nu = sign(m)"), FORM)
    trainer = Told(lambda p, seed, _: 9.0 * (p is not program) + 0.001 * seed, ("first", "second"))
    ablation = Ablation(program, trainer, range(8), scaled=True)
    before = len(trainer.asked)
    assert ablation.next(program) is None
    [look] = trainer.asked[before:]
    assert (look.task, len(look.seeds)) == ("first", 1) and len(look.programs) > 1
    assert ablation.next(program) is None and trainer.asked[-1].programs == look.programs, "once more, where nothing else is left"


def test_what_looks_far_off_at_first_is_tried_again_when_the_rest_has_gone() -> None:
    """A sine that is needed as long as there is a hyperbolic tangent below it."""
    genome = from_text("a = mul(g, m)\nb = tanh(a)\nm = interp(g, m, 0.9)\nu = sin(b)")

    def loss(p, seed, _):
        text = "".join(listing(p, True))
        return 5.0 * ("interp" not in text or "mul" not in text or ("sin(" not in text and "tanh" in text)) + 0.001 * seed

    found = distil(genome, FORM, trainer=Told(loss), seeds=range(8))
    assert [step.name for step in found.trace.steps if step.kind == "measured"] == ["`tanh` left out", "`sin` left out"]


def test_nothing_is_tried_after_the_deadline() -> None:
    genome = from_text("a = tanh(g)\nm = interp(a, m, 0.9)\nu = sin(m)")
    found = distil(genome, FORM, trainer=Told(lambda *_: 0.0), seeds=range(8), seconds=-1.0)
    assert all(step.kind != "measured" for step in found.trace.steps) and len(listing(found.plain, True)) == 3


def test_a_program_that_diverges_is_refused() -> None:
    program = to_program(from_text("u = mul(g, 2.0)"), FORM)
    with pytest.raises(ValueError, match="diverges on 3 of 8 runs"):
        Ablation(program, Told(lambda _p, seed, _t: np.inf if seed < 3 else 0.0), range(8))


def test_shorter_rules_are_legal_and_read_the_gradient() -> None:
    program = to_program(RAW, LION)
    options = list(removals(program))
    assert options and all(len(listing(o.program)) < len(listing(program)) for o in options)
    for option in options:
        assert any(n is ir.G for n in ir.walk(option.program.roots()))


def test_the_real_trainer_drops_what_training_does_not_miss() -> None:
    """A sign of a hyperbolic sine, and a decay too small to be seen, on breast cancer."""
    genome = from_text("m = interp(g, m, 0.9)\na = sign(m)\nb = mul(w, 1e-7)\nu = add(a, b)")
    trainer = Trained.tuned(to_program(genome, FORM), ("cancer-mlp",), factor=0.2)
    found = distil(genome, FORM, trainer=trainer, seeds=range(8), lr=trainer.rates["cancer-mlp"])
    assert "b = mul" not in found.trace.end and "sign(" in found.trace.end
    assert any(step.kind == "measured" and "cancer-mlp" in step.evidence for step in found.trace.steps)
