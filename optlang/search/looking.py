"""What `optlang search` does with a store that is there: look at it, hand out its rules, hold the finals. Each action takes the parsed
arguments."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang import writing

if TYPE_CHECKING:
    from optlang.search.evolution.settings import Settings
    from optlang.search.shortening import Short
    from optlang.search.store.database import Store
    from optlang.search.store.found import Found
    from optlang.search.workers.executor import Executor


def store_named(arguments: argparse.Namespace, least: int, most: int) -> list[str]:
    """What stands behind an action: its store, and more."""
    words: list[str] = arguments.words[1:]
    if not least <= len(words) <= most:
        raise ValueError(f"`{arguments.words[0]}` wants {'a store' if most == 1 else 'a store and a rule'}; see `optlang search --help`")
    return words


def pick(arguments: argparse.Namespace) -> int:
    from optlang.search.store.found import pareto, table

    [path] = store_named(arguments, 1, 1)
    with _opened(path) as (store, settings, level):
        rows = pareto(store, level)
        print(json.dumps([one.to_json(settings.space.form) for one in rows], indent=1) if arguments.json else table(rows))
    return 0


def export(arguments: argparse.Namespace) -> int:
    from optlang.rules import Rule
    from optlang.search.store.found import find

    path, name = store_named(arguments, 2, 2)
    with _opened(path) as (store, settings, level):
        found = find(store, name, level)
    short = _short(path, found, settings, arguments)
    if arguments.to == "opt" and arguments.output not in (None, "-"):
        print(f"written to {' and '.join(map(str, short.write(Path(arguments.output))))}")
        return 0
    text = short.text
    if arguments.to != "opt":
        rule = Rule(text)
        text = rule.module() if arguments.to == "module" else rule.latex() + "\n"
    _written(text, arguments.output)
    return 0


def _short(path: str, found: Found, settings: Settings, arguments: argparse.Namespace) -> Short:
    """A rule as it is handed out."""
    from optlang.search.shortening import by_algebra, by_training
    from optlang.search.store.database import Store

    if not arguments.ablate:
        return by_algebra(found, settings)
    seconds = math.inf if arguments.minutes is None else 60 * arguments.minutes
    with Store.open_(path) as store, _team(arguments) as team:
        made = by_training(store, found, settings, team, teller(arguments), arguments.tasks or (), seconds)
    if made.remark:
        print(made.remark, file=sys.stderr)
    return made


def finals(arguments: argparse.Namespace) -> int:
    from optlang.search.store.database import Store

    [path] = store_named(arguments, 1, 1)
    with Store.open_(path) as store:
        decided(store, arguments)
    return 0


def report(arguments: argparse.Namespace) -> int:
    [path] = store_named(arguments, 1, 1)
    with _opened(path) as (store, _, _):
        reported(store, arguments.output or f"{path}.html")
    return 0


def reported(store: Store, output: str) -> None:
    from optlang.search.report import page

    _written(page(store), output)


@contextmanager
def _opened(path: str) -> Iterator[tuple[Store, Any, str]]:
    """A store to read, its settings, and the name of its first level."""
    from optlang.search.evolution.settings import Settings
    from optlang.search.store.database import Store

    with Store.read(path) as store:
        settings = Settings.from_json(store.meta("settings"))
        yield store, settings, settings.funnel[0].name


def _written(text: str, output: str | None) -> None:
    if output in (None, "-"):
        sys.stdout.write(text)
    else:
        writing.replace(Path(output), text)
        print(f"written to {output}")


def decided(store: Store, arguments: argparse.Namespace) -> None:
    """The finals, and who was in them as files: short, with the step size around which all were tuned."""
    from optlang.search import finals
    from optlang.search.evolution.settings import Settings

    settings, folder = Settings.from_json(store.meta("settings")), Path(f"{store.path}.best")
    with _team(arguments) as team:
        print(finals.table(finals.decided(store, settings, executor=team, tell=teller(arguments))), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    for one in finals.finalists(store, settings):
        same = f"; {', '.join(one.twins)} became the same rule" if one.twins else ""
        print(f"written to {' and '.join(map(str, one.write(folder / f'{one.name}.opt')))}{same}")


@contextmanager
def _team(arguments: argparse.Namespace) -> Iterator[Executor]:
    """Workers for the finals and for ablations. Who ends them is told what is kept."""
    from optlang.search.final_pieces import work
    from optlang.search.workers.executor import Processes

    with closing(Processes(work, arguments.workers or os.cpu_count() or 1)) as team:
        try:
            yield team
        except KeyboardInterrupt:
            print("\nwhat was trained is in the store; the same command goes on from there", file=sys.stderr, flush=True)
            raise


def teller(arguments: argparse.Namespace) -> Callable[[str], None] | None:
    return None if arguments.quiet else lambda text: print(text, file=sys.stderr, flush=True)
