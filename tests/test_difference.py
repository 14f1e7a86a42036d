"""`optlang diff`: known pairs in words, names that do not count, and nothing called the same that is not. (10 s)"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rules import rules, texts
from stepping import program

import optlang
from optlang import ir, library
from optlang.cli import main
from optlang.compare.alignment import Aligner
from optlang.compare.comparison import difference
from optlang.compare.difference import Row
from optlang.compare.pairing import compared, pair, with_points
from optlang.compare.trial import refute
from optlang.ir import Node, Program
from optlang.ops import OPS
from optlang.types import TypeProblem

KNOWN = {
    ("adamw", "adabelief"): "AdaBelief is AdamW with `(g - m')^2` for `g^2` and `+ eps` added in `s'`",
    ("adam", "adamw"): "AdamW is Adam with `g` for `g + weight_decay*w` in `m'` and `v'`; `+ weight_decay*w` added in `w'`",
    ("adam", "amsgrad"): "AMSGrad is Adam with `h'` for `v'` in `w'`; `h' = max(h, v')` added",
    ("lion", "signum"): "Signum is Lion with `sign(m')` for `sign(beta1*m + (1 - beta1)*g)` in `w'`",
    ("momentum", "nesterov"): "Nesterov is Momentum with `momentum*m'` for `m'` and `+ g + weight_decay*w` added in `w'`",
    ("lion", "cautiouslion"): "CautiousLion is Lion with `u*k*numel/(sum(k per tensor) + 1)` for `u` in `w'`",
    ("adam", "adam"): "Adam is Adam",
}
OTHER_NAMES = {"m": "first", "v": "w2", "z": "q", "n": "r", "lr": "eta", "beta": "decay", "eps": "tiny", "flag": "on"}


def named(name: str) -> Program:
    found = optlang.Rule(name).program
    assert isinstance(found, Program)
    return found


@pytest.mark.parametrize(("a", "b"), KNOWN)
def test_known_pairs(a: str, b: str) -> None:
    assert difference(named(a), named(b)).sentence() == KNOWN[a, b]


def test_weights_to_evaluate_with_read_what_is_stored() -> None:
    body = "hyper lr = 0.1 state a = w state n per tensor = 0 w' = w - lr*g a' = 0.9*a + 0.1*w' n' = n + 1"
    old, new = (program(f"rule R {{ {body} eval = {eval_} }}") for eval_ in ("a'", "where(n' > 3, a', w')"))
    rows = difference(old, new).rows
    assert [row for row in rows if not row.same] == [Row("eval = a'", "eval = where(n' > 3, a', w')", False)]


def test_notebooks_show_what_print_does() -> None:
    """IPython asks the `_repr_pretty_` of a class for its text, an inherited one only where the class has no `__repr__`."""
    optimizer = optlang.load("adam")([torch.nn.Parameter(torch.ones(2))])
    told = (optimizer.routes(), optimizer.backends(), optimizer.describe())
    for shown in (optlang.diff("adam", "adamw"), optlang.equivalent("adam", "adamw"), *told):
        written: list[str] = []
        type(shown).__dict__["_repr_pretty_"](shown, SimpleNamespace(text=written.append), False)
        assert written == [str(shown)] and "(" not in str(shown)[:5]


def test_states_settings_and_equations_are_paired_by_what_they_do() -> None:
    other = program("""rule Mine { hyper step = 1 in (0, inf) hyper a = 0.9 in [0, 1) hyper b = 0.9 in [0, 1) hyper c = 1 in [0, inf)
                       hyper d = 0 in [0, inf) state v = 0 state m = 0  x = d*w + g  m' = x^2*(1 - b) + m*b  v' = (1 - a)*x + a*v
                       w' = w - v'*step/(1 - a^t)/(c + sqrt(m'/(1 - b^t))) }""")
    found = difference(named("adam"), other)
    assert found.distance == 0 and found.edits == () and all(row.same for row in found.rows)
    assert found.renamed == {
        "m": "v", "v": "m", "d": "x", "lr": "step", "beta1": "a", "beta2": "b", "eps": "c", "weight_decay": "d",
    }  # fmt: skip
    assert found.sentence() == "Mine is Adam by other names"
    verdict = optlang.diff("adam", optlang.Rule.from_source(optlang.errors.Source("rule R { w' = w - g }"))).verdict
    assert verdict is not None and verdict.status == "different"


def test_other_extents_starts_and_places_are_differences() -> None:
    def rule(state: str, more: str = "") -> Program:
        return program(f"rule R {{ hyper lr = 1 in (0, inf) state {state} c' = c + 1 {more} w' = w - lr*g/c' }}")

    [edit] = difference(rule("c = 0"), rule("c per model = 0")).edits
    assert (edit.old, edit.new) == ("c per element", "c per model")
    [edit] = difference(rule("c = 0"), rule("c = 2")).edits
    assert (edit.old, edit.new, edit.where) == ("0", "2", ("c at first",))
    [edit] = difference(rule("c = 0"), rule("c = 0", "report x = lr*2")).edits
    assert (edit.old, edit.new) == (None, "report x = lr*2")


def test_equal_by_algebra_is_the_same_though_the_equations_differ() -> None:
    text = """rule R { hyper lr = 1e-3 in (0, inf) hyper momentum = 0.9 in [0, 1) hyper weight_decay = 0 in [0, inf) state m = 0
              m' = momentum*m - (g + weight_decay*w)  w' = w + lr*m' }"""
    found = optlang.diff("momentum", text)
    assert found and found.distance > 0 and found.verdict is not None and "-1 times" in found.verdict.reason


# ------------------------------------------------------------------------------------------------------- any rule


@settings(max_examples=40)
@given(texts())
def test_names_do_not_count(text: str) -> None:
    other = re.sub(r"[a-z]+", lambda found: OTHER_NAMES.get(found[0], found[0]), text)
    assert difference(program(text), program(other)).distance == 0


def commuted(rule: Program, turns: list[bool]) -> Program:
    """With the operands of some operators exchanged."""
    left = iter(turns)

    def turned(node: Node) -> Node | None:
        return ir.make(node.op, node.args[::-1], node.value) if node.args and OPS[node.op].commutes and next(left, False) else None

    return rule.replaced(ir.rewrite(rule.all_roots(), turned))


@settings(max_examples=40)
@given(rules, st.lists(st.booleans(), min_size=30, max_size=30))
def test_the_order_of_operands_does_not_count(rule: Program, turns: list[bool]) -> None:
    assert difference(rule, commuted(rule, turns)).distance == 0


@settings(max_examples=60)
@given(rules, st.data())
def test_what_is_called_the_same_cannot_be_told_apart(rule: Program, data: st.DataObject) -> None:
    """A rule with one expression in the place of another: it is another rule, or running both shows no difference."""
    nodes = ir.walk(rule.roots())
    old, new = (data.draw(st.sampled_from(nodes)) for _ in range(2))
    try:
        other = rule.replaced(ir.substitute(rule.all_roots(), {old: new}))
    except TypeProblem:
        return
    found = difference(rule, other)
    assert (found.distance == 0) == all(row.same for row in found.rows if row.old and row.new) or found.distance
    if not found.distance:
        assert refute(rule, other)[0] is None
    if rule.roots() == other.roots():
        assert not found.distance


@pytest.mark.parametrize("width", [60, 80, 120, 300])
@pytest.mark.parametrize(("a", "b"), [("soap", "shampoo"), ("muon", "trion"), ("sgd", "psgdkron"), ("sam", "ranger21")])
def test_text_fits(a: str, b: str, width: int) -> None:
    text = difference(named(a), named(b)).to_text(width)
    table = text.split("\n\n")[1].splitlines()
    assert width < 80 or max(map(len, table)) <= min(width, 160)


def test_every_rule_is_itself() -> None:
    for name in library.names()[::5]:
        made = optlang.Rule(name).program
        if isinstance(made, Program):
            assert difference(made, made).distance == 0, name


def test_a_deep_rule() -> None:
    def deep(inner: str) -> Program:
        return program(f"rule R {{ state a = 0  a' = {inner}  x = a'  repeat 400 {{ x = sin(x + g) }} w' = w - x }}")

    assert difference(deep("g"), deep("g")).distance == 0
    assert difference(deep("g + w"), deep("a + g")).distance > 0


def test_long_rules_that_have_little_in_common_are_not_searched_to_the_end() -> None:
    """What is equal is still found."""

    def chain(first: str) -> Program:
        lines = "  ".join(f"x{i + 1} = x{i}*x{i} + x{i}" for i in range(900))
        return program(f"rule R {{ state m = 0  m' = 0.9*m + g  x0 = {first}  {lines}  w' = w - m' - x900 }}")

    aligner = Aligner()
    sides = pair(aligner, chain("g"), chain("sin(g)"))
    changes = compared(aligner, *with_points(aligner, *sides))
    assert aligner.is_done
    assert not changes["m'"].cost and changes["w'"].cost


# --------------------------------------------------------------------------------------------------- command line


def test_exit_codes_and_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.opt").write_text("rule A { w' = w - g }\nrule B { w' = -g + w }\nrule C { w' = w + g }")
    Path("bad.opt").write_text("rule A { w' = w - gg }")
    assert main(["diff", "two.opt:A", "two.opt:B"]) == 0
    assert main(["diff", "two.opt:A", "two.opt:C"]) == 1
    assert "different: they part at step 1" in capsys.readouterr().out
    for a, b, said in (
        ("two.opt", "adam", "choose one by name: A, B, C"), ("two.opt:D", "adam", "no rule `D`"), ("bad.opt", "adam", "unknown name `gg`"),
        ("adam", "nope", "no rule `nope`"), ("adam", "muonwithadamw", "one by one (Muon, AdamW)"), ("-", "-", "name a file for the other"),
    ):  # fmt: skip
        assert main(["diff", a, b]) == 2
        assert said in capsys.readouterr().err


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "adamw", "adabelief", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "different" and found["renamed"] == {"v": "s"} and found["distance"] == 4
    assert found["edits"][0] == {"old": "g^2", "new": "(g - m')^2", "where": ["s'"]}
    assert [row["same"] for row in found["equations"]] == [True, False, True, True]


def test_no_torch_and_no_sympy_for_rules_that_part() -> None:
    script = "import sys; from optlang.cli import main; main(['diff', 'adam', 'adamw']); assert not {'torch', 'sympy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
