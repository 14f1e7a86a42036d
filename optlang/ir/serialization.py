"""Programs as JSON, and back: the same nodes, for `make` interns them. Text of anybody may be read: it can only be wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optlang.errors import Span
from optlang.ir.nodes import Node, make, walk
from optlang.ir.programs import Bounds, Case, Hyper, Input, Predicate, Program, Routing, State
from optlang.types import Extent, Kind, Type

Json = Any


def to_json(what: Program | Routing) -> str:
    """Raises TypeError for a value that has no form in JSON."""
    programs = [case.program for case in what.cases] if isinstance(what, Routing) else [what]
    table, places = table_of([root for program in programs for root in program.all_roots()])
    return json.dumps([table, _routing(what, places) if isinstance(what, Routing) else _program(what, places)])


def from_json(text: str) -> Program | Routing:
    """Raises ValueError, TypeError, KeyError or IndexError for a text that `to_json` did not write."""
    table, what = json.loads(text)
    nodes = nodes_of(table)
    if "cases" not in what:
        return _read_program(what, nodes)
    cases = [Case(_read_predicate(condition), _read_program(one, nodes), settings) for condition, one, settings in what["cases"]]
    return Routing(what["name"], what["doc"], tuple(cases))


def table_of(roots: Iterable[Node]) -> tuple[Json, dict[Node, int]]:
    """All nodes below some, and the place of each. Raises TypeError for a value that has no form in JSON."""
    nodes = walk(roots)
    places = {node: place for place, node in enumerate(nodes)}
    return [[n.op, [places[arg] for arg in n.args], _value(n.value), None if n.args else _type(n.type)] for n in nodes], places


def nodes_of(table: Json) -> list[Node]:
    """The nodes of a table, in order."""
    nodes: list[Node] = []
    for op, args, value, type_ in table:
        nodes.append(make(op, [nodes[place] for place in args], _read_value(value), None if type_ is None else _read_type(type_)))
    return nodes


# ---------------------------------------------------------------------------------------------------------- writing


def _routing(what: Routing, places: Mapping[Node, int]) -> Json:
    cases = [[_predicate(case.condition), _program(case.program, places), dict(case.settings)] for case in what.cases]
    return {"name": what.name, "doc": what.doc, "cases": cases}


def _program(what: Program, places: Mapping[Node, int]) -> Json:
    def place(node: Node | None) -> int | None:
        return None if node is None else places[node]

    return {
        "name": what.name,
        "doc": what.doc,
        "hypers": [[h.name, h.kind, h.default, _bounds(h.bounds), h.doc, h.baked] for h in what.hypers],
        "states": [[s.name, _type(s.type), place(s.init), place(s.guard)] for s in what.states],
        "inputs": [[i.name, _type(i.type), i.doc] for i in what.inputs],
        "updates": {name: place(node) for name, node in what.updates.items()},
        "weights": place(what.weights),
        "evaluation": place(what.evaluation),
        "reports": None if what.reports is None else {name: place(node) for name, node in what.reports.items()},
        "names": [[name, place(node)] for name, node in what.names],
        "inner": [[name, places[node]] for name, node in what.inner if node in places],
        "spans": None if what.spans is None else {name: [span.start, span.end] for name, span in what.spans.items()},
    }


def _bounds(bounds: Bounds | None) -> Json:
    return None if bounds is None else [bounds.low, bounds.high, bounds.low_open, bounds.high_open]


def _predicate(what: Predicate | None) -> Json:
    return None if what is None else [what.op, [_predicate(arg) for arg in what.args], _value(what.value)]


def _type(type_: Type) -> Json:
    return [type_.kind, _extent(type_.extent), type_.window]


def _extent(extent: Extent) -> Json:
    return [extent.level, extent.rows, extent.cols, extent.frame]


def _value(value: Any) -> Json:
    if isinstance(value, Extent):
        return {"extent": _extent(value)}
    if isinstance(value, tuple):
        return {"tuple": [_value(part) for part in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{value!r} has no form in JSON")


# ---------------------------------------------------------------------------------------------------------- reading


def _read_program(what: Json, nodes: Sequence[Node]) -> Program:
    def node(place: int | None) -> Node | None:
        return None if place is None else nodes[place]

    def found(places: Mapping[str, int]) -> dict[str, Node]:
        return {name: nodes[place] for name, place in places.items()}

    return Program(
        name=what["name"],
        doc=what["doc"],
        hypers=tuple(_read_hyper(*hyper) for hyper in what["hypers"]),
        states=tuple(State(name, _read_type(type_), nodes[init], node(guard)) for name, type_, init, guard in what["states"]),
        inputs=tuple(Input(name, _read_type(type_), doc) for name, type_, doc in what["inputs"]),
        updates=found(what["updates"]),
        weights=nodes[what["weights"]],
        evaluation=node(what["evaluation"]),
        reports=None if what["reports"] is None else found(what["reports"]),
        names=tuple((name, nodes[place]) for name, place in what["names"]),
        inner=tuple((name, nodes[place]) for name, place in what["inner"]),
        spans=None if what["spans"] is None else {name: Span(*span) for name, span in what["spans"].items()},
    )


def _read_hyper(name: str, kind: Kind, default: float, bounds: Json, doc: str, baked: bool) -> Hyper:
    return Hyper(name, kind, default, None if bounds is None else Bounds(*bounds), doc, baked)


def _read_predicate(what: Json) -> Predicate | None:
    if what is None:
        return None
    op, args, value = what
    return Predicate(op, tuple(found for arg in args if (found := _read_predicate(arg)) is not None), _read_value(value))


def _read_type(what: Json) -> Type:
    kind, extent, window = what
    return Type(kind, Extent(*extent), window)


def _read_value(value: Json) -> Any:
    if not isinstance(value, dict):
        return value
    return Extent(*value["extent"]) if "extent" in value else tuple(_read_value(part) for part in value["tuple"])
