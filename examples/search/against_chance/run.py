"""Is evolution better than chance? Against random search and constants-only evolution, each with four times the training.

    python examples/search/against_chance/run.py              ten searches, or what is still missing of them
    python examples/search/against_chance/run.py --seeds 3    fewer
    python examples/search/against_chance/run.py --draw       only the figure and the table, from results.json

All three branches of a search work on the same two short tasks from the same seed rule, AdamW, over Lion's functions; a search
takes three to four CPU minutes. The best program of each is then trained again on seeds that none has seen, since the best of
many is partly luck. Results go to results.json, figure.svg and README.md; a search that is cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optlang.search import api
from optlang.search.evolution.population import Ageing
from optlang.search.evolution.settings import Pace
from optlang.search.store.found import Found, find
from optlang.search.training import fitness, tasks
from optlang.search.training.assess import Job, assess
from optlang.search.training.levels import Level

HERE = Path(__file__).parent
RESULTS, RUNS = HERE / "results.json", HERE / "runs"
STEPS = 200_000  # training steps of evolution; the others get four times as many
LEVEL = Level("search", ("digits-mlp", "cancer-mlp"), factor=0.5, seeds=2)
BRANCHES = {"evolution": "evolution", "random": "random search, 4x", "constants": "constants only, 4x"}
FRESH = Level("fresh", LEVEL.tasks, LEVEL.factor, seeds=8)
FRESH_SEEDS = tuple(range(700_001, 700_009))


def baselines() -> dict[str, Any]:
    """AdamW tuned and timed on the fresh seeds: made once, kept beside the results."""
    path = RUNS / "fresh.json"
    if not path.exists():
        made = {FRESH.key(name): fitness.baseline(tasks.task(name).longer(FRESH.factor), FRESH_SEEDS).to_json() for name in FRESH.tasks}
        path.write_text(json.dumps(made))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def searched(seed: int, fresh: dict[str, Any]) -> dict[str, Any]:
    """One search with its three branches."""
    store = RUNS / f"seed-{seed}.db"
    settings: dict[str, Any] = {"funnel": (LEVEL,), "ageing": Ageing(population=40, tournament=3), "pace": Pace(jobs=1, per_job=16)}
    with (
        api.resume(store, workers=1) if store.exists()
        else api.search("adamw", store=store, steps=STEPS, space="lion", baselines=True, workers=1, seed=seed, **settings)
    ) as run:  # fmt: skip
        for _ in run:
            pass
        best = {name: find(run.store, "best", run.level, name) for name in BRANCHES}
        again = assess(Job(tuple(one.text for one in best.values()), run.form, FRESH, fresh, FRESH_SEEDS))
        return {
            "seed": seed,
            **{
                name: {
                    "fitness": one.fitness, "fresh": found.fitness, "fresh error": found.error, "program": one.text,
                    "children": run.hunt.strands[name].children, "trained": run.hunt.strands[name].trained,
                    "steps": run.hunt.strands[name].spent, "curve": curve(run.store, one),
                }
                for (name, one), found in zip(best.items(), again, strict=True)
            },
        }  # fmt: skip


def curve(store: Any, best: Found) -> list[tuple[int, float]]:
    """The best fitness of a branch whenever it rose, by training steps spent."""
    return [(spent, fit) for spent, fit in store.query("SELECT spent, fitness FROM curve WHERE branch = ? ORDER BY spent", best.branch)]


def interval(values: list[float]) -> tuple[float, float]:
    """95 % of the mean, by resampling the searches."""
    source = np.random.default_rng(0)
    means = source.choice(values, size=(10_000, len(values))).mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: each branch over all searches, and in how many evolution is ahead of it."""
    lines = ["| branch | best in its search (median) | on fresh seeds (mean, 95 % interval) | evolution is ahead |", "|---|---|---|---|"]
    for name, title in BRANCHES.items():
        own = [one[name]["fitness"] for one in runs]
        fresh = [one[name]["fresh"] for one in runs]
        low, high = interval(fresh)
        ahead = sum(one["evolution"]["fresh"] > one[name]["fresh"] for one in runs)
        said = "" if name == "evolution" else f"{ahead} of {len(runs)}"
        lines.append(f"| {title} | {statistics.median(own):.3f} | {statistics.mean(fresh):.3f} ({low:.3f} to {high:.3f}) | {said} |")
    return "\n".join(lines)


def page(runs: list[dict[str, Any]]) -> str:
    """README.md."""
    counts = {name: round(statistics.median(one[name]["trained"] for one in runs)) for name in BRANCHES}
    trained = ", ".join(f"{title}: {counts[name]}" for name, title in BRANCHES.items())
    few = "With so few searches they are no more than a range. " if len(runs) < 6 else ""
    return (
        "# Evolution against chance\n\n"
        f"{len(runs)} searches from AdamW on {' and '.join(LEVEL.tasks)} (at {LEVEL.factor:g} of their usual steps), over Lion's "
        f"functions, {STEPS:,} training steps for evolution and four times as many for each of the others. Fitness is the share of "
        f"its steps in which tuned AdamW gets as far: 1 is AdamW. Programs trained in a search, median: {trained}.\n\n"
        f"{table(runs)}\n\n![best fitness over training steps](figure.svg)\n\n"
        f"The best of each branch was trained again from {FRESH.seeds} seeds that no search has seen; only that comparison counts. "
        f"Intervals come from resampling the searches. {few}Made by `python examples/search/against_chance/run.py`; everything is in "
        "[results.json](results.json).\n"
    )


def draw(runs: list[dict[str, Any]]) -> None:
    """Best fitness over training steps: the median of the searches, and all of them faintly."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    grid = np.geomspace(STEPS / 50, 4 * STEPS, 200)
    for (name, title), color in zip(BRANCHES.items(), ("#1b6ca8", "#8a8a8a", "#d17a22"), strict=True):
        rows = np.array([_at(one[name]["curve"], grid) for one in runs])
        end = np.searchsorted(grid, statistics.median(one[name]["steps"] for one in runs))
        axes.plot(grid[:end], rows[:, :end].T, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(grid[:end], np.median(rows[:, :end], 0), color=color, linewidth=2, label=title)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="training steps spent by the branch", ylabel="best fitness (1 = tuned AdamW)")
    axes.set_title(f"{len(runs)} searches from AdamW on {', '.join(LEVEL.tasks)}", fontsize=10)
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / "figure.svg", metadata={"Date": None})


def _at(curve: list[tuple[int, float]], grid: Any) -> Any:
    steps, fits = np.array([s for s, _ in curve]), np.array([f for _, f in curve])
    return fits[np.clip(np.searchsorted(steps, grid, side="right") - 1, 0, None)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="searches; default: 10")
    parser.add_argument("--first", type=int, default=0, help="seed of the first search; default: 0")
    parser.add_argument("--draw", action="store_true", help="only draw what is in results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(exist_ok=True)
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    while len(runs) < arguments.seeds and not arguments.draw:
        runs.append(searched(arguments.first + len(runs), baselines()))
        RESULTS.write_text(json.dumps(runs, indent=1) + "\n")
        print({name: round(runs[-1][name]["fresh"], 4) for name in BRANCHES}, flush=True)
    draw(runs)
    (HERE / "README.md").write_text(page(runs), encoding="utf-8")
    print(table(runs), flush=True)


if __name__ == "__main__":
    main()
