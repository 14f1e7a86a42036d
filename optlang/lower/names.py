"""Which names a body may define: reserved ones, those of builtins and those that are there already are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optlang import ops
from optlang.errors import Span
from optlang.front import syntax
from optlang.front.foreign import WEIGHTS
from optlang.lower.modules import RESERVED

if TYPE_CHECKING:
    from optlang.lower.frames import Frame, Key

INSTEAD = {  # what to do instead of defining these again
    "w": "for the new weights write `w' = …`",
    "g": "it is the gradient as it comes; name what is made of it, as in `d = …`",
    "t": "it is the number of the step, and counts by itself",
}  # fmt: skip


def enter_equation(frame: Frame, equation: syntax.Equation) -> None:
    """What an equation defines becomes a name of the frame, unless it may not: then only what else is wrong with it is said."""
    target = equation.target
    key = (target.id, target.primed)
    allowed = _may_be_primed(frame, target) if target.primed else may_define(frame, target.id, target.span)
    if allowed and is_first(frame, key, target.span):
        frame.equations[key] = equation
        frame.places.setdefault(target.id, target.span)
    else:
        frame.refused.append(equation)


def may_define(frame: Frame, name: str, span: Span) -> bool:
    """Whether a new name may be introduced; reports where not."""
    if name in RESERVED or name in ops.BUILTINS:
        if name == "w" or name in ops.BUILTINS:  # `w = …` is what should have been `w'`; `mean` alone is no function then
            frame.poisoned.add(name)
        what = "reserved" if name in RESERVED else "the name of a builtin"
        frame.report("N04", f"`{name}` is {what} and cannot be defined again", span, "", INSTEAD.get(name, "choose another name"))
        return False
    for each in frame.outward():
        declared = any(name in names for names in (each.given, each.states, each.tables))
        if declared or (each is not frame and (name, False) in each.equations):
            advice = f"for its new value write `{name}' = …`" if name in each.states else "there is no shadowing; use another name"
            frame.report("N03", f"`{name}` is defined twice", span, "already a hyper, state, input or equation", advice)
            return False
    if (found := frame.module.find(name)) is not None:
        kind = "rule" if isinstance(found[0], syntax.Rule) else "function" if isinstance(found[0], syntax.Def) else "route"
        frame.report("N04", f"`{name}` is already the name of a {kind}", span, "", "choose another name")
        return False
    return True


def is_first(frame: Frame, key: Key, span: Span) -> bool:
    """Whether no equation or block of this body defines a name yet; reports where one does."""
    if key in frame.equations or key in frame.blocks:
        frame.report("N03", f"`{key[0]}{chr(39) * key[1]}` is defined twice", span, "second definition",
                     "every name has one equation; use another name for the second value")  # fmt: skip
        return False
    return True


def _may_be_primed(frame: Frame, target: syntax.Name) -> bool:
    if target.id == "w":
        if frame.is_def:
            frame.report("R06", "a function cannot change `w`", target.span, "", "return the value instead")
        return not frame.is_def
    if frame.owner_of_state(target.id) is not None:
        return True
    if frame.is_poisoned(target.id):
        return False
    help_ = f"write `{target.id} = …`, or declare `state {target.id} = 0`"
    if any(target.id in each.given for each in frame.outward()) and not frame.is_def:
        help_ = f"it is given, and no step changes it: name what is made of it, as in `rate = {target.id}/sqrt(t)`"
    if target.id in RESERVED or target.id in ops.BUILTINS:
        help_ = INSTEAD.get(target.id, "choose another name")
    elif target.id in WEIGHTS - {"x"}:  # which is rather a value in between
        help_ = f"the parameter is called `w`, so its new value is `w'`; memory is declared, `state {target.id} = 0`"
    frame.report("N06", f"`{target.id}'` has no state: `{target.id}` is not declared with `state`", target.span,
                "a prime means the new value of a state", help_)  # fmt: skip
    frame.poisoned.add(target.id)
    return False
