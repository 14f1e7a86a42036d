"""Syntax trees to programs: names, instances, extents, blocks, calls, routes, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from optlang import ir, library
from optlang.errors import OptError, Source
from optlang.front import parser
from optlang.lower import check, lower
from optlang.types import ELEMENT, MODEL, ROW, TypeProblem


def program(text: str, name: str = "", **baked: int | bool) -> ir.Program:
    file, found = parser.parse(Source(text, "x.opt"))
    assert not found
    result = lower(file, name, baked)
    assert isinstance(result, ir.Program)
    return result


def codes(text: str) -> list[str]:
    file, found = parser.parse(Source(text, "x.opt"))
    assert not found, found[0].to_text()
    return [d.code for d in check(file)]


def rule(body: str, after: str = "") -> str:
    return f"rule A {{ {body} }} {after}"


# -------------------------------------------------------------------------------------------------- what is meant


def test_equations_have_no_order() -> None:
    one = program(rule("hyper lr = 1 in (0, inf) state m = 0 m' = m + g u = m'*2 w' = w - lr*u"))
    two = program(rule("w' = w - lr*u u = m'*2 m' = m + g state m = 0 hyper lr = 1 in (0, inf)"))
    assert one.weights is two.weights and one.updates == two.updates


def test_a_held_state_is_itself() -> None:
    p = program(rule("state a = w a' = a w' = w - g*a"))
    assert p.updates["a"] is p.states[0].node and p.states[0].init is ir.W


def test_blocks_hold_what_they_do_not_mention() -> None:
    p = program(rule("state m = 0 every 3 { m' = g } w' = w - m'"))
    assert p.updates["m"].op == "branch" and p.updates["m"].args[2] is p.states[0].node
    p = program(rule("when t > 5 { w' = w - g }"))
    assert p.weights.args[1:] == (ir.sub(ir.W, ir.G), ir.W)


def test_every_from_counts_from_its_start() -> None:
    fires = program(rule("every 4 from 2 { w' = g }")).weights.args[0]
    assert fires.op == "and" and fires.args[0].op == "ge"


def test_a_state_of_a_static_block_is_guarded_and_of_another_is_not() -> None:
    p = program(rule("when rank >= 2 { state r per row = 0 r' = mean(g per row) u = g*r' } else { u = g } w' = w - u"))
    assert p.states[0].guard is not None and p.states[0].type.extent == ROW
    p = program(rule("every 2 { state r = 0 r' = g u = r' } else { u = g } w' = w - u"))
    assert p.states[0].guard is None and p.updates["r"].op == "branch"


def test_instances_are_named_by_equation_then_callee_then_number() -> None:
    text = "rule B { hyper lr = 1 in (0, inf) state m = 0 m' = m + g w' = w - lr*m' } " + rule(
        "a = B() x = B(g = a) + B() w' = B(w = x)"
    )
    p = program(text, "A")
    assert [s.name for s in p.states] == ["a.m", "x.m", "x_2.m", "B.m"]
    assert [h.name for h in p.hypers] == ["a.lr", "x.lr", "x_2.lr", "B.lr"]


def test_calls_of_a_function_with_a_state_in_a_block_keep_two() -> None:
    text = "def f(x) { when rank >= 2 { state m = 0 m' = m + x y = m' } else { y = x } return y } " + rule("w' = w - f(g) - f(w)")
    assert [s.name for s in program(text, "A").states] == ["f.m", "f_2.m"]


def test_given_hypers_become_expressions() -> None:
    text = "rule B { hyper lr = 1 in (0, inf) hyper b = 0 in [0, 1) w' = w - lr*b*g } " + rule("hyper lr = 2 in (0, inf) w' = B(lr = lr/2)")
    p = program(text, "A")
    assert [h.name for h in p.hypers] == ["lr", "B.b"]
    assert any(n is ir.div(ir.hyper("lr"), ir.const(2)) for n in ir.walk([p.weights]))


def test_functions_keep_state_for_each_call() -> None:
    p = program("def avg(x, b = 0.5) { state a = 0 a' = b*a + x return a' } " + rule("u = avg(g) v = avg(g^2, b = 0.1) w' = w - u - v"))
    assert [s.name for s in p.states] == ["u.a", "v.a"]


def test_pure_functions_of_the_same_arguments_are_one_expression() -> None:
    doubling = "def f0(x) = x + x " + " ".join(f"def f{i}(x) = f{i - 1}(x) + f{i - 1}(x)" for i in range(1, 36))
    start = time.thread_time()
    assert len(ir.walk([program(doubling + rule("w' = f35(g)")).weights])) == 37
    assert time.thread_time() - start < 20


def test_repeat_is_unrolled_with_baked_counts() -> None:
    text = rule("hyper int n = 3 in [0, 9] repeat n { state y = g y' = y*2 } w' = w - y")
    assert program(text).hyper("n").baked
    doubled = ir.G
    for _ in range(4):
        doubled = ir.mul(doubled, ir.const(2))
    assert program(text, n=4).weights is ir.sub(ir.W, doubled)


def test_reductions_leave_what_per_says() -> None:
    p = program(rule("state n per model = 0 n' = norm(g per model) w' = w - g/n'"))
    assert p.updates["n"].type.extent == MODEL
    p = program(rule("w' = w - mean(g.T per row).T"))
    assert p.weights.type.extent == ELEMENT
    p = program(rule("y = as_matrix(g) w' = w - as_param(y - mean(y per row))"))
    assert p.weights.type.extent == ELEMENT


def test_gradient_at_the_weights_is_the_gradient() -> None:
    assert program(rule("w' = w - grad(w)")).weights is ir.sub(ir.W, ir.G)


def test_each_written_draw_is_its_own_and_a_named_one_is_one() -> None:
    p = program(rule("z = normal() w' = w - z*z - normal() - normal()"))
    assert len({n.value for n in ir.walk([p.weights]) if n.op == "random"}) == 3
    q = program(rule("other = g*2 z = normal() w' = w - z*z - normal() - normal() - other"))
    assert {n.value for n in ir.walk([q.weights]) if n.op == "random"} == {n.value for n in ir.walk([p.weights]) if n.op == "random"}


def test_draws_of_a_loop_and_of_calls_differ() -> None:
    p = program("def noise(x) = x + normal() " + rule("repeat 2 { state y = g y' = y + normal() } w' = y + noise(g) + noise(g)"))
    assert len({n.value for n in ir.walk([p.weights]) if n.op == "random"}) == 4


def test_eval_is_over_what_is_stored() -> None:
    p = program(rule("state a = w a' = 0.9*a + 0.1*w' w' = w - g eval = 2*a' - w'"))
    assert p.evaluation is ir.sub(ir.mul(ir.const(2), p.states[0].node), ir.W)


def test_the_evaluation_of_a_called_rule_is_the_callers() -> None:
    text = "rule B { state a = w a' = a + w' w' = w - g eval = a' } " + rule("w' = B()")
    assert program(text, "A").evaluation is ir.state("B.a", program(text, "A").states[0].type)
    assert program(text.replace("w' = B()", "w' = B() + 0*g"), "A").evaluation is None


def test_named_equations_come_in_an_order_in_which_they_can_be_computed() -> None:
    names = [name for name, _ in program(rule("w' = w - a a = b*2 b = c + 1 c = g")).names]
    assert "u" in dict(program(rule("when t > 2 { u = g } else { u = 2*g } w' = w - u")).names)
    assert names.index("c") < names.index("b") < names.index("a")


def test_thousands_of_equations_lower_quickly_in_any_order() -> None:
    chain = [f"x{i + 1} = x{i} + g*{i}" for i in range(2400)]
    text = rule("x0 = g " + " ".join(reversed(chain)) + " w' = w - x2400")
    start = time.thread_time()
    assert len(program(text).names) == 2401
    assert time.thread_time() - start < 20


def test_a_route_gives_cases_with_settings() -> None:
    file, _ = parser.parse(library.find("muonwithadamw"))
    routing = lower(file)
    assert isinstance(routing, ir.Routing)
    assert [c.program.name for c in routing.cases] == ["Muon", "AdamW"] and routing.cases[1].condition is None
    assert routing.cases[1].settings == {"lr": 3e-4, "weight_decay": 0.1}


def test_routes_share_conditions_by_functions() -> None:
    """Also those that call others, from other files; names in one `or` are one question."""
    text = """from std import is_head
    def odd() = rank == 3 or not small()
    def small() = numel < 9
    route R { when odd() use A() when is_head() or named("x") or named("y", "z") use A() otherwise use A() } rule A { w' = w - g }"""
    routing = lower(parser.parse(Source(text))[0], "R")
    assert isinstance(routing, ir.Routing)
    odd, named, _ = [case.condition for case in routing.cases]
    alike = lower(parser.parse(Source("route R { when rank == 3 or not (numel < 9) use A() otherwise use A() } " + rule("w' = w")))[0], "R")
    assert isinstance(alike, ir.Routing) and odd == alike.cases[0].condition
    assert named is not None and named.op == "named" and named.value[0] == "*head*" and named.value[-3:] == ("x", "y", "z")


@pytest.mark.parametrize("name", library.names())
def test_the_library_lowers_under_the_names_of_its_files(name: str) -> None:
    file, found = parser.parse(library.find(name))
    assert not found and check(file) == []
    assert lower(file, name).name.lower() == name


# ----------------------------------------------------------------------------------------------- what is refused

REFUSED = {
    "unknown name": ("w' = w - lrr*g", ["N02"]),
    "unknown function": ("w' = w - sqr(g)", ["N01"]),
    "unknown rule": ("w' = Adm()", ["N09"]),
    "function of std not imported": ("state m = 0 m' = ema(m, g, 0.9) w' = w - m'", ["N15"]),
    "twice": ("a = 1 a = 2 w' = w - a*g", ["N03"]),
    "new value twice": ("w' = w - g w' = w", ["N03"]),
    "in a block and outside": ("w' = w - g every 2 { w' = w }", ["N03"]),
    "a state of two blocks": (
        "when t > 2 { state v = 0 v' = v + g w' = w - v } else { state v per tensor = 0 v' = v + mean(g) w' = w - v }", ["N03"]),
    "shadowing": ("a = 1 when t > 2 { a = 2 w' = w - a } else { w' = w }", ["N03"]),
    "reserved": ("pi = 3 w' = w - pi*g", ["N04"]),
    "builtin": ("mean = 3 w' = w - g", ["N04"]),
    "cycle": ("a = b b = a w' = w - a", ["N05"]),
    "cycle through new weights": ("a = w' w' = w - a", ["N05"]),
    "prime on a non-state": ("m' = g w' = w - g", ["N06"]),
    "prime read on a non-state": ("m = g w' = w - m'", ["N06"]),
    "state without equation": ("state m = 0 w' = w - g", ["N07"]),
    "argument count": ("w' = w - sqrt(g, 2)", ["N10"]),
    "named argument of a builtin": ("w' = w - clip(g, low = 1, high = 2)", ["N11"]),
    "missing times": ("state m = 0 m' = m (1 - 2) w' = w - g", ["N14"]),
    "one side only": ("when t > 2 { a = g } w' = w - a", ["N13"]),
    "shapes": ("w' = w - g @ g", ["T07"]),
    "truth as number": ("w' = w - (g > 0)", ["T01"]),
    "number as truth": ("w' = where(g, w, g)", ["T01"]),
    "too fine": ("state r per row = 0 r' = g w' = w - r'", ["T02"]),
    "too fine inside a block": ("state r per model = 0 when norm(g) > 1 { r' = r + 1 } w' = w - g", ["T02"]),
    "elementwise condition": ("when g > 0 { w' = w } else { w' = g }", ["T03"]),
    "unknown extent": ("w' = w - mean(g per rwo)", ["T04"]),
    "per without a reduction": ("w' = w - sqrt(g per row)", ["T05"]),
    "gradient in an initial value": ("state m = g m' = m w' = w - g", ["T06"]),
    "window": ("state h[4] per model = 0 h' = norm(g per model) w' = w - g", ["T01"]),
    "no new weights": ("a = g", ["R01"]),
    "default outside": ("hyper b = 2 in [0, 1) w' = w - b*g", ["R02"]),
    "empty range": ("hyper b = 2 in [3, 1] w' = w - b*g", ["R03"]),
    "default not constant": ("hyper b = t w' = w - b*g", ["R04"]),
    "fraction for int": ("hyper int b = 1.5 w' = w - b*g", ["R04"]),
    "number for bool": ("hyper bool b = 1 w' = where(b, w, g)", ["R04"]),
    "count not whole": ("repeat 2.5 { state y = g y' = y } w' = w - y", ["R05"]),
    "count not known": ("hyper n = 2 repeat n { state y = g y' = y } w' = w - y", ["R05"]),
    "period": ("every 0 { w' = w }", ["R05"]),
    "return in a rule": ("return 3 w' = w - g", ["R06"]),
    "hyper in a block": ("when t > 1 { hyper b = 1 w' = w }", ["R06"]),
    "named outside a route": ('w' + "' = where(named(\"x\"), w, g)", ["R06", "R06"]),
    "chained comparison": ("w' = where(0 < g < 1, w, g)", ["R08"]),
    "eval of the gradient": ("w' = w - g eval = w' + g*2", ["R10"]),
    "report per element": ("report a = g w' = w - g", ["T02"]),
    "a loop after an equation": ("y = 1 repeat 2 { state y = g y' = y } w' = w - y", ["N03"]),
    "a loop after a loop": ("repeat 2 { state y = g y' = y } repeat 2 { state y = g y' = y } w' = w - y", ["N03"]),
    "a loop after a state": ("state y = 0 y' = y repeat 2 { state y = g y' = y } w' = w - g", ["N03"]),
    "a loop without equation": ("repeat 2 { state y = g z = y } w' = w - y", ["N07"]),
    "a window in a loop": ("repeat 2 { state y[3] = g y' = y } w' = w - g", ["R06"]),
    "an extent in a loop": ("repeat 2 { state y per row = 0 y' = y } w' = w - g", ["R06"]),
    "a state in a block of a loop": ("repeat 2 { state y = g y' = y when t > 3 { state z = 0 z' = z } } w' = w - y", ["R06"]),
    "per twice": ("w' = w - sum(g per row, per col)", ["T05"]),
    "a setting as a truth": ("hyper bool b = true state m = b m' = m w' = w - g", ["T02"]),
    "beyond float64": ("w' = w - 1e400*g", ["L03"]),
    "windows of two lengths": ("state a[3] = 0 a' = push(a, g) state b[4] = 0 b' = push(b, g) w' = w - mean(a + b)", ["T01"]),
    "a row as a matrix": ("w' = w - as_param(as_matrix(mean(g per row)))", ["T07"]),
    "two shapes": ("w' = w - as_param(as_matrix(g) @ g.T)", ["T07"]),
    "as many elements as a real number says": ("hyper k = 4 state v per k = 0 v' = v w' = w - v'", ["R05"]),
    "as many elements as a state says": ("state k per tensor = 4 k' = k w' = w - sum(g per k)", ["R05"]),
    "no elements": ("w' = w - sum(g per 0)", ["R05"]),
    "half an element": ("w' = w - sum(g per 0.5)", ["R05"]),
    "elements in a state of runs": ("state v per 4 = 0 v' = v + g w' = w - v'", ["T02"]),
    "runs in runs of another length": ("state v per 4 = 0 v' = sum(g per 2) w' = w - v'", ["T02"]),
    "runs in rows": ("state v per row = 0 v' = sum(g per 2) w' = w - v'", ["T02"]),
    "runs of rows": ("w' = w - sum(sum(g per row) per 4)", ["T01"]),
    "rows of runs": ("w' = w - sum(sum(g per 4) per row)", ["T01"]),
    "a matrix of runs": ("w' = w - sum(g per 4).T", ["T07"]),
    "a window of runs beside elements": ("state h[3] per 4 = 0 h' = push(h, sum(g per 4)) w' = w - mean(h' + g)", ["T01"]),
    "eval of the gradient elsewhere": ("w' = w - g eval = grad(w')", ["R10"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, expected = REFUSED[name]
    assert codes(rule(body)) == expected



def tower(body: str, height: int) -> str:
    """Functions that call the one below."""
    return " ".join(["def f0(x) = x", *(f"def f{i}(x) = {body.format(i - 1)}" for i in range(1, height))]) + " "


BY_F = " route B { when f() use A() otherwise use A() } "
AROUND = {
    "recursion": ("def f(x) = f(x) " + rule("w' = f(g)"), "N12"),
    "two that call each other": ("def f(x) = h(x) def h(x) = f(x) " + rule("w' = f(g)"), "N12"),
    "no return": ("def f(x) { a = x } " + rule("w' = f(g)"), "R07"),
    "missing argument": ("def f(x, y) = x*y " + rule("w' = f(g)"), "N10"),
    "unknown argument": ("def f(x, y) = x*y " + rule("w' = f(g, z = 1)"), "N11"),
    "positional arguments of a rule": ("rule B { w' = w - g } " + rule("w' = B(g)"), "N10"),
    "unknown hyper of a rule": ("rule B { w' = w - g } " + rule("w' = B(lr = 1)"), "N11"),
    "outside the callee's range": ("rule B { hyper b = 0 in [0, 1) w' = w - b*g } " + rule("w' = B(b = 2)"), "R02"),
    "a route cannot be called": ("route B { otherwise use C() } rule C { w' = w } " + rule("w' = B()"), "N09"),
    "unknown import": ("from std import nosuch " + rule("w' = w - g"), "N08"),
    "unknown file": ("from nowhere import a " + rule("w' = w - g"), "N08"),
    "same name twice": (rule("w' = w") + rule("w' = w"), "N03"),
    "unknown rule of a route": ("route B { otherwise use C() }", "N09"),
    "a route decides by facts": ("route B { when t > 3 use A() otherwise use A() }" + rule("w' = w - g"), "R06"),
    "a function of a route that takes something": ("def f(x) = rank == 2 " + BY_F + rule("w' = w - g"), "R06"),
    "a function of a route that is more than a condition": ("def f() { x = rank return x == 2 } " + BY_F + rule("w' = w - g"), "R06"),
    "a function of a route that looks at values": ("def f() = t > 3 " + BY_F + rule("w' = w - g"), "R06"),
    "a function of a route that is no truth": ("def f() = rank " + BY_F + rule("w' = w - g"), "T01"),
    "a function of a route that is not imported": ("route B { when is_head() use A() otherwise use A() }" + rule("w' = w - g"), "N15"),
    "an unknown function of a route": ("route B { when heads() use A() otherwise use A() }" + rule("w' = w - g"), "N01"),
    "a function of a route that calls itself": ("def f() = rank == 2 and f() " + BY_F + rule("w' = w - g"), "N12"),
    "after otherwise": ("route B { otherwise use A() when rank == 2 use A() }" + rule("w' = w - g"), "R06"),
    "unknown type": ('route B { when dtype == "float23" use A() otherwise use A() }' + rule("w' = w - g"), "R06"),
    "memory in a loop": ("rule B { w' = w - g } " + rule("repeat 2 { state y = g y' = B(g = y) } w' = y"), "R06"),
    "too many calls": (tower("f{0}(x + 1) + f{0}(x + 2)", 30) + rule("w' = f29(g)"), "L01"),
    "calls too deep": (tower("f{0}(x)", 90) + rule("w' = f89(g)"), "L01"),
    "loops in loops": (rule("repeat 1000 { state y = g repeat 1000 { state z = y z' = z + 1 } y' = z } w' = y"), "L01"),
    "empty": ("", "R11"),
    "per alone in a call of a rule": ("rule B { w' = w - g } " + rule("w' = B(per row)"), "T05"),
    "per in a call of a function": ("def f(x) = 2*x " + rule("w' = w - f(g per row)"), "T05"),
    "a number for a truth": ("rule B { hyper bool b = true w' = where(b, g, w) } " + rule("w' = B(b = 2)"), "T01"),
    "a truth for a number": ("rule B { hyper b = 1 w' = w - b*g } " + rule("w' = B(b = true)"), "T01"),
    "a fraction for a whole number": ("rule B { hyper int b = 1 w' = w - b*g } " + rule("w' = B(b = 2.5)"), "T01"),
    "a setting twice": ("rule B { hyper b = 1 w' = w - b*g } " + rule("w' = B(b = 2, b = 3)"), "N11"),
    "a route that takes a truth for a number": ("route B { when rank == true use A() otherwise use A() }" + rule("w' = w - g"), "T01"),
}  # fmt: skip


@pytest.mark.parametrize("name", AROUND)
def test_refused_across_definitions(name: str) -> None:
    text, expected = AROUND[name]
    start = time.thread_time()
    found = codes(text)
    assert found and set(found) == {expected}
    assert time.thread_time() - start < 20


def test_truths_in_places_where_they_may_stand() -> None:
    assert program(rule("state m = not true m' = not m w' = where(m', w, g)")).states[0].type.kind == "bool"
    file, _ = parser.parse(Source("route B { when true use A() }" + rule("w' = w - g")))
    routing = lower(file, "B")
    assert isinstance(routing, ir.Routing) and routing.cases[0].condition == ir.Predicate("const", value=True)


def test_what_is_imported_is_read_without_mistakes(tmp_path: Path) -> None:
    (tmp_path / "broken.opt").write_text("def f(x = { 3", encoding="utf-8")
    path = tmp_path / "x.opt"
    path.write_text("from broken import f\n" + rule("w' = w - f(g)"), encoding="utf-8")
    file, _ = parser.parse(Source(path.read_text(encoding="utf-8"), str(path)))
    assert (check(file)[0].code, check(file)[0].message) == ("N08", "cannot import from `broken`: `(` is never closed")


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optlang.lower.context.MOST_NODES", 10)
    assert codes(rule("w' = w - g")) == [] and set(codes(rule("w' = w - g*(" + " + ".join("123456789") + ")*t"))) == {"L01"}
    large = "w' = w - g*(" + " + ".join("123456789") + ")*t"
    assert codes(f"rule A {{ {large} }} rule B {{ {large} }}").count("L01") == 1


@pytest.mark.parametrize(("term", "most"), [("normal()", 8), ("hvp(g)", 4), ("grad(w + g)", 4), ("loss_at(w + g)*g", 3)])
def test_what_takes_longer_counts_for_more(term: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sum each of these terms is 4, 7, 8 and 9 operations."""
    monkeypatch.setattr("optlang.lower.context.MOST_NODES", 34)
    for count, found in ((most, []), (most + 1, ["L01"])):
        assert codes(rule(f"w' = w + {' + '.join([term]*count)}")) == found


def test_calls_and_turns_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optlang.lower.context.MOST_CALLS", 3)
    for count, found in ((3, []), (4, ["L01"])):
        assert codes(rule(f"repeat {count} {{ state y = g y' = 2*y }} w' = w - y")) == found
        assert codes("def f(x) = x + t " + rule(f"w' = w - {' - '.join(f'f({i}*g)' for i in range(count))}")) == found


def test_types_refuse_what_the_language_cannot_say() -> None:
    for op, args, value in (("branch", (ir.make("gt", (ir.W, ir.G)), ir.W, ir.G), None), ("mean", (ir.W,), "window")):
        with pytest.raises(TypeProblem):
            ir.make(op, args, value)


def test_a_name_in_another_case_is_the_first_that_it_may_mean() -> None:
    file, _ = parser.parse(Source("rule Ab { w' = w - g } rule aB { w' = w }"))
    assert [lower(file, name).name for name in ("Ab", "aB", "ab", "AB")] == ["Ab", "aB", "Ab", "Ab"]


def test_a_file_without_rules() -> None:
    file, _ = parser.parse(Source("def f(x) = x"))
    with pytest.raises(OptError, match="no rule"):
        lower(file)


def test_a_finding_in_another_file_says_where_the_call_stands() -> None:
    file, _ = parser.parse(Source("from std import orthogonalize\n" + rule("w' = orthogonalize(t > 3)"), "x.opt"))
    (finding, *_) = check(file)
    assert finding.source.name.endswith("std.opt") and "x.opt:2:15" in finding.message


def test_asking_for_a_rule_that_is_not_there() -> None:
    file, _ = parser.parse(Source(rule("w' = w - g") + "rule Bee { w' = w }", "x.opt"))
    with pytest.raises(OptError, match="did you mean `Bee`"):
        lower(file, "bea")
    with pytest.raises(OptError, match="choose one by name: A, Bee"):
        lower(file)


FOLLOWED_BY_NOTHING = {
    "a prime without a state": "u' = g w' = w - u'",
    "a wrong extent": "state m per rwo = 0 m' = g w' = w - m'",
    "a wrong window": "state m[2.5] = 0 m' = g w' = w - m'",
}


@pytest.mark.parametrize("name", FOLLOWED_BY_NOTHING)
def test_one_mistake_is_said_once(name: str) -> None:
    assert len(codes(rule(FOLLOWED_BY_NOTHING[name]))) == 1


def test_comments_alone_are_no_rule() -> None:
    assert codes("# nothing yet\n") == ["R11"]


def test_an_equation_for_a_state_is_told_of_the_prime() -> None:
    file, _ = parser.parse(Source(rule("state m = 0 m = g m' = g w' = w - m"), "x.opt"))
    assert "write `m' = …`" in check(file)[0].help
