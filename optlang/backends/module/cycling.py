"""Momenta in generated routes: schedulers look into `defaults` for what they may cycle, `betas` or `momentum`, and write it to all groups.

So where some rules have `betas`, a momentum is kept as `betas` of one number, as in loaded routes.
"""

from __future__ import annotations

from collections.abc import Sequence

from optlang.backends.module.layout import Lines
from optlang.backends.module.leaves import BETAS
from optlang.backends.module.writer import Writer
from optlang.printing.python_text import literal


def cycled(writers: Sequence[Writer]) -> str:
    """What schedulers cycle: the key, if there is one."""
    if any(w.words.has_betas for w in writers):
        return "betas"
    return "momentum" if any(map(_has_momentum, writers)) else ""


def default_lines(writers: Sequence[Writer]) -> Lines:
    """Where schedulers look."""
    key = cycled(writers)
    wanted = BETAS if key == "betas" else (key,)
    for w in writers if key else ():
        values = {w.words.hypers[h.name]: literal(h.default).text for h in w.program.hypers}
        if all(word in values for word in wanted):
            value = ", ".join(values[word] for word in wanted)
            return [f'self.defaults["{key}"] = {f"({value})" if key == "betas" else value}  # schedulers look here for what they may cycle']
    return []


def as_betas(writers: Sequence[Writer]) -> list[str]:
    """The classes whose momentum is kept as `betas`."""
    return [w.name for w in writers if _has_momentum(w) and not w.words.has_betas] if cycled(writers) == "betas" else []


def group_lines(w: Writer, writers: Sequence[Writer]) -> Lines:
    """Makes a group that a class fills in, and then what schedulers write into all groups."""
    made = "group = {}([{{**{}, \"params\": chosen}}], **settings).param_groups[0]".format
    if w.name in as_betas(writers):
        return ['given = _with_momentum({**own}) if len(own.get("betas", ())) == 1 else own', made(w.name, "given"),
                'group["betas"] = (group.pop("momentum"),)']  # fmt: skip
    has_none = cycled(writers) == "betas" and not w.words.has_betas
    return [made(w.name, "own"), *['group.setdefault("betas", ())'] * has_none]


def _has_momentum(w: Writer) -> bool:
    return "momentum" in w.words.hypers.values()
