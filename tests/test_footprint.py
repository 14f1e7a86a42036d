"""What a step is said to cost: by hand for known rules, and against what optimizers really hold and kernels really read."""

from __future__ import annotations

import pytest
import torch

import optlang
from optlang.backends.base import StepError
from optlang.backends.formats import STATE_FORMATS
from optlang.bench.footprint import Footprint
from optlang.bench.footprint_table import table
from optlang.cli import main
from optlang.ir import Program
from optlang.library import names
from optlang.plan import Plan, plan
from optlang.rules import Rule
from optlang.simplify import simplify

MATRIX = (128, 64)


def planned(text: str) -> Plan:
    program = Rule(text).program
    assert isinstance(program, Program)
    return plan(simplify(program))


@pytest.mark.parametrize(
    ("rule", "kept", "floor", "moved", "passes", "launches"),
    [
        ("sgd", 0, 12, 12, 1, 1),  # reads w g, writes w
        ("lion", 4, 20, 20, 1, 1),
        ("adamw", 8, 28, 28, 1, 1),
        ("lamb", 8, 28, 44, 2, 3),  # g m v w for the two norms, and once more to step; sums are gathered between
        ("rule R { hyper lr = 0.1 in (0, inf)  w' = w - lr*g/norm(g) }", 0, 12, 16, 2, 3),
        ("rule R { hyper lr = 0.1 in (0, inf)  w' = w - lr*g/norm(g, per model) }", 0, 16, 16, 2, 4),  # sums are also handed out
    ],
)
def test_known_rules(rule: str, kept: float, floor: float, moved: float, passes: float, launches: float) -> None:
    one = Footprint(planned(rule), MATRIX)
    assert (one.kept, one.floor, one.moved, one.passes, one.launches) == (kept, floor, moved, passes, launches)
    assert not one.refused


def test_cpp_reads_new_states_again_and_not_what_they_are_made_of() -> None:
    """Of lamb: g m v w are read and m v written, then m v w read and w written."""
    assert Footprint(planned("lamb"), MATRIX).moved_by_cpp == 40
    assert "(40.00 bytes moved by C++)" in table(planned("lamb"))
    assert Footprint(planned("adamw"), MATRIX).moved_by_cpp == 28
    assert "C++" not in table(planned("adamw"))


def test_steps_that_differ_are_averaged() -> None:
    text = "rule R { hyper lr = 0.1 in (0, inf)  state h = 0  every 10 { h' = g^2 }  w' = w - lr*g/(h' + 1) }"
    one = Footprint(planned(text), MATRIX)
    assert len(one.truths) == 2
    assert sum(one.truths.values()) == 1000
    assert one.floor == pytest.approx(0.9 * 16 + 0.1 * 16)  # h is read, or made of g and written
    assert "2 kinds of step" in table(planned(text))


def test_blocks_that_are_never_taken_cost_nothing() -> None:
    text = """rule R { hyper lr = 0.1 in (0, inf)  hyper bool slow = false
      when slow { state m = 0  m' = m + g  u = m' } else { u = g }  w' = w - lr*u }"""
    assert Footprint(planned(text), MATRIX).kept == 0
    assert Footprint(planned(text.replace("false", "true")), MATRIX).kept == 4


@pytest.mark.parametrize("form", STATE_FORMATS)
@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "lamb", "prodigy", "rprop", "shampoo", "soap", "ademamix"])
def test_what_is_kept_is_what_an_optimizer_holds(name: str, form: str) -> None:
    weights = torch.nn.Parameter(torch.ones(MATRIX))
    weights.grad = torch.ones(MATRIX)
    optimizer = optlang.load(name, backend="torch", state=form)([weights])  # type: ignore[call-arg]
    optimizer.step()
    held = {k: v for k, v in optimizer.state[weights].items() if isinstance(v, torch.Tensor) and k != "step"}
    found = sum(v.nbytes for v in held.values())
    assert Footprint(planned(name), MATRIX, form).kept * weights.numel() == pytest.approx(found, rel=1e-9)


def test_every_rule_of_the_library_has_a_table() -> None:
    for name in names():
        program = Rule(name).program
        for one in [program] if isinstance(program, Program) else [case.program for case in program.cases]:
            cut = plan(simplify(one))
            assert "bytes per element" in table(cut)
            plain, small = (Footprint(cut, MATRIX, form) for form in ("fp32", "int8"))
            assert 12 <= plain.floor <= plain.moved
            assert small.kept <= plain.kept


def test_a_vector_for_a_matrix_rule_says_why_not() -> None:
    with pytest.raises(StepError, match="no rows and columns"):
        _ = Footprint(planned("shampoo"), (64,)).kept
    assert "send it to another rule" in table(planned("shampoo"))


def test_states_that_are_not_there_have_one_row() -> None:
    forms = [line.split()[0] for line in table(planned("sgd")).splitlines() if line.startswith("  ")]
    assert forms[:2] == ["state", "fp32"] and "int8" not in forms
    assert all(form in table(planned("adamw")) for form in STATE_FORMATS)


@pytest.mark.parametrize(
    ("rule", "reason"), [("muon", "has values real per cols×rows"), ("shampoo", "has a state real per rows×rows"), ("adafactor", "")]
)
def test_what_has_no_kernels_says_why(rule: str, reason: str) -> None:
    text = table(planned(rule))
    assert (f"torch computes it: the rule {reason}, for which C++ and Triton have no kernels" in text) == bool(reason)
    assert ("passes over each parameter" in text) == (not reason)


def test_a_route_is_planned_rule_by_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "muonwithadamw", "--as", "plan"]) == 0
    assert capsys.readouterr().out.count("# ") == 2


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "adamw", "--as", "cost"]) == 0
    text = capsys.readouterr().out
    assert "int8   2.03  16.06  16.06     0.57" in text
    assert "1 pass over each parameter, 1 launch of Triton" in text
    assert "add, subtract" in text


@pytest.mark.parametrize(("step", "idle"), [
    ("w' = w", "a matrix 1024×1024 and a vector 1024"), ("state s = 1 s' = s + g w' = w", "a matrix 1024×1024 and a vector 1024"),
    ("when rank >= 2 { w' = w - g }", "a vector 1024"), ("every 5000 { w' = w - g }", "a matrix 1024×1024 and a vector 1024"),
])  # fmt: skip
def test_parameters_that_are_left_alone_cost_nothing(step: str, idle: str) -> None:
    text = table(planned(f"rule R {{ {step} }}"))
    assert f"for {idle}, bytes per element (weights and gradient float32)\n  none of the first 1,000 steps reads or writes" in text
    assert ("12.00" in text) == (idle == "a vector 1024")
