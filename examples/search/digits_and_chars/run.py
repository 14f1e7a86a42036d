"""Lion's search, whole, on small tasks: from AdamW over Lion's functions to `.opt` files and their comparison with tuned rivals.

    python examples/search/digits_and_chars/run.py                all of it, or what is still missing
    python examples/search/digits_and_chars/run.py --minutes 20   a new search of at most so long
    python examples/search/digits_and_chars/run.py --search       only the search; Ctrl-C ends it in good order

The store is runs/run.db; with --finish or --draw, where there is none, what store.db.xz has kept of it (`kept`). When the search
has ended, its best go through the levels of the funnel, and the best three meet the rivals (`optlang.search.finals`). Then
found_1.opt to found_3.opt with their traces, store.db.xz, report.html, results.json, figure.svg and README.md are written beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from kept import keep, trained_until, unpack

from optlang.search import api, finals
from optlang.search.evolution.population import Ageing
from optlang.search.evolution.settings import Pace, Settings
from optlang.search.final_pieces import FRESH_SEEDS, work
from optlang.search.report import page as report
from optlang.search.shortening import Short, by_algebra
from optlang.search.store.database import Store
from optlang.search.store.found import Found, hall_of_fame
from optlang.search.training.profile import Budget
from optlang.search.workers.executor import Processes

HERE = Path(__file__).parent
KEPT = HERE / "store.db.xz"
CHILDREN, SEED, MAIN = 1_500_000, 1, "evolution"
BUDGET, TRIALS = Budget(target_trials=64), 16
TOOK = "cpu minutes"


# --------------------------------------------------------------------------------------------------------- searching


def searching(store: Path, minutes: float, workers: int) -> api.Search:
    """The search: new, or as it was left."""
    if store.exists():
        return api.resume(store, workers=workers, minutes=minutes)
    space = api.space_of("lion", ["adamw"], names=("w", "g"), series=True, constraints=("loss scale",))
    return api.search(
        store=store, space=space, children=CHILDREN, minutes=minutes, workers=workers, seed=SEED, validate_every=50, until_onset=False,
        ageing=Ageing(population=1_000, tournament=3, islands=4, patience=20_000),
        pace=Pace(jobs=1, per_job=48, hurdle=0.5, trial=0.85),
    )  # fmt: skip


def search(store: Path, minutes: float, workers: int) -> None:
    """Searches until the budget is spent, or until somebody ends it."""
    with searching(store, minutes, workers) as run:
        signal.signal(signal.SIGINT, lambda *_: run.stop())
        print(run.describe(), flush=True)
        for progress in run:
            print(progress, flush=True)
        run.executor.close()  # only then the processor time of workers is known
        run.store.note("sitting", {"cpu minutes": cpu_minutes(), "nice": os.nice(0), "cores": os.cpu_count()})


def cpu_minutes() -> float:
    """Of this process and of workers that have ended."""
    used = os.times()
    return (used.user + used.system + used.children_user + used.children_system) / 60


def compare(path: Path, workers: int) -> None:
    """The best through the levels of the funnel, then the best three against the rivals. What the store has is not done again."""
    with api.resume(path, workers=workers) as run:
        for level, results in run.promote(say):
            print(f"{level.name}: best {results[0].assessment.fitness:.4f} of {len(results)}", flush=True)
    with Store.open_(path) as store:
        settings = replace(Settings.from_json(store.meta("settings")), trials=TRIALS)
        with timed(store, "shortening"), closing(Processes(work, workers)) as team:
            finals.finalists(store, settings, team, say)
        with timed(store, "finals"), closing(Processes(work, workers)) as team:
            print(finals.table(finals.decided(store, settings, budget=BUDGET, executor=team)), flush=True)


@contextmanager
def timed(store: Store, what: str) -> Iterator[None]:
    """Keeps what a part has taken, workers and all, also where it is cut off."""
    before = cpu_minutes()
    try:
        yield
    finally:
        store.note(TOOK, [what, cpu_minutes() - before])


def say(text: str) -> None:
    print(text, flush=True)


# ----------------------------------------------------------------------------------------------------------- telling


def told(store: Store) -> dict[str, Any]:
    """All figures of the search."""
    settings = Settings.from_json(store.meta("settings"))
    first = settings.funnel[0]
    state = store.state(MAIN)
    assert state is not None
    children, trained, steps, *_ = state["counts"]
    screen = state["screen"]
    return {
        "seed": settings.seed, "versions": store.meta("versions"), "children": children, "trained": trained, "training steps": steps,
        "minutes": round(store.meta("seconds") / 60, 1), "sittings": store.events("sitting"),
        "screening": {name: {key: round(value, 1) for key, value in one.items()} for name, one in screen.items()},
        "children/s of the screening": round(screen["dead"]["seen"] / sum(one["seconds"] for one in screen.values())),
        "share never trained": round(1 - trained / children, 4),
        "curve": store.query("SELECT children, spent, fitness FROM curve WHERE branch = ? ORDER BY spent", MAIN),
        "validation curve": [event[:3] for event in store.events("validation")],
        "trained until": trained_until(store, MAIN, first.name),
        "hall of fame": [shown(one) for one in hall_of_fame(store, first.name)],
        "funnel": {level.name: [shown(one) for one in hall_of_fame(store, level.name, 20)] for level in settings.funnel[1:]},
        "finals": next((made for made in reversed(store.events("finals")) if "rules" in made), None),
        "finals of rules as found": next((made for made in store.events("finals") if "rules" not in made), None),
        "cpu minutes": {what: round(sum(m for w, m in store.events(TOOK) if w == what), 1) for what in ("shortening", "finals")},
    }  # fmt: skip


def shown(one: Found) -> dict[str, Any]:
    kept = asdict(one)
    return {"rule": one.name, **{name: kept[name] for name in ("fitness", "error", "statements", "slots", "text")}}


def write(path: Path) -> None:
    """The files beside this one."""
    with Store.read(path) as store:
        settings = Settings.from_json(store.meta("settings"))
        made = told(store)
        best = finals.finalists(store, settings) if made["finals"] else [
            by_algebra(one, settings) for one in finals.candidates(store, settings)[: settings.finalists]
        ]  # fmt: skip
        for place, one in enumerate(best, 1):
            one.write(HERE / f"found_{place}.opt")
        (HERE / "report.html").write_text(report(store), encoding="utf-8")
    (HERE / "results.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    draw(made)
    keep(path, KEPT)
    (HERE / "README.md").write_text(page(made, best, settings), encoding="utf-8")


def page(made: dict[str, Any], best: list[Short], settings: Settings) -> str:
    """README.md."""
    screen, sittings = made["screening"], made["sittings"]
    cpu = sum(one["cpu minutes"] for one in sittings)
    until = ", ".join(f"{count:,} {'on all tasks' if status == 'ok' else status}" for status, count in made["trained until"].items())
    levels = "\n".join(f"| {name} | {c['seen']:,} | {c['merged']:,} | {c['rejected']:,} | {c['passed']:,} |" for name, c in screen.items())
    return f"""# From AdamW, over Lion's functions

