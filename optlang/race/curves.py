"""Learning curves and tuning curves as one picture."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any, BinaryIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from optlang.race.results import Entry, Point, Results

# Okabe & Ito's colours, which the colour-blind can tell apart, without their yellow; then the same with other dashes
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX"


def plot(results: Results, path: Path | BinaryIO) -> None:
    """Writes a PNG: validation loss (and accuracy, if any) against the step, and tuning loss against the step size."""
    entries = results.ranking
    accuracy = all(
        point.accuracy is not None for e in entries for r in e.finals if not r.diverged for point in r.curve
    )
    panels = 2 + accuracy
    figure = Figure(figsize=(5.2 * panels, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels))
    figure.suptitle(_title(results), x=0.01, ha="left", fontsize=11)
    styles = {entry.name: _style(i) for i, entry in enumerate(results.entries)}
    _learning(axes[0], entries, styles, "loss")
    _log_axis(axes[0])
    axes[0].set(ylabel="loss on validation data (log scale)", title="Learning curves")
    if accuracy:
        _learning(axes[1], entries, styles, "accuracy")
        axes[1].set(ylabel="right answers on validation data, %", title="Accuracy")
        _focus(axes[1], entries)
    _tuning(axes[-1], [entry for entry in results.entries if len(entry.tuning) > 1], styles)
    for axis in axes:
        _tidy(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=10
    )
    figure.savefig(path, format="png")


def _style(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.6,
    }


def _title(results: Results) -> str:
    seeds = max(len(entry.finals) for entry in results.ranking)
    spread = f"mean over {seeds} seeds, band: one standard error" if seeds > 1 else "one seed"
    part = "" if results.complete else " (race unfinished)"
    return f"{results.task}{part}: {results.about}\n{spread}; same starts and same batches for every rule"


def _learning(axis: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]], what: str) -> None:
    for entry in entries:
        curve = [bands for points in _columns(entry) if (bands := _band(points, what))]
        if not curve:
            continue
        steps, middle, error = zip(*curve, strict=True)
        axis.plot(steps, middle, label=_label(entry), markevery=max(1, len(steps) // 8), **styles[entry.name])
        low, high = ([m + sign * e for m, e in zip(middle, error, strict=True)] for sign in (-1, 1))
        axis.fill_between(steps, low, high, color=styles[entry.name]["color"], alpha=0.2, linewidth=0)
    axis.set_xlabel("step")


def _columns(entry: Entry) -> list[tuple[Point, ...]]:
    """Points of all seeds at one step. Seeds that diverged have shorter curves and cut the band where they end."""
    return list(zip(*(run.curve for run in entry.finals), strict=False))


def _band(points: tuple[Point, ...], what: str) -> tuple[int, float, float] | None:
    values = [getattr(point, what) for point in points]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    scale = 100 if what == "accuracy" else 1
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return points[0].step, scale * mean(values), scale * error


def _label(entry: Entry) -> str:
    size = "" if entry.step_size is None else f" (step size {entry.step_size:.2g})"
    diverged = sum(run.diverged for run in entry.finals)
    return f"{entry.name}{size}" + (f", {diverged} of {len(entry.finals)} diverged" if diverged else "")


def _focus(axis: Axes, entries: list[Entry]) -> None:
    """The upper part of the accuracies, where rules differ; the first steps may leave the panel below."""
    ends = [
        100 * p.accuracy for e in entries for r in e.finals for p in r.curve[-1:] if p.accuracy is not None
    ]
    if ends:
        axis.set_ylim(max(0.0, min(ends) - 3 * max(2.0, 100 - min(ends))), min(100.5, max(ends) + 2))


def _tuning(axis: Axes, entries: list[Entry], styles: dict[str, dict[str, Any]]) -> None:
    for entry in entries:
        runs = sorted(entry.tuning, key=lambda run: run.step_size)
        finite = [run for run in runs if math.isfinite(run.validation_loss)]
        points = [run.step_size for run in finite], [run.validation_loss for run in finite]
        axis.plot(*points, **styles[entry.name])
        if finite:
            best = entry.best
            ring = {"markerfacecolor": "none", "markersize": 12, "markeredgewidth": 1.5, "linestyle": "none"}
            axis.plot(best.step_size, best.validation_loss, **(styles[entry.name] | ring))
    axis.set(
        xscale="log", xlabel="step size (ring: chosen)", ylabel="validation loss, last quarter (log scale)"
    )
    axis.set_title("Tuning the step size (one seed)")
    _log_axis(axis)


def _log_axis(axis: Axes) -> None:
    """A log scale whose ticks read 0.2, 0.5, 1 and not 2 x 10^-1."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    plain = ScalarFormatter()
    plain.set_scientific(False)
    axis.yaxis.set_major_formatter(plain)
    axis.yaxis.set_minor_formatter(NullFormatter())


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.title.set_fontsize(11)
