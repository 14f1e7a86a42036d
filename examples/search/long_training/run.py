"""A search that selects by short and by long training, and its best beside tuned rules where training is long.

    python examples/search/long_training/run.py                    all of it, or what is still missing
    python examples/search/long_training/run.py --steps 10000000   the same search, with more training steps, and its best
    python examples/search/long_training/run.py --draw             only write README.md anew from results.json

The store is runs/run.db. found.opt, results.json and README.md are written beside this file. Each comparison is kept as soon as it is
made; one that is in results.json for the same rule is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from optlang.rules import Rule
from optlang.search import api
from optlang.search.distil.ablation import paired
from optlang.search.evolution.population import Ageing
from optlang.search.evolution.rounds import Pace
from optlang.search.final_pieces import FRESH_SEEDS, TUNING_SEEDS, End, Entrant
from optlang.search.shortening import by_algebra
from optlang.search.training.levels import Level
from optlang.search.training.loading import task
from optlang.search.training.trainer import Entry, train

HERE = Path(__file__).parent
RESULTS, RULE, EARLIER = HERE / "results.json", HERE / "found.opt", HERE.parent / "digits_and_chars" / "found_3.opt"
LEVEL, SEED, STEPS = Level("search", ("cancer-mlp", "cancer-mlp:14"), seeds=2), 1, 1_934_030
HELD = {  # what is trained on each task that the search has not seen
    "photo-autoencoder:14": ("adamw", "nadamw", "lion", "signum", "found", "Found2068"),
    "chars-mlp:4": ("adamw", "found"),
}
TRIALS = 16


def searched(store: Path, steps: int) -> dict[str, Any]:
    """The search to its end, new or as it was left; its best rule goes to found.opt."""
    space = api.space_of("lion", ["adamw"], names=("w", "g"), series=True, constraints=("loss scale",))
    with (
        api.resume(store, workers=1, steps=steps) if store.exists()
        else api.search(
            store=store, space=space, funnel=(LEVEL,), steps=steps, workers=1, seed=SEED, validate_every=0,
            ageing=Ageing(population=200, tournament=3), pace=Pace(jobs=1, per_job=16, hurdle=0.5, trial=0.7),
        )
    ) as run:  # fmt: skip
        for progress in run:
            print(progress, flush=True)
        best, strand = run.best(), run.hunt.strands["evolution"]
        RULE.write_text(by_algebra(best, run.hunt.settings).text, encoding="utf-8")
        counts = {"children": strand.children, "trained": strand.trained, "steps": strand.spent}
        return {**counts, "tasks": list(LEVEL.tasks), "rule": best.name, "fitness": best.fitness, "error": best.error}


def entrant(name: str) -> Entrant:
    """A rule of the library, or one that was found, whose step size alone is tuned."""
    texts = {"found": RULE, "Found2068": EARLIER}
    return Entrant(Rule(texts[name]).name, texts[name].read_text(encoding="utf-8")) if name in texts else Entrant(name)


def compared(made: dict[str, Any]) -> None:
    """Every rule on every task that it is to be trained on; then what was found, once more with AdamW's step size."""
    ends = made.setdefault("endings", {})
    for held, names in HELD.items():
        for name in names:
            end = End(held, 1.0, entrant(name), TRIALS)
            if end.key not in ends:
                ends[end.key] = json.loads(json.dumps(end.result()))
                keep(made)
                print(ends[end.key], flush=True)
        key = f"{End(held, 1.0, entrant('found'), TRIALS).key} with AdamW's step size"
        if key not in made.setdefault("with AdamW's step size", {}):
            made["with AdamW's step size"][key] = {"task": held, "losses": with_step_size(held, adamw_on(made, held)["settings"]["lr"])}
            keep(made)


def with_step_size(held: str, lr: float) -> list[float]:
    """Losses of what was found, from the seeds that the others end from."""
    [outcome] = train(task(held), [Entry(entrant("found").program, {"lr": [lr]})], FRESH_SEEDS, part="test")
    return [float(loss) for loss in outcome.losses[0]]


def adamw_on(made: Mapping[str, Any], held: str) -> Any:
    return next(one for one in made["endings"].values() if (one["rule"], one["task"]) == ("adamw", held))


def keep(made: Mapping[str, Any]) -> None:
    RESULTS.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- telling


