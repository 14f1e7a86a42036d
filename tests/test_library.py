"""The library against trusted references: the same steps, on every backend, to rounding.

Each comparison is shown to be sharp: whichever setting or argument is moved a little, the two sides part.
"""

from __future__ import annotations

import re
import types
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from branches_taken import OPEN, ROUNDING, watched
from closed_loop import Maker, Problem, Trace, drive
from references import DEFINITIONS as FIRST_DEFINITIONS
from references import RULES as FIRST_RULES
from references import SCHEDULES, Row, Schedule, Setting, probe
from references_elementwise import RULES as ELEMENTWISE_RULES
from references_learned import RULES as LEARNED_RULES
from references_matrix import RULES as MATRIX_RULES
from references_newer import RULES as NEWER_RULES
from references_reductions import DEFINITIONS as REDUCTION_DEFINITIONS
from references_reductions import RULES as REDUCTION_RULES
from references_scaling import RULES as SCALING_RULES
from torch import Tensor

import optlang
from optlang.ir import Routing

pytestmark = pytest.mark.usefixtures("float64")  # some references keep scalars in torch's default type

LIBRARY = Path(__file__).parent.parent / "library"
BACKENDS = ("reference", "torch", "cpp", "module")
RULES = FIRST_RULES + ELEMENTWISE_RULES + MATRIX_RULES + REDUCTION_RULES + LEARNED_RULES + SCALING_RULES + NEWER_RULES
DEFINITIONS = FIRST_DEFINITIONS + REDUCTION_DEFINITIONS
ROWS = RULES + DEFINITIONS
NOTICED = 1e-5  # what moving one setting a little must at least do; the agreement is seven orders better
BAKED = {  # what a generated module cannot change later, and how it is compared if rows do not say it
    "adamcm": {"capacity": 3}, "muon": {"steps": 4}, "muonwithadamw": {"Muon.steps": 4}, "trustregionspectral": {"steps": 4},
    "normuon": {"steps": 4}, "normuonwithadamw": {"NorMuon.steps": 4}, "adamuon": {"steps": 4}, "cautiousdecaymuon": {"steps": 4},
    "galore": {"r": 2}, "fira": {"r": 2}, "apollo": {"r": 2},
    "frugal": {"r": 2}, "frugalcolumns": {"r": 2}, "onlinesubspacedescent": {"r": 2}, "subspacemomentum": {"r": 2}, "dion": {"r": 2},
    "dctadamw": {"r": 2}, "trion": {"r": 2, "steps": 4},
    "oasis": {"samples": 3}, "oasismomentum": {"samples": 3}, "zocoordinates": {"k": 3}, "zoranksgd": {"k": 1},
    "adagradsubsetnorm": {"k": 4}, "adamwsubsetnorm": {"k": 4},
}  # fmt: skip
every_backend = pytest.mark.parametrize("backend", BACKENDS)


@cache
def rule_class(rule: str, text: str, backend: str, shaping: tuple[tuple[str, int], ...] = ()) -> Any:
    if backend == "module":
        return generated_class(optlang.build(text or rule, baked=dict(shaping)), optlang.Rule(text or rule).name)
    return optlang.loads(text, backend=backend) if text else optlang.load(rule, backend=backend)


def generated_class(source: str, name: str) -> Any:
    module = types.ModuleType(name.lower())
    exec(compile(source, f"{name.lower()}.py", "exec"), module.__dict__)
    return getattr(module, name)


def shaping_of(row: Row) -> tuple[tuple[str, int], ...]:
    """What is fixed in a module when it is generated."""
    return tuple((name, int(row.ours.get(name, value))) for name, value in BAKED.get(row.rule, {}).items()) if not row.text else ()


def our_side(row: Row, backend: str, text: str = "", **changes: Setting) -> Maker:
    cls = rule_class(row.rule, text or row.text, backend, shaping_of(row))
    settings = settings_of(row, backend, text, **changes)
    return lambda params, problem: looped(cls(list(params.items()), **settings), row, params)


def settings_of(row: Row, backend: str, text: str = "", **changes: Setting) -> dict[str, Any]:
    """As an optimizer takes them: those of a route by rule, tables of a module whole."""
    settings: dict[str, Any] = {**row.ours, **changes}
    if backend == "module":
        settings = with_tables(settings)
    return by_rule(settings) if isinstance(optlang.Rule(text or row.text or row.rule).program, Routing) else settings


