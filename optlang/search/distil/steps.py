"""Steps of genomes in NumPy float64, quick enough to look at thousands of programs a second: their statements as functions on flat values.

What these cannot say the reference interpreter takes, which is the meaning of all this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optlang.ops import FACTS
from optlang.search.distil.flat import Array, Call, Layout
from optlang.search.programs.genome import UPDATE, Form, Genome
from optlang.search.programs.type_codes import MISFIT, input_codes, result_code

SHAPED = frozenset(["rows", "cols", "fan_in", "fan_out"])  # facts that vectors lack
Line = tuple[Call, str, tuple[Any, ...]]
Step = Callable[..., tuple[Array, dict[str, Array]]]


def lines_of(genome: Genome, form: Form, layout: Layout) -> list[Line] | None:
    """The statements of a genome as calls; None where one is not to be had on flat values."""
    known = input_codes(form)
    lines: list[Line] = []
    for function, target, args, _ in genome:
        given = tuple(map(known.__getitem__, args))
        if MISFIT in given:
            raise KeyError(*[arg for arg, code in zip(args, given, strict=True) if code == MISFIT])
        call = layout.call(function, given)
        if call is None or not SHAPED.isdisjoint(args):
            return None
        lines.append((call, target, args))
        known[target] = result_code((function, *given))
    return lines


def genome_function(genome: Genome, form: Form, layout: Layout) -> Step | None:
    """`step(w, g, slots, t, lr=1.0)` gives the update and the new slots; all are (…, size), slots by name, and the old ones stay.

    None where the genome needs the reference interpreter. Raises KeyError for a name that has no value. What is undefined is
    NaN or infinite; call it under `numpy.errstate(all="ignore")`.
    """
    lines = lines_of(genome, form, layout)
    if lines is None:
        return None
    read = {arg for _, _, args in lines for arg in args}
    given: dict[Any, Array] = {arg: arg for arg in read if type(arg) is float}
    given |= {name: layout.facts[name] for name in read.intersection(FACTS)}

    def step(w: Array, g: Array, slots: Mapping[str, Array], t: float, lr: float = 1.0) -> tuple[Array, dict[str, Array]]:
        values: dict[Any, Array] = {**given, **slots, "w": w, "g": g, "t": t, "lr": lr}
        get = values.__getitem__
        for call, target, args in lines:
            values[target] = call(t, *map(get, args))
        return _whole(values[UPDATE], w), {slot: _whole(values[slot], w) for slot in slots}

    return step


def _whole(value: Array, like: Array) -> Array:
    """A value for each element; one for all of them stands for that."""
    if type(value) is np.ndarray and value.shape == like.shape:
        return value
    whole = np.empty(like.shape)
    whole[...] = value
    return whole