def page(made: dict[str, Any]) -> str:
    """README.md."""
    search = made["search"]
    tables = "\n".join(f"On {held}, {task(held).steps:,} steps:\n\n{table(made, held)}\n" for held in HELD if any(rows(made, held)))
    return f"""# Searched for long training

A search of {search["children"]:,} children from AdamW over Lion's functions, {search["trained"]:,} of them trained, with
{search["steps"]:,} training steps, on {" and ".join(search["tasks"])}, the same task at 14 times its steps. Its best is
{search["rule"]}, of fitness {search["fitness"]:.2f} ± {search["error"]:.2f}: AdamW with other bias corrections.

```
{RULE.read_text(encoding="utf-8").strip()}
```

## Where it had not been

Held-out loss at the end of long training on tasks that the search has not seen. Each rule was tuned on {len(TUNING_SEEDS)}
other seeds, over a grid of step sizes, extended where the best lies at its edge, and by {TRIALS} trials around
the best; of what was found the step size alone. Then {len(FRESH_SEEDS)} fresh seeds, the same for all: mean and
standard error, and the mean difference to AdamW with its 95 % interval. "Far off" are runs that end above 1.2 times
the median of that rule. Found2068 is the third rule of [digits_and_chars](../digits_and_chars/README.md), where photo-autoencoder
was a task of the search.

{tables}
{verdict(made)}

Made by `python examples/search/long_training/run.py`, on 2026-12-01, on an x86_64 with 2 cores, piece by piece; all figures are in
[results.json](results.json). The search takes about 3 minutes of a processor, each rule about one on photo-autoencoder:14 and one and a
half on chars-mlp:4.
"""


def rows(made: Mapping[str, Any], held: str) -> Iterator[tuple[str, list[float], str]]:
    """Rules on a task with their losses and settings, lowest mean first."""
    ends = [one for one in made["endings"].values() if one["task"] == held]
    found = [(one["rule"], one["losses"], ", ".join(f"{name} {value:.3g}" for name, value in one["settings"].items())) for one in ends]
    other = [one["losses"] for one in made.get("with AdamW's step size", {}).values() if one["task"] == held]
    found += [(f"{made['search']['rule']}, with AdamW's step size", losses, "") for losses in other]
    yield from sorted(found, key=lambda one: sum(one[1]))


def table(made: Mapping[str, Any], held: str) -> str:
    adamw = adamw_on(made, held)["losses"]
    lines = ["| rule | loss | less AdamW's (95 %) | far off | tuned to |", "|---|---|---|---|---|"]
    for rule, losses, settings in rows(made, held):
        mean = sum(losses) / len(losses)
        error = (sum((loss - mean) ** 2 for loss in losses) / (len(losses) - 1) / len(losses)) ** 0.5
        apart, far = paired(adamw, losses), far_off(losses)
        beside = "" if losses == adamw else f"{apart.mean:+.5f} ({apart.low:+.5f} to {apart.high:+.5f})"
        lines.append(f"| {rule} | {mean:.5f} ± {error:.5f} | {beside} | {f'{far} of {len(losses)}' if far else ''} | {settings} |")
    return "\n".join(lines)


def verdict(made: Mapping[str, Any]) -> str:
    """On which of the tasks what was found is ahead of AdamW, or behind, by the interval; and where it fails from some seeds."""
    told = []
    for held in HELD:
        ends = {rule: losses for rule, losses, _ in rows(made, held)}
        if made["search"]["rule"] in ends and "adamw" in ends:
            apart, far = paired(ends["adamw"], ends[made["search"]["rule"]]), far_off(ends[made["search"]["rule"]])
            where = "ahead of" if apart.high < 0 else "behind" if apart.low > 0 else "not to be told from"
            told.append(f"on {held} it is {where} AdamW" + (f", but goes wrong from {far} of {len(FRESH_SEEDS)} seeds" if far else ""))
    return f"By these intervals, of {made['search']['rule']} as it was tuned: {'; '.join(told)}."


def far_off(losses: list[float]) -> int:
    """How many runs went wrong."""
    return sum(loss > 1.2 * sorted(losses)[len(losses) // 2] for loss in losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of the search, all sittings together; default: {STEPS:,}")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder of the store")
    parser.add_argument("--draw", action="store_true", help="only write README.md anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not arguments.draw:
        arguments.runs.mkdir(parents=True, exist_ok=True)
        made["search"] = searched(arguments.runs / "run.db", arguments.steps)
        keep(made)
        compared(made)
    (HERE / "README.md").write_text(page(made), encoding="utf-8")


if __name__ == "__main__":
    main()
