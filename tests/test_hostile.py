"""Files from strangers: random and damaged texts, bombs within 5 s and 1 GB, names and strings as injections. (35 s)"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import hostile, together
from hypothesis import HealthCheck, given, settings
from search_stores import LEVEL, SEEDS, SETTINGS, round_

import optlang
from optlang import rules
from optlang.errors import OptError
from optlang.search.store.database import Store

HERE = Path(__file__).parent
SECONDS, BYTES = 5, 1 << 30


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile.texts())
def test_any_text_ends_in_a_rule_or_in_findings(text: str) -> None:
    assert hostile.read(text) in ("rule", "findings", "several")


def body(text: str, head: str = "") -> str:
    return f"{head}\nrule A {{\n{text}\nw' = w - 0.1*x0\n}}"


def chain(count: int, step: str) -> str:
    return "\n".join(["x0 = x1", *(step.format(f"x{i + 1}", n=i) for i in range(1, count)), f"x{count} = g"]).replace("x=", "=")


BOMBS: dict[str, str] = {
    "deep brackets": body(f"x0 = {'(' * 100_000}g{')' * 100_000}"),
    "deep brackets, open": body(f"x0 = {'(' * 100_000}g"),
    "deep negation": body(f"x0 = {'-' * 100_000}g"),
    "deep not": body(f"x0 = where({'not ' * 50_000}(t > 1), g, w)"),
    "deep power": body(f"x0 = {'2^' * 50_000}g"),
    "deep calls": body(f"x0 = {'sqrt(' * 20_000}g{')' * 20_000}"),
    "deep transposition": body(f"x0 = g{'.T' * 100_000}"),
    "deep blocks": body(f"{'when t > 1 { ' * 20_000}{'}' * 20_000} x0 = g"),
    "deep blocks, open": body("every 2 { " * 20_000),
    "wide sum": body(f"x0 = {' + '.join(['g'] * 100_000)}"),
    "wide sum of numbers": body(f"x0 = {' + '.join(map(str, range(60_000)))}"),
    "wide call": body(f"x0 = max({', '.join(['g'] * 100_000)})"),
    "many equations": body("\n".join(f"x{i} = g + {i}" for i in range(40_000))),
    "many states": body("x0 = g\n" + "\n".join(f"state s{i} = 0 s{i}' = s{i}" for i in range(20_000))),
    "many hypers": body("x0 = g\n" + "\n".join(f"hyper h{i} = 0" for i in range(20_000))),
    "many rules": "\n".join(f"rule A{i} {{ w' = w - g }}" for i in range(20_000)),
    "many errors": body("x0 = g\n" + "\n".join(f"y{i} = unknown{i}(" for i in range(10_000))),
    "many unknown names": body("x0 = g\n" + "\n".join(f"y{i} = u{i}" for i in range(19_000))),
    "many wrong types": body("x0 = g\n" + "\n".join(f"y{i} = not g" for i in range(19_000))),
    "many names that are nearly right": body(
        "\n".join(f"hyper beta{i} = 0" for i in range(10_000)) + "\nx0 = g" + "".join(f"*beta{i}x" for i in range(150))),
    "many imports of nothing": "\n".join(f"from std import nothing{i}" for i in range(19_000)) + body("x0 = g"),
    "one import of much": f"from std import {', '.join(f'nothing{i}' for i in range(20_000))}" + body("x0 = g"),
    "many settings in one product": body(
        "\n".join(f"hyper h{i} = 0.5" for i in range(7_000)) + "\nx0 = g" + "".join(f"*h{i}" for i in range(7_000))),
    "states of states": body("x0 = s0'\nstate s4000 = 0 s4000' = g\n" + "\n".join(
        f"state s{i} = 0 s{i}' = 0.9*s{i} + s{i + 1}'" for i in range(4_000))),
    "factors, one mistyped": body(f"hyper beta = 0.9\nx0 = {'*'.join(['g'] * 10_000)}*betta*{'*'.join(['g'] * 10_000)}"),
    "a long chain": body("\n".join(f"x{i} = x{i + 1} + 1" for i in range(20_000)) + "\nx20000 = g"),
    "doublings": body("\n".join(f"x{i} = x{i + 1} + x{i + 1}" for i in range(2_000)) + "\nx2000 = g"),
    "squares": body("\n".join(f"x{i} = x{i + 1}*x{i + 1}" for i in range(2_000)) + "\nx2000 = g"),
    "power towers": body("x0 = 9^9^9^9^9^9*g"),
    "power towers of hypers": body("hyper int k = 999999999\nx0 = g\nrepeat k^k^k { state y = g  y' = y }"),
    "functions that double": body("x0 = f60(g)", "def f0(x) = x + g\n" + "\n".join(
        f"def f{i}(x) = f{i - 1}(f{i - 1}(x))" for i in range(1, 61))),
    "functions that double their states": body("x0 = f40(g)", "def f0(x) { state s = 0 s' = s + x return s' }\n" + "\n".join(
        f"def f{i}(x) = f{i - 1}(x) + f{i - 1}(2*x)" for i in range(1, 41))),
    "rules that double": "rule A0 { w' = w - g }\n" + "\n".join(
        f"rule A{i} {{ a = A{i - 1}() b = A{i - 1}(g = 2*g) w' = a + b }}" for i in range(1, 40)),
    "loops in loops": body("x0 = f6(g)", "def f0(x) = x*x + g\n" + "\n".join(
        f"def f{i}(x) {{ repeat 50 {{ state y = x  y' = f{i - 1}(y) }} return y }}" for i in range(1, 7))),
    "a long loop": body("repeat 1000000 { state x0 = g  x0' = x0*x0 + g }"),
    "a huge loop": body("repeat 99999999999999999999 { state x0 = g  x0' = x0 }"),
    "a huge window": body("state h[999999999999] = nan\nh' = push(h, g)\nx0 = mean(h')"),
    "huge matrices": body("x0 = sum(eye(999999999) per tensor)*g"),
    "a circle": body("\n".join(f"x{i} = x{(i + 1) % 5_000}" for i in range(5_000))),
    "a circle of functions": body("x0 = f0(g)", "\n".join(f"def f{i}(x) = f{(i + 1) % 2000}(x)" for i in range(2_000))),
    "a long name": body(f"x0 = g + {'n' * 1_000_000}"[:999_000]),
    "a long name, defined": body(f"{'n' * 400_000} = g\nx0 = {'n' * 400_000}"),
    "a long number": body(f"x0 = g*{'9' * 100_000}"),
    "a long fraction": body(f"x0 = g*0.{'0' * 100_000}1"),
    "a long exponent": body(f"x0 = g*1e{'9' * 100_000}"),
    "a long hyper": f"rule A {{ hyper int k = {'9' * 100_000} w' = w - k*g }}",
    "a long text": f'rule A "{"x" * 900_000}" {{ w\' = w - g }}',
    "a long comment": f"# {'x' * 900_000}\nrule A {{ w' = w - g }}",
    "a text without an end": f'rule A "{"x" * 900_000}',
    "two megabytes": "# x\n" * 500_000,
    "right-to-left marks": "rule A { \u202e w' = w - g \u202c }",
    "zero bytes": "\x00" * 100_000,
    "combining marks": body("x0 = g" + "\u0301" * 100_000),
    "imports that climb": "from .. import x\nfrom ../../etc/passwd import y\nrule A { w' = w }",
    "imports of absolute paths": "from /etc/passwd import y\nrule A { w' = w }",
    "an import of a device": 'from "/dev/zero" import y\nrule A { w\' = w }',
    "only braces": "{}" * 200_000,
    "only primes": "'" * 200_000,
    "only quotation marks": '"' * 200_001,
    "only new lines": "\n" * 900_000,
    "routes without end": "rule A { w' = w }\nroute R { " + "when rank == 2 use A() " * 20_000 + "otherwise use A() }",
    "deep conditions of routes": f"rule A {{ w' = w }}\nroute R {{ when {'not (' * 20_000}true{')' * 20_000} use A() otherwise use A() }}",
}  # fmt: skip


READER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
sys.path[:0] = [{here!r}]
from optlang.diagnose import diagnose
from optlang.errors import OptError, Source
from optlang.front.format import format_file
from optlang.front.parser import parse
text = sys.stdin.buffer.read().decode()
found = diagnose(Source(text), pedantic=True)
assert all(d.to_text() for d in found[:50])
file, wrong = parse(Source(text))
if not wrong:
    format_file(file)
print("findings" if any(d.severity == "error" for d in found) else "right")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    """A process with 1 GB of memory reads it in 5 seconds of a processor, Python's start included."""
    script = READER.format(limit=BYTES, seconds=SECONDS, here=str(HERE))
    command = [sys.executable, "-W", "error", "-c", script]
    told = subprocess.run(command, input=BOMBS[name].encode(), capture_output=True, check=False)
    assert told.returncode == 0, told.stderr.decode()[-1500:]
    assert told.stdout.strip() in (b"findings", b"right")


