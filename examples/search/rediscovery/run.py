"""Does the search find again what is known? Three planted tasks, from rules that lack the idea, several seeds each.

    python examples/search/rediscovery/run.py                     all of it, or what is still missing
    python examples/search/rediscovery/run.py momentum --seeds 3  one suite
    python examples/search/rediscovery/run.py momentum --only 7   the search with seed 7, to be run beside others
    python examples/search/rediscovery/run.py --draw              only the figure and the page, from results.json

On every task the ranking of the known rules is verified first. A search ends when its best program behaves like the family
that wins there (see `families.py`), or when its CPU minutes are spent. Finished searches are in results.json,
figure.svg and README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from families import matches

import optlang
from optlang.search.evolution.population import Ageing
from optlang.search.evolution.settings import Pace
from optlang.search.programs.genome import Form, from_text, to_program
from optlang.search.programs.space import Limits, Space
from optlang.search.training.assess import Job, assess
from optlang.search.training.levels import Level

HERE = Path(__file__).parent
COMMIT = "6b2aafb"  # at which most searches for sign-momentum ran
RESULTS, RUNS = HERE / "results.json", HERE / "runs"
FUNCTIONS = (
    "add", "sub", "mul", "protected_div", "interp", "abs", "square", "protected_sqrt", "maximum", "minimum", "tanh", "norm_tensor",
)  # fmt: skip
KNOWN = {
    "SGD": "u = mul(g, 1.0)",
    "momentum": "m = interp(g, m, 0.9)\nu = mul(m, 1.0)",
    "sign": "u = sign(g)",
    "sign of momentum": "m = interp(g, m, 0.9)\nu = sign(m)",
    "average of signs": "a = sign(g)\nm = interp(a, m, 0.9)\nu = mul(m, 1.0)",
    "AdamW": "a = square(g)\nm = interp(g, m, 0.9)\nv = interp(a, v, 0.999)\na = protected_sqrt(v)\nu = protected_div(m, a)",
    "normalized": "u = normalize(g)",
}


@dataclass(frozen=True)
class Suite:
    """A task, the rule that searches start from, the family that wins, the CPU minutes of one search, and how many shall find it.

    `more`: functions besides FUNCTIONS. None is a member of the family by itself, so that it has to be put together.
    """

    task: str
    start: str
    family: str
    minutes: float
    aim: int  # of ten searches
    more: tuple[str, ...] = ("sign",)


SUITES = {
    "momentum": Suite("planted-momentum", KNOWN["SGD"], "momentum", 10, 9),
    "sign-momentum": Suite("planted-sign", KNOWN["AdamW"], "sign-momentum", 30, 8),
    "normalized": Suite("planted-normalized", KNOWN["SGD"], "normalized", 30, 6, more=()),
}


def verified(suite: Suite) -> dict[str, float]:
    """What the known rules reach, best first. Raises RuntimeError if no member of the family wins."""
    level = Level("known", (suite.task,), seeds=8, measure="loss")
    found = assess(Job(tuple(KNOWN.values()), Form(), level, {}, tuple(range(100, 108))))
    ranked = dict(sorted(((name, one.fitness) for name, one in zip(KNOWN, found, strict=True)), key=lambda pair: -pair[1]))
    best = next(iter(ranked))
    if not matches(to_program(from_text(KNOWN[best]), Form()), suite.family).is_found:
        raise RuntimeError(f"on {suite.task} {best} wins, which is not of the family {suite.family}")
    return ranked


def searched(suite: Suite, seed: int) -> dict[str, Any]:
    """One search. CPU time is that of this process, which does all the work itself."""
    space = Space(
        functions=dict.fromkeys((*FUNCTIONS, *suite.more), 1.0), seeds=(from_text(suite.start),),
        limits=Limits(statements=14), names=("w", "g"), constants=(-10.0, 10.0), series=True,
    )  # fmt: skip
    level = Level("search", (suite.task,), seeds=2, measure="loss")
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder, optlang.search(
        store=Path(folder) / "run.db", space=space, funnel=(level,), steps=10**12, seed=seed, workers=1,
        ageing=Ageing(population=100, tournament=3, patience=1_500), pace=Pace(jobs=1, per_job=24, hurdle=0.0, trial=0.7),
    ) as run:  # fmt: skip
        minutes, match = 0.0, None
        for progress in run:
            minutes = (time.process_time() - started) / 60
            if progress.round.improved:
                match = matches(run.best().program(run.form), suite.family)
            if minutes >= suite.minutes or (match is not None and match.is_found):
                break
        best, strand = run.best(), run.hunt.strands["evolution"]
        match = matches(best.program(run.form), suite.family)
        return {
            "seed": seed, "found": match.is_found, "cosine": round(match.cosine, 4), "settings": match.settings, "fitness": best.fitness,
            "cpu minutes": round(minutes, 2), "children": strand.children, "trained": strand.trained, "program": best.text,
        }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- telling


def page(kept: dict[str, Any]) -> str:
    """README.md."""
    lines = ["| task | search from | family | found | 95 % | CPU minutes, median and most | aim |", "|---|---|---|---|---|---|---|"]
    for name, one in kept.items():
        suite, searches = SUITES[name], one["searches"]
        hits, minutes = sum(search["found"] for search in searches), [search["cpu minutes"] for search in searches]
        count = len(searches) + len(one.get("cut off", ()))
        low, high = wilson(hits, count)
        start = next(rule for rule, text in KNOWN.items() if text == suite.start)
        lines.append(
            f"| {suite.task} | {start} | {suite.family} | {hits} of {count} | {low:.0%} to {high:.0%} | "
            f"{statistics.median(minutes):.2f}, {max(minutes):.2f} | {suite.aim} of 10 in {suite.minutes:g} each |"
        )
    ranks = [f"- {SUITES[n].task}: " + ", ".join(f"{rule} {value:.2f}" for rule, value in one["known rules"].items())
             for n, one in kept.items()]  # fmt: skip
    found = [f"- {n}, seed {s['seed']}: `{s['program'].replace(chr(10), '; ')}`, which is {s['settings']} (cosine {s['cosine']:.3f})"
             for n, one in kept.items() for s in one["searches"][:2] if s["found"]]  # fmt: skip
    cut = [f"Of {n}, {len(short)} searches ({', '.join(str(c['seed']) for c in short)}) were not begun or ended after at most "
           f"{max(c['cpu minutes'] for c in short):g} CPU minutes each; they count as nothing found."
           for n, one in kept.items() if (short := one.get("cut off", ()))]  # fmt: skip
    missing = [f"{SUITES[n].task} ({SUITES[n].family} from AdamW) has not been searched to the end yet."
               for n in SUITES if n not in kept]  # fmt: skip
    older = ("On an earlier planted-sign, whose gradients kept their scale, had noise in one element of fifty and a step size that stayed, "
             "four of seven searches found averages of signs within 0.2 CPU minutes; three found rules that end lower than those, which "
             "let large gradients shrink to nothing or shrink by themselves. The task of today is one where a bound has to know no scale.")
    again = ("A population in which nothing has improved for 1,500 children starts again, from the seed or from the best. Of "
             f"sign-momentum, seeds 1 to 8 ran on 2026-11-28 at commit {COMMIT}; 9 and 0, and both other suites, on 2026-11-29, where "
             "what is the same in theory alone is not merged any more. A search also ends where hardly any child is new, before its "
             f"minutes are spent.{_otherwise(kept)}")
    return "\n".join([
        "# Found again", "",
        "Searches on planted tasks, from rules that lack the idea that wins there. Found is what behaves like the family up to scale,",
        "whatever its text. The interval is Wilson's. Made by `python examples/search/rediscovery/run.py`; everything is in",
        "[results.json](results.json).", "", *lines, "", *cut, *missing, older, "", again, "",
        "![CPU minutes of every search](figure.svg)", "",
        "## How known rules rank there", "",
        "Tuned alike, from 8 seeds; the value is the loss at the end with its sign turned, so more is better.", "",
        *ranks, "", "## What was found", "", *found, "",
    ])  # fmt: skip


def _otherwise(kept: dict[str, Any]) -> str:
    """Of searches that ended with a rule outside the family: what it reaches beside the best known one."""
    return "".join(
        f" That of {name} with seed {one['seed']} found nothing of the family, but a rule that ends at {one['fitness']:.2f}, where the "
        f"best known one has {next(iter(each['known rules'].values())):.2f}: `{one['program'].replace(chr(10), '; ')}`."
        for name, each in kept.items() for one in each["searches"] if not one["found"]
    )


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, scale = hits / count, 1 + z**2 / count
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return (share + z**2 / (2 * count) - half) / scale, (share + z**2 / (2 * count) + half) / scale


def draw(kept: dict[str, Any]) -> None:
    """CPU minutes of every search; open circles have not found anything."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 1 + 0.7 * len(kept)))
    for row, (name, one) in enumerate(kept.items()):
        for place, search in enumerate(one["searches"]):
            color = "#1b6ca8" if search["found"] else "none"
            height = row + 0.06 * (place % 5 - 2)
            axes.plot(search["cpu minutes"], height, "o", markerfacecolor=color, markeredgecolor="#1b6ca8")
        axes.plot([SUITES[name].minutes] * 2, [row - 0.3, row + 0.3], color="#8a8a8a")
    axes.set(xscale="log", xlabel="CPU minutes of a search (line: its limit; open: nothing found)", yticks=range(len(kept)))
    axes.set_yticklabels(kept)
    figure.tight_layout()
    figure.savefig(HERE / "figure.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], metavar="SUITE", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--seeds", type=int, default=10, help="searches of each suite; default: 10")
    parser.add_argument("--only", type=int, help="one search with this seed, whose result stays in runs/ until the next call")
    parser.add_argument("--draw", action="store_true", help="only draw what is in results.json and runs/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.suites or SUITES:
        one = kept.setdefault(name, {"known rules": {}, "searches": []})
        one["known rules"] = one["known rules"] or verified(SUITES[name])
        seeds = range(arguments.seeds) if arguments.only is None else [arguments.only]
        for seed in set(seeds) - {search["seed"] for search in one["searches"]}:
            one["searches"] += done(name, seed, arguments.draw)
        ended = {search["seed"] for search in one["searches"]}
        one["cut off"] = [search for search in one.get("cut off", ()) if search["seed"] not in ended]
    if arguments.only is None:
        told(kept)


def done(name: str, seed: int, only_look: bool) -> list[dict[str, Any]]:
    """A search that is finished, or is made now, if any; kept in a file of its own, so that several may be made at a time."""
    path = RUNS / f"{name}-{seed}.json"
    if not path.exists() and not only_look:
        made = searched(SUITES[name], seed)
        path.write_text(json.dumps(made, indent=1) + "\n")
        print(name, made, flush=True)
    return [json.loads(path.read_text())] if path.exists() else []


def told(kept: dict[str, Any]) -> None:
    """The files beside this one."""
    kept = {name: one for name in SUITES if (one := kept.get(name)) and one["searches"]}
    for name, one in kept.items():
        one["searches"].sort(key=lambda search: search["seed"])
        hits = sum(search["found"] for search in one["searches"])
        print(f"{name}: {hits} of {len(one['searches'])} found", flush=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    draw(kept)
    (HERE / "README.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
