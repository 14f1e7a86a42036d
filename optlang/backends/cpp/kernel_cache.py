"""Kernels as texts, which are kept on disk: a new process need not render them again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from optlang.backends.cache import programs
from optlang.backends.cpp.layout import Room
from optlang.backends.kernels.handed import Handed, of_nodes
from optlang.ir import Node
from optlang.ir.serialization import nodes_of, table_of


class Kernel(NamedTuple):
    """The text of `step` (see `ENTRY`); its table of pointers has a column for each of `columns`.

    A column is a tensor and which part of it: what is stored in blocks has two. `written`: columns that it writes into;
    `sums`: reductions of each tensor; `returned`: numbers handed out; `room`: for values per row and column, if there are any.
    `flags`: what the compiler is to do beyond what it does for all.
    """

    text: str
    columns: tuple[tuple[Node, int], ...]
    written: tuple[int, ...]
    sums: int
    returned: int
    room: Room | None = None
    flags: tuple[str, ...] = ()


class Rendered(NamedTuple):
    """A kernel, and how it is called: see `Loaded`."""

    kernel: Kernel
    places: tuple[tuple[int, int], ...]
    handed: Handed


def kept(make: Callable[[], Rendered | None], tensors: Sequence[Node], number: torch.dtype, *decides: str) -> Rendered | None:
    """What `make` makes, or an earlier process has, for a function of some tensors that computes in such numbers; what is None is not kept.
    `decides`: the mark of the function, and how each tensor is stored."""
    name = programs.generated("text", *decides, str(number))
    return programs.kept(name, make, _to_json, lambda text: _from_json(text, tensors, number))


def _to_json(what: Rendered | None) -> str:
    """Raises TypeError for None."""
    if what is None:
        raise TypeError("there is no kernel")
    table, places = table_of(what.handed.nodes)
    left = {name: value for name, value in what.kernel._asdict().items() if name != "columns"}
    return json.dumps([table, [places[node] for node in what.handed.nodes], what.handed.order, what.places, left])


def _from_json(text: str, tensors: Sequence[Node], number: torch.dtype) -> Rendered:
    table, new, order, places, left = json.loads(text)
    nodes = nodes_of(table)
    handed = of_nodes([nodes[place] for place in new], order, number)
    columns = [*tensors, *handed.nodes]
    found = tuple((place, part) for place, part in places)
    room = None if left["room"] is None else Room(*left["room"])
    left |= {"room": room, "written": tuple(left["written"]), "flags": tuple(left["flags"])}
    return Rendered(Kernel(columns=tuple((columns[place], part) for place, part in found), **left), found, handed)
