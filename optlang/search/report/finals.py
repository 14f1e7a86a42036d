"""The part of the page about the finals: the miniature AlgoPerf, and who ends lower on tasks opened once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from optlang.search.distil.ablation import paired
from optlang.search.report.charts import curves
from optlang.search.report.data import ReportData
from optlang.search.report.elements import file, section, table
from optlang.search.training.profile import factors


def finals(data: ReportData) -> str:
    if not data.finals:
        return ""
    standings, workloads = data.finals["standings"], data.finals["workloads"]
    lines = {one["rule"]: list(zip(factors(), one["profile"], strict=True)) for one in standings}
    rows = [[one["rule"], f"{one['score']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}"]
            + ["missed" if one["times"][w] is None else f"{one['times'][w]:,.0f}" for w in workloads] for one in standings]  # fmt: skip
    says = ("A miniature AlgoPerf: how soon each rule reaches targets set by the known ones, with a few random trials. The curve says on "
            "which share of the workloads a rule is within a factor of the quickest; the score is the area below it, of 1. In the table, "
            "steps to the target on each workload, in the median of the studies; missed: not reached in the steps of a "
            "training.")  # fmt: skip
    return section(
        "Against known rules", says, curves(lines, "factor of the quickest rule's time", "share of workloads"),
        table(["rule", "score", "95 % interval", *workloads], rows), *_ends(data.finals), *_shortened(data.finals),
    )  # fmt: skip


def _ends(finals: Mapping[str, Any]) -> Iterator[str]:
    """The losses at the end, lowest first, and where they are known from each seed, beside AdamW's."""
    ends = sorted(finals["endings"], key=lambda one: (one["task"], one["loss"]))
    adamw = {one["task"]: one.get("losses") for one in ends if one["rule"] == "adamw"}
    beside = any(adamw.values())
    yield (f"<p>Held-out loss at the end, on tasks opened once, each rule tuned with {int(finals['trials'])} trials around the best of a "
           f"grid of step sizes{'; how much higher than AdamW it ends from the same seeds' if beside else ''}:</p>")  # fmt: skip
    rows = [[one["rule"], one["task"], f"{one['loss']:.4f} ± {one['error']:.4f}"]
            + ([_apart(adamw.get(one["task"]), one.get("losses"))] if beside else []) for one in ends]  # fmt: skip
    yield table(["rule", "task", "loss", *(["less AdamW's (95 %)"] if beside else [])], rows, words=2)


def _apart(losses: Sequence[float] | None, others: Sequence[float] | None) -> str:
    """A paired difference; nothing where one of the two diverged, or is the other."""
    if not losses or not others or losses == others:
        return "–"
    found = paired(losses, others)
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _shortened(finals: Mapping[str, Any]) -> Iterator[str]:
    """The texts that were compared, and how they do beside the programs that the search found."""
    rows = [[one["rule"], one["task"], f"{one['mean']:+.4f}", f"{one['low']:+.4f} to {one['high']:+.4f}"]
            for one in finals.get("shortened", [])]  # fmt: skip
    if rows:
        yield ("<p>Before that they were made short, without what training on the tasks of the search did not miss. How much higher "
               "the shorter rules end on the tasks opened once than the programs as found, over paired seeds:</p>")  # fmt: skip
        yield table(["rule", "task", "difference", "95 % interval"], rows, words=2)
    for name, text in finals.get("rules", {}).items():
        yield f"<details><summary>{escape(name)}</summary>{file(name, text)}</details>"
