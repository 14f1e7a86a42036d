"""Found rules made short: by algebra, then by leaving out the parts that training does as well without. Made once, kept in the store.

What is trained on the way is kept, too, so that an end in between loses nothing.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optlang import writing
from optlang.search.distil.trace import Trace
from optlang.search.distil.trained import Trained
from optlang.search.evolution.settings import Settings
from optlang.search.evolution.strand import rates
from optlang.search.store.database import Store
from optlang.search.store.found import Found
from optlang.search.workers.executor import Executor

SEEDS = tuple(range(800_001, 800_257))  # that no level of a search has
KIND = "shortened"  # of the event
UNFINISHED = "The time was over before all shorter rules had been tried. What was trained is kept: asked again, it goes on from there."


@dataclass(frozen=True)
class Short:
    """A rule as a person would write it: the text of a `.opt` file, and the steps that led there.

    `remark`: what was not done, and why. `twins`: other programs that became this rule.
    """

    name: str
    text: str
    trace: Trace
    remark: str = ""
    twins: tuple[str, ...] = ()

    def write(self, path: Path) -> list[Path]:
        """The rule and, beside it, the trace."""
        beside = path.with_suffix(".trace.md")
        writing.replace(path, self.text)
        writing.replace(beside, self.trace.to_markdown() + (f"\n{self.remark}\n" if self.remark else ""))
        return [path, beside]


def by_algebra(one: Found, settings: Settings) -> Short:
    """Nothing is trained: about a second."""
    found = one.distilled(settings.space.form)
    return Short(one.name, found.opt(), found.trace)


def by_training(
    store: Store, one: Found, settings: Settings, executor: Executor | None = None, tell: Callable[[str], None] | None = None,
    tasks: Sequence[str] = (), seconds: float = math.inf,
) -> Short:  # fmt: skip
    """By algebra and by ablation on some tasks, by default those of the search: minutes of one core, once.

    After `seconds` it is as short as it has become; a later call goes on. The store is one that may be written to.
    """
    level = settings.funnel[0]
    tasks = tuple(tasks or level.tasks)
    key = hashlib.sha256(repr((one.branch, one.number, one.text, tasks, level.factor, level.measure)).encode()).hexdigest()[:16]
    for kept in store.events(KIND):
        if kept["key"] == key:
            return Short(one.name, kept["text"], Trace.from_json(kept["trace"]), kept["remark"])
    trainer = _trainer(store, one, settings, tasks, executor)
    deadline = time.monotonic() + seconds
    say = tell or (lambda _: None)
    try:
        found = one.distilled(settings.space.form, trainer, SEEDS, seconds, lambda text: say(f"{one.name}: {text}"))
        made = Short(one.name, found.opt(), found.trace)
    except ValueError as problem:  # it diverges on some seeds
        made = by_algebra(one, settings)
        made = Short(made.name, made.text, made.trace, f"Shortened by algebra alone: {problem}.")
    if time.monotonic() <= deadline:
        store.note(KIND, {"key": key, "text": made.text, "trace": made.trace.to_json(), "remark": made.remark})
        store.drop_jobs(trainer.digests)
        return made
    return replace(made, remark=made.remark or UNFINISHED)


def _trainer(store: Store, one: Found, settings: Settings, tasks: Sequence[str], executor: Executor | None) -> Trained:
    """With the rule's best step sizes: the search has found those of its own tasks."""
    level = settings.funnel[0]
    known = rates(store.details(one.branch, level.name)[one.number])
    lacking = [name for name in tasks if name not in known]
    known |= Trained.tuned(one.program(settings.space.form), lacking, level.factor).rates
    return Trained({name: known[name] for name in tasks}, level.factor, level.measure == "speed", executor, store)
