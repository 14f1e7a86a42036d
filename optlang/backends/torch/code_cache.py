"""Generated functions on disk, without their texts: where kernels take their place, a new process needs to know what they are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from optlang.backends.cache import programs
from optlang.backends.torch.code import CellCode
from optlang.ir.serialization import nodes_of, table_of

PLAIN = ("name", "shaped", "draws", "elementwise", "of_matrices", "multiplies")
PLACES = ("written", "runs")


def kept_code(make: Callable[[], CellCode], *decides: str) -> CellCode:
    """What `make` makes, or an earlier process has. `decides`: the program's mark, and what else decides about it."""
    name = programs.generated("code", *decides)
    return replace(programs.kept(name, make, _to_json, lambda text: _from_json(text, lambda: make().text)), mark=name)


def _to_json(code: CellCode) -> str:
    table, places = table_of([*code.tensors, *code.slots])
    nodes = [[places[node] for node in some] for some in (code.tensors, code.slots)]
    return json.dumps([table, *nodes, {name: getattr(code, name) for name in (*PLAIN, *PLACES)}])


def _from_json(text: str, write: Callable[[], str]) -> CellCode:
    table, tensors, slots, others = json.loads(text)
    nodes = nodes_of(table)
    others |= {name: tuple(others[name]) for name in PLACES}
    given, known = (tuple(nodes[place] for place in some) for some in (tensors, slots))
    return CellCode(write=write, tensors=given, slots=known, **others)