{made["children"]:,} children, {made["trained"]:,} of them trained ({made["share never trained"]:.1%} never were), in
{cpu:.0f} CPU minutes, {made["minutes"]:.0f} by the clock, on {os.cpu_count()} cores that others used at the same time.
The aim is 300,000 children, 13,000 of them trained, in two hours of two cores: 240 CPU minutes.
A child is what one mutation made of a program; one that equals an earlier one in one of the ways below, or is rejected,
counts, and is not trained. Of those that were trained,
{until}; the trial is one seed and three step sizes on the first task.
Seed {made["seed"]}; tasks {", ".join(settings.funnel[0].tasks)}; constants are 1, 2 or 5 times a power of ten or 1 less
such a number, and updates do not depend on the scale of the loss. Made by `python examples/search/digits_and_chars/run.py`;
all figures are in [results.json](results.json), and [report.html](report.html) has the lineage of the best, equation by equation.
The best hundred with their ancestors, and all that is needed to go on, are in store.db.xz (`xz -dk store.db.xz`, then
`optlang search pick store.db`).

| level | children seen | merged | rejected | passed on |
|---|---|---|---|---|
{levels}

![best fitness over training steps](figure.svg)

Fitness is the share of its steps in which tuned AdamW gets as far: 1 is AdamW. On the tasks of the search the best has
{made["hall of fame"][0]["fitness"]:.2f}.

{promoted(made, settings)}

{made_short(made, best)}

