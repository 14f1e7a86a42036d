"""A slice of the campaigns (`make fuzz`), and what they have found, each as a program of a few lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import accuracy
import numpy as np
import pytest
import torch
from fuzz.agree import Agreement, Found
from fuzz.campaign import Record, problem_of, run, shrunk
from fuzz.chance import Dice
from fuzz.grow import Grown, grow
from fuzz.kinds import KINDS
from fuzz.training import Way
from stepping import program

from optlang import diagnose, ops
from optlang.errors import Source
from optlang.types import EXTENT_OF

LR = "hyper lr = 0.05 in (0, inf)"
K = "hyper int k = 2 in [1, 5]"
FLOAT32 = Way(torch.float32)
HALT = Way(halfway=True)
GROUPS = Way(groups=True)
FAST = Way(groups=True, math="fast")
MATRICES = "when rank >= 2 use S() otherwise use R()"

# (what ran it, the text, how)
FINDS: list[tuple[str, str, Way, bool]] = [
    ("module", f"rule R {{ {LR} w' = w - lr*(g + tanh(count(g per 3))) }}", Way(), False),
    ("torch", f"rule R {{ {LR} state s per matrix = 0.5 s' = s w' = w - lr*tanh(count(s per col)) }}", FLOAT32, True),
    ("torch", f"rule R {{ {LR} state s per matrix = 0.5 s' = s w' = w - lr*quantile(s, 0.5 per col) }}", FLOAT32, True),
    ("torch", f"rule R {{ {LR} state s per group = 1 s' = s + 1 w' = w - lr*hvp(abs(s)) }}", GROUPS, False),
    ("torch", f"rule R {{ {LR} state s per group = 1 s' = s + 1 w' = w - lr*grad(abs(s)) }}", Way(), False),
    ("simplified", f"rule R {{ {LR} w' = w - lr*(count(numel per tensor) + g + 2*t) }}", Way(), False),
    ("module", f"rule R {{ {LR} every 2 {{ y = numel }} else {{ y = 1e-3 }} w' = w - lr*(g + norm(y per group)) }}", Way(), False),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + var(eye(rows) per model)) }}", Way(), True),
    ("module", f"rule R {{ {LR} input c per element w' = w - lr*(c + t) }}", HALT, False),
    ("module", f"rule R {{ {LR} w' = w - lr*norm(abs(count(numel))) }}", Way(), False),
    ("module", f"rule R {{ w' = w - g }} rule S {{ {LR} input c per element w' = w - lr*c }} route B {{ {MATRICES} }}", HALT, False),
    ("module", f"rule R {{ {LR} state q per group = 2 q' = q + 1 w' = w - lr*count(q per model) }}", GROUPS, False),
    ("module", f"rule R {{ {LR} state q per group = 2 q' = q + 1 w' = w - lr*sum(q per group) }}", GROUPS, False),
    ("torch", f"rule R {{ {LR} w' = w - lr*norm(norm(g per model) per model) }}", Way(), False),
    ("torch", f"rule R {{ {LR} state s per model = 2 s' = s w' = w - lr*(count(s per model) + sum(s per model)) }}", GROUPS, False),
    ("search", f"rule R {{ {LR} state s per matrix = 2 s' = s w' = w - lr*(orthonormal(s) + inverse(s)) }}", Way(), True),
    ("search", f"rule R {{ {LR} w' = w - lr*(inverse(2*eye(rows)) @ g) }}", Way(), True),
    ("torch", f"rule R {{ {LR} every 3 from 1 {{ y = g }} else {{ y = numel }} w' = w - lr*var(y per model) }}", Way(), False),
    ("torch", f"rule R {{ {LR} every 2 {{ y = g }} else {{ y = 2 }} w' = w - lr*quantile(y, 0.3 per model) }}", Way(), False),
    ("torch", f"rule R {{ {LR} state s per group = 1 s' = s every 2 {{ y = 0 }} else {{ y = w }} w' = w - lr*dot(y, s per row) }}",
     Way(), True),
    ("torch", f"rule R {{ {LR} {K} state s per model = 0 every k {{ y = g }} else {{ y = k }} s' = s + t w' = w - lr*(y + s') }}",
     GROUPS, False),
    ("torch", f"rule R {{ {LR} input n per tensor w' = w - lr*(n + g) }}", Way(), False),
    ("torch", f"rule R {{ {LR} w' = w - lr*g }} rule S {{ {LR} w' = w - lr*norm(g per model) }} route B {{ {MATRICES} }}", Way(), False),
    ("torch", f"rule R {{ {LR} state s per model = 0 s' = 0.5 w' = w - lr*g }}", Way(), False),
    ("torch", f"rule R {{ {LR} state s per model = lr s' = s + 1 w' = w - lr*(g + s') }}", Way(missing=True, halfway=True), False),
    ("search", f"rule R {{ {LR} hyper bool b = true state s per model = lr when b {{ s' = 1 }} else {{ s' = tanh(s) }} w' = w - lr*s }}",
     Way(), False),
    ("search", f"rule R {{ {LR} {K} every 3 from 1 {{ y = k }} else {{ y = 0.5 }} w' = w - lr*(y + g) }}", Way(), False),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + min(count(g per col) per matrix)) }}", Way(), True),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + quantile(count(g per col), 0.3 per model)) }}", Way(), True),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + var(count(g per col) per tensor)) }}", Way(), True),
    ("module", f"rule R {{ {LR} {K} state s per matrix = 1 s' = 2 w' = w - lr*(g + quantile(s, k per row)) }}", Way(), True),
    ("module", f"rule R {{ {LR} repeat 3 {{ state l = t + 0*w l' = tanh((0.5 + g)*abs(l)) + 0*w }} w' = w - lr*(g + l) }}", Way(), False),
    ("torch", f"rule R {{ {LR} repeat 3 {{ state l = 1 + 0*w l' = tanh(lr) + 0*w }} w' = w - lr*(l + loss) }}", FAST, False),
    ("torch", f"rule R {{ {LR} state s = w every 2 {{ y = g }} else {{ y = t }} s' = 0 w' = w - lr*y eval = 0.5*w' + s' }}", Way(), False),
    ("module", f"rule R {{ {LR} state s per matrix = 1 s' = s + 1 x = mean(s per col) w' = w - lr*(g + x) }}", Way(), True),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + count(g per matrix).T + inverse(count(g per matrix))) }}", Way(shapes=1), True),
    ("compiled", f"rule R {{ {LR} state s per tensor = 0 s' = s + 1 w' = w - lr*(s + g) }}", Way(shapes=1, steps=2), True),
    ("compiled", f"from std import agc rule R {{ {LR} w' = w - lr*(g + agc(w) + tanh(agc(w))) }}", Way(shapes=1, steps=2), False),
    ("cpp", f"rule R {{ {LR} w' = w - lr*(g + tanh(mod(g, 1))) }}", Way(), False),
    ("module", f"rule R {{ {LR} state s per matrix = 1 s' = s x = where(true, 2*eye(rows), s) w' = w - lr*(g + rms(x per model)) }}",
     Way(), True),
    ("module", f"rule R {{ {LR} state s per col = 1 state m per matrix = 2 x = dot(m, s per row) m' = x s' = x w' = w - lr*(g + x) }}",
     Way(), True),
    ("module", f"rule R {{ {LR} w' = w - lr*g }} rule S {{ {LR} w' = w - lr*(g + loss_at(g)) }} route B {{ {MATRICES} }}", Way(), False),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + loss_at(g)) }} rule S {{ {LR} w' = w - lr*(g + grad(2*w)) }} route B {{ {MATRICES} }}",
     Way(), False),
    ("module", f"rule R {{ {LR} {K} every 2 {{ y = lr }} else {{ y = k }} w' = w - lr*(loss + y) }}",
     Way(groups=True, missing=True, shapes=1, steps=3), False),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + ceil(quantile(numel, t per tensor))) }}", Way(), False),
    ("module", f"rule R {{ {LR} hyper bool b = true state s per model = false every 2 {{ y = g }} else {{ s' = b y = g }} "
     "w' = w - lr*where(s', y, w) }", GROUPS, False),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + cbrt(tanh(log2(lr)))) }}", Way(), False),
    ("module", f"rule R {{ {LR} w' = w - lr*tanh(count(g per matrix) @ (2*count(g per matrix))) }}", Way(shapes=1), True),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + quantile(atan(numel), 0 per group)) }}", Way(), False),
    ("torch", f"rule R {{ {LR} repeat 2 {{ state l = 0 + 0*w l' = tanh(l) + 0*w }} w' = w - lr*(g + tanh(1/l)) }}", Way(shapes=2), False),
    ("torch", f"rule R {{ {LR} state s = lr s' = t when rows >= cols {{ u = orthonormal(s) }} else {{ u = s }} w' = w - lr*u }}",
     Way(steps=2), True),
    ("module", f"rule R {{ {LR} state s per model = 1 s' = s + 1 every 2 {{ y = s }} else {{ y = 1 }} "
     "repeat 3 { state l = y + 0*w l' = tanh(tanh(l) + 2) + 0*w } w' = w - lr*l }",
     Way(), False),
    ("module", f"rule R {{ {LR} input n per tensor w' = w - lr*(g + n) }} rule S {{ {LR} input n per model w' = w - lr*n }} "
     f"route B {{ {MATRICES} }}", Way(), False),
    ("module", f"rule R {{ {LR} w' = w - lr*dot(places(rows), count(g per 2) per model) }}", Way(shapes=1), True),
    ("module", f"rule R {{ {LR} w' = w - lr*(max(g) + g/numel + log(numel)) }}", Way(shapes=3), False),
    ("module", f"rule R {{ w' = w - g report r = 2 }} rule S {{ w' = w - g report r = pi }} route B {{ {MATRICES} }}", Way(), False),
    ("module", f"rule R {{ {LR} w' = w - lr*(g + quantile(tanh(places(cols)), 0.5 per model)) }}", Way(shapes=2), True),
    ("module", f"rule R {{ {LR} w' = w - lr*rademacher(per group) }} rule S {{ {LR} w' = w - lr*g }} route B {{ {MATRICES} }}",
     Way(), False),
    ("module", f"def f(x) {{ state l per tensor = 0 l' = norm(x)/max(l, 1) return x/max(l, 1) }} rule R {{ {LR} hyper bool b = true "
     "when b { y = lr } else { y = f(g) } every 2 { z = 0.9 } else { z = y } w' = w - lr*(g + z) }", Way(steps=3), False),
    ("module", f"rule R {{ {LR} x = std(hvp(g) per model) every 3 from 1 {{ y = x }} else {{ y = 0.5 }} w' = w - lr*(g + y) }}",
     Way(steps=3), False),
    ("module", f"rule R {{ {LR} w' = w - lr*(count(w per 2) + tanh(std(g per group))) }}", Way(), False),
    ("module", f"def f(x) {{ when rank >= 2 {{ z = as_param(as_matrix(x)*norm(as_matrix(w) per row)) }} "
     f"else {{ z = x*norm(w) }} return z }} rule R "
     f" {{ {LR} every 2 {{ y = 0 }} else {{ y = f(w) }} w' = w - lr*(f(g) + y) }}", Way(steps=3), False),
]


@pytest.mark.parametrize(("name", "text", "way", "matrices"), FINDS)
def test_found_by_random_programs(name: str, text: str, way: Way, matrices: bool) -> None:
    agreement = Agreement([name])
    agreement(Grown(text, "B" if "route" in text else "R", matrices), way)
    assert agreement.counts["agree"] == 1 and not any("refuse" in said for said in agreement.counts), agreement.counts


def test_lints_are_silent_about_what_could_not_be_read() -> None:
    found = diagnose.diagnose(Source("rule A {\n  snotte m\n  m' = 0.9*m + g\n  w' = w - 1e-3*m'\n}"), pedantic=True)
    assert {d.severity for d in found} == {"error"}


# -------------------------------------------------------------------------------------------------------- a slice


@pytest.mark.parametrize("seed", range(15))
def test_programs_of_seeds(seed: int) -> None:
    """The same in every run: what hypothesis draws depends on the modules that are loaded. `make fuzz` goes on from here."""
    Agreement()(grow(Dice(seed)), Way())


@pytest.mark.parametrize(("kind", "count"), [("programs", 60), ("cpp", 40), ("triton", 20), ("texts", 500), ("touched", 40)])
def test_a_slice(kind: str, count: int) -> None:
    chosen = KINDS[kind]()
    made = [chosen.made(Dice(f"slice {seed}")) for seed in range(count)]
    around = chosen.before(made)
    for one in made:
        problem = problem_of(chosen, one)
        assert problem is None, f"{chosen.text_of(one)}\n{one}\n{problem}"
    if around is not None:
        around()
    done = chosen.counted["agree"] + chosen.counted["compared"]
    assert done > count / 2 or chosen.counted["texts"] == count


WORDS = re.compile(r"""per [23]|[A-Za-z_]\w*|[=!<>]=|[-+*/^@<>]|\.T|\[(?:3|k)\]""")
SIGNS = {row.infix[0] for row in ops.ROWS if row.infix} | {"not", ".T"}
STATEMENTS = {"state", "[3]", "[k]", "when", "every", "repeat", "def", "return", "import", "route", "use", "input", "report", "eval",
              "named", "dtype", "per 2", "per 3", "loss", "t", "g", "w", "true", "false", "int", "bool", "table", "Inner"}  # fmt: skip


def test_random_programs_are_of_the_whole_language() -> None:
    """Every builtin, sign, extent, fact, constant and kind of statement."""
    words = {word for seed in range(1500) for word in WORDS.findall(grow(Dice(f"programs {seed}")).text)}
    wanted = {*ops.BUILTINS, *SIGNS, *ops.FACTS, *ops.CONSTANTS, *EXTENT_OF, *STATEMENTS}
    assert wanted <= words, wanted - words


# ---------------------------------------------------------------------------------------------------- the campaign


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        record = Record.read(tmp_path / "fuzz.json")
        assert run(KINDS["texts"](), record, 0.005, said.append) == 0
    kept = Record.read(tmp_path / "fuzz.json").of("texts")
    assert kept["next"] == kept["counts"]["texts"] >= 2000
    assert said[-1].startswith(f"texts: {kept['next']} so far")


def test_a_seed_is_a_program() -> None:
    assert grow(Dice(7)) == grow(Dice(7)) != grow(Dice(8))


def _with(word: str) -> Callable[[str], bool]:
    return lambda text: word in text


def test_finds_are_made_small() -> None:
    assert shrunk("a\nb (x + (y))\nc\n", _with("b")) == "b g\n"


@pytest.mark.parametrize("error", [1e-9, float("nan")])
def test_a_wrong_result_is_found(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine would notice."""
    from optlang.backends.torch import TorchExecutable

    step = TorchExecutable.begin

    def begin(self: TorchExecutable, now: object) -> object:
        finish = step(self, now)  # type: ignore[arg-type]
        return lambda: (finish(), [cell.weights.data.add_(error) for cell in now.cells])  # type: ignore[attr-defined,func-returns-value]

    monkeypatch.setattr(TorchExecutable, "begin", begin)
    with pytest.raises(Found, match="torch parts from the reference"):
        Agreement(["torch"])(Grown(f"rule R {{ {LR} w' = w - lr*g }}", "R", False), Way())


def test_rounding_alone_puts_no_noise_into_settings() -> None:
    """0.9 times a number of 24 bits ends half-way between two such numbers one time in ten: chance would decide there."""
    made = program("rule R { hyper a = 0.9  w' = a*w }")
    weights, gradient = accuracy.given(1, "normal", (40, 40))
    found = accuracy.rounded(made, made, weights, [gradient], {"a": 0.9})
    assert np.array_equal(found, (0.9 * weights).astype(np.float32).ravel())
