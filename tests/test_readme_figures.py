"""Figures of the pages in `docs` are those of the files that they were taken from, as they are rounded there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from pages import COSTS, LIMITS, README, ROOT

import optlang

FLOWING = " ".join((COSTS + LIMITS).split())  # wherever lines end
NUMBER = r"([-\d.,]+)"
OURS = "optlang auto"
RESULTS = "../tests/bench/results/{}-{}.json"  # as `docs` links them


@cache
def read(name: str) -> Any:
    return json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))


def results(where: str, what: str) -> Any:
    return read(RESULTS.format(where, what))


def line(where: str, what: str, label: str, model: str = "gpt2") -> Any:
    """A row of what a machine measured, in whichever of its files it stands; on a CPU `auto` is C++, and called so in some."""
    kept = results(where, IN_ONE_RUN.get((where, what), what))["models"][model]
    [found] = [one for one in kept if one["label"].replace("optlang cpp", OURS) == label]
    return found


def floors(where: str, what: str, *labels: str) -> list[float]:
    return [line(where, what, label)["ratio"]["median"] for label in labels]


def steps(where: str, what: str, *labels: str, model: str = "gpt2") -> list[float]:
    return [line(where, what, label, model)["step"]["median"] for label in labels]


def beside_package(where: str, what: str, rule: str, package: str, model: str = "gpt2") -> list[float]:
    """How many times as long a step of ours takes as one of another package."""
    ours, theirs = steps(where, what, f"{rule} · {OURS}", f"{rule} · {package}", model=model)
    return [ours / theirs]


def first_steps(how: str, *rules: str) -> list[float]:
    found = results(FIRST, "quiet-every-rule")["rules"]
    return [found[rule][how]["load"] + found[rule][how]["first"] for rule in rules]


def host_of(rule: str) -> list[float]:
    """Microseconds of a step with one tensor, and for each further one: as settings stay, as `lr` changes, as all do."""
    found = results(HOST, "shared-host-rules")["by rule"][rule]
    one, many = ([found[count].get(how, found[count]["stay"]) for how in ("stay", "lr", "all")] for count in ("1", "200"))
    return [part for least, more in zip(one, many, strict=True) for part in (least, (more - least) / 199)]


def within() -> list[float]:
    """How many rules there are that C++ steps and that ask the model for nothing more, and how many of them are within the bound."""
    kept = results(FIRST, "quiet-every-rule")["rules"]
    hosts = {rule: entry for rule, entry in results(HOST, "shared-host-rules")["by rule"].items() if "asks" not in entry}
    found = [host_of(rule) for rule in hosts if kept[rule].get("cold", {}).get("by") == "cpp"]
    return [len(found), *(sum(_is_inside(*one[how : how + 2]) for one in found) for how in (0, 2, 4))]


def _is_inside(least: float, each: float) -> bool:
    return all(least + each * more <= 50 + 0.2 * (more + 1) for more in (0, 199))


def asking(rule: str) -> list[float]:
    """Microseconds of a step that asks the model, and what the model took."""
    found = results(C, "shared-host-asking-rules")["by rule"][rule]
    return [found["1"]["stay"], found["200"]["stay"], found["200"]["model"]]


def asking_within() -> list[float]:
    found = [asking(rule) for rule in results(C, "shared-host-asking-rules")["by rule"]]
    few = [many for one, many, _ in found if one <= 50.2]
    return [len(found), len(few), sum(many <= 90 for many in few)]


def gaps(*formats: str) -> list[float]:
    found = results(A, "shared-states-loss")["formats"]
    return [found[form][key] for form in formats for key in ("gap to fp32", "standard error of the gap")]


def products(*sizes: int) -> list[float]:
    found = {tuple(one["shape"]): one["one by one / together"]["median"] for one in results(A, "shared-matrices")["Muon"]}
    return [found[size, size] for size in sizes]


def muon() -> list[float]:
    found = {who: median(seconds) for who, seconds in results(HOST, "shared-muon")["times"].items()}
    return [found[who] / found["torch.optim.Muon"] for who in ("optlang", "optlang, products bf16")]


def beside_torch(where: str, ours: str) -> list[float]:
    """How many times as long a step of our Muon takes as one of torch's."""
    found, torchs = steps(where, "quiet-muon", f"muon · {ours}", "muon · torch", model="layer")
    return [found / torchs]


