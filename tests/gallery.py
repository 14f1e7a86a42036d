"""The page of the library, `library/README.md`, from the rules and what is known of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from branches_taken import OPEN
from digits_runs import ALL, ENOUGH, Run, run_of
from gallery_facts import Facts, gathered, is_route, programs, rule_of

from optlang import ir, library
from optlang.front import parser
from optlang.printing.render import latex, signs

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LARGE = 70  # nodes, from which on a rule is easier to read as it is written than as LaTeX
MISSING = "not measured yet"

HEAD = """\
# The library

Every rule is one file. `optlang.load("lion")` loads it by its name, `from lion import Lion` uses it in another rule, and
`optlang diff lion signum` shows how one becomes the other. There are {count} rules and routes, half of them in {median} lines or fewer.

{families}

What is tested of each:

* **It takes the right steps**: the same as the implementation named with it, over 20 steps of a closed loop in float64 with every
  setting off its default (`tests/test_library.py`). For {outside} that is code of others (for wrappers, of the rule that
  they wrap){rest}.
  Where a repository on GitHub is named, its code ran beside the reference interpreter once (`tests/authors`).
* **It takes them everywhere**: on every backend and as a generated module, in float64, float32 and with parameters in bfloat16
  (`tests/test_conformance.py`, [all figures](../docs/conformance.json)).