def with_tables(settings: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a table put together."""
    found: dict[str, Any] = {}
    cells: dict[str, dict[tuple[int, int], float]] = {}
    for name, value in settings.items():
        if place := re.fullmatch(r"(.+)\[(\d+),(\d+)\]", name):
            cells.setdefault(place[1], {})[int(place[2]) - 1, int(place[3]) - 1] = value
        else:
            found[name] = value
    for table, values in cells.items():
        found[table] = np.zeros(np.max([*values], axis=0) + 1)
        for place, value in values.items():
            found[table][place] = value
    return found


def looped(optimizer: Any, row: Row, params: dict[str, Tensor]) -> Any:
    """Our optimizer in the loop that its rule needs."""
    fed = optimizer if row.inputs is None else Fed(optimizer, row, params)
    return fed if row.loop is None else row.loop(fed)


class Fed:
    """Our optimizer, given what its rule asks the loop for."""

    def __init__(self, base: Any, row: Row, params: dict[str, Tensor]) -> None:
        self.base, self.row, self.params, self.count = base, row, list(params.values()), 0
        self.zero_grad, self.param_groups = base.zero_grad, base.param_groups
        self.eval = getattr(base, "eval", None)

    @property
    def reports(self) -> dict[str, Any]:
        found: dict[str, Any] = self.base.reports
        return found

    def step(self) -> None:
        assert self.row.inputs
        given = self.row.inputs(self.row.problem, self.count)
        self.base.inputs.update({name: dict(zip(self.params, values, strict=True)) for name, values in given.items()})
        self.base.step()
        self.count += 1


def by_rule(settings: dict[str, Setting]) -> dict[str, dict[str, Setting]]:
    """Settings of a route: `Muon.lr` is the `lr` of `Muon`."""
    nested: dict[str, dict[str, Setting]] = {}
    for name, value in settings.items():
        rule, _, setting = name.partition(".")
        nested.setdefault(rule, {})[setting] = value
    return nested


def run_ours(row: Row, backend: str = "reference", text: str = "", **changes: Setting) -> Trace:
    average = (lambda optimizer: evaluated(optimizer)) if row.average else None
    return drive(our_side(row, backend, text, **changes), row.problem, row.steps, row.closure, average)


def evaluated(optimizer: Any) -> list[Tensor]:
    optimizer.eval()
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


@cache
def _run_theirs(place: int) -> Trace:
    row = ROWS[place]
    return drive(row.theirs, row.problem, row.steps, row.closure, row.average)


def run_theirs(row: Row) -> Trace:
    return _run_theirs(ROWS.index(row))


def moved(value: Setting) -> Setting:
    """A little away from a setting."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 1.03


# --------------------------------------------------------------------------------------------- the same steps


@pytest.mark.parametrize("rule", dict.fromkeys(row.rule for row in ROWS))
def test_takes_the_steps_of_its_reference_and_both_sides_of_every_choice(rule: str) -> None:
    with watched() as watch:
        for row in ROWS:
            if row.rule == rule:
                compared(row, "reference")
    found, known = set(watch.one_sided()), OPEN.get(rule, {})
    assert found <= set(known), "a side that nothing has taken"
    assert {choice for choice, why in known.items() if why is not ROUNDING} <= found, "what rounds otherwise is another processor's"


def test_a_side_that_is_not_taken_is_seen() -> None:
    text = "rule R { hyper bool b = true  when t > 9 { w' = w } else { w' = where(b, w - clip(g, -1e9, 0), w) } }"
    with watched() as watch:
        drive(lambda params, problem: optlang.loads(text, backend="reference")(params.values()), Problem(), 3)
    assert watch.one_sided() == {"t > 9": "never holds", "b": "never fails", "max(g, -1000000000.0)": "always the first"}


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_takes_the_steps_of_the_reference(row: Row, backend: str) -> None:
    compared(row, backend)


def compared(row: Row, backend: str) -> None:
    ours, theirs = run_ours(row, backend), run_theirs(row)
    assert ours.weights.isfinite().all()
    assert theirs.travel > 0.05
    assert ours.distance(theirs) <= row.tolerance


def settings(row: Row) -> dict[str, list[str]]:
    """The settings of a row, each with the names that it is given under: a table has one for each number."""
    found: dict[str, list[str]] = {}
    for name in row.ours:
        found.setdefault(name.partition("[")[0], []).append(name)
    return found


SETTINGS = [pytest.param(row, names, id=f"{row.id}-{name}") for row in RULES for name, names in settings(row).items()]


@pytest.mark.parametrize(("row", "names"), SETTINGS)
def test_the_comparison_notices_a_setting(row: Row, names: list[str]) -> None:
    assert any(gap_after(steps, row, names) > NOTICED for steps in (4, row.steps))


def gap_after(steps: int, row: Row, names: list[str]) -> float:
    """How far the two sides are apart after some steps with one setting moved."""
    changed = run_ours(replace(row, steps=steps), **{name: moved(row.ours[name]) for name in names})
    theirs = run_theirs(row)
    return changed.distance(replace(theirs, weights=theirs.weights[: steps + 1]))


ARGUMENT = re.compile(r"(?<=, )\d[\d.e-]*(?=[,)])")


def variants(text: str) -> list[str]:
    """The text with each literal argument of a call moved in turn."""
    found = []
    for match in ARGUMENT.finditer(text):
        number = match[0]
        other = moved(int(number) if number.isdigit() else float(number))
        found.append(f"{text[: match.start()]}{other}{text[match.end() :]}")
    return found


@pytest.mark.parametrize("row", DEFINITIONS, ids=lambda row: row.id)
def test_the_comparison_notices_an_argument(row: Row) -> None:
    for text in variants(row.text):
        assert run_ours(row, text=text).distance(run_theirs(row)) > NOTICED, text


@pytest.mark.parametrize(
    "row", [row for row in DEFINITIONS if row.text.count("SGD(g")], ids=lambda row: row.id
)
def test_a_transform_changes_the_steps(row: Row) -> None:
    plain = probe("ema", "w' = SGD(lr = lr)")
    assert run_ours(row, text=plain).distance(run_theirs(row)) > 1e-3


@pytest.mark.parametrize("row", [row for row in RULES if row.early], ids=lambda row: row.id)
def test_both_branches_are_taken(row: Row) -> None:
    assert row.early
    name, first = row.early
    gap = run_ours(row, **{name: moved(row.ours[name])}).weights - run_theirs(row).weights
    assert gap[:first].abs().max() <= row.tolerance
    assert gap[first].abs().max() > NOTICED


def default_settings(rule: str) -> dict[str, Setting]:
    program = optlang.Rule(rule).program
    if isinstance(program, Routing):
        return {f"{c.program.name}.{h.name}": c.settings.get(h.name, h.default) for c in program.cases for h in c.program.hypers}
    return {h.name: h.default for h in program.hypers}


@pytest.mark.parametrize("row", RULES, ids=lambda row: row.id)
def test_no_setting_is_compared_at_its_default(row: Row) -> None:
    same_rule = [other for other in RULES if other.rule == row.rule]
    defaults = default_settings(row.rule)
    assert set().union(*(other.ours for other in same_rule)) == set(defaults)
    assert all(row.ours[name] != defaults[name] for name in row.ours)


# -------------------------------------------------------------------------------------------------- schedules


def traced(schedules: tuple[Schedule, ...], calls: list[str], backend: str) -> list[list[float]]:
    """The values of schedules over the steps, all in one rule that reports them."""
    names = [schedule.name for schedule in schedules]
    imports = ", ".join(sorted({call.split("(")[0] for call in calls}))
    reports = " ".join(
        f"report {name}_ = {call}" for name, call in zip(names, calls, strict=True)
    )
    text = f"from std import {imports} rule Probe {{ hyper lr = 1 in (0, inf) {reports} w' = w - lr*g }}"
    p = torch.zeros(1, requires_grad=True)
    optimizer = rule_class("", text, backend)([p])
    rows = []
    for _ in range(max(schedule.horizon for schedule in schedules)):
        p.grad = torch.ones(1)
        optimizer.step()
        rows.append([float(optimizer.reports[f"{name}_"]) for name in names])
    return [list(column) for column in zip(*rows, strict=True)]


@cache
def all_schedules(backend: str) -> dict[str, list[float]]:
    columns = traced(SCHEDULES, [schedule.call for schedule in SCHEDULES], backend)
    return {schedule.name: column for schedule, column in zip(SCHEDULES, columns, strict=True)}


def gap(schedule: Schedule, ours: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(ours[: schedule.horizon], schedule.values(), strict=True))


@every_backend
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_schedule(schedule: Schedule, backend: str) -> None:
    assert gap(schedule, all_schedules(backend)[schedule.name]) <= 1e-14


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_the_comparison_notices_an_argument_of_a_schedule(schedule: Schedule) -> None:
    for call in variants(schedule.call):
        [values] = traced((schedule,), [call], "reference")
        assert gap(schedule, values) > NOTICED, call


# --------------------------------------------------------------------------------------- the shelf as a shelf


def statements(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize(("rule", "most"), [("adam/adam.opt", 14), ("sign/lion.opt", 11)])
def test_a_rule_is_as_short_as_its_equations(rule: str, most: int) -> None:
    assert len(statements(LIBRARY / rule)) <= most


def rule_files() -> list[Path]:
    return sorted(path for path in LIBRARY.rglob("*.opt") if path.name != "std.opt")


def test_every_rule_has_a_reference() -> None:
    stems = [path.stem for path in rule_files()]
    assert len(stems) == len(set(stems))
    assert {row.rule for row in RULES} == set(stems)


def test_every_definition_has_a_reference() -> None:
    text = (LIBRARY / "std.opt").read_text()
    tested = {
        *re.findall(r"\w+", " ".join(row.text for row in DEFINITIONS)),
        *(s.call.split("(")[0] for s in SCHEDULES),
    }
    helpers = {
        "decay_done",
        "triangle",
        "half_cosine",
        "cosine_power_of",
        "newton_schulz",
    }  # used by tested ones
    later = text[text.index("---- kinds of parameters") :]  # what MuonWithAdamW, MuAdamW and their kin are tested with
    by_rules = {"orthogonalize", "polar_express", "polar_steps", "polar_step", *re.findall(r"^def (\w+)", later, re.MULTILINE)}
    assert set(re.findall(r"^def (\w+)", text, re.MULTILINE)) - tested == helpers | by_rules


@pytest.mark.parametrize("path", rule_files(), ids=lambda path: path.stem)
def test_rule_is_cited_and_its_settings_are_explained(path: Path) -> None:
    lines = statements(path)
    head = next(line for line in lines if re.match(r"(rule|route)\b", line))
    assert re.search(r'"[^"]*\b(19|20)\d\d\b[^"]*"', head)
    for line in lines:
        if line.startswith("hyper"):
            assert line.endswith('"'), line
            assert " in " in line or line.startswith("hyper bool"), line


@pytest.mark.parametrize(("stem", "limit"), [("adam", 14), ("lion", 11)])
def test_rule_is_short(stem: str, limit: int) -> None:
    [path] = LIBRARY.rglob(f"{stem}.opt")
    assert len(statements(path)) <= limit


# ---------------------------------------------------------------------------------------------- the curvature


def test_the_curvature_estimate_is_a_sample_of_hutchinson() -> None:
    """For H = [[2, 1], [1, 3]] and z of ±1, z * (H z) is (3, 4) or (1, 2): both occur, and nothing else."""
    w = torch.zeros(2, requires_grad=True)
    hessian = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    optimizer = rule_class("sophiah", "", "reference")([w], k=1, beta2=0.0)
    seen = set()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = w @ hessian @ w / 2 + w.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(24):
        optimizer.step(closure)
        seen.add(tuple(optimizer.state[w]["h"].round(decimals=9).tolist()))
    assert seen == {(3.0, 4.0), (1.0, 2.0)}


@pytest.mark.parametrize("backend", ["torch", "cpp", "module"])
@pytest.mark.parametrize("rule", ["adafactor", "adafactororiginal", "adalomo", "came", "sm3"])
def test_small_gradients_beside_zeros_do_not_vanish(rule: str, backend: str) -> None:
    """As behind pixels that are always black: products of small means are 0 in float32, and 0/0 is not a number."""
    g = 1e-5 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    g[:, 1] = 0
    g[2] = 0
    found = []
    for name in (backend, "reference"):
        p = torch.ones(6, 4, dtype=torch.float32).requires_grad_()
        optimizer = rule_class(rule, "", name)([p])
        for _ in range(3):
            p.grad = g.clone()
            optimizer.step()
        found.append(p.detach())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    assert found[0][0, 0] != 1


def test_a_closed_loop_can_fail() -> None:
    """The problem itself: steps that differ by one part in a billion do not stay together unseen."""

    def make(scale: float) -> Maker:
        return lambda params, problem: torch.optim.SGD(list(params.values()), lr=0.05 * scale)

    one, other = (drive(make(scale), Problem(), 20) for scale in (1.0, 1.0 + 1e-9))
    assert one.distance(other) > 1e-11