def beside(model: str) -> list[float]:
    """Of each rule, ours over the quickest rival; the narrow layer stands for the layer where eigenvectors are taken."""
    wanted = ("layer", "narrow") if model == "layer" else (model,)
    taken = [found for one in results(HOST, "shared-rivals")["rules"].values() for name, found in one.items() if name in wanted]
    return sorted(max(each["ratio"] for each in found.values() if "ratio" in each) for found in taken)


def rivals(model: str) -> list[float]:
    found = beside(model)
    return [len(found), median(found), found[-1]]


def ending(rule: str) -> list[float]:
    """Loss on the hold-out and its error, score and its interval, of a rule in the finals of the longest search."""
    finals = read("../examples/search/digits_and_chars/results.json")["finals"]
    [[loss], [score]] = [[one for one in finals[part] if one["rule"] == rule] for part in ("endings", "standings")]
    return [loss["loss"], loss["error"], score["score"], score["low"], score["high"]]


def small(where: str, model: str, rule: str, *others: str) -> list[float]:
    """Milliseconds of a step on small tensors: of ours, and of others."""
    return [1e3 * x for x in steps(where, "quiet-small", *(f"{rule} · {who}" for who in (OURS, *others)), model=model)]


def states(where: str, what: str, form: str) -> list[float]:
    """A step with states in a format, in times of one with float32."""
    plain, packed = steps(where, what, f"adamw · {OURS}", f"adamw · {OURS}, {form} state")
    return [packed / plain]


