"""Every rule on every backend in every number type: a part of it in turn here, the whole by `make conformance`. (50 s)

`docs/conformance.json` has the whole, with the words of each backend for what it does not do in its own way. What it says must be
so: a gap that was closed is as wrong there as one that has opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import loops
import pytest
import torch
from conformance import BACKENDS, DTYPES, KERNELS, STORED, Stepwise, apart, by_name, error, rows_of, without_module
from gallery_facts import mark
from records import recorded
from stepping import finite

from optlang import library

pytestmark = pytest.mark.usefixtures("float64")

RESULTS: dict[str, Any] = json.loads((Path(__file__).resolve().parent.parent / "docs" / "conformance.json").read_text(encoding="utf-8"))
MEASURED = RESULTS["rules"]
ONE_STEP = 1e-6  # of a step in float32; what is kept in bfloat16 may differ by three places in its last digit besides
TURN = [(b, d) for d in DTYPES for b in BACKENDS if b != "reference" and (d != torch.float64 or b == "triton")]  # else in test_library.py
TURNS = [(rule, *TURN[2 * i % len(TURN)]) for i, rule in enumerate(library.names())]


def tolerance(rule: str, backend: str, dtype: torch.dtype) -> float:
    if dtype == torch.float64:
        return max(row.tolerance for row in rows_of(rule))
    return ONE_STEP


@pytest.mark.parametrize(("rule", "backend", "dtype"), TURNS, ids=lambda x: str(x).removeprefix("torch."))
def test_in_turn(rule: str, backend: str, dtype: torch.dtype) -> None:
    if backend == "module" and (why := without_module(rule)):
        assert MEASURED[rule]["elsewhere"]["module"] == why
        return
    for row in rows_of(rule):
        assert error(row, backend, dtype, few=True) <= tolerance(rule, backend, dtype), row.id


@pytest.mark.parametrize("rule", library.names()[::6])
def test_what_steps_a_rule_is_what_was_written_down(rule: str) -> None:
    """Parameters that a kernel does not step, with the reasons."""
    for backend in KERNELS:
        run = Stepwise(rows_of(rule)[0], backend, torch.float32)
        run.worst(1)
        assert run.elsewhere(backend) == MEASURED[rule]["elsewhere"].get(backend, {})


@pytest.mark.parametrize("rule", library.names())
def test_every_rule_was_measured_as_it_is(rule: str) -> None:
    """`make conformance` measures what is missing."""
    entry = MEASURED[rule]
    assert entry["mark"] == mark(rule)
    for dtype in DTYPES:
        found = entry[by_name(dtype)]
        assert set(BACKENDS) - set(found) == {"module"} & set(entry["elsewhere"])
        for backend, worst in found.items():
            assert isinstance(worst, float) and worst <= tolerance(rule, backend, dtype), (backend, worst)


@pytest.mark.parametrize("rule", ["adamw", "lion", "prodigy"])
def test_closed_loops_of_200_steps(rule: str) -> None:
    """Weights of float32 end where the reference's do, but for some units in the last place."""
    assert loops.measured(rule, ("cpp",))["cpp"] <= 8


def test_closed_loops_of_the_library_are_as_they_are_told() -> None:
    """`make loops` takes those that are missing in docs/loops.json."""
    found = recorded(loops.RESULTS)
    assert all(entry["mark"] == mark(rule) for rule, entry in found.items()) and set(found) <= set(library.names())


def test_what_is_measured_can_be_wrong() -> None:
    """A step that is off by a part in a hundred thousand, and a weight that is off by more than three places in bfloat16, are seen."""
    x = torch.tensor([1.0, -3.0, 0.0])
    assert apart(x * (1 + 1e-5), x) > ONE_STEP
    low = x.bfloat16()
    allowed = STORED[low.dtype] * low.abs()
    assert apart(low + low.sign() * 2.0**-4, low, allowed) > ONE_STEP >= apart(low + low.sign() * 2.0**-6, low, allowed)
    assert apart(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    for gone in (torch.nan, torch.inf):
        with pytest.raises(AssertionError, match="run away"):
            finite(x, torch.tensor([1.0, gone]))