* **No choice is left untried**: both sides of `when`, `every`, `where`, `max`, `min` and `clip` are taken on the way, with
  [few exceptions](#sides-that-were-not-taken).
* **It trains**: from two starts it has brought the [digits](../docs/digits.json) of `optlang race` below a stated loss, {enough}
  unless its card says another; a guess has 2.30.

What the columns say, all of it measured or computed:

* **keeps**, **moves**: bytes for each element of a matrix of 1024 × 1024, with weights and gradients in float32. A rule keeps its
  states between steps; a step moves what it reads and writes. AdamW keeps 8 and moves 28; SGD moves 12.
* **asks**: what a step asks of the model, on average: `g` a gradient, `Hv` a product with the Hessian, `L` a loss elsewhere.
* **loss ×**: whether steps stay the same when the loss is multiplied by a number: ✓ (but for small settings such as `eps`), or
  the settings that would have to follow it.
* **± w**: whether mirrored weights and gradients take mirrored steps.
* **order**: whether steps are the same in any order of the *elements* of a tensor, or of its *rows* and columns. `~` where a rule draws at
  random.
* **digits**: loss on held-out digits after 600 steps of 64 images, with defaults. Where a rule's authors give other settings for such a
  model, its card says so, and what the defaults reach. Models and numbers of steps on cards were chosen by this loss, and a second
  start was looked at afterwards. So this shows that a rule works, not which is best; [races](../README.md#a-race) do that.
* **error**: the largest difference from the implementation that it is compared with.

In the equations on the cards, rows, cols and numel are the sizes of a tensor. Below a sum or mean stands what has a value of its own.

This page is made from the files: `python tests/test_gallery.py`.
"""

class Known:
    """What is known of every rule."""

    def __init__(self, against: dict[str, str]) -> None:
        self.against = against
        self.facts = gathered()
        digits, conformance = (json.loads((DOCS / name).read_text(encoding="utf-8")) for name in ("digits.json", "conformance.json"))
        self.trained, self.measured = digits["rules"], conformance["rules"]
        self.later: dict[str, list[str]] = {}
        for name, facts in self.facts.items():
            if facts["relative"]:
                self.later.setdefault(facts["relative"]["of"], []).append(name)


def page(against: dict[str, str], outside: int, absent: str) -> str:
    """`against`: the implementation that each rule takes the same steps as, of `outside` of them others' code. `absent`: the end."""
    known = Known(against)
    families: dict[str, list[str]] = {}
    purposes = library.families()
    for name in library.names():
        families.setdefault(Path(library.index()[name]).parent.name, []).append(name)
    lengths = sorted(map(lines_of, library.names()))
    rest = ", and for the rest a transcription of the paper alone" if outside < len(lengths) else ""
    head = HEAD.format(count=len(lengths), median=lengths[len(lengths) // 2], enough=ENOUGH, rest=rest,
                       outside=f"{outside} of them" if rest else "all of them",
                       families="\n".join(f"* [{family}](#rules-{family}): {what}." for family, what in purposes.items()))  # fmt: skip
    parts = [head, *_tables(families, known)]
    parts += [f"## {family}\n\n" + "\n".join(_card(name, known) for name in names) for family, names in families.items()]
    return "\n".join([*parts, _standard(), _sides(), absent])


def lines_of(rule: str) -> int:
    """Lines of a file that say something."""
    text = Path(library.index()[rule]).read_text(encoding="utf-8")
    return sum(bool(line.split("#")[0].strip()) for line in text.splitlines())


# ------------------------------------------------------------------------------------------------------------ the table


def _tables(families: dict[str, list[str]], known: Known) -> list[str]:
    head = "| rule | source | keeps | moves | asks | loss × | ± w | order | digits | error |\n|---|---|---|---|---|---|---|---|---|---|"
    purposes = library.families()
    return [
        f'<a id="rules-{family}"></a>**{family}**: {purposes[family]}.\n\n{head}\n' + "\n".join(_row(name, known) for name in names) + "\n"
        for family, names in families.items()
    ]


def _row(rule: str, known: Known) -> str:
    facts = known.facts[rule]["programs"].values()
    columns = [
        f"[{rule_of(rule).name}](#{rule})", rule_of(rule).doc.replace("|", "\\|"), _each(f"{f['kept']:.3g}" for f in facts),
        _each(f"{f['moved']:.3g}" for f in facts), _each(map(asks, facts)), _each(map(_scale, facts)),
        _each({True: "✓", False: "no", "draws": "~"}[f["sign"]] for f in facts),
        _each(f["order"].removesuffix(" and columns").replace("draws", "~") for f in facts),
        _loss(known.trained.get(rule)), _error(rule, known),
    ]  # fmt: skip
    return f"| {' | '.join(columns)} |"


def _each(values: Iterable[str]) -> str:
    """One value, or those of the rules of a route."""
    return ", ".join(dict.fromkeys(values))


def asks(facts: Facts) -> str:
    parts = [(facts["gradients"], "g"), (facts["products"], "Hv"), (facts["losses"], "L")]
    return " + ".join(what if count == 1 else f"{count:.3g} {what}" for count, what in parts if count)


def _scale(facts: Facts) -> str:
    if facts["scale"]:
        return "✓"
    return " ".join(f"`{name}`" for name in facts["with"]) or "no"


def _loss(entry: dict[str, Any] | None) -> str:
    return MISSING if entry is None else f"{entry['loss']:.3f}"


def _error(rule: str, known: Known) -> str:
    return _digit(known.measured[rule]["float64"]["reference"]) if rule in known.measured else MISSING


def _digit(error: float) -> str:
    return f"{error:.0e}" if error else "0"


# ------------------------------------------------------------------------------------------------------------ the cards


def _card(rule: str, known: Known) -> str:
    made, path = rule_of(rule), Path(library.index()[rule])
    where = path.relative_to(path.parent.parent)
    text = path.read_text(encoding="utf-8")
    lines = [f'### <a id="{rule}"></a>{made.name}', "", f"{made.doc}. [`{where}`]({where}), {lines_of(rule)} lines.", ""]
    facts = [_family(rule, known), _memory(rule, known), _tested(rule, known), _trained(rule, known)]
    if not is_route(rule) and len(ir.walk(programs(rule)[0].roots())) < LARGE:
        lines += [*_remarks(text, made.name), "$$", latex(made.program), "$$", ""]
        facts.insert(0, _defaults(programs(rule)[0]))
    else:
        lines += ["```", text.rstrip(), "```", ""]
    return "\n".join([*lines, *(f"* {fact}" for fact in facts if fact), ""])


def _remarks(text: str, name: str) -> list[str]:
    """What its file says of a rule: which form it has, where others differ."""
    found = re.search(rf"((?:^#.*\n)+)rule {name}\b", text, re.MULTILINE)
    return [" ".join(line.removeprefix("#").strip() for line in found[1].splitlines()), ""] if found else []


def _defaults(program: ir.Program) -> str:
    """Of its settings, which the equations have under the signs told."""
    sign = {name: f" (${text}$)" for name, text in signs(program).items()}
    shown = [f"`{h.name}`{sign.get(h.name, '')} {_plain(h.default)}" for h in program.hypers if not h.table]
    return f"Defaults: {', '.join(shown)}." if shown else ""


def _plain(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _family(rule: str, known: Known) -> str:
    """Where it comes from, and what comes from it."""
    nearest, later = known.facts[rule]["relative"], known.later.get(rule, [])
    parts = [nearest["sentence"] + "." if nearest else ""]
    parts += [f"Near it: {', '.join(f'[{rule_of(name).name}](#{name})' for name in later)}." if later else ""]
    return " ".join(part for part in parts if part)


def _memory(rule: str, known: Known) -> str:
    found = []
    for name, facts in known.facts[rule]["programs"].items():
        passes = f" in {_counted(facts['passes'], 'pass', 'es')}" if facts["passes"] else ""
        owner = f"{name} keeps" if is_route(rule) else "Keeps"
        found.append(f"{owner} {_states(rule, name)}, moves {facts['moved']:.3g} bytes per element{passes}.")
    return " ".join(found)


def _states(rule: str, name: str) -> str:
    program = next(p for p in programs(rule) if p.name == name)
    shown: dict[str, list[str]] = {}
    for s in program.states:
        where = str(s.type.extent) + (f", the last {s.type.window}" if s.type.window else "")
        shown.setdefault(where, []).append(f"`{s.name}`")
    return "; ".join(f"{' '.join(names)} per {where}" for where, names in shown.items()) or "nothing"


def _counted(count: float, what: str, plural: str) -> str:
    return f"{'one' if count == 1 else f'{count:.3g}'} {what}{plural * (count != 1)}"


def _tested(rule: str, known: Known) -> str:
    entry = known.measured.get(rule)
    if entry is None:
        return f"The same steps as {known.against[rule]}; errors {MISSING}."
    exact, single = entry["float64"], entry["float32"]
    low = max(entry["bfloat16"].values())
    text = f"The same steps as {known.against[rule]} to {_digit(max(exact.values()))} on every backend; a step in float32 to "
    text += f"{_digit(max(single.values()))}, with parameters in bfloat16 to {_digit(low)}."
    return text + (f" No generated module: {entry['elsewhere']['module']}." if "module" in entry["elsewhere"] else "")


def _trained(rule: str, known: Known) -> str:
    entry = known.trained.get(rule)
    if entry is None:
        return f"Digits: {MISSING}."
    limit = "" if entry["below"] == ENOUGH else f" (stated: below {entry['below']})"
    again = f", from another start {entry['second']['loss']:.3f}"
    told = ", ".join([f"loss {entry['loss']:.3f}{again}{_steps(entry)}{limit}", f"{entry['accuracy']:.1%} right", *_changes(entry)])
    run = run_of(rule)
    whose = f" Settings: {run.whose}." if run.whose else ""
    return f"Digits: {told}." + whose + _beside(entry) + (f" Why: {run.why}." if run.why else "")


def _beside(entry: dict[str, Any]) -> str:
    """What other settings reach."""
    if "beside" not in entry:
        return ""
    run, reached = {"inputs": {}, **entry["beside"]}, entry["beside_reached"]
    changes = ", ".join(_changes(run) + ([] if run["settings"] else ["with the defaults"]))
    after = _steps(run) or f" after {run['steps']} steps"
    return f" Beside it, {changes}: loss {reached['loss']:.3f}{after}, {reached['accuracy']:.1%} right."


def _steps(entry: dict[str, Any]) -> str:
    images = "all images" if entry["batch"] == ALL else f"{entry['batch']} images"
    return "" if (entry["steps"], entry["batch"]) == (Run.steps, Run.batch) else f" after {entry['steps']:,} steps of {images}"


def _changes(entry: dict[str, Any]) -> list[str]:
    """The model, settings and inputs, where they are not the usual ones; tables are told in the reason."""
    settings = {**entry["settings"], **entry["inputs"]}
    shown = ", ".join(f"`{name} = {value}`" for name, value in settings.items() if "[[" not in str(value))
    model = [] if entry["model"] == Run.model else [f"model: {entry['model']}"]
    return model + ([f"with {shown}"] if shown else [])


def _sides() -> str:
    """Choices of which one side was never taken in the comparisons."""
    lines = ["## Sides that were not taken", "", "| rule | choice | why |", "|---|---|---|"]
    lines += [f"| {rule} | `{choice}` | {why} |" for rule, found in OPEN.items() for choice, why in found.items()]
    return "\n".join([*lines, ""])


def _standard() -> str:
    """The standard definitions, each with the comment before it."""
    names = [item.name for item in parser.parse(library.find("std"))[0].items if hasattr(item, "parameters")]
    listed = ", ".join(f"`{name}`" for name in names)
    return f"## std\n\n[`std.opt`](std.opt) holds what rules are made of: averages, transforms, Newton-Schulz, schedules. {listed}.\n"