A, B, C = "2026-11-28-cpu-zen4", "2026-11-30-cpu-zen4", "2026-12-01-cpu-zen4"  # when and where
HOST = FIRST = "2026-12-01-cpu-zen5"
ZEN4 = (f"{C}-morning", f"{C}-afternoon")
IN_ONE_RUN = {(where, what): f"quiet-{file}" for where in ZEN4 for what, file in (("quiet-adamw", "states"), ("quiet-two-passes", "rules"))}
SOME = ("adamw", "lamb", "adafactor", "prodigy", "perparametermlp", "oasis")
FORMATS = ("bf16", "fp8", "int8", "int4")
FINALS = {"Found26338": "21, 5 ", "Found28437": "21, 8 ", "Found2068": "12, 12 ", "AdamW": "", "Signum": "", "Lion": "", "RMSprop": ""}
Figures = Callable[[], Sequence[float]]
OF_EACH_RUN: dict[str, Callable[[str], Sequence[float]]] = {  # N stands for the figures of two runs on the Zen 4 and one on the Zen 5
    "| AdamW | the floor | N |": lambda where: floors(where, "quiet-states" if where in ZEN4 else "quiet-rules", f"adamw · {OURS}"),
    **{f"| {rule} | the floor | N |": lambda where, rule=rule: floors(where, "quiet-rules", f"{rule.lower()} · {OURS}")
       for rule in ("AdaBelief", "AdEMAMix", "Adan", "Lion")},
    **{f"| LAMB | {floor} | N |": lambda where, kind=kind: [line(where, "quiet-two-passes", f"lamb · {OURS}")[kind]["median"]]
       for floor, kind in (("a floor that goes over its memory twice", "passes"), ("the floor", "ratio"))},
    "| AdamW | optimi | N |": lambda where: beside_package(where, "quiet-adamw", "adamw", "optimi"),
    "| AdamW | torch `foreach` | N |": lambda where: beside_package(where, "quiet-adamw", "adamw", "torch foreach"),
    **{f"| Lion | {package} | N |": lambda where, package=package: beside_package(where, "quiet-rules", "lion", package)
       for package in ("optimi", "pytorch_optimizer", "lion-pytorch")},
    **{f"| AdamW, {form} states{label} | float32 states | N |": lambda where, form=form, run=run: states(where, run, form)
       for label, run in (("", "quiet-states"), (", on one thread", "quiet-states-one-thread")) for form in FORMATS},
    **{f"| {rule}, {count} small tensors | {label} | N |": lambda where, rule=rule, model=model, package=package: beside_package(
        where, "quiet-small", rule.lower(), package, model)
       for rule, label, package in (("AdamW", "torch `fused`", "torch fused"),) for count, model in (("290", "small"), ("10,000", "many"))},
}  # fmt: skip
OF_COSTS: dict[str, Figures] = {  # text around figures: N stands for each
    **{form.replace("| N |", "| N, N | N |"): lambda of=of: [*of(ZEN4[0]), *of(ZEN4[1]), *of(HOST)] for form, of in OF_EACH_RUN.items()},
    "| AdamW | torch `fused` | N, N | N, N |": lambda: [
        *(beside_package(where, "quiet-adamw", "adamw", "torch fused")[0] for where in (*ZEN4, HOST)),
        *beside_package(HOST, "quiet-rules", "adamw", "torch fused")],
    **{f"| Lion, {count} small tensors | optimi | N (11-30) | N |": lambda model=model: [
        *beside_package(B, "quiet-small", "lion", "optimi", model), *beside_package(HOST, "quiet-small", "lion", "optimi", model)]
       for count, model in (("290", "small"), ("10,000", "many"))},
    **{f"| AdamW, {count}, {machine} | N | N | N | N | N | |": lambda where=where, model=model: small(
        where, model, "adamw", "torch fused", "optimi", "torch foreach", "pytorch_optimizer")
       for count, model in (("290", "small"), ("10,000", "many")) for machine, where in (("Zen 4", ZEN4[1]), ("Zen 5", HOST))},
    **{f"| Lion, {count}, {machine} | N | | N | | N | N |": lambda where=where, model=model: small(
        where, model, "lion", "optimi", "pytorch_optimizer", "lion-pytorch")
       for count, model in (("290", "small"), ("10,000", "many")) for machine, where in (("Zen 4 (11-30)", B), ("Zen 5", HOST))},
    **{f"| {rule} | N + N | N + N | N + N |": lambda rule=rule: host_of(rule.lower()) for rule in ("AdamW", "Prodigy")},
    f"| of [the N rules]({RESULTS.format(HOST, 'shared-host-rules')}), those within the aim | N | N | N |": within,
    **{f"| {optlang.Rule(rule).name} | N s | N s |": lambda rule=rule: [*first_steps("cold", rule), *first_steps("warm", rule)]
       for rule in SOME},
    **{f"| {rule} | {calls} | N | N | N |": lambda rule=rule: asking(rule.lower())
       for rule, calls in (("SPS", "once"), ("SAM", "twice"), ("MeZO", "3 times"), ("GAM", "4 times"), ("ZOCoordinates", "11 times"),
                           ("OASIS", "3 times, and a product"))},
    f"| of [the N rules]({RESULTS.format(C, 'shared-host-asking-rules')}) that ask it or read the loss, those within "
    "the aim, with 200 tensors, too | | N | N |": asking_within,
    "| one layer of GPT-2, N rules | N | N |": lambda: rivals("layer"),
    "| 290 small tensors, N rules | N | N |": lambda: rivals("small"),
    "N of N rules take 0.7 of the quickest rival's time or less, and N take longer than": lambda: [
        sum(x <= 0.7 for x in beside("layer")), len(beside("layer")), sum(x > 1 for x in beside("layer"))],
    "in float32; with `products=\"bf16\"`: Zen 4 | N, N; N, N |": lambda: [
        one for ours in (OURS, f"{OURS}, bf16 products") for where in ZEN4 for one in beside_torch(where, ours)],
    "the same, Zen 5, busy | N; N |": muon,
    "takes at its peak and gives back (11-28) | N |": lambda: [max(one["extra"] for one in results(A, "shared-memory")["rules"].values())],
    "400 of 16×16, 200 of 32×32, 100 of 64×64, 100 of 128×128 (11-28) | N, N, N, N |": lambda: products(16, 32, 64, 128),
    "int8, bf16, int4 states less float32 states (11-28) | N±N, N±N, N±N": lambda: gaps("int8", "bf16", "int4"),
}  # fmt: skip
ELSEWHERE: dict[str, Figures] = {
    "step of AdamW is N × `fused`": lambda: [read("bench-cpu.json")["steps of the torch backend (s)"]["ratio"]["median"]],
    "of the whole library computes for N s, of one rule for N s": lambda: [
        read("bench-cpu.json")["check library (s)"]["median"], read("bench-cpu.json")["start-up (s)"]["check adam"]["median"]],
    "made N children in N CPU minutes, N % of which were never trained": lambda: (lambda d: [
        d["children"], sum(one["cpu minutes"] for one in d["sittings"]), 100*d["share never trained"]])(
            read("../examples/search/digits_and_chars/results.json")),
    **{f"| {name} | {parts}| N ± N | N (N to N) |": partial(ending, name if parts else name.lower()) for name, parts in FINALS.items()},
}  # fmt: skip


