"""What `optlang search` does to search: begin, go on, take rules from outside. Each action takes the parsed arguments."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang.search.looking import decided, export, finals, pick, report, reported, store_named, teller

if TYPE_CHECKING:
    from optlang.search.api import Search
    from optlang.search.training.funnel import Promoted

__all__ = ["export", "finals", "pick", "propose", "report", "resume", "search"]  # what `command.ACTIONS` names


# ------------------------------------------------------------------------------------------------------- searching


def search(arguments: argparse.Namespace) -> int:
    from optlang.search import api

    _without_contradiction(arguments)
    if arguments.no_funnel and (arguments.validation or arguments.final or arguments.hold_out):
        raise ValueError("--validation, --final and --hold-out are levels of the funnel; leave --no-funnel out")
    seeds = arguments.words or ["adamw"]
    given = {name: getattr(arguments, name) for name in ("minutes", "children", "steps")}
    budget = {name: value for name, value in given.items() if value is not None} or {"minutes": 0.0 if arguments.only_proposals else 30.0}
    if not arguments.quiet:
        print("setting up: the tasks are tried, AdamW is tuned on them, then the seeds are trained", flush=True)
    funnel = api.funnel_of(arguments.tasks, arguments.validation, arguments.hold_out, arguments.final)
    settings = {"ageing": _ageing(arguments), "funnel": funnel[:1] if arguments.no_funnel else funnel}
    with api.search(
        *seeds, store=arguments.store, space=_space(arguments, seeds), baselines=arguments.baselines,
        workers=arguments.workers, jobs=arguments.jobs, seed=arguments.seed, ray=arguments.ray, only_proposals=arguments.only_proposals,
        tell=teller(arguments), **budget, **settings,
    ) as found:  # fmt: skip
        return _followed(found, arguments)


def _ageing(arguments: argparse.Namespace) -> Any:
    from optlang.search.evolution.population import Ageing

    return Ageing(population=arguments.population, islands=arguments.islands)


def _space(arguments: argparse.Namespace, seeds: list[str]) -> Any:
    from optlang.search import api
    from optlang.search.programs.constraints import Limits
    from optlang.search.programs.genome import SLOTS

    limits: dict[str, Any] = dict(map(_limit, arguments.limit))
    if limits.get("slots", 0) > len(SLOTS):
        raise ValueError(f"--limit slots={limits['slots']}: programs of a search have {len(SLOTS)} at most")
    fields: dict[str, Any] = {"limits": Limits(**limits)} if limits else {}
    fields["series"] = arguments.series
    fields["constraints"] = (*arguments.constraint, *(f"never {name}" for name in arguments.never))
    if arguments.functions:
        fields["functions"] = dict.fromkeys(arguments.functions, 1.0)
    if arguments.template:
        fields["template"] = _template(Path(arguments.template))
    return api.space_of(arguments.space, seeds, limits.get("slots", 0), **fields)


def _limit(given: str) -> tuple[str, int]:
    name, _, number = given.partition("=")
    if name not in ("statements", "slots", "depth") or not number.isdecimal():
        raise ValueError(f"--limit {given}: there are limits of statements, slots and depth, as in --limit statements=15")
    return name, int(number)


def _template(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"--template {path}: no template can be read there ({problem})") from None
    if not text.strip():
        raise ValueError(f"--template {path} is empty; write statements, and `?` where the search is to fill in something")
    return text


def resume(arguments: argparse.Namespace) -> int:
    from optlang.search import api

    [path] = store_named(arguments, 1, 1)
    _without_contradiction(arguments)
    if settled := _settled(arguments):
        raise ValueError(f"{' and '.join(settled)}: what a search finds follows from it and is settled when it begins; begin a new one "
                         "with it, or leave it out. It still takes --minutes, --children, --steps, --tasks and --jobs")  # fmt: skip
    if arguments.validation or arguments.final or arguments.hold_out:
        raise ValueError("a search that has begun is given more tasks by --tasks and --level validation, final or hold-out")
    more = {"tasks": arguments.tasks or (), "level": arguments.level, "jobs": arguments.jobs, "tell": teller(arguments)}
    budget = {kind: getattr(arguments, kind) for kind in ("minutes", "children", "steps")}
    with api.resume(path, arguments.workers, arguments.ray, **more, **budget) as found:
        return _followed(found, arguments)


def _settled(arguments: argparse.Namespace) -> list[str]:
    """The options that were given, but decide a search before it begins."""
    from optlang.search.command import SETTLED, add_arguments

    add_arguments(parser := argparse.ArgumentParser())
    return [f"--{name.replace('_', '-')}" for name in SETTLED if getattr(arguments, name) != parser.get_default(name)]


def _without_contradiction(arguments: argparse.Namespace) -> None:
    if arguments.finals and arguments.no_funnel:
        raise ValueError("--finals are on tasks of the funnel's last level; leave --no-funnel out")


def _followed(search: Search, arguments: argparse.Namespace) -> int:
    """The search to its end, then the funnel."""
    from optlang.search.live_view import watching

    print(f"{search.store.path}: {search.describe()}", flush=True)
    if why := search.ended():
        print(why, flush=True)
    with _interrupts(search.stop), watching(search, arguments.quiet) as view:
        for progress in search:
            view.tell(progress)
    if search.was_stopped:
        print(f"stopped; `optlang search resume {search.store.path}` goes on", flush=True)
        return 130
    best = search.best()
    print(f"best of the search: {best.name}, fitness {best.fitness:.4f} ± {best.error:.4f}\n{best.text}", flush=True)
    tell = None if arguments.quiet else lambda text: print(text, flush=True)
    for level, results in () if arguments.no_funnel else search.promote(tell):
        print(f"{level.name}: {len(results)} programs; {_ranked(results, best.number)}", flush=True)
    print(f"the hall of fame is in {search.store.path}.hall; see `optlang search report {search.store.path}`")
    if arguments.finals:
        decided(search.store, arguments)
        reported(search.store, f"{search.store.path}.html")
    return 0


def _ranked(results: Sequence[Promoted], best: int) -> str:
    """The best of a level, and where they stand the best of the search and the seed."""
    shown = {one.number: one.assessment for one in results if one is results[0] or one.number in (best, 1)}
    return ", ".join(f"{'the seed' if n == 1 else f'Found{n}'} {a.fitness:.4f} ± {a.error:.4f}" for n, a in shown.items())


@contextmanager
def _interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C asks for an end after the round; the second is one."""

    def asked(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        print("\nending after this round; Ctrl-C again ends at once", file=sys.stderr, flush=True)
        stop()

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def propose(arguments: argparse.Namespace) -> int:
    """Rules are proposed, then each answer is printed, in their order. Returns 1 where one was rejected."""
    from optlang.library import standard_input
    from optlang.rules import source_of
    from optlang.search import proposals

    path, *rules = store_named(arguments, 2, sys.maxsize)
    texts = [(standard_input() if rule == "-" else source_of(rule)).text for rule in rules]
    names = [proposals.put(path, text, Path(rule).stem.strip("-")) for rule, text in zip(rules, texts, strict=True)]
    if (tell := teller(arguments)) is not None:
        tell(f"proposed {', '.join(f'{name}.opt' for name in names)}; the answers come when they are trained")
    rejected = False
    for name in names:
        found = proposals.answer(path, name, arguments.minutes)
        print(json.dumps(asdict(found)) if arguments.json else found, flush=True)
        rejected |= found.outcome == "rejected"
    return int(rejected)
