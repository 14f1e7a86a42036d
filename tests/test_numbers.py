"""Numbers that generated C++ computes, beside those of the host: bit for bit the same. 5 seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optlang import ir
from optlang.backends.kernels import build
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.numbers import Numbers, make, together
from optlang.host import HostScalars
from optlang.ops import DRAWS, ROWS
from optlang.philox import MODEL_STREAM, draw
from optlang.rules import Rule
from optlang.types import MODEL

LIBRARY = Path(__file__).parent.parent / "library"
FACTS = {"rank": 2, "numel": 48, "rows": 6, "cols": 8, "fan_in": 8, "fan_out": 6}
LR, BETA, TRUTH, K = ir.hyper("lr"), ir.hyper("beta"), ir.hyper("nesterov", "bool"), ir.hyper("k", "int")
EDGES = (0.0, -0.0, 0.5, -2.0, 3.0, 1e308, -1e-310, math.inf, -math.inf, math.nan)


def computed(numbers: Numbers, hypers: Mapping[str, Any], t: int) -> bytes:
    numbers.put(0, hypers)
    numbers.given[0, len(numbers.hypers) :] = [*(FACTS[name] for name in numbers.of("fact")), *[t for _ in numbers.of("t")]]
    return canonical(numbers.compute()[0])


def expected(scalars: HostScalars, hypers: Mapping[str, Any], t: int) -> bytes:
    return canonical(np.array(scalars._compute(tuple(hypers[n] for n in scalars.hypers), t, tuple(FACTS[n] for n in scalars.facts)), float))


def canonical(values: Any) -> bytes:
    """All NaNs are one: nobody looks at their bits."""
    return np.where(np.isnan(values), np.nan, values).tobytes()


def test_those_of_the_library() -> None:
    programs = [Rule(path.stem).program for path in sorted(LIBRARY.rglob("*.opt")) if path.stem != "std"]
    pairs = []
    for program in [program for program in programs if isinstance(program, ir.Program)]:
        known = ir.on_host(program.all_roots())
        nodes = [node for node in ir.walk(program.all_roots()) if known[node]]
        pairs.append((program, HostScalars(nodes), Numbers(nodes)))
    make(numbers for _, _, numbers in pairs)
    for program, scalars, numbers in pairs:
        for factor in (1, 0.7, 0.999999, -3, 0):
            hypers = {h.name: h.default * factor if h.kind == "real" else h.default for h in program.hypers}
            for t in (1, 2, 9, 10, 1000, 10**7):
                scalars._settled.cache_clear()  # which takes 0 and -0 for one setting
                assert computed(numbers, hypers, t) == expected(scalars, hypers, t), (program.name, factor, t)


def test_each_operator_at_the_edges() -> None:
    pairs = []
    for row in ROWS:
        if row.role in ("map", "select"):
            operands: list[ir.Node] = [TRUTH if row.name in ("and", "or", "not") else one for one in (LR, BETA)]
            args = [TRUTH, LR, BETA] if row.role == "select" else operands[: row.operands]
            nodes = [ir.make(row.name, args)]
            pairs.append((row.name, HostScalars(nodes), Numbers(nodes)))
    make(numbers for _, _, numbers in pairs)
    for name, scalars, numbers in pairs:
        for one in EDGES:
            for other in EDGES:
                hypers = {"lr": one, "beta": other, "nesterov": bool(one)}
                scalars._settled.cache_clear()
                found, wanted = computed(numbers, hypers, 1), expected(scalars, hypers, 1)
                if name == "mod":  # kernels give a remainder of 0 no sign
                    found, wanted = (canonical(np.frombuffer(x) + 0.0) for x in (found, wanted))
                assert found == wanted, (name, one, other)


def test_settings_and_constants_of_every_kind() -> None:
    nodes = [K, TRUTH, ir.add(K, ir.const(10**400)), ir.const(math.nan), ir.const(-math.inf), ir.FALSE]
    numbers = Numbers(nodes)
    make([numbers])
    for k in (7, -(10**400), True):
        for truth in (True, False):
            hypers = {"k": k, "nesterov": truth}
            assert computed(numbers, hypers, 1) == expected(HostScalars(nodes), hypers, 1)


def test_rows_of_both_number_types_and_values_that_are_given() -> None:
    product = ir.mul(LR, BETA)
    for kind in (np.float32, np.float64):
        numbers = Numbers([ir.sub(product, ir.const(1)), product], [product], kind)
        assert numbers.leaves == [product]  # what it is made of is not asked for
        make([numbers])
        numbers.hold(3)
        numbers.given[:, 0] = [0.1, 1e300, math.inf]
        with np.errstate(over="ignore"):
            assert numbers.compute().tolist() == [[kind(x - 1), kind(x)] for x in (0.1, 1e300, math.inf)]


def test_what_takes_more_than_numbers_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unseen):
        Numbers([ir.W])
    monkeypatch.setattr(build, "library", lambda *given, **more: (_ for _ in ()).throw(build.NoCompiler("none")))
    with pytest.raises(Unseen):
        make([Numbers([LR])])


def test_draws_per_model_are_those_of_philox() -> None:
    draws = [ir.random(name, site, MODEL) for site, name in enumerate(DRAWS, 3 * 10**9)]
    numbers = Numbers(draws)
    leaves, given = together([numbers])
    make([numbers])
    for seed, t in ((0, 1), (7, 10**6), (2**32 - 1, 2**31 + 5)):
        given[leaves.index(ir.T)], given[-1] = t, seed
        drawn = [draw(name, (), t, site, seed, MODEL_STREAM) for site, name in enumerate(DRAWS, 3 * 10**9)]
        assert numbers.compute()[0].tolist() == [float(x) for x in drawn]
