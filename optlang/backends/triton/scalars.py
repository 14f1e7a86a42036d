"""Numbers known before the step, computed by one launch for all parameters: see `device_scalars`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.device_scalars import DeviceScalars, counts, is_capturing, sent
from optlang.backends.triton.loading import load
from optlang.backends.triton.texts import HEAD, literal
from optlang.host import HostScalars
from optlang.ir import Node
from optlang.ops import OPS

BLOCK = 128  # parameters


class TritonScalars(DeviceScalars):
    """As its base, which still computes what has no Triton spelling, and what the device was never told of before a capture.

    `interprets`: on the CPU as well.
    """

    def __init__(self, nodes: Sequence[Node], interprets: bool) -> None:
        super().__init__(nodes)
        self.interprets = interprets
        self._kernels: dict[Any, Any] = {}
        self._constants: dict[Any, Tensor] = {}

    def __call__(self, cells: Sequence[Cell], device: torch.device) -> Tensor:
        """[cells, nodes] float64, for cells with the same hypers. Raises MissingFact."""
        hypers = cells[0].hypers
        moving = tuple(sorted(name for name, value in hypers.items() if isinstance(value, Tensor)))
        inner, host = self._parts(frozenset(moving))
        known = self._sent(host, cells, device) if device.type == "cuda" or self.interprets else None
        if not inner or known is None or not all(_is_spelled(node) for node in inner):
            return super().__call__(cells, device)
        given = [torch.as_tensor(hypers[name]).detach().to(device) for name in moving]
        try:
            if moving not in self._kernels:
                self._kernels[moving] = load(_text(self.nodes, inner, host.nodes, moving))["scalars"]
            return self._launched(self._kernels[moving], cells, known, given)
        except Exception:  # Triton cannot build it, which the kernels of the step will say
            self.interprets = False
            if device.type != "cuda" or is_capturing():
                raise
            return super().__call__(cells, device)

    def _launched(self, kernel: Any, cells: Sequence[Cell], known: Tensor, hypers: Sequence[Tensor]) -> Tensor:
        times = counts(cells)
        rows = torch.empty(len(cells), len(self.nodes), dtype=torch.float64, device=known.device)
        kernel[(-(-len(cells) // BLOCK),)](times, known, rows, len(cells), int(len(known) > 1), *hypers)
        return rows

    def _sent(self, host: HostScalars, cells: Sequence[Cell], device: torch.device) -> Tensor | None:
        """[1 or cells, nodes] what the host knows, on the device; None while a graph is captured and it is not there yet."""
        rows = [host(cell.hypers, 0, cell.facts) for cell in cells]
        rows = rows[:1] if rows.count(rows[0]) == len(rows) else rows
        key = (host, tuple(rows), device)
        if key not in self._constants and is_capturing():
            return None
        if key not in self._constants:
            self._constants = {} if len(self._constants) > 64 else self._constants
            self._constants[key] = sent([[float(x) for x in row] or [0.0] for row in rows], device, torch.float64)
        return self._constants[key]


def _is_spelled(node: Node) -> bool:
    return node.op in ("t", "hyper") or bool(OPS[node.op].triton) or OPS[node.op].role == "reduce"


def _text(wanted: Sequence[Node], inner: Sequence[Node], known: Sequence[Node], moving: Sequence[str]) -> str:
    """A program takes some parameters; `known` are the columns of what the host gives."""
    names = {node: f"k{place}" for place, node in enumerate(known)} | {node: f"x{place}" for place, node in enumerate(inner)}
    lines = [f"i = tl.program_id(0) * {BLOCK} + tl.arange(0, {BLOCK})", "inside = i < count"]
    for place, node in enumerate(known):
        read = f"tl.load(known + i * each * {len(known)} + {place}, mask=inside, other=1.0)"
        lines.append(f"k{place} = {read}{' != zero' if node.type.kind == 'bool' else ''}")
    lines += [f"{names[node]} = {_spell(node, names, moving)}" for node in inner]
    for place, node in enumerate(wanted):
        lines.append(f"tl.store(rows + i * {len(wanted)} + {place}, ({names[node]}).to(tl.float64) + zero, mask=inside)")
    zero = f"zero = tl.zeros([{BLOCK}], tl.float64)"
    head = ["@triton.jit", f"def scalars(times, known, rows, count, each, {', '.join(f'h{n}' for n in range(len(moving)))}):"]
    return "\n".join([HEAD, *head, *(f"    {line}" for line in [zero, *lines])]) + "\n"


def _spell(node: Node, names: Mapping[Node, str], moving: Sequence[str]) -> str:
    if node.op == "t":
        return "tl.load(times + i, mask=inside, other=1.0).to(tl.float64)"
    if node.op == "hyper":
        value = f"tl.load(h{moving.index(node.value)}).to(tl.float64) + zero"
        return f"({value}) != zero" if node.type.kind == "bool" else value
    if OPS[node.op].role == "reduce":  # of one number
        return f"zero + {literal(1.0)}" if node.op == "count" else names[node.args[0]]
    return OPS[node.op].triton.format(*(names[arg] for arg in node.args))