{against_rivals(made, settings) if made["finals"] else NO_FINALS}
"""


def made_short(made: dict[str, Any], best: list[Short]) -> str:
    """What became of the best, step by step in a page for each."""
    rows = ["| rule | assignments as found | by algebra | without what training does not miss | slots | the same rule in the end | trace |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for place, one in enumerate(best, 1):
        steps, name, ends = one.trace.steps, f"found_{place}", [len(text.splitlines()) for text in (one.trace.start, one.trace.end)]
        exact = next((step.statements[0] for step in steps if step.kind == "measured"), ends[1])
        slots = f"{steps[0].slots[0]} to {steps[-1].slots[1]}" if steps else "as before"
        sizes = f"{ends[0]} | {exact} | {ends[1]} | {slots}"
        rows.append(f"| [{one.name}]({name}.opt) | {sizes} | {', '.join(one.twins)} | [{name}.trace.md]({name}.trace.md) |")
    texts = "\n".join(f"```\n{one.text.strip()}\n```\n" for one in best)
    took = f" It took {made['cpu minutes']['shortening']:.0f} CPU minutes." if made["cpu minutes"]["shortening"] else ""
    return f"""## Made short

The best, in the order of the deepest level, were shortened by exact algebra, and then by what training on the tasks of the search
does not miss: a part went where on each of them the 95 % interval of the paired difference in the loss at the end lay within 3 % on
both sides, over 16 to 256 seeds that the search had not used. Programs that became the same rule but for the values of settings are
counted once.{took}

{chr(10).join(rows)}

{texts}{beside(made)}"""


def beside(made: dict[str, Any]) -> str:
    """The shorter rules and the programs as found, on a task that has decided nothing."""
    pairs = (made["finals"] or {}).get("shortened")
    if not pairs:
        return ""
    told = "; ".join(f"{one['rule']} {one['mean']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})" for one in pairs)
    return f"""
On the sealed hold-out, {pairs[0]["task"]}, which has decided nothing of this, the short rules end at losses that differ from those of
the programs as found by (mean over {pairs[0]["seeds"]} paired seeds with its 95 % interval): {told}.{as_found(made)}"""


def as_found(made: dict[str, Any]) -> str:
    """What the programs did in the same comparisons before they were made short, where that is known."""
    before = made["finals of rules as found"]
    if before is None:
        return ""
    ends = {one["rule"]: one for one in before["endings"]}
    each = "; ".join(f"{one['rule']} {one['score']:.2f} ({one['low']:.2f} to {one['high']:.2f}) and {ends[one['rule']]['loss']:.3f} ± "
                     f"{ends[one['rule']]['error']:.3f}" for one in before["standings"] if one["rule"].startswith("Found"))  # fmt: skip
    return f"\nIn the comparisons below the programs as found had these scores and losses: {each}."


NO_FINALS = "The comparison with tuned rivals on other tasks has not been made for these rules yet: `run.py --finish` does it."


def promoted(made: dict[str, Any], settings: Settings) -> str:
    """What every level after the first says, of the programs that were trained there."""
    reached = [level for level in settings.funnel[1:] if made["funnel"][level.name]]
    if not reached:
        return "No level of the funnel, whose tasks selection does not see, has been trained yet."
    rows = ["| level | tasks | horizon × | seeds | fitness, best first |", "|---|---|---|---|---|"]
    for level in reached:
        each = ", ".join(f"{ranked(one)} {one['fitness']:.2f} ± {one['error']:.2f}" for one in made["funnel"][level.name])
        rows.append(f"| {level.name} | {', '.join(level.tasks)} | {level.factor:g} | {level.seeds} | {each} |")
    return f"""## The funnel

Selection sees none of these tasks. The best of each level go on to the next, and the AdamW that the search began with goes along.
Its fitness is not 1 everywhere: where AdamW's loss hardly falls with more steps, as on chars-mlp on the level "final", the steps
that a loss is worth are uncertain. What counts there is who is before whom.

{chr(10).join(rows)}"""


def ranked(one: dict[str, Any]) -> str:
    return "the AdamW of the start" if one["rule"] == "Found1" else str(one["rule"])


def against_rivals(made: dict[str, Any], settings: Settings) -> str:
    """The last comparison."""
    return f"""## Against tuned rivals

