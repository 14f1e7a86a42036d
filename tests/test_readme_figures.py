"""Figures of the README are those of the files that they were taken from, as they are rounded there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLOWING = " ".join(README.split())  # wherever lines end
COSTS = README[README.index("## What it costs") : README.index("## A search")]
BY_TORCH = ["liontopk", "muon", "soap", "shampoo", "galore", "apollo", "scion", "dion", "psgdkron", "sam", "sophiag", "muonwithadamw"]
NUMBER = r"([-\d.,]+)"
ZEN = "tests/bench/results/{}-cpu-zen4-{}.json"


@cache
def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def results(date: str, what: str) -> Any:
    return read(ZEN.format(date, what))


def line(date: str, what: str, label: str, model: str = "gpt2") -> Any:
    [found] = [one for one in results(date, what)["models"][model] if one["label"] == label]
    return found


def floors(date: str, what: str, *labels: str) -> list[float]:
    return [line(date, what, label)["ratio"]["median"] for label in labels]


def steps(date: str, what: str, *labels: str, model: str = "gpt2") -> list[float]:
    return [line(date, what, label, model)["step"]["median"] for label in labels]


def over(one: float, others: Iterable[float]) -> list[float]:
    return [one / other for other in others]


def first_steps(how: str, *rules: str) -> list[float]:
    found = results(B, "quiet-every-rule")["rules"]
    return [found[rule][how]["load"] + found[rule][how]["first"] for rule in rules]


def host(settings: str, count: str, who: str = "optlang") -> float:
    return float(results("2026-11-29", "shared-host")[settings][count][who][0])


def host_of(settings: str, rule: str) -> list[float]:
    """Microseconds of a step with one tensor, and for each further one."""
    found = results(B, "quiet-host-rules")["by rule"][rule]
    return [found["1"][settings], (found["200"][settings] - found["1"][settings]) / 199]


def beside(count: str, torch: bool) -> float:
    """The median, over rules that torch steps or those that C++ steps, of what a step takes after a change over before it."""
    one, other = (read(f"tests/bench/results/2026-11-30-cpu-xeon-shared-host-rules-{when}.json")["by rule"] for when in ("after", "before"))
    chosen = [rule for rule in one if (rule in BY_TORCH) == torch]
    return float(median(one[rule][count]["stay"] / other[rule][count]["stay"] for rule in chosen))


def numbers_beside(count: str) -> list[float]:
    """The medians over some rules of what a step takes where C++ computes numbers over what it took before, for each change of settings."""
    one, other = (results("2026-11-30", f"shared-host-numbers-{when}")["by rule"] for when in ("after", "before"))
    kinds = ("stay", "lr", "all")
    return [median(one[rule][count][kind] / other[rule][count][kind] for rule in one if kind in one[rule][count]) for kind in kinds]


def gaps(*formats: str) -> list[float]:
    found = results("2026-11-28", "shared-states-loss")["formats"]
    return [found[form][key] for form in formats for key in ("gap to fp32", "standard error of the gap")]


def products(*sizes: int) -> list[float]:
    found = {tuple(one["shape"]): one["one by one / together"]["median"] for one in results("2026-11-28", "shared-matrices")["Muon"]}
    return [found[size, size] for size in sizes]


def muon() -> list[float]:
    found = {who: median(seconds) for who, seconds in results("2026-11-30", "shared-muon")["times"].items()}
    return [found[who] / found["torch.optim.Muon"] for who in ("optlang", "optlang, products bf16")]


def endings(*rules: str) -> list[float]:
    found = {one["rule"]: one for one in read("examples/search/digits_and_chars/results.json")["finals"]["endings"]}
    return [found[rule][key] for rule in rules for key in ("loss", "error")]


def scores(rule: str) -> list[float]:
    found = read("examples/search/digits_and_chars/results.json")["finals"]["standings"]
    return [one[key] for one in found if one["rule"] == rule for key in ("score", "low", "high")]


def states(what: str) -> list[float]:
    """A step with states in each format, in times of one with float32."""
    plain, *packed = steps(B, what, *(f"adamw · optlang cpp{end}" for end in ("", *(f", {form} state" for form in FORMATS))))
    return [step / plain for step in packed]


A, B = "2026-11-28", "2026-11-29"
ADAMW, LION = "adamw · optlang auto", "lion · optlang auto"
RULES = [f"{name} · optlang auto" for name in ("adabelief", "ademamix", "adan", "lion")]
FORMATS = ("bf16", "fp8", "int8", "int4")
Figures = Callable[[], Sequence[float]]
OF_COSTS: dict[str, Figures] = {  # text around figures: N stands for each
    "× its floor: AdamW, AdaBelief, AdEMAMix, Adan, Lion (11-29) | N, N, N, N, N": lambda: floors(B, "quiet-rules", ADAMW, *RULES),
    "| AdamW × torch `fused`; × optimi; × `foreach` (11-29) | N; N; N": lambda: over(
        *steps(B, "quiet-rules", ADAMW), steps(B, "quiet-rules", "adamw · torch fused", "adamw · optimi", "adamw · torch foreach")),
    "× pytorch_optimizer; × lion-pytorch (11-29) | N; N; N": lambda: over(
        *steps(B, "quiet-rules", LION), steps(B, "quiet-rules", "lion · optimi", "lion · pytorch_optimizer", "lion · lion-pytorch")),
    "× one that goes over it once (11-29) | N; N |": lambda: [
        line(B, "quiet-two-passes", "lamb · optlang cpp")[floor]["median"] for floor in ("passes", "ratio")],
    "the same on one thread, in processor time | N, N, N, N; N, N, N, N |": lambda: [
        *states("quiet-states"), *states("quiet-states-one-thread")],
    "takes at its peak and gives back | N |": lambda: [max(one["extra"] for one in results(A, "shared-memory")["rules"].values())],
    "| AdamW, 290 small tensors (11-29) | N ms; torch `fused` N, optimi N, `foreach` N": lambda: [1e3*x for x in steps(
        B, "quiet-small", ADAMW, *(f"adamw · {who}" for who in ("torch fused", "optimi", "torch foreach")), model="small")],
    "| Lion, the same | N ms; pytorch_optimizer N, optimi N, lion-pytorch N": lambda: [1e3*x for x in steps(
        B, "quiet-small", LION, *(f"lion · {who}" for who in ("pytorch_optimizer", "optimi", "lion-pytorch")), model="small")],
    "by the clock (11-29), N µs of it in torch's wrappers | N µs, N where `lr` has changed, and N µs for each tensor": lambda: [
        host("settings stay", "1", "nothing"), host("settings stay", "1"), host("lr changes in every step", "1"),
        (host("settings stay", "1168") - host("settings stay", "292"))/(1168 - 292)],
    "where the step as it was takes N µs, and N µs for each tensor) | N µs, and N µs for each tensor": lambda: [
        *host_of("stay", "adamw"), *host_of("all", "adamw")],
    "all rules](tests/bench/results/2026-11-29-cpu-zen4-quiet-host-rules.json)) | N, N, N µs, and N, N, N µs for": lambda: [
        x for place in (0, 1) for x in (host_of("stay", rule)[place] for rule in ("lookahead", "prodigy", "sps"))],
    "rules that C++ steps, one tensor and 200; twelve that torch steps, 200 | N, N; N |": lambda: [
        beside("1", torch=False), beside("200", torch=False), beside("200", torch=True)],
    "no setting changes, `lr` does, all do, one tensor; 200 | N, N, N; N, N, N |": lambda: numbers_beside("1") + numbers_beside("200"),
    "whose settings or `t` decide a block (there) | N to N µs, and N to N µs for": lambda: [
        x for each in zip(*(host_of("stay", rule) for rule in ("adan", "adopt", "radam", "sgdw", "lars")), strict=True)
        for x in (min(each), max(each))],
    "fresh process, empty cache (11-29) | N s": lambda: first_steps("cold", "adamw"),
    "| the same, cached | N s": lambda: first_steps("warm", "adamw"),
    "the same for Adafactor, CAME, SGDP, LionTopK, empty cache | N, N, N, N s": lambda: first_steps(
        "cold", "adafactor", "came", "sgdp", "liontopk"),
    "× torch's Muon, which is bf16 throughout | N, N |": muon,
    "matrices 16×16 in one call; 200 of 32×32; 100 of 64×64; 100 of 128×128 | N, N, N, N ×": lambda: products(16, 32, 64, 128),
    "int8, bf16, int4 states less float32 states | N±N, N±N, N±N": lambda: gaps("int8", "bf16", "int4"),
}  # fmt: skip
ELSEWHERE: dict[str, Figures] = {
    "step of AdamW is N × `fused`": lambda: [read("docs/bench-cpu.json")["steps of the torch backend (s)"]["ratio"]["median"]],
    "of the whole library computes for N s, of one rule for N s": lambda: [
        read("docs/bench-cpu.json")["check library (s)"]["median"], read("docs/bench-cpu.json")["start-up (s)"]["check adam"]["median"]],
    "made N children in N CPU minutes, N % of which were never trained": lambda: (lambda d: [
        d["children"], sum(one["cpu minutes"] for one in d["sittings"]), 100*d["share never trained"]])(
            read("examples/search/digits_and_chars/results.json")),
    "they end at a loss of N ± N, N ± N and N ± N; AdamW": lambda: endings("Found26338", "Found28437", "Found2068"),
    "tuned with as many trials or more, at N ± N, N ± N, N ± N and N ± N": lambda: endings("adamw", "signum", "lion", "rmsprop"),
    "they score N (95 %: N to N), N and N, Signum N, AdamW N (N to N)": lambda: [
        *scores("Found26338"), scores("Found28437")[0], scores("Found2068")[0], scores("signum")[0], *scores("adamw")],
}  # fmt: skip


def found(form: str) -> list[str]:
    """The figures that the README has there."""
    pattern = re.escape(form.replace("N", "\0")).replace("\0", NUMBER)
    matches = re.findall(pattern, FLOWING)
    assert len(matches) == 1, f"{form}: {len(matches)} times in the README"
    return [matches[0]] if isinstance(matches[0], str) else list(matches[0])


@pytest.mark.parametrize("form", OF_COSTS | ELSEWHERE)
def test_a_figure_is_that_of_its_file(form: str) -> None:
    shown, measured = found(form), list((OF_COSTS | ELSEWHERE)[form]())
    assert len(shown) == len(measured)
    for text, value in zip(shown, measured, strict=True):
        plain = text.replace(",", "").rstrip(".")
        unit = 10.0 ** -len(plain.partition(".")[2])
        assert abs(float(plain) - value) <= 0.501 * unit, f"{form}: {text} is {value:.5g} in its file"


def test_every_row_of_the_table_has_a_file() -> None:
    rows = [row for row in COSTS.splitlines() if row.startswith("| ") and not row.startswith("| measure")]
    for row in rows:
        parts = [form for form in OF_COSTS if re.search(re.escape(form.replace("N", "\0")).replace("\0", NUMBER), row)]
        assert len(parts) == 1, row


def test_versions_and_dates_are_those_of_the_files() -> None:
    files = [json.loads(path.read_text()) for path in (ROOT / "tests" / "bench" / "results").glob("*-cpu-*.json")]
    assert {one["torch"] for one in files} == set(re.findall(r"torch (2\.\S+\+cpu)", COSTS))
    assert {one["date"] for one in files} == set(re.findall(r"2026-11-\d\d", COSTS.split("| measure")[0]))


@pytest.mark.parametrize(
    ("file", "count_of", "sentence"),
    [
        (ZEN.format(B, "quiet-every-rule"), r"\[(\d+) rules that C\+\+ steps\]",
         "N compile for longer than 1.5 s (up to N), those that draw or have many kernels; cached, half take "
         "up to N s, and N more than 0.2"),
        ("tests/bench/results/2026-11-30-cpu-xeon-quiet-every-rule.json", r"\[those of (\d+)\]",
         "that compile for longer than 1.5 s are N (up to N); cached, half take up to N s, and N more than 0.2"),
    ],
)  # fmt: skip
def test_the_first_steps_of_every_rule(file: str, count_of: str, sentence: str) -> None:
    kept = read(file)["rules"]
    by_cpp = [rule for rule, entry in kept.items() if entry["cold"].get("by") == "cpp"]
    cold, warm = ([kept[rule][how]["load"] + kept[rule][how]["first"] for rule in by_cpp] for how in ("cold", "warm"))
    [count] = re.findall(count_of, FLOWING)
    slow, longest, half, late = found(sentence)
    assert [int(count), int(slow), float(longest)] == [len(by_cpp), sum(one > 1.5 for one in cold), round(max(cold), 1)]
    assert [float(half), int(late)] == [round(median(warm), 2), sum(one > 0.2 for one in warm)]


def test_the_first_steps_of_the_torch_backend() -> None:
    about = read("docs/bench-cpu.json")["first steps of the torch backend (s)"]["148 tensors, 124 million numbers"]
    cold, warm = found("AdamW's first step takes N s with an empty cache and N s with a filled one")
    assert [float(cold), float(warm)] == [round(about[how]["step, by the clock"]["median"], 1) for how in ("cold", "warm")]
