"""What is said of a name that stands for nothing where it is read."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from optlang import ops
from optlang.errors import did_you_mean
from optlang.front import syntax
from optlang.front.foreign import CALLED_HERE, SAID_HERE
from optlang.lower import tables
from optlang.lower.context import IMPLICIT

if TYPE_CHECKING:
    from optlang.lower.frames import Frame

OPERAND = re.compile(r"\b[abcmxy]\b")  # of a function, in what is said for it
INDEXED = re.compile(r"(.+?)_?(t|new|next|old|prev|last)")  # `m_t`, `v_prev`


def primed(frame: Frame, name: syntax.Name) -> None:
    """Reports a new value that there is none of."""
    if frame.is_poisoned(name.id):
        return
    if name.id == "w":
        frame.report("R06", "`w'` is read where it has no equation", name.span, "no equation for w' here")
    elif frame.holds_anywhere(name.id):
        frame.report("N06", f"`{name.id}` is not a state, so it has no `{name.id}'`", name.span,
                     "a prime means the new value of a state", f"write `{name.id}`")  # fmt: skip
    else:
        plain(frame, name)


def plain(frame: Frame, name: syntax.Name) -> None:
    """Reports an unknown name, unless what makes it unknown has been reported already."""
    if tables.named(frame, name.id) is not None:
        tables.refuse(frame, name.id, name.span)
    elif not _only_inside(frame, name):
        frame.report("N02", f"unknown name `{name.id}{chr(39) * name.primed}`", name.span,
                     "not a hyper, state, input or equation here", _advice(frame, name.id))  # fmt: skip


def _only_inside(frame: Frame, name: syntax.Name) -> bool:
    """Whether the name exists, but only inside one side of a `when` or in a `repeat`."""
    for around in frame.outward():
        if name.id in around.poisoned:
            return True
        if name.id in around.places and not around.holds(name.id, name.primed):
            frame.report("N13", f"`{name.id}` is defined on one side only", name.span, "not defined on every path to here",
                         "define it in the `else` as well, or outside")  # fmt: skip
            return True
    return False


def _advice(frame: Frame, name: str) -> str:
    if name in CALLED_HERE:
        return CALLED_HERE[name]
    found = frame.module.find(name)
    if found is not None and isinstance(found[0], syntax.Rule):
        return f"`{name}` is a rule: a call gives its new weights, `{name}()`"
    if name in ops.BUILTINS or found is not None:
        return f"`{name}` is a function: call it, as in `{name}(x)`"
    known = _known_names(frame)
    if near := _spelled(name, known) or _of_a_step(frame, name) or _product(name, known) or did_you_mean(name, known):
        return f"did you mean `{near}`?"
    function = OPERAND.search(SAID_HERE.get(name, "")) is not None
    if name in SAID_HERE and not function:
        return f"write `{SAID_HERE[name]}`"
    if frame.is_def:
        return f"a function sees its parameters, `w`, `g` and `t`: give it `{name}` as one more parameter"
    also = f"; for the function of that name write `{SAID_HERE[name]}`" if function else ""
    return f"define it, or declare it with `hyper`, `state` or `input`{also}"


def _spelled(name: str, known: list[str]) -> str:
    """What papers call `β1`, where `beta1` is known."""
    letters = [unicodedata.name(char, "").partition("GREEK SMALL LETTER ")[2].lower().replace("lamda", "lambda") or char for char in name]
    spelled = "".join(letters)
    return spelled if spelled != name and spelled in known else ""


def _of_a_step(frame: Frame, name: str) -> str:
    """What papers call `m_t` or `m_old`."""
    match = INDEXED.fullmatch(name)
    if match is None:
        return ""
    base, when = match.groups()
    if base == "g":
        return base
    remembered = base == "w" or any(base in around.states for around in frame.outward())
    return f"{base}'" * remembered if when in ("t", "new", "next") else base * remembered


def _product(name: str, known: list[str]) -> str:
    """`lrg`, where `lr` and `g` are known."""
    whole = frozenset(known) - {"t"}  # `mt` is rather `m` with an index
    return next((f"{name[:k]}*{name[k:]}" for k in range(1, len(name)) if name[:k] in whole and name[k:] in whole), "")


def _known_names(frame: Frame) -> list[str]:
    """Every name that could stand here."""
    names = [*IMPLICIT, "loss", *ops.CONSTANTS, *ops.FACTS]
    for around in frame.outward():
        names.extend([*around.given, *around.states, *(name for name, _ in (*around.equations, *around.blocks))])
    return names