def test_imports_that_climb_or_loop(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.opt").write_text("def f(x) = x\n")
    (inner / "a.opt").write_text("from b import f\nrule A { w' = w - f(g) }\n")
    (inner / "b.opt").write_text("from a import A\nfrom b import f\ndef h(x) = x\n")
    (inner / "secret.opt").symlink_to(tmp_path / "secret.opt")
    for path in sorted(inner.glob("*.opt")):
        if path.stem != "secret":
            with pytest.raises(OptError, match=r"N08|N01|R09"):
                optlang.Rule(path)


# ------------------------------------------------------------------------------------------------------- injections

EVIL = [
    '''""" + __import__('os').system('true') + """'''.replace('"', "”"), "'''; import os; '''", r"\\", r"\\n",
    r"\u0022\u0022\u0022", r"\N{QUOTATION MARK}",
    "{__import__('os')}", "{0.__class__}", "%s%n", r"\input{/etc/passwd}", r"\write18{id}", r"$x$ & # ^ ~ { }", "*/ system(0); /*", "// \\",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;", "'; DROP TABLE rules; --", "`id`", "$(id)", "| sh",
    "??/", "\\", "\u2028", "-->",
    "]]>", "\x7f", "#include </etc/passwd>", "\u202e", "%}{{7*7}}", "```", "|", "a\\",
]  # fmt: skip


def with_text(text: str) -> str:
    return f'rule A "{text}" {{ hyper lr = 0.1 in (0, 1) "{text}" state m = 0 m\' = 0.9*m + g w\' = w - lr*m\' }}'


@pytest.mark.parametrize("text", EVIL)
def test_strings_stay_strings(text: str) -> None:
    try:
        rule = rules.Rule(with_text(text))
    except OptError:
        return
    plain = rules.Rule(with_text("x"))
    for to in ("module", "optax"):
        assert bare(rules.generate(rule, to)) == bare(rules.generate(plain, to))
    compile(rules.generate(rule, "torch"), "torch.py", "exec")
    card = rule.markdown()
    assert not re.search(r"(?<!\\)<(script|img)", card), card
    assert r"\input" not in rule.latex() and r"\write18" not in rule.latex()
    assert rule.optimizer("torch").__name__ == "A"


SQL = ["'; DROP TABLE genomes; --", "x' OR '1'='1", 'a"; DELETE FROM jobs; --', "%", "_", "?", ":name", "\\'", "\x00", "\u2028", "1); --"]


def test_a_store_takes_any_text_as_text(tmp_path: Path) -> None:
    """Names of branches, jobs and notes, and what was changed, come back as they are; of the jobs those go that a round names."""
    words, over = sorted({*SQL, *EVIL}), sorted({*SQL, *EVIL})[::2]
    with Store.create(tmp_path / "search.db", SETTINGS) as store:
        for word in words:
            births = tuple(replace(one, change=word) for one in round_(0).births)
            store.save_job(word, [word])
            store.save_round(replace(round_(0), branch=word, births=births), {"word": word}, LEVEL, SEEDS, [word] if word in over else [])
            store.save_meta(f"own {word}", word)
            store.note(word, {word: word})
        assert sorted(store.branches()) == words
        for word in words:
            assert store.job(word) == (None if word in over else [word])
            assert store.state(word) == {"word": word} and store.meta(f"own {word}") == word and store.events(word) == [{word: word}]
            assert store.lineage(word, 2)[-1][1] == word and store.text(word, 1) == store.text(words[0], 1)


@pytest.mark.parametrize("to", ["cpp", "triton"])
def test_kernels_have_no_words_of_a_rule(to: str) -> None:
    """Neither strings nor names: the text is the same for all."""
    made = cpp_kernels if to == "cpp" else triton_kernels
    plain = with_text("x")
    assert made(plain) == made(with_text("*/ system(0); /*")) == made(plain.replace("m", "volatile")) != ()


def cpp_kernels(text: str) -> tuple[str, ...]:
    import torch

    noted: dict[str, None] = {}
    with together.noted(noted):
        p = torch.ones(3).requires_grad_()
        p.grad = torch.ones(3)
        optlang.loads(text, backend="cpp")([p]).step()  # type: ignore[call-arg]
    return tuple(noted)


def triton_kernels(text: str) -> tuple[str, ...]:
    import torch
    from compiled_kernels import kernels_of

    return tuple(loaded.kernel.text for loaded in kernels_of(text, torch.float32))


def bare(source: str) -> str:
    """Python without its documentation."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("text"))
    return ast.unparse(tree)


NAMES = ["self", "torch", "param", "lambda", "class", "None", "__import__", "__class__", "exec", "eval_", "print", "math",
"dtype", "group", "int_", "double",
         "float", "auto", "asm", "std", "main", "n", "i", "define", "NULL", "select", "where_", "frac", "β1", "ß", "ﬁ", "_",
         "__", "step_", "loss_", "grad_",
         "params_", "data", "__init__", "state_", "super", "isinstance", "Optimizer", "closure", "template", "operator", "and_",
         "unsigned", "volatile", "typename", "jax", "jnp", "optax", "init", "update", "updates", "params", "NamedTuple"]  # fmt: skip


@pytest.mark.parametrize("backend", ["module", "torch", "optax"])
@pytest.mark.parametrize("name", NAMES)
def test_names_stay_names(name: str, backend: str) -> None:
    """A rule means the same whatever its names are."""
    head = "hyper lr = 0.1 in (0, 1) hyper {0}_ = 0.5 state {0} = 0"
    text = f"rule A {{{{ {head} {{0}}' = {{0}}_*{{0}} + g x{{0}} = {{0}}'*norm({{0}}') w' = w - lr*x{{0}} }}}}"
    sources = [text.format(word) for word in (name, "plain")]
    if any(d.severity == "error" for source in sources for d in rules.check(source)):
        pytest.skip("not a name of this language")
    assert np.array_equal(*(by_optax(source) if backend == "optax" else by_torch(source, backend) for source in sources))


def by_torch(source: str, backend: str) -> Any:
    """The weights after three steps, each with twice the weights as gradient."""
    import torch

    p = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    scope: dict[str, Any] = {}
    if backend == "module":
        exec(compile(optlang.build(source), "generated.py", "exec"), scope)
    optimizer: Any = (scope["A"] if backend == "module" else optlang.loads(source, backend=backend))([p])
    for _ in range(3):
        p.grad = p.detach() * 2
        optimizer.step()
    return p.detach().numpy()


def by_optax(source: str) -> Any:
    jnp = pytest.importorskip("jax.numpy")
    scope: dict[str, Any] = {}
    exec(compile(rules.generate(rules.Rule(source), "optax"), "generated.py", "exec"), scope)
    p, made = jnp.array([1.0, -2.0, 0.5]), scope["a"]()
    state = made.init(p)
    for _ in range(3):
        change, state = made.update(2 * p, state, p)
        p = p + change
    return p
