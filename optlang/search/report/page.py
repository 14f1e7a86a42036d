"""The page: sections of plain HTML, with style and charts inside. Whatever comes from a search is escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape

from latex2mathml.converter import convert

from optlang.search.report.charts import curves, scatter
from optlang.search.report.data import SHOWN, Ancestor, Ranked, ReportData
from optlang.search.report.elements import file, section, table
from optlang.search.report.finals import finals

STYLE = """
:root { --paper: #fff; --ink: #1d2127; --soft: #5c6570; --line: #aab2bb; --faint: #e8ebee; --card: #f6f7f9; --gone: #b3261e;
  --came: #1a6e3c; --c1: #0072b2; --c2: #d55e00; --c3: #009e73; --c4: #a5578a; --c5: #8a6d00; color-scheme: light dark }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e9ed; --soft: #9aa4af; --line: #59626c; --faint: #2a2f36;
  --card: #1d2127; --gone: #ff8a80; --came: #6fd39a; --c1: #56b4e9; --c2: #f0894d; --c3: #3fcf9f; --c4: #d993bd; --c5: #e0c04c } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: break-word }
h1 { font-size: 1.6rem; margin: 1rem 0 0 }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; border-top: 1px solid var(--faint); padding-top: 1rem }
p { margin: .3rem 0 .8rem } .wide + p { margin-top: 1rem } .soft { color: var(--soft) }
svg { width: 100%; height: auto; font: 13px system-ui, sans-serif; fill: currentColor; overflow: visible } .tick { fill: var(--soft) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--faint) }
th { color: var(--soft); font-weight: 500 }
.words { text-align: left }
pre { background: var(--card); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; margin: .4rem 0;
  font: 13px/1.45 ui-monospace, monospace }
