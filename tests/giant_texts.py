"""Texts as large as the limits of the language allow, and larger: what means no good, and what is legal and of no use.

Sizes follow the limits, so that each family is tried where it is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from optlang.front.parser import MOST_NESTING, MOST_STATEMENTS
from optlang.front.scan import MOST_LEXEMES

ROOM = 60  # lexemes and statements that stand around what is many


def body(text: str, head: str = "") -> str:
    """A rule that steps by `x0`."""
    return f"{head}\nrule A {{\n{text}\nw' = w - 0.1*x0\n}}"


def lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def most(lexemes: int, bytes_: int = 1, statements: int = 0) -> int:
    """How many pieces of so many lexemes, bytes and statements a file may have."""
    limits = [(MOST_LEXEMES - ROOM) // lexemes, 990_000 // bytes_]
    return min([*limits, (MOST_STATEMENTS - ROOM) // statements] if statements else limits)


def added(term: str, lexemes: int, bytes_: int = 1) -> str:
    """As many terms as there may be, each with its number."""
    return " + ".join(term.format(i + 1) for i in range(most(lexemes + 1, bytes_)))


def equations(form: str, lexemes: int, last: str, statements: int = 1, head: str = "", at_most: int = 1 << 30) -> str:
    """A chain from `x0` to the last, each from the next."""
    count = min(most(lexemes, len(form) + 20, statements), at_most)
    return body(lines(form.format(i, i + 1) for i in range(count)) + "\n" + last.format(count), head)


def nested(open_: str, close: str, depth: int = MOST_NESTING - 8) -> str:
    return f"{open_ * depth}g{close * depth}"


def functions(form: str, count: int) -> str:
    return lines(form.format(i, i - 1) for i in range(1, count + 1))


def sized(count: int, make: Callable[[int], str]) -> Callable[[], str]:
    """A text of so many pieces."""
    return lambda: make(count)


Texts = Mapping[str, Callable[[], str]]

TOO_MUCH: Texts = {
    "deep brackets": lambda: body(f"x0 = {'(' * 100_000}g{')' * 100_000}"),
    "deep brackets, open": lambda: body(f"x0 = {'(' * 100_000}g"),
    "deep negation": lambda: body(f"x0 = {'-' * 100_000}g"),
    "deep not": lambda: body(f"x0 = where({'not ' * 50_000}(t > 1), g, w)"),
    "deep power": lambda: body(f"x0 = {'2^' * 50_000}g"),
    "deep calls": lambda: body(f"x0 = {'sqrt(' * 20_000}g{')' * 20_000}"),
    "deep transposition": lambda: body(f"x0 = g{'.T' * 100_000}"),
    "deep blocks": lambda: body(f"{'when t > 1 { ' * 20_000}{'}' * 20_000} x0 = g"),
    "deep blocks, open": lambda: body("every 2 { " * 20_000),
    "wide sum": lambda: body(f"x0 = {' + '.join(['g'] * 100_000)}"),
    "wide sum of numbers": lambda: body(f"x0 = {' + '.join(map(str, range(60_000)))}"),
    "wide call": lambda: body(f"x0 = max({', '.join(['g'] * 100_000)})"),
    "many equations": lambda: body("\n".join(f"x{i} = g + {i}" for i in range(40_000))),
    "many states": lambda: body("x0 = g\n" + "\n".join(f"state s{i} = 0 s{i}' = s{i}" for i in range(20_000))),
    "many hypers": lambda: body("x0 = g\n" + "\n".join(f"hyper h{i} = 0" for i in range(20_000))),
    "many rules": lambda: "\n".join(f"rule A{i} {{ w' = w - g }}" for i in range(20_000)),
    "many errors": lambda: body("x0 = g\n" + "\n".join(f"y{i} = unknown{i}(" for i in range(most(4, 30, 1)))),
    "many unknown names": lambda: body("x0 = g\n" + "\n".join(f"y{i} = u{i}" for i in range(most(3, 20, 1)))),
    "many wrong types": lambda: body("x0 = g\n" + "\n".join(f"y{i} = not g" for i in range(most(4, 20, 1)))),
    "many names that are nearly right": lambda: body(
        "\n".join(f"hyper beta{i} = 0" for i in range(most(5, 24, 1))) + "\nx0 = g" + "".join(f"*beta{i}x" for i in range(150))),
    "many imports of nothing": lambda: "\n".join(f"from std import nothing{i}" for i in range(most(4, 32))) + body("x0 = g"),
    "one import of much": lambda: f"from std import {', '.join(f'nothing{i}' for i in range(most(2, 16)))}" + body("x0 = g"),
    "many settings in one product": lambda: body(
        "\n".join(f"hyper h{i} = 0.5" for i in range(3_000)) + "\nx0 = g" + "".join(f"*h{i}" for i in range(3_000))),
    "states of states": lambda: body("x0 = s0'\nstate s1500 = 0 s1500' = g\n" + "\n".join(
        f"state s{i} = 0 s{i}' = 0.9*s{i} + s{i + 1}'" for i in range(1_500))),
    "factors, one mistyped": lambda: body(f"hyper beta = 0.9\nx0 = {'*'.join(['g'] * 4_900)}*betta*{'*'.join(['g'] * 4_900)}"),
    "a long chain": lambda: body("\n".join(f"x{i} = x{i + 1} + 1" for i in range(20_000)) + "\nx20000 = g"),
    "doublings": lambda: body("\n".join(f"x{i} = x{i + 1} + x{i + 1}" for i in range(2_000)) + "\nx2000 = g"),
    "squares": lambda: body("\n".join(f"x{i} = x{i + 1}*x{i + 1}" for i in range(2_000)) + "\nx2000 = g"),
    "power towers": lambda: body("x0 = 9^9^9^9^9^9*g"),
    "power towers of hypers": lambda: body("hyper int k = 999999999\nx0 = g\nrepeat k^k^k { state y = g  y' = y }"),
    "functions that double": lambda: body("x0 = f60(g)", "def f0(x) = x + g\n" + "\n".join(
        f"def f{i}(x) = f{i - 1}(f{i - 1}(x))" for i in range(1, 61))),
    "functions that double their states": lambda: body("x0 = f40(g)", "def f0(x) { state s = 0 s' = s + x return s' }\n" + "\n".join(
        f"def f{i}(x) = f{i - 1}(x) + f{i - 1}(2*x)" for i in range(1, 41))),
    "rules that double": lambda: "rule A0 { w' = w - g }\n" + "\n".join(
        f"rule A{i} {{ a = A{i - 1}() b = A{i - 1}(g = 2*g) w' = a + b }}" for i in range(1, 40)),
    "loops in loops": lambda: body("x0 = f6(g)", "def f0(x) = x*x + g\n" + "\n".join(
        f"def f{i}(x) {{ repeat 50 {{ state y = x  y' = f{i - 1}(y) }} return y }}" for i in range(1, 7))),
    "a long loop": lambda: body("repeat 1000000 { state x0 = g  x0' = x0*x0 + g }"),
    "a huge loop": lambda: body("repeat 99999999999999999999 { state x0 = g  x0' = x0 }"),
    "a huge window": lambda: body("state h[999999999999] = nan\nh' = push(h, g)\nx0 = mean(h')"),
    "huge matrices": lambda: body("x0 = sum(eye(999999999) per tensor)*g"),
    "a circle": lambda: body("\n".join(f"x{i} = x{(i + 1) % 3_900}" for i in range(3_900))),
    "a circle of functions": lambda: body("x0 = f0(g)", "\n".join(f"def f{i}(x) = f{(i + 1) % 1500}(x)" for i in range(1_500))),
    "a long name": lambda: body(f"x0 = g + {'n' * 1_000_000}"[:999_000]),
    "a long name, defined": lambda: body(f"{'n' * 400_000} = g\nx0 = {'n' * 400_000}"),
    "a long number": lambda: body(f"x0 = g*{'9' * 100_000}"),
    "a long fraction": lambda: body(f"x0 = g*0.{'0' * 100_000}1"),
    "a long exponent": lambda: body(f"x0 = g*1e{'9' * 100_000}"),
    "a long hyper": lambda: f"rule A {{ hyper int k = {'9' * 100_000} w' = w - k*g }}",
    "a long text": lambda: f'rule A "{"x" * 900_000}" {{ w\' = w - g }}',
    "a long comment": lambda: f"# {'x' * 900_000}\nrule A {{ w' = w - g }}",
    "a text without an end": lambda: f'rule A "{"x" * 900_000}',
    "two megabytes": lambda: "# x\n" * 500_000,
    "right-to-left marks": lambda: "rule A { \u202e w' = w - g \u202c }",
    "zero bytes": lambda: "\x00" * 100_000,
    "combining marks": lambda: body("x0 = g" + "\u0301" * 100_000),
    "imports that climb": lambda: "from .. import x\nfrom ../../etc/passwd import y\nrule A { w' = w }",
    "imports of absolute paths": lambda: "from /etc/passwd import y\nrule A { w' = w }",
    "an import of a device": lambda: 'from "/dev/zero" import y\nrule A { w\' = w }',
    "only braces": lambda: "{}" * 200_000,
    "only primes": lambda: "'" * 200_000,
    "only quotation marks": lambda: '"' * 200_001,
    "only new lines": lambda: "\n" * 900_000,
    "routes without end": lambda: "rule A { w' = w }\nroute R { " + "when rank == 2 use A() " * 20_000 + "otherwise use A() }",
    "deep conditions of routes": lambda:
        f"rule A {{ w' = w }}\nroute R {{ when {'not (' * 20_000}true{')' * 20_000} use A() otherwise use A() }}",
}  # fmt: skip

SCHEDULES = "cosine, warmup_cosine, sgdr, wsd, wsd_sqrt, cyclic, onecycle, inverse_sqrt, polynomial_decay, ema, clip_global, agc, "
SCHEDULES += "autoclip, weights_ema, weights_mean, orthogonalize, debias, centralize"

EXPRESSIONS: Texts = {
    "sum": lambda: body(f"x0 = {added('g*{}', 3, 9)}"),
    "sum of one term": lambda: body(f"x0 = {' + '.join(['g'] * most(2, 4))}"),
    "differences": lambda: body("x0 = g" + "".join(f" - w/{i + 2}" for i in range(most(4, 12)))),
    "product": lambda: body(f"x0 = {'*'.join(['g'] * most(2))}"),
    "product of numbers": lambda: body("x0 = g" + "".join(f"*{i + 2}" for i in range(most(2, 8)))),
    "quotient": lambda: body("x0 = g" + "".join(f"/(w + {i})" for i in range(most(6, 12)))),
    "sum of products": lambda: body(f"x0 = {added('g*w*sqrt(abs(g + {}))', 13, 25)}"),
    "sum of maps": lambda: body(f"x0 = {added('sin(cos(exp(g*{})))', 12, 26)}"),
    "sum of where": lambda: body(f"x0 = {added('where(g > {}, w, g)', 11, 26)}"),
    "sum of powers": lambda: body(f"x0 = {added('abs(g)^{}', 7, 16)}"),
    "sum of numbers of t": lambda: body(f"x0 = g*({added('1/(t + {})', 8, 18)})"),
    "powers of t": lambda: body(f"x0 = g*({added('0.9^(t + {})', 8, 18)})"),
    "sum of norms": lambda: body(f"x0 = g*({added('norm(g + {})', 7, 18)})"),
    "sum of norms per model": lambda: body(f"x0 = g*({added('norm(g + {} per model)', 9, 28)})"),
    "sum of means per row": lambda: body(f"x0 = g*({added('mean(g + {} per row)', 9, 26)})"),
    "sum of quantiles": lambda: body(f"x0 = g*({added('quantile(g + {}, 0.5)', 9, 26)})"),
    "sum of draws": lambda: body("x0 = g" + " + normal()" * most(4, 11)),
    "sum of products of matrices": lambda: body(f"x0 = {added('(g*{}) @ g.T @ w', 10, 22)}"),
    "product of matrices": lambda: body(f"x0 = {' @ '.join(['(g @ g.T)'] * most(6, 12))} @ g"),
    "matrices in brackets": lambda: body(f"x0 = {nested('(g @ (w.T @ ', '))', 40)}"),
    "sum of gradients": lambda: body(f"x0 = {added('grad(w + {}*g)', 9, 22)}"),
    "sum of Hessian products": lambda: body(f"x0 = {added('hvp(g + {})', 7, 18)}"),
    "sum of losses": lambda: body(f"x0 = g*({added('loss_at(w + {}*g)', 9, 24)})"),
    "conditions": lambda: body(f"x0 = where({' and '.join(f'g > {i}' for i in range(most(4, 14)))}, g, w)"),
    "maxima": lambda: body(f"x0 = max({', '.join(f'g*{i}' for i in range(most(4, 12)))})"),
    "deep brackets": lambda: body(f"x0 = {nested('(', ')')}"),
    "deep sums": lambda: body(f"x0 = {nested('(w + ', ')')}"),
    "deep differences": lambda: body(f"x0 = {nested('(w - ', ')')}"),
    "deep quotients": lambda: body(f"x0 = {nested('w/(1 + ', ')')}"),
    "deep maps": lambda: body(f"x0 = {nested('sin(', ')')}"),
    "deep where": lambda: body(f"x0 = {nested('where(g > 0, w, ', ')')}"),
    "deep norms": lambda: body(f"x0 = {nested('g*norm(w + ', ')')}"),
    "deep norms per model": lambda: body(f"x0 = {nested('g*norm(w + ', ' per model)')}"),
    "deep gradients": lambda: body(f"x0 = {nested('grad(w + 0.1*', ')')}"),
    "deep powers": lambda: body(f"x0 = {'1.01^' * 90}g"),
    "deep squares": lambda: body(f"x0 = {nested('(', ')^2', 50)}"),
    "deep signs": lambda: body(f"x0 = {'-' * 90}g"),
    "deep transposition": lambda: body(f"x0 = g{'.T' * 90}"),
    "deep sums of two": lambda: body("x0 = " + "(" * 90 + "g" + "".join(f" + g*{i})*(w - {i})" for i in range(90))),
    "polynomial": lambda: body("x0 = " + "(" * 90 + "g" + "".join(f" + {i})*g" for i in range(90))),
    "products of sums": lambda: body(f"x0 = {'*'.join(f'(g + w + {i})' for i in range(most(8, 16)))}"),
    "schedules in schedules": lambda: body(f"x0 = g*{'cosine(t, ' * 38}0.1{', 1000)' * 38}", f"from std import {SCHEDULES}"),
    "schedules": lambda: body(
        f"x0 = g*({added('warmup_cosine(t, {}, 10, 100, 0.1, 0.1)', 15, 46)})", f"from std import {SCHEDULES}"),
    "orthogonal": lambda: body(f"x0 = {added('orthogonalize(g*{})', 7, 26)}", f"from std import {SCHEDULES}"),
    "averages": lambda: body(f"x0 = {added('agc(autoclip(g*{}))', 10, 26)}", f"from std import {SCHEDULES}"),
}  # fmt: skip

STATEMENTS: Texts = {
    "equations of which none is read": lambda: body("x0 = g\n" + lines(f"y{i} = g + {i}" for i in range(most(6, 18, 1)))),
    "a chain": lambda: equations("x{} = x{} + 1", 6, "x{} = g"),
    "a chain of products": lambda: equations("x{} = 0.5*x{}*g", 8, "x{} = g"),
    "a chain of maps": lambda: equations("x{} = sqrt(abs(x{}) + 1)", 11, "x{} = g"),
    "a chain of matrices": lambda: equations("x{} = g @ x{}.T @ g", 9, "x{} = g"),
    "a chain of means": lambda: equations("x{} = g*mean(x{} per row)", 10, "x{} = g"),
    "a chain of norms per model": lambda: equations("x{} = g*norm(x{} per model)", 10, "x{} = g"),
    "a chain of gradients": lambda: equations("x{} = grad(w + 0.1*x{})", 11, "x{} = g"),
    "a chain of where": lambda: equations("x{} = where(x{} > 0, g, w)", 12, "x{} = g"),
    "a chain of numbers": lambda: equations("x{} = sqrt(x{} + t)", 8, "x{} = g"),
    "a chain of settings": lambda: equations("x{} = x{}*lr + t", 8, "x{} = lr", head="").replace("x0 =", "hyper lr = 0.1 x0 =", 1),
    "doublings": lambda: equations("x{0} = x{1} + x{1}", 6, "x{} = g"),
    "squares": lambda: equations("x{0} = x{1}*x{1} + g", 8, "x{} = g"),
    "neighbours": sized(most(8, 26, 1), lambda n: body(
        lines(f"x{i} = x{i + 1} + g*x{i + 2}" for i in range(n)) + f"\nx{n} = g x{n + 1} = w")),
    "states": lambda: body("x0 = s0'\n" + lines(f"state s{i} = 0 s{i}' = 0.9*s{i} + g" for i in range(most(12, 40, 2)))),
    "states in a chain": sized(most(12, 46, 2), lambda n: body("x0 = s0'\n" + lines(
        f"state s{i} = 0 s{i}' = 0.9*s{i} + s{i + 1}'" for i in range(n)) + f"\nstate s{n} = 0 s{n}' = g")),
    "states per model": lambda: body("x0 = g*s0'\n" + lines(
        f"state s{i} per model = 0 s{i}' = 0.9*s{i} + norm(g + {i} per model)" for i in range(most(20, 70, 2)))),
    "states per row": lambda: body("x0 = g*s0'\n" + lines(
        f"state s{i} per row = 0 s{i}' = 0.9*s{i} + mean(g^2 + {i} per row)" for i in range(most(23, 70, 2)))),
    "windows": lambda: body("x0 = g*mean(h0')\n" + lines(
        f"state h{i}[100] per model = nan h{i}' = push(h{i}, norm(g per model))" for i in range(most(23, 72, 2)))),
    "settings": lambda: body("x0 = g*h0\n" + lines(f"hyper h{i} = {i}" for i in range(most(4, 24, 1)))),
    "settings with ranges": lambda: body("x0 = g*h0\n" + lines(
        f'hyper h{i} = {i} in [0, inf) "x"' for i in range(most(11, 40, 1)))),
    "settings in a sum": sized(most(6, 24, 1), lambda n: body("\n".join(f"hyper h{i} = 0.5" for i in range(n)) + "\nx0 = g" + "".join(
        f"*h{i}" for i in range(n)))),
    "inputs": sized(most(6, 28), lambda n: body(lines(f"input i{i} per model" for i in range(n)) + "\nx0 = g" + "".join(
        f"*i{i}" for i in range(n)))),
    "reports": lambda: body("x0 = g\n" + lines(f"report r{i} = norm(g + {i} per model)" for i in range(most(12, 46)))),
    "tables": lambda: body("hyper a[100, 100] = 0.01\nx0 = g + dense(a, g)"),
    "whens": lambda: body("x0 = g\n" + lines(
        f"state s{i} = 0 when t > {i} {{ s{i}' = g + {i} }}" for i in range(most(16, 46, 2)))),
    "whens of tensors": lambda: body("x0 = s0'\n" + lines(
        f"state s{i} = 0 when norm(g) > {i} {{ s{i}' = g + s{i} }}" for i in range(most(19, 50, 2)))),
    "whens of settings": lambda: body("x0 = s0'\n" + lines(
        f"hyper bool b{i} = true state s{i} = 0 when b{i} {{ s{i}' = g + s{i} }}" for i in range(most(19, 64, 3)))),
    "whens of facts": lambda: body("x0 = g\n" + lines(
        f"when numel > {i} {{ state s{i} = 0 s{i}' = g + s{i} }}" for i in range(most(16, 50, 2)))),
    "whens in whens": lambda: body(
        "state s = 0\n" + "".join(f"when norm(g) > {i} {{ " for i in range(90)) + "s' = g" + " }" * 90 + " x0 = s'"),
    "else in else": lambda: body(
        "state s = 0\n" + "".join(f"when t > {i} {{ s' = g*{i} }} else {{ " for i in range(90)) + "s' = g" + " }" * 90 + " x0 = s'"),
    "everies": lambda: body("x0 = g\n" + lines(
        f"state s{i} = 0 every {i + 2} {{ s{i}' = g + {i} }}" for i in range(most(14, 46, 2)))),
    "a long repeat": lambda: body("repeat 1000 { state x0 = g  x0' = 0.9*x0 + w*g }"),
    "a long repeat of numbers": lambda: body("repeat 1000 { state y = t  y' = sqrt(y + 1) } x0 = g*y"),
    "a long repeat of matrices": lambda: body("repeat 1000 { state x0 = g  x0' = 1.5*x0 - 0.5*(x0 @ x0.T @ x0) }"),
    "a long repeat of norms": lambda: body("repeat 1000 { state x0 = g  x0' = x0/(norm(x0) + 1e-7) }"),
    "a long repeat of norms per model": lambda: body("repeat 1000 { state x0 = g  x0' = x0/(norm(x0 per model) + 1e-7) }"),
    "a long repeat of gradients": lambda: body("repeat 1000 { state x0 = g  x0' = grad(w + 0.01*x0) }"),
    "a long repeat of whens": lambda: body("repeat 1000 { state x0 = g  when norm(x0) > 1 { x0' = 0.5*x0 } else { x0' = 2*x0 } }"),
    "repeats": lambda: body("x0 = g\n" + lines(
        f"repeat 1 {{ state y{i} = g y{i}' = y{i}*{i} }}" for i in range(most(14, 40, 1)))),
    "repeats in repeats": lambda: body("x0 = f1(g)", lines(
        ["def f0(x) = x*x + g", "def f1(x) { repeat 60 { state y = x  y' = f2(y) } return y }",
         "def f2(x) { repeat 60 { state y = x  y' = f0(y) } return y }"])),
    "random in repeats": lambda: body("repeat 1000 { state x0 = g  x0' = x0 + normal() }"),
}  # fmt: skip

DEFINITIONS: Texts = {
    "functions": lambda: body("x0 = f0(g)", lines(f"def f{i}(x) = x + {i}" for i in range(most(9, 20)))),
    "functions that are called": lambda: body(f"x0 = {added('f(g*{})', 7, 14)}", "def f(x) = x*x + w"),
    "functions that are called each once": sized(most(14, 34), lambda n: body(
        "x0 = g" + "".join(f" + f{i}(g)" for i in range(n)), lines(f"def f{i}(x) = x + {i}" for i in range(n)))),
    "functions of functions": lambda: body("x0 = f38(g)", "def f0(x) = x + g\n" + functions("def f{0}(x) = f{1}(x)*g", 38)),
    "functions that double": lambda: body("x0 = f38(g)", "def f0(x) = x + g\n" + functions("def f{0}(x) = f{1}(f{1}(x))", 38)),
    "functions that double, with draws": lambda: body(
        "x0 = f10(g)", "def f0(x) = x + normal()\n" + functions("def f{0}(x) = f{1}(f{1}(x))", 10)),
    "functions that double, with states": lambda: body(
        "x0 = f10(g)", "def f0(x) { state s = 0 s' = s + x return s' }\n" + functions("def f{0}(x) = f{1}(x) + f{1}(2*x)", 10)),
    "functions with states": lambda: body(f"x0 = {added('f(g*{})', 7, 14)}", "def f(x) { state s = 0 s' = 0.9*s + x return s' }"),
    "functions with states, some": lambda: body(
        f"x0 = {' + '.join(f'f(g*{i + 1})' for i in range(2400))}", "def f(x) { state s = 0 s' = 0.9*s + x return s' }"),
    "parameters of a function": sized(most(6, 22), lambda n: body(
        "x0 = f(g)", f"def f(x, {', '.join(f'a{i} = {i}' for i in range(n))}) = x" + "".join(f"*a{i}" for i in range(n)))),
    "rules": lambda: lines(f"rule A{i} {{ w' = w - {i}*g }}" for i in range(most(11, 30, 1))),
    "large rules": lambda: lines(
        f"rule A{i} {{ hyper lr = {i + 1} state m = 0 m' = 0.9*m + g w' = w - lr*m' }}" for i in range(most(28, 72, 3))),
    "rules that are called": lambda: body(
        f"x0 = {added('A0(g = {}*g)', 9, 18)}", "rule A0 { hyper lr = 0.1 state m = 0 m' = 0.9*m + g w' = w - lr*m' }"),
    "rules that are called, some": lambda: body(
        f"x0 = {' + '.join(f'A0(g = {i}*g)' for i in range(2400))}",
        "rule A0 { hyper lr = 0.1 state m = 0 m' = 0.9*m + g w' = w - lr*m' }"),
    "rules of the library": lambda: body(f"x0 = {added('AdamW(g = {}*g)', 9, 22)}", "from adamw import AdamW"),
    "rules of rules": lambda: "rule A0 { w' = w - g }\n" + functions("rule A{0} {{ w' = A{1}(g = 0.5*g) }}", 38),
    "rules that double": lambda: "rule A0 { state m = 0 m' = m + g w' = w - m' }\n" + functions(
        "rule A{0} {{ a = A{1}() b = A{1}(g = 2*g) w' = a + b }}", 10),
    "a route of many": lambda: "rule A { w' = w - g }\nroute R { " + lines(
        f"when rank == {i} use A()" for i in range(most(8, 26))) + " otherwise use A() }",
    "a route of many rules": sized(most(19, 56, 1), lambda n:
        lines(f"rule A{i} {{ w' = w - {i}*g }}" for i in range(n)) + "\nroute R { " + lines(
        f"when rank == {i} use A{i}()" for i in range(n)) + " otherwise use A0() }"),
    "a route with a long condition": lambda: "rule A { w' = w - g }\nroute R { when " + " or ".join(
        f"numel == {i}" for i in range(most(4, 20))) + " use A() otherwise use A() }",
    "a route by names": lambda: "rule A { w' = w - g }\nroute R { when named(" + ", ".join(
        f'"*{i}*"' for i in range(most(2, 12))) + ") use A() otherwise use A() }",
    "a route by hostile patterns": lambda: "rule A { w' = w - g }\nroute R { when named(" + ", ".join(
        f'"{"*a" * 48}{i}"' for i in range(390)) + ") use A() otherwise use A() }",
    "imports": lambda: lines(f"from std import {SCHEDULES}" for _ in range(1)) + body("x0 = g"),
    "weights to evaluate with": lambda: body(f"x0 = g\neval = {added('w*{}', 3, 10)}"),
}  # fmt: skip

WORDS: Texts = {
    "long names": lambda: body(lines(f"{'n' * 90}{i} = g" for i in range(most(3, 104, 1))) + "\nx0 = g"),
    "long names in a sum": lambda: body(f"{'n' * 99} = g x0 = {' + '.join(['n' * 99] * most(2, 103))}"),
    "names in Greek": lambda: body(lines(f"β{'α' * 40}{i} = g" for i in range(most(3, 92, 1))) + "\nx0 = g"),
    "names to be normalised": lambda: body(lines(f"e\u0301{i} = g" for i in range(most(3, 14, 1))) + "\nx0 = g"),
    "long numbers": lambda: body(f"x0 = {' + '.join(['0.' + '9' * 55 + '*g'] * most(4, 64))}"),
    "long whole numbers": lambda: body(f"x0 = {' + '.join('9' * 50 + f'{i}*g' for i in range(most(4, 64)))}"),
    "large exponents": lambda: body(f"x0 = {' + '.join(f'1e{i % 300}*g' for i in range(most(4, 12)))}"),
    "a number of comments": lambda: body("x0 = g" + "# comment\n" * most(1, 10)),
    "comments in expressions": lambda: body(f"x0 = g{' + w # comment{}'.replace('{}', chr(10)) * most(3, 16)}"),
    "a comment": lambda: body(f"x0 = g # {'x' * 900_000}\n"),
    "comments in Chinese": lambda: body("x0 = g" + f"# {'註' * 300}\n" * 1000),
    "lines without words": lambda: body("x0 = g" + "\n" * 900_000),
    "spaces": lambda: body("x0 = g" + " " * 900_000 + "+ w"),
    "a text": lambda: f'rule A "{"x" * 900_000}" {{ w\' = w - g }}',
    "texts of settings": lambda: body("x0 = g\n" + lines(
        f'hyper h{i} = {i} "{"x" * 100}"' for i in range(most(5, 130, 1)))),
    "one line": lambda: body("".join(f"y{i} = g+{i} " for i in range(most(5, 16, 1))) + " x0 = g"),
}  # fmt: skip

GROUPS: Mapping[str, Texts] = {
    "too much": TOO_MUCH, "expressions": EXPRESSIONS, "statements": STATEMENTS, "definitions": DEFINITIONS, "words": WORDS,
}  # fmt: skip
