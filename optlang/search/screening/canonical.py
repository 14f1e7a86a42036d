"""Keys of programs: equal keys mean the same program, written another way.

Two keys, the cheap one first. `structural_key`: what each value is made of, without names, dead statements and the order of
operands that commute. `algebraic_key`: `values` in a normal form besides, in which a - b + b is a and sqrt(a*a), by the `laws` of
functions, abs(a). Both hold for this process only: they are hashes of Python's.
"""

from __future__ import annotations

from typing import Any

from optlang.search.programs.genome import UPDATE, Argument, Form, Genome
from optlang.search.screening.laws import called, up_to_size
from optlang.search.screening.values import COMMUTES, TABLE, Value, hash_key

MOST = 200_000  # values and calls that are remembered
_calls: dict[tuple[Any, ...], Value] = {}  # children share most calls with their parents


def structural_key(genome: Genome, form: Form) -> int:
    """Of a genome without dead statements."""
    known: dict[str, int] = {}
    for function, target, args, _ in genome:
        given = [known.get(arg, arg) if type(arg) is str else repr(arg) for arg in args]
        if function in COMMUTES:
            given.sort(key=hash)
        known[target] = hash((function, *given))
    return hash((known.get(UPDATE), *[known.get(slot) if _is_memory(slot, genome) else None for slot in form.slots]))


def _is_memory(slot: str, genome: Genome) -> bool:
    """Whether what a slot held before the step is read; else it is a temporary, or not used at all."""
    for _, target, args, _ in genome:
        if slot in args:
            return True
        if target == slot:
            return False
    return False


def algebraic_key(genome: Genome, form: Form) -> int:
    """Of a genome without dead statements. In a scaled form the update counts up to a positive factor."""
    if len(TABLE) + len(_calls) > MOST:
        TABLE.clear()
        _calls.clear()
    known: dict[Argument, Value] = {}
    for function, target, args, _ in genome:
        call = (function, *[known.get(arg, arg) for arg in args])
        value = _calls.get(call)
        if value is None:
            value = _calls[call] = called(function, call[1:])
        known[target] = value
    update = known.get(UPDATE)
    if form.scaled:
        call = ("direction", update)
        value = _calls.get(call)
        update = _calls[call] = up_to_size(update) if value is None else value
    kept = [hash_key(known.get(slot, slot)) if _is_memory(slot, genome) else None for slot in form.slots]
    return hash((hash_key(update), *kept))