.gone { color: var(--gone) } .came { color: var(--came) } summary { cursor: pointer } details { margin: .4rem 0 }
a { color: var(--c1) } math { font-size: 1.05rem } .equations { overflow-x: auto; padding: .3rem 0 }
"""

MEASURES = {
    "speed": "share of its steps in which tuned AdamW gets as far: 1 is AdamW, more is better",
    "loss": "end of the loss, turned round: more is better",
}
ADAMW = {"speed": (1.0, "tuned AdamW")}  # a line in the charts


def render(data: ReportData) -> str:
    """The whole page as text."""
    parts = (_head, _curves, _winner, _validation, _funnel, finals, _screening, _front, _hall, _proposals, _lineage, _made)
    title = escape(f"Search {data.name}")
    body = "".join(part(data) for part in parts)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>\n")  # fmt: skip


def _head(data: ReportData) -> str:
    merged = 1 - data.trained / data.children if data.children else 0.0
    said = (f"{data.children:,} programs were made and {data.trained:,} trained ({merged:.1%} were known, or could not train "
            f"anything) with {data.spent:,} training steps in {data.seconds / 60:.1f} minutes, "
            f"on {', '.join(data.level.tasks)}.")  # fmt: skip
    what = MEASURES[data.level.measure]
    return f"<h1>Search {escape(data.name)}</h1><p>{escape(said)}</p><p class='soft'>Fitness is the {what}.</p>"


def _curves(data: ReportData) -> str:
    lines = {name: points for name, points in data.curves.items() if points}
    if not lines:
        return section("Fitness over time", "Nothing has been trained yet.")
    chart = curves(lines, "training steps spent", "best fitness", level=ADAMW.get(data.level.measure))
    return section("Fitness over time", escape(_compared(data)), chart)


def _compared(data: ReportData) -> str:
    """What the curves say, in a sentence."""
    ends = {name: points[-1] for name, points in data.curves.items() if points}
    if set(ends) <= {"evolution"}:
        return f"Evolution has reached {ends['evolution'].fitness:.4f}. No baselines were run beside it."
    words = []
    for name, end in ends.items():
        if name != "evolution":
            first = next((p.spent for p in data.curves["evolution"] if p.fitness >= end.fitness), None) if "evolution" in ends else None
            words.append(f"{name} reached {end.fitness:.4f} with {end.spent:,} steps" + (
                f", which evolution had after {first:,}" if first is not None else ", which evolution has not reached"))  # fmt: skip
    return "; ".join([f"Evolution reached {ends['evolution'].fitness:.4f} with {ends['evolution'].spent:,} steps", *words]) + "."


def _winner(data: ReportData) -> str:
    if not data.hall:
        return ""
    best = data.hall[0]
    return section("The best rule", escape(" ".join(_of_the_best(data))), _rule(best))


def _of_the_best(data: ReportData) -> Iterator[str]:
    """Its fitness, and how much of that may be luck."""
    best, level = data.hall[0].found, data.level
    count = data.funnel[0].entered if data.funnel else data.trained
    yield (f"{best.name} has the fitness {best.fitness:.4f} ± {best.error:.4f} on {', '.join(level.tasks)}, by which it was selected "
           f"as the best of {count:,} programs. ± is the standard error over {level.seeds} paired seeds, and knows nothing of that "
           "choice.")  # fmt: skip
    others = [row for row in data.funnel[1:] if row.winner is not None]
    for row in others:
        than = f", the seed rule {_pair(row.seed)}" if row.seed is not None else ""
        yield f"On {row.level.name}, with other tasks and seeds, it has {_pair(row.winner)}{than}."
    if not others:
        yield "Other tasks and seeds have not been asked about it."


def _pair(found: tuple[float, float] | None) -> str:
    return "–" if found is None else f"{found[0]:.4f} ± {found[1]:.4f}"


def _rule(ranked: Ranked) -> str:
    return f'<div class="equations">{equations(ranked.equations)}</div>{file(ranked.found.name, ranked.rule)}'


def equations(latex: str) -> str:
    """Aligned LaTeX as MathML, one line for each equation."""
    lines = re.sub(r"\\(begin|end)\{aligned\}", "", latex).strip().split("\\\\\n")
    return "".join(f"<div>{convert(line.strip().removesuffix(chr(92) * 2).replace('&=', '=', 1))}</div>" for line in lines if line.strip())


def _validation(data: ReportData) -> str:
    if not data.points:
        return ""
    lines = {"in the search": [(p.spent, p.search) for p in data.points], "on validation": [(p.spent, p.validation) for p in data.points]}
    mark, last = data.points[data.overfits_from] if data.overfits_from is not None else None, data.points[-1]
    says = (f"The best program of the moment, on the tasks it is selected by and on others: at the end {last.search:.2f} and "
            f"{last.validation:.2f}. ") + (
        "From the marked point on only the former rises: the search has begun to overfit, and ended." if mark else
        "The former has not gone on rising while the latter stood: no onset of overfitting was seen.")  # fmt: skip
    chart = curves(lines, "training steps spent", "fitness", steps=False, level=ADAMW.get(data.level.measure),
                   mark=None if mark is None else (mark.spent, mark.validation), marked="overfitting begins")  # fmt: skip
    return section("Meta-validation", says, chart)


def _funnel(data: ReportData) -> str:
    rows = [
        [r.level.name, ", ".join(r.level.tasks), f"{r.level.factor:g}", f"{r.level.seeds}", f"{r.entered:,}"]
        + [f"{r.leader} {_pair(r.best)}", *map(_pair, (r.winner, r.seed))]
        for r in data.funnel
    ]
    if not rows:
        return ""
    says = ("Each level trains fewer programs on longer or other tasks, from seeds of its own. The best of a level is chosen there; "
            "the one that was best in the search is not, and the seed rule goes along, to be compared with. – is who did not get there. "
            "What counts is who is before whom on a level: where AdamW’s loss hardly falls any more, the steps that a loss is worth are "
            "uncertain, and even AdamW is not at 1.")  # fmt: skip
    head = ["level", "tasks", "horizon ×", "seeds", "trained", "best there", "best of the search", "seed rule"]
    return section("Funnel", says, table(head, rows, words=2))


def _screening(data: ReportData) -> str:
    if not data.screening:
        return ""
    rows = [[name, *(f"{counts[key]:,.0f}" for key in ("seen", "merged", "rejected", "passed")), f"{counts['seconds']:.1f}"]
            for name, counts in data.screening.items()]  # fmt: skip
    says = "Before training, each child is compared with all earlier ones: by its live statements, by algebra, by its behaviour."
    return section("Screening", says, table(["level", "seen", "merged", "rejected", "passed", "seconds"], rows))


def _front(data: ReportData) -> str:
    if not data.front:
        return ""
    rows = [[f.name, f"{f.fitness:.4f} ± {f.error:.4f}", str(f.statements), str(f.slots), str(f.size)] for f in data.front]
    chart = scatter([(f.statements, f.fitness, f.name) for f in data.front], "statements", "fitness")
    says = "Programs that no other beats in fitness without having more statements or more slots; those without room for a name are below."
    return section("Fitness against size", says, chart, table(["rule", "fitness", "statements", "slots", "bytes per element"], rows))


def _proposals(data: ReportData) -> str:
    """What others have proposed, and what became of it."""
    if not data.proposals:
        return ""
    trained = [one for one in data.proposals if one["outcome"] == "trained"]
    lost = [one for one in data.proposals if one["outcome"] == "rejected"]
    says = (f"{len(data.proposals):,} rules came from outside: {len(trained):,} were new and trained like children of the search's own, "
            f"{len(data.proposals) - len(trained) - len(lost):,} behaved like one that it had, {len(lost):,} were not taken.")  # fmt: skip
    rows = [[one["name"], f"Found{one['program']}", f"{one['fitness']:.4f} ± {one['error']:.4f}", one["status"]] for one in trained[:SHOWN]]
    shown = [table(["proposal", "program", "fitness", "status"], rows, words=2)] if rows else []
    why = [f"<details><summary>{escape(one['name'])}: not taken</summary><pre>{escape(one['reason'])}</pre></details>"
           for one in lost[:SHOWN]]  # fmt: skip
    return section("From outside", says, *shown, *why)


def _hall(data: ReportData) -> str:
    if not data.hall:
        return ""
    items = [_entry(place, ranked) for place, ranked in enumerate(data.hall, 1)]
    return section("Hall of fame", "The fittest programs of the search; open one for its equations and its file.", *items)


def _entry(place: int, ranked: Ranked) -> str:
    one = ranked.found
    title = f"{place}. {one.name}: {one.fitness:.4f} ± {one.error:.4f}, {one.statements} statements"
    latex = f"<details><summary>LaTeX</summary><pre>{escape(ranked.equations)}</pre></details>"
    return f"<details><summary>{escape(title)}</summary>{_rule(ranked)}{latex}</details>"


def _lineage(data: ReportData) -> str:
    if len(data.lineage) < 2:
        return ""
    items = "".join(map(_ancestor, data.lineage))
    says = f"From the seed to the best program in {len(data.lineage) - 1} trained steps; neutral changes between them are not shown."
    return section("Lineage of the best", says, items)


def _ancestor(step: Ancestor) -> str:
    lines = [f'<span class="gone">- {escape(x)}</span>' for x in step.gone]
    lines += [f'<span class="came">+ {escape(x)}</span>' for x in step.came]
    change = re.sub("`([^`]*)`", r"<code>\1</code>", escape(step.change))
    return f"<p><b>Found{step.number}</b> · fitness {step.fitness:.4f} · {change}</p><pre>{chr(10).join(lines)}</pre>"


def _made(data: ReportData) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in data.versions.items())
    shown = escape(json.dumps(data.settings, indent=1))
    return section("How it was made", escape(versions), f"<details><summary>Settings</summary><pre>{shown}</pre></details>")