The rules above, and four known ones. Left: a miniature AlgoPerf on
{len(made["finals"]["workloads"])} workloads ({", ".join(made["finals"]["workloads"])};
the search selected by the first three, the funnel by the others),
targets from {BUDGET.target_trials} trials of each rival, {BUDGET.studies} studies of
{BUDGET.trials} trials, both as often again of the step size alone where a rule has more settings,
score from performance profiles up to a factor of 4, interval from resampled studies. Right: loss at the end on
{", ".join(settings.funnel[-1].tasks)}, which no part of the search has seen:
mean over {len(FRESH_SEEDS)} fresh seeds with its standard error, with the best settings of a grid of step sizes, extended where
the best lies at its edge, and of {made["finals"]["trials"]} trials around it. Decays and weight decay of the rivals are tuned, too; what
was found has the step size alone.

{table(made)}

{verdict(made, settings)}"""


def table(made: dict[str, Any]) -> str:
    ends = {one["rule"]: one for one in made["finals"]["endings"]}
    rows = ["| rule | score (95 %) | targets missed | held-out loss |", "|---|---|---|---|"]
    for one in made["finals"]["standings"]:
        end, missed = ends[one["rule"]], sum(t is None for t in one["times"].values())
        score = f"{one['score']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        rows.append(f"| {one['rule']} | {score} | {missed} of {len(one['times'])} | {end['loss']:.3f} ± {end['error']:.3f} |")
    return "\n".join(rows)


def verdict(made: dict[str, Any], settings: Settings) -> str:
    """Whether any found rule ends lower than AdamW on the hold-out, by more than two standard errors."""
    ends = {one["rule"]: one for one in made["finals"]["endings"]}
    adamw = ends["adamw"]
    gaps = {name: (adamw["loss"] - one["loss"], 2 * (adamw["error"] ** 2 + one["error"] ** 2) ** 0.5) for name, one in ends.items()}
    better = [f"{name} by {gap:.3f}" for name, (gap, error) in gaps.items() if name.startswith("Found") and gap > error]
    after = f" {behind(made, settings)}"
    if better:
        return f"On the hold-out these are better than tuned AdamW by more than two standard errors: {', '.join(better)}.{after}"
    return f"On the hold-out no found rule is better than tuned AdamW, which ends at {adamw['loss']:.3f}, by two standard errors.{after}"


def behind(made: dict[str, Any], settings: Settings) -> str:
    """Which found rules train longer than those of the hold-out, and fall behind the AdamW of the start there."""
    longest = max(settings.funnel[1:], key=lambda level: level.factor)
    start = next(one["fitness"] for one in made["funnel"][longest.name] if one["rule"] == "Found1")
    slower = [one["rule"] for one in made["funnel"][longest.name] if one["fitness"] < start]
    if not slower:
        return ""
    seen = {one["rule"] for one in made["funnel"][longest.name]}
    unseen = [rule for rule in made["finals"]["rules"] if rule not in seen]
    rest = f"; {', '.join(unseen)} {'was' if len(unseen) == 1 else 'were'} not trained so long" if unseen else ""
    tasks = " and ".join(longest.tasks)
    return f"With {longest.factor:g} times the steps, on {tasks}, AdamW is before {', '.join(slower)}, as found{rest}."


def draw(made: dict[str, Any]) -> None:
    """The best fitness in the search, and that of the best on the validation tasks."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "the same names in every run"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    _, spent, fitness = zip(*made["curve"], strict=True)
    axes.step([*spent, made["training steps"]], [*fitness, fitness[-1]], where="post", color="#1b6ca8", label="on the tasks of the search")
    if made["validation curve"]:
        spent, _, fitness = zip(*made["validation curve"], strict=True)
        axes.plot(spent, fitness, "o-", color="#d17a22", label="the same program on the validation tasks")
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="training steps spent", ylabel="fitness of the best (1 = tuned AdamW)")
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / "figure.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="of searching by the clock, all sittings together; default: 120")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder of the store")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: 2")
    parser.add_argument("--search", action="store_true", help="end after the search")
    parser.add_argument("--draw", action="store_true", help="only write the files anew")
    parser.add_argument("--finish", action="store_true", help="search no further, whatever the budget")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    path = arguments.runs / "run.db"
    if (arguments.finish or arguments.draw) and not path.exists():
        unpack(KEPT, path)
    if not arguments.finish and not arguments.draw:
        search(path, arguments.minutes, arguments.workers)
    if not arguments.search and not arguments.draw:
        compare(path, arguments.workers)
    write(path)


if __name__ == "__main__":
    main()