def found(form: str) -> list[str]:
    """The figures that the pages have there."""
    pattern = re.escape(form.replace("N", "\0")).replace("\0", NUMBER)
    matches = re.findall(pattern, FLOWING)
    assert len(matches) == 1, f"{form}: {len(matches)} times in the pages"
    return [matches[0]] if isinstance(matches[0], str) else list(matches[0])


@pytest.mark.parametrize("form", OF_COSTS | ELSEWHERE)
def test_a_figure_is_that_of_its_file(form: str) -> None:
    shown, measured = found(form), list((OF_COSTS | ELSEWHERE)[form]())
    assert len(shown) == len(measured)
    for text, value in zip(shown, measured, strict=True):
        plain = text.replace(",", "").rstrip(".")
        unit = 10.0 ** -len(plain.partition(".")[2])
        assert abs(float(plain) - value) <= 0.501 * unit, f"{form}: {text} is {value:.5g} in its file"


def test_the_first_step_in_the_readme_is_that_of_its_file() -> None:
    [shown] = re.findall(r"first step take ([\d.]+) s in a fresh process, and ([\d.]+) s once the cache", " ".join(README.split()))
    assert list(map(float, shown)) == [round(first_steps(how, "adamw")[0], 2) for how in ("cold", "warm")]


def test_every_row_of_the_table_has_a_file() -> None:
    lines = COSTS.splitlines()
    for row, below in pairwise(lines):
        if not row.startswith("| ") or below.startswith("|---"):
            continue
        parts = [form for form in OF_COSTS if re.search(re.escape(form.replace("N", "\0")).replace("\0", NUMBER), row)]
        assert len(parts) == 1, row


def test_versions_and_dates_are_those_of_the_files() -> None:
    files = [json.loads(path.read_text()) for path in (ROOT / "tests" / "bench" / "results").glob("*-cpu-*.json")]
    assert {one["torch"] for one in files} == set(re.findall(r"torch (2\.\S+\+cpu)", COSTS))
    assert {one["date"] for one in files} == set(re.findall(r"2026-1[12]-\d\d", COSTS.split("| measure")[0]))


def test_the_first_steps_of_every_rule() -> None:
    kept = results(FIRST, "quiet-every-rule")["rules"]
    by_cpp = [rule for rule, entry in kept.items() if entry["cold"].get("by") == "cpp"]
    cold, warm = first_steps("cold", *by_cpp), first_steps("warm", *by_cpp)
    [count] = re.findall(r"\[(\d+) rules that C\+\+ steps\]", FLOWING)
    slow, longest, half, late, later = found(
        "N take longer than 1.5 s with an empty cache (the longest N); with a filled one half take up to N s, N more than 0.1, "
        "and N more than 0.2")
    assert [int(count), int(slow), float(longest)] == [len(by_cpp), sum(one > 1.5 for one in cold), round(max(cold), 1)]
    beyond = [sum(one > bound for one in warm) for bound in (0.1, 0.2)]
    assert [float(half), int(late), int(later)] == [round(median(warm), 2), *beyond]


def test_the_first_steps_of_the_torch_backend() -> None:
    about = read("bench-cpu.json")["first steps of the torch backend (s)"]["148 tensors, 124 million numbers"]
    cold, warm = found("AdamW's first step takes N s with an empty cache and N s with a filled one")
    assert [float(cold), float(warm)] == [round(about[how]["step, by the clock"]["median"], 1) for how in ("cold", "warm")]
