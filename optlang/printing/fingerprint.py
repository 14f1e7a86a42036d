"""What tells one rule from another in a checkpoint: a fingerprint of its equations, and the equations themselves.

Names of intermediate equations, documentation, defaults and ranges are no part of it; names of states and hypers are.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import unified_diff
from hashlib import sha256

from optlang import ir

FINGERPRINT = "fingerprint"  # of a group in a state dict
RULES = "rules"  # of a state dict: the texts by their fingerprints
MOST_LINES = 12


def text_of(program: ir.Program) -> str:
    """The equations as `.opt` text, without what does not change a step."""
    from optlang.printing.rule_text import to_opt  # noqa: PLC0415 - optimizers know the names above, and seldom ask for a text

    return to_opt(_bare(program))


def fingerprint_of(program: ir.Program) -> str:
    """Twelve hexadecimal digits, the same on every machine."""
    return sha256(text_of(replace(program, name="R", names=())).encode()).hexdigest()[:12]


def _bare(program: ir.Program) -> ir.Program:
    zero: dict[str, float | int | bool] = {"bool": False, "int": 0, "real": 0.0}
    hypers = tuple(h._replace(default=zero[h.kind], bounds=None, doc="") for h in program.hypers)
    inputs = tuple(i._replace(doc="") for i in program.inputs)
    return replace(program, doc="", hypers=hypers, inputs=inputs, reports=None)


def differences(there: str, here: str, where: str = "as saved") -> str:
    """What another text has that this one has not, and the other way round, one line each."""
    found = list(unified_diff(_lines(there), _lines(here), n=0, lineterm=""))[2:]
    changed = [f"    {line[0]} {line[1:].strip()}" for line in found if line[0] in "+-"]
    more = [f"    … and {len(changed) - MOST_LINES} lines more"] if len(changed) > MOST_LINES else []
    return "\n".join([f"    - {where}, + as it is here", *changed[:MOST_LINES], *more])


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
