"""LaTeX that is balanced and typesets, cards, graphs and listings that hold what they should."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from matplotlib.mathtext import MathTextParser

from optlang import library
from optlang.compare.comparison import difference
from optlang.ir import Program
from optlang.ops import OPS
from optlang.printing.latex import symbol
from optlang.printing.render import equations, graph, latex, listing, markdown, predicate, signs
from optlang.rules import Rule

GOLDEN = Path(__file__).parent / "golden" / "render"
NAMES = library.names()
HOSTILE = 'rule R "a `b` $x$ <script> | \\\\ 50%" { hyper lr = 1 in (0, inf) "x | y $z$ `q`" w\' = w - lr*g }'


def programs(name: str) -> list[Program]:
    what = Rule(name).program
    return [what] if isinstance(what, Program) else [case.program for case in what.cases]


def compare(name: str, text: str) -> None:
    """With a golden file; `OPTLANG_UPDATE_GOLDEN=1` writes it."""
    path = GOLDEN / name
    if os.environ.get("OPTLANG_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_latex_is_balanced(name: str) -> None:
    text = latex(Rule(name).program)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.count(r"\left") == text.count(r"\right") + text.count(r"\leftarrow")
    assert re.findall(r"\\begin\{(\w+)\}", text).count("cases") == re.findall(r"\\end\{(\w+)\}", text).count("cases")


@pytest.mark.parametrize("name", NAMES)
def test_every_equation_typesets(name: str) -> None:
    """Matplotlib knows no `cases`, so they become brackets here."""
    parser = MathTextParser("path")
    for program in programs(name):
        for line in equations(program):
            line = re.sub(r"\\(begin|end)\{cases\}|\\\\|&", " ", line).replace(r"\text", r"\mathrm").replace(r"\bmod", r"\%")
            parser.parse(f"${line}$")


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muonwithadamw", "sam", "schedulefreeadamw"])
def test_cards(name: str) -> None:
    compare(f"{name}.md", markdown(Rule(name).program))


@pytest.mark.parametrize("name", ["lion", "sophiah"])
def test_listings_and_graphs(name: str) -> None:
    compare(f"{name}.txt", listing(Rule(name).program))
    compare(f"{name}.dot", graph(Rule(name).program))


def test_names_are_written_as_in_papers() -> None:
    assert [symbol(n) for n in ("beta1", "lr", "m", "slow", "fast.beta2", "weight_lr_power")] == [
        r"\beta_{1}", r"\eta", "m", r"\mathrm{slow}", r"\beta_{2}^{\mathrm{fast}}", r"\mathrm{weight\_lr\_power}",
    ]  # fmt: skip
    assert [symbol(n) for n in ("beta2_max", "m1_old", "decay2_max")] == [
        r"\beta_{2,\mathrm{max}}", r"m_{1,\mathrm{old}}", r"\mathrm{decay2\_max}"]
    assert [symbol(*n) for n in (("m", "t"), ("m1", "t-1"), ("fast.m", "t"), ("m_hat", "t"))] == [
        "m_{t}", "m_{1,t-1}", r"m_{t}^{\mathrm{fast}}", r"m_{\mathrm{hat},t}",
    ]  # fmt: skip
    assert [symbol(n) for n in ("β_fast", "Δ2", "slow_β", "W[2,1]", "_x")] == [
        r"\beta_{\mathrm{fast}}", r"\Delta_{2}", r"\mathrm{slow\_{\beta}}", "W_{2,1}", r"\mathrm{\_x}",
    ]  # fmt: skip


def test_a_sign_stands_for_one_thing() -> None:
    """The step size is not called as another setting is, and one draw is not written as if there were several."""
    [adadagrad], [mezo] = programs("adadagrad"), programs("mezo")
    assert r"\eta" in latex(adadagrad) and r"\mathrm{lr} \, g_{t}" in latex(adadagrad)
    assert "lr" not in signs(adadagrad) and signs(mezo)["lr"] == r"\eta"
    assert latex(mezo).count("normal") == 1 and latex(mezo).count("z") == 4


def test_an_equation_and_a_size_have_signs_of_their_own() -> None:
    """A name of the rule that is `\\eta`, `c` or `x1` itself stands for itself alone."""
    body = "x1 = g*g + w + 1  eta = cos(pi*lr)  w' = w - eta*c*rows/cols*x1*(g*w + g - 3)^2*(g*w + g - 3)"
    assert equations(Rule(f"rule R {{ hyper lr = 1 hyper c = 2 {body} }}").program) == [  # type: ignore[arg-type]
        r"\eta = \cos\left(\pi \, \mathrm{lr}\right)",
        r"x_{1} = g_{t} \, g_{t} + w_{t-1} + 1",
        r"x_{2} = g_{t} \, w_{t-1} + g_{t} - 3",
        r"w_{t} = w_{t-1} - \frac{\eta \, c \, \mathrm{rows}}{\mathrm{cols}} \, x_{1} \, {x_{2}}^{2} \, x_{2}",
    ]


def test_parts_of_identities_and_draws_show_their_sizes() -> None:
    body = "p = eye(rows, 2) @ normal(2, cols) @ eye(cols) w' = w - p*uniform(per row)*normal()*mean(g per 4)"
    assert equations(Rule(f"rule R {{ {body} }}").program) == [  # type: ignore[arg-type]
        r"p = I_{\mathrm{rows} \times 2} \, \operatorname{normal}_{2 \times \mathrm{cols}}() \, I",
        r"w_{t} = w_{t-1} - p \odot \operatorname{uniform}_{\mathrm{row}}() \odot \operatorname{normal}() \odot "
        r"\operatorname{mean}_{\mathrm{4}}\left(g_{t}\right)",
    ]
    norm = latex(Rule("rule R { x = as_matrix(g) w' = w - as_param(x/norm(x per matrix)) }").program)
    assert r"\right\Vert_{\mathrm{matrix}}" in norm


def test_weights_to_evaluate_with_are_what_is_stored_after_the_step() -> None:
    text = latex(Rule("rule R { state a = w w' = w - g a' = 0.9*a + 0.1*w' eval = a' }").program)
    assert text.splitlines()[-2] == r"w_{\mathrm{eval}} &= a_{t}"


def test_a_draw_inside_a_block_is_one_draw() -> None:
    [sophia], [mezo] = programs("sophiah"), programs("mezo")
    assert latex(sophia).count("rademacher") == 1 and r"x_{1} \, \left(\nabla^2\mathcal{L}\,x_{1}\right)" in latex(sophia)
    assert difference(mezo, mezo).to_text().count("normal()") == 2  # once on each side


def test_products_of_elements_are_told_from_those_of_matrices() -> None:
    body = "a = (g*w) @ (g.T @ w)  b = 2*g*(w @ g.T @ w)  c = 2*w @ w.T  w' = w - a*mean(g) - b - c @ w - g*w"
    assert equations(Rule(f"rule R {{ {body} }}").program) == [  # type: ignore[arg-type]
        r"a = \left(g_{t} \odot w_{t-1}\right) \, {g_{t}}^{\top} \, w_{t-1}",
        r"b = 2 \, g_{t} \odot \left(w_{t-1} \, {g_{t}}^{\top} \, w_{t-1}\right)",
        r"c = 2 \, w_{t-1} \, {w_{t-1}}^{\top}",
        r"w_{t} = w_{t-1} - a \, \operatorname{mean}\left(g_{t}\right) - b - c \, w_{t-1} - g_{t} \odot w_{t-1}",
    ]  # fmt: skip
    assert r"\odot" not in latex(Rule("adafactor").program)  # there are no others


def test_a_remainder_shows_of_what() -> None:
    assert r"\left(\left(t - 1\right) \bmod 3\right)" in latex(Rule("rule R { every 3 from 1 { w' = w - g } }").program)


def test_the_card_of_a_route_has_the_settings_of_its_branches() -> None:
    card = markdown(Rule("rule A { hyper lr = 1 w' = w - lr*g } route R { when rank == 2 use A(lr = 2) otherwise use A() }", "R").program)
    heads = [line for line in card.splitlines() if line.startswith(("#", "`", "| `lr`"))]
    assert heads == ["# R", "## A", "`when rank == 2`", "| `lr` | 2.0 |  |  |", "## A", "`otherwise`", "| `lr` | 1.0 |  |  |"]


def test_brackets_only_where_they_are_needed() -> None:
    lines = equations(Rule("rule R { a = (g + w)*2  b = g - (w - a)  c = -(g*w)  w' = a - b - c^2 + (-g)^2 }").program)  # type: ignore[arg-type]
    assert lines == [
        r"a = \left(g_{t} + w_{t-1}\right) \cdot 2", r"b = g_{t} - \left(w_{t-1} - a\right)",
        r"c = -\left(g_{t} \, w_{t-1}\right)",
        r"w_{t} = a - b - {c}^{2} + {\left(-g_{t}\right)}^{2}",
    ]  # fmt: skip
    [power] = equations(Rule("rule R { w' = w - (g/t)^2*(g/t) }").program)  # type: ignore[arg-type]
    assert power == r"w_{t} = w_{t-1} - {\left(\frac{g_{t}}{t}\right)}^{2} \, \frac{g_{t}}{t}", "not g²/t"


def test_a_doubling_chain_stays_small() -> None:
    body = " ".join(f"x{i + 1} = x{i} + x{i}" for i in range(100))
    assert len(latex(Rule(f"rule R {{ x0 = g {body} w' = w - x100 }}").program)) < 8000
    nested = "g"
    for _ in range(11):
        nested = f"sqrt({nested} + {nested}^2)"
    assert len(latex(Rule(f"rule R {{ w' = w - {nested} }}").program)) < 4000


def test_text_of_a_stranger_is_text() -> None:
    card = markdown(Rule(HOSTILE).program)
    assert "<script>" not in card and r"\<script\>" in card
    assert all(row.replace(r"\|", "").count("|") == 5 for row in card.splitlines() if row.startswith("|"))


def test_conditions_of_routes_are_written_as_they_were() -> None:
    branches = (
        'when (rank == 2 or numel > 10) and not named("a*") use A() when dtype == "bfloat16" use A() '
        "when -rank < max(rows, 3) use A() otherwise use A()"
    )
    cases = Rule(f"route R {{ {branches} }} rule A {{ w' = w }}", "R").program.cases  # type: ignore[union-attr]
    assert [predicate(c.condition) for c in cases if c.condition] == [
        '(rank == 2 or numel > 10) and not named("a*")', 'dtype == "bfloat16"', "-rank < max(rows, 3)",
    ]  # fmt: skip


def test_a_route_is_listed_rule_by_rule() -> None:
    text = listing(Rule("muonwithadamw").program)
    assert "otherwise use" in text and text.count("w' = ") == 2


def test_every_function_and_number_has_a_form() -> None:
    functions = [row.name for row in OPS.values() if row.role == "map" and row.infix is None and row.operands == 1]
    for name in sorted({*functions} - {"neg", "not", "isnan", "isfinite"}):
        text = latex(Rule(f"rule R {{ w' = w - where({name}(g) > -inf, 1e-3, nan) }}").program)
        assert text.count("\\infty") == 1 and "nan" in text


def test_weights_to_evaluate_with_are_parted_where_they_are_large() -> None:
    """A long sum takes no more levels than Python has, and doublings no more lines than there are."""
    long_sum = " + ".join(f"w*{i + 2}" for i in range(1500))
    doublings = " ".join(f"x{i} = (x{i + 1} + 1)*(x{i + 1} + 2)" for i in range(60)) + " x60 = w"
    for body, most in ((f"eval = {long_sum}", 100), (f"{doublings} eval = x0", 200)):
        text = Rule(f"rule R {{ w' = w - 0.1*g {body} }}").latex()
        assert r"x_{\mathrm{eval},1} &= " in text and r"w_{\mathrm{eval}} &= " in text
        assert text.count("\n") < most
