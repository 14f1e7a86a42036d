"""What the commands do. Each takes the parsed arguments and returns the exit code."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from optlang import diagnose, files, ir, library, lower, ops, show_forms
from optlang.errors import MOST_FINDINGS, Diagnostic, OptError, Source, did_you_mean
from optlang.front import parser
from optlang.front.syntax import Route
from optlang.front.syntax import Rule as RuleItem

if TYPE_CHECKING:
    from optlang.rules import Rule

TEMPLATE = """\
# {name}: check with `optlang {file}`, race with `optlang race adamw {file}`.
# w is the parameter, g its gradient, t the step (1 on the first); a prime marks the new value.
rule {name} "what it is and where it comes from" {{
  hyper lr           = 1e-3 in (0, inf) "step size"
  hyper beta         = 0.9  in [0, 1)   "decay of the gradient mean"
  hyper weight_decay = 0    in [0, inf) "decoupled decay, times lr"
  state m = 0
  m' = beta*m + (1 - beta)*g
  u  = m'/(abs(m') + rms(m') + 1e-12)
  w' = w - lr*(u + weight_decay*w)
}}
"""
NO_FILES = "no .opt files there"


def unknown_command(word: str, known: list[str]) -> int:
    near = f"{word}.opt" if os.path.exists(f"{word}.opt") else did_you_mean(word, [*known, *library.names()])
    print(f"optlang: `{word[:80]}` is neither a command nor a file{f'; did you mean `{near}`?' if near else ''}", file=sys.stderr)
    print("`optlang --help` lists the commands", file=sys.stderr)
    return 2


# ---------------------------------------------------------------------------------------------------------- check


def check(arguments: argparse.Namespace) -> int:
    found: list[Diagnostic] = []
    notes: list[str] = []
    unread = False
    count = 0
    for name in files.expand(arguments.files):
        count += 1
        try:
            lowered: lower.Lowered = {}
            _, about = diagnose.read(files.read(name), arguments.pedantic, lowered)
            found.extend(about)
            notes.extend([] if about else extra_passes(lowered))
            notes.extend([f"{name}: reading stopped after {MOST_FINDINGS} findings"] * (len(about) == MOST_FINDINGS))
        except OptError as error:
            found.extend(error.diagnostics)
            unread = True
    if arguments.json:
        print(json.dumps([d.to_json() for d in found], indent=2))
    else:
        _print_findings(found, count)
        print("".join(f"{note}\n" for note in notes), end="")
    wrong = any(d.severity != "lint" for d in found) or (arguments.pedantic and found)
    return 2 if unread or not count else 1 if wrong else 0


def extra_passes(lowered: lower.Lowered) -> list[str]:
    """What each rule asks of the model in a step besides one gradient."""
    asking = [p for p in lowered.values() if isinstance(p, ir.Program) and any(p.uses(op) for op in ops.ASKING)]
    if not asking:
        return []
    from optlang.printing.render import asked  # noqa: PLC0415 - most files ask for nothing

    return [f"{p.name} asks the model for {asked(p)} in a step; `step` needs a closure" for p in asking]


def _print_findings(found: list[Diagnostic], count: int) -> None:
    for finding in found:
        print(finding.to_text() + "\n")
    if not count:
        print(NO_FILES, file=sys.stderr)
    else:
        print(f"{_files(count)}: {len(found)} finding{'s' * (len(found) != 1)}" if found else f"{_files(count)} checked, nothing wrong")


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"


def explain(arguments: argparse.Namespace) -> int:
    from optlang import catalogue  # noqa: PLC0415 - only this command reads it

    if arguments.code is None:
        for code, entry in catalogue.CATALOGUE.items():
            print(f"{code}  {entry.title}")
        return 0
    if arguments.code.upper() not in catalogue.CATALOGUE:
        near = did_you_mean(arguments.code.upper(), catalogue.CATALOGUE)
        print(f"there is no code `{arguments.code[:80]}`{f'; did you mean `{near}`?' if near else ''}", file=sys.stderr)
        print("`optlang explain` lists them", file=sys.stderr)
        return 2
    print(catalogue.explain(arguments.code.upper()))
    return 0


# --------------------------------------------------------------------------------------------------------- format


def format_files(arguments: argparse.Namespace) -> int:
    from optlang.front.format import canonical  # noqa: PLC0415 - only `fmt` and `show` need it

    worst = changed = unread = count = 0
    for name in files.expand(arguments.files):
        count += 1
        try:
            source = files.read(name)
            text = canonical(source)
        except OptError as error:
            print(error, file=sys.stderr)
            worst = max(worst, 2 if {d.code for d in error.diagnostics} & {"U01", "U02", "L02"} else 1)
            unread += 1
            continue
        changed += text != source.text
        _write(arguments, name, source, text)
    if not count:
        print(NO_FILES, file=sys.stderr)
        return 2
    if arguments.check or arguments.diff:
        print(f"{changed} of {_files(count)} would change" if changed
              else f"{f'{count - unread} of ' * (unread > 0)}{_files(count)} in canonical style")  # fmt: skip
        return max(worst, int(changed > 0))
    return worst


def _write(arguments: argparse.Namespace, name: str, source: Source, text: str) -> None:
    if arguments.diff:
        for line in difflib.unified_diff(source.text.splitlines(True), text.splitlines(True), name, name):
            sys.stdout.write(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    elif name == "-":
        sys.stdout.write(text)
    elif text != source.text:
        if arguments.check:
            print(f"would change {name}")
        else:
            files.replace(Path(source.name), text)
            print(f"formatted {name}")


# ----------------------------------------------------------------------------------------------------------- show


def show(arguments: argparse.Namespace) -> int:
    from optlang.front.format import canonical  # noqa: PLC0415 - only `fmt` and `show` need it

    source = files.read(arguments.file)
    if arguments.form == "text":
        text = canonical(source if arguments.rule is None else _alone(source, arguments.rule))
    else:
        try:
            text = show_forms.FORMS[arguments.form](_rule(source, arguments.rule), arguments.math)
        except ValueError as refusal:
            return _refused(refusal)
    print(text.rstrip("\n"))
    return 0


def _alone(source: Source, rule: str) -> Source:
    """The text of one rule of a file. Raises OptError where there is none of that name."""
    file, found = parser.parse(source)
    if found:
        raise OptError(found)
    item = lower.choose(file, rule)
    return Source(source.text[item.span.start : item.span.end], source.name)


def _refused(refusal: ValueError) -> int:
    """A form or target that a rule cannot have."""
    print(f"optlang: {refusal}", file=sys.stderr)
    return 1


def _rule(source: Source, name: str | None) -> Rule:
    from optlang.rules import Rule  # noqa: PLC0415 - `check` and `fmt` start without it

    return Rule.from_source(source, name)


def diff(arguments: argparse.Namespace) -> int:
    from optlang import rules  # noqa: PLC0415

    if arguments.a == arguments.b == "-":
        print("standard input can only be one of both: name a file for the other", file=sys.stderr)
        return 2
    try:
        found = rules.diff(*(_rule(files.read(path), name) for path, name in map(_split, (arguments.a, arguments.b))))
    except (OptError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(json.dumps(found.to_json(), indent=2) if arguments.json else found.to_text(shutil.get_terminal_size((120, 24)).columns))
    return 0 if found else 1


def _split(word: str) -> tuple[str, str | None]:
    """`my.opt:Rule` is a rule of a file that may have several."""
    path, _, name = word.rpartition(":") if ".opt:" in word and not os.path.exists(word) else (word, "", "")
    return path, name or None


# ------------------------------------------------------------------------------------------------------ the others


def build(arguments: argparse.Namespace) -> int:
    from optlang import rules  # noqa: PLC0415

    if (arguments.output or "").endswith(".opt"):
        print(f"optlang: {arguments.output} is a name for a rule; what is generated is Python: -o NAME.py", file=sys.stderr)
        return 2
    rule = _rule(files.read(arguments.file), arguments.rule)
    try:
        text = rules.generate(rule, arguments.to)
    except ValueError as refusal:
        return _refused(refusal)
    if arguments.output is None:
        print(text.rstrip("\n"))
    else:
        files.replace(Path(arguments.output), text)
        print(f"wrote {arguments.output}: {len(text.splitlines())} lines")
    return 0


def list_rules(arguments: argparse.Namespace) -> int:
    shown, paths = 0, [Path(place) for place in library.index().values()]
    family, name = (max(map(len, words)) for words in ([p.parent.name for p in paths if p.stem != "std"], library.names()))
    for path in paths:
        for item in parser.parse(library.read(path))[0].items if path.stem != "std" else ():
            hypers = " ".join(s.name for s in getattr(item, "body", ()) if hasattr(s, "default"))
            line = f"{path.parent.name:<{family}} {path.stem:<{name}} {hypers or 'route':<52} {getattr(item, 'doc', '')}".rstrip()
            is_rule = isinstance(item, RuleItem | Route) and item.name.lower() == path.stem.lower()  # others are parts of it
            if is_rule and all(word.lower() in line.lower() for word in arguments.words):
                print(line)
                shown += 1
    if not shown:
        print("no rule fits; `optlang list` prints them all", file=sys.stderr)
    return 0 if shown else 1


def new(arguments: argparse.Namespace) -> int:
    if not re.fullmatch(r"[^\W\d_]\w*", arguments.name) or not arguments.name[0].isupper():
        print(f"`{arguments.name[:80]}` cannot name a rule: begin with a capital letter, go on with letters and digits", file=sys.stderr)
        return 2
    path = Path(f"{arguments.name.lower()}.opt")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=arguments.name, file=path))
    except FileExistsError:
        print(f"{path} is there already; it was left alone", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{path} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"wrote {path}\n  optlang {path}                 check it\n  optlang race adamw {path}      see how it trains")
    return 0
