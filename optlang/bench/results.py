"""The figures of a bench, as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from optlang import writing
from optlang.bench.measure import Fresh, Spread


@dataclass(frozen=True)
class Line:
    """One contestant on one model. `floor`: seconds that moving the rule's memory once takes, `ratio`: of each step to that;
    `passes`: of each step to moving it as often as the passes of its kernels do, where there are several; `times`: seconds of each
    step, those of all contestants in turn."""

    label: str
    step: Spread | None
    fresh: Fresh | None = None
    floor: float | None = None
    ratio: Spread | None = None
    passes: Spread | None = None
    remark: str = ""
    times: list[float] = field(default_factory=list)


@dataclass
class Bench:
    """All models, with what they were measured on. `bandwidth` in bytes per second."""

    device: str
    bandwidth: Spread
    dtype: str
    clock: str = "wall"
    models: dict[str, list[Line]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of each model's parameters
    tensors: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """With date and versions."""
        about = {"date": date.today().isoformat(), "torch": torch.__version__, "python": platform.python_version()}
        return json.dumps(about | asdict(self), indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        writing.replace(path, self.to_json())

    def show(self, console: Console) -> None:
        """A table for each model, and what its columns mean."""
        console.print(f"{self.device}, {self.dtype}, {self.clock} time; a copy moves {self.bandwidth.median / 1e9:.1f} GB/s "
                      f"({self.bandwidth.low / 1e9:.1f} to {self.bandwidth.high / 1e9:.1f})", highlight=False)  # fmt: skip
        for model in self.models:
            console.print(_table(self, model))
            for line in self.models[model]:
                if line.remark:
                    console.print(f"{line.label}: {line.remark}", highlight=False, markup=False)
        console.print("step: median and quartiles, all of a rule in turn. floor: the rule's memory, moved once and nothing computed.\n"
                      "passes: the same, moved as often as our kernels go over it, where they need several passes.\n"
                      "first step: of a fresh process, with empty and with filled caches. state: bytes for each parameter.\n"
                      "extra: memory that a step takes and gives back, in percent of the parameters.", highlight=False)  # fmt: skip


def _table(bench: Bench, model: str) -> Table:
    table = Table(title=f"{model}: {bench.tensors[model]:,} tensors, {bench.numbers[model]:,} parameters", title_justify="left")
    table.add_column("optimizer")
    for head in ("step (ms)", "quartiles", "× floor", "× passes", "first step (s)", "warm", "state", "extra"):
        table.add_column(head, justify="right")
    for line in sorted(bench.models[model], key=lambda line: line.step.median if line.step else float("inf")):
        table.add_row(line.label, *_cells(line, bench.numbers[model]))
    return table


def _cells(line: Line, count: int) -> list[str]:
    if line.step is None:
        return ["failed"]
    step = [f"{1e3 * line.step.median:.2f}", f"{1e3 * line.step.low:.2f} to {1e3 * line.step.high:.2f}"]
    floors = [f"{one.median:.2f}" if one else "-" for one in (line.ratio, line.passes)]
    if line.fresh is None:
        return [*step, *floors, "failed" if line.remark else "-", "-", "-", "-"]
    extra = "-" if line.fresh.extra is None else f"{25 * line.fresh.extra / count:.1f} %"
    return [*step, *floors, f"{line.fresh.cold:.2f}", f"{line.fresh.warm:.2f}", f"{line.fresh.kept / count:.2f}", extra]


def device_name(device: torch.device) -> str:
    """As people know it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def plot(bench: Bench, path: Path) -> None:
    """Bars for each model, with the floor of each contestant as a line across it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    heights = [max(2, len(lines)) for lines in bench.models.values()]
    figure = Figure(figsize=(9, 1 + 0.35 * sum(heights) + 0.6 * len(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    for axis, (model, lines) in zip(axes[:, 0], bench.models.items(), strict=True):
        shown = sorted((line for line in lines if line.step), key=lambda line: -line.step.median if line.step else 0)
        for place, line in enumerate(shown):
            assert line.step is not None
            ours = "· optlang" in line.label
            axis.barh(place, 1e3 * line.step.median, color="#2a6f97" if ours else "#b8c4ce")
            axis.plot([1e3 * line.step.low, 1e3 * line.step.high], [place, place], color="black", linewidth=1)
            if line.floor:
                axis.plot([1e3 * line.floor] * 2, [place - 0.4, place + 0.4], color="#c1121f", linewidth=2)
        axis.set_yticks(range(len(shown)), [line.label for line in shown])
        axis.set_title(f"{model}: ms a step; red: the floor that memory sets", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
