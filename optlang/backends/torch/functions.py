"""Generated functions, loaded and compiled: each text once, each kind of tensors once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import Cell, Way
from optlang.backends.device_scalars import DeviceScalars
from optlang.backends.outputs import Output
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.tables import Table, Tables, fits
from optlang.backends.torch import batches as torch_batches
from optlang.backends.torch.bound import Bound, Slots
from optlang.backends.torch.code import CellCode, generate
from optlang.backends.torch.loading import load
from optlang.backends.torch.tables import Joined, Stacked
from optlang.backends.torch.views import alone, flat, put_back, view
from optlang.host import HostScalars
from optlang.ir import Node
from optlang.types import runs

Function = Callable[..., Any]
Calls = Sequence[tuple[Cell, Bound]]
Outputs = Callable[[], Sequence[Output]]
Names = Callable[[], Iterable[tuple[str, Node]]]
SMALL = 1 << 13  # elements of a parameter, up to which copying them costs less than a call of a compiled function
MOST = 1 << 20  # elements that are copied before the first of them is written
MIXED = "mixed"
COMPILE_FROM = 1 << 18  # elements in one step; below, calling single operators is as quick


class Functions:
    """The functions of one executable."""

    def __init__(self) -> None:
        self.rounds = False  # factors of products of matrices to bfloat16
        self.mark = ""  # the file of the program, where functions may be kept beside it
        self._codes: dict[Any, CellCode] = {}
        self._scalars: dict[CellCode, Slots] = {}
        self._plain: dict[CellCode, Function] = {}
        self._compiled: dict[Any, Function] = {}

    def code(self, key: Any, dtype: torch.dtype, outputs: Outputs, names: Names = tuple) -> CellCode:
        """The function for a key. What it computes, and how that is named, is asked for the first time."""
        if (key, dtype) not in self._codes:
            self._codes[key, dtype] = self.new_code(key, dtype, outputs, names)
        return self._codes[key, dtype]

    def new_code(self, key: Any, dtype: torch.dtype, outputs: Outputs, names: Names) -> CellCode:
        """The same, the first time."""
        return generated(key, dtype, self.rounds, outputs, names)

    def scalars(self, code: CellCode) -> Slots:
        """How the slots of a function are filled."""
        if code not in self._scalars:
            known = ir.on_host(code.slots)
            host, shared = [n for n in code.slots if known[n]], [n for n in code.slots if not known[n]]
            places = {node: place for place, node in enumerate([*host, *shared])}
            self._scalars[code] = Slots(HostScalars(host), self.on_device(host), tuple(shared), tuple(places[n] for n in code.slots))
        return self._scalars[code]

    def on_device(self, nodes: Sequence[Node]) -> DeviceScalars:
        """What computes numbers where the host knows neither `t` nor all hypers."""
        return DeviceScalars(nodes)

    def tables(self, cells: Sequence[Cell], calls: Sequence[Bound], compiled: bool, answering: bool = False) -> Tables | None:
        """What makes these calls again, one for each cell: see `repeat`. None where nothing does. `answering`: they return numbers."""
        with suppress(Unseen):
            return Tables(self.each_table(list(zip(cells, calls, strict=True)), range(len(calls)), compiled, answering))
        return None

    def each_table(self, calls: Calls, places: Sequence[int], compiled: bool, answering: bool) -> list[tuple[Table, Sequence[int]]]:
        """Those for some of the calls, each with the places of its own. Raises Unseen."""
        joined: dict[Any, list[int]] = {}
        stacked: list[int] = []
        for place in places:
            bound = calls[place][1]
            nodes = bound.code.tensors
            fitting = fits([(node, 0) for node in nodes], [(i, 0) for i in range(len(nodes))], [bound])
            if answering or not fitting or bound.is_packed or not is_small(bound, compiled):
                raise Unseen
            if bound.code.elementwise:
                joined.setdefault((bound.code, bound.weights.device), []).append(place)
            elif self._is_mapped(bound, compiled):
                stacked.append(place)
            else:
                raise Unseen
        if sum(calls[place][1].weights.numel() for place in stacked) > MOST:
            raise Unseen
        found: list[tuple[Table, Sequence[int]]] = [(Joined(self, [calls[i] for i in some], compiled), some) for some in joined.values()]
        batches = torch_batches.batches([calls[place][1] for place in stacked], lambda bound: True)
        for some in [[stacked[i] for i in batch] for batch in batches]:
            found.append((Stacked(self, [calls[i] for i in some]), some))
        return found

    def way(self, bound: Bound, compiled: bool, compile_from: int) -> Way:
        """How a parameter is stepped by such a call."""
        if bound.code.multiplies:
            return Way("torch", "uncompiled, as products of matrices or sorting take its time; those of a shape together")
        return Way("torch", "fused by torch.compile" if compiled else f"uncompiled, as steps of fewer than {compile_from:,} elements are")

    def run(self, bound: Bound, compiled: bool) -> Any:
        """Runs a function on the views that it wants; what it wrote into copies goes where it belongs."""
        code = bound.code
        tensors = bound.opened()
        seen = [view(x, node.type, code.shaped) for x, node in zip(tensors, code.tensors, strict=True)]
        result = self.call(code, seen, bound.s, bound.counter, bound.first, compiled and is_common(bound))
        for place in code.written:
            put_back(tensors[place], seen[place])
            if compiled and code.tensors[place] is ir.W:
                torch.autograd.graph.increment_version(bound.weights)  # written behind its back
        bound.close(tensors)
        return result

    def answers(self, calls: Sequence[Bound], compiled: bool) -> list[Sequence[Any]]:
        """What functions return, for each call."""
        found: dict[int, Sequence[Any]] = {}
        for places in torch_batches.batches(calls, lambda bound: self._is_mapped(bound, compiled)):
            some = [calls[place] for place in places]
            found |= zip(places, self._run_mapped(some) if len(some) > 1 else [self.run(some[0], compiled) or ()], strict=True)
        return [found[place] for place in range(len(calls))]

    def run_all(self, calls: Sequence[Bound], compiled: bool) -> None:
        """Runs functions that only write. Small parameters go through an elementwise function together, end to end; those of one
        shape through one that multiplies matrices."""
        together: dict[tuple[Any, ...], list[Bound]] = {}
        for place, bound in enumerate(calls):
            together.setdefault((bound.code, id(bound.s)) if joins(bound, compiled) else (place,), []).append(bound)
        for some in [found for found in together.values() if len(found) > 1]:
            self._run_together(some, compiled)
        Functions.answers(self, [some[0] for some in together.values() if len(some) == 1], compiled)

    def _is_mapped(self, bound: Bound, compiled: bool) -> bool:
        """Whether a call may go through with others of its shape."""
        return bound.code.multiplies or not compiled

    def _run_mapped(self, some: Sequence[Bound]) -> list[Sequence[Any]]:
        return torch_batches.run(self.uncompiled(some[0].code), some)

    def _run_together(self, some: list[Bound], compiled: bool) -> None:
        code = some[0].code
        tensors = [[x for x in bound.tensors if isinstance(x, Tensor)] for bound in some]  # all: what is packed goes alone
        parts = [[flat(row[i]) for row in tensors] for i in range(len(code.tensors))]
        new = self.together(code, parts, some[0].s, compiled)
        # from here on nothing asks for memory
        for place, values in new:
            torch._foreach_copy_(parts[place], values)
            for row, part in zip(tensors, parts[place], strict=True):
                put_back(row[place], part)

    def together(self, code: CellCode, parts: Sequence[list[Tensor]], s: Tensor, compiled: bool) -> list[tuple[int, list[Tensor]]]:
        """What a function writes, by place, from flat tensors of many parameters that are put end to end."""
        joined = [torch.cat(part) for part in parts]
        self.call(code, joined, s, None, 0, compiled and joined[0].numel() > 1)
        sizes = [x.numel() for x in parts[0]]
        return [(place, list(joined[place].split(sizes))) for place in code.written]  # type: ignore[no-untyped-call]

    def call(self, code: CellCode, tensors: Sequence[Tensor], s: Tensor, counter: Tensor | None, first: Any, compiled: bool) -> Any:
        """Runs a function, compiled for the kind of its tensors where that is wanted."""
        if not compiled or code.multiplies:
            return self.uncompiled(code)(*tensors, s, counter, first)
        # torch 2.13 loses what is written into a single number of 64 bits that another result reads, but not into a row of one
        tensors = [x.view(1) if x.ndim == 0 and place in code.written else x for place, x in enumerate(tensors)]
        tensors, s, counter = [alone(x) for x in tensors], alone(s), None if counter is None else alone(counter)
        key = (code, s.device, *((type(x), x.dtype, x.ndim, x.shape[:1] == (1,)) for x in tensors))
        if key not in self._compiled:
            from optlang.backends.torch.compiling import first_call  # noqa: PLC0415 - kernels do without

            self._compiled[key], result = first_call(code, tensors, s, counter, first)
            return result
        return self._compiled[key](*tensors, s, counter, first)

    def uncompiled(self, code: CellCode) -> Function:
        if code not in self._plain:
            keep_memory()
            self._plain[code] = load(code, frees=True)
        return self._plain[code]


@cache
def keep_memory() -> None:
    """Steps whose operators run one by one take and give back memory many times. glibc hands it to the system each time, to get it again
    page by page, until the process has freed one block of nearly 32 MiB, the largest that it learns from: from then on it keeps up to
    twice as much. A step of Muon met 30,000 page faults before, and none after."""
    torch.empty((32 << 20) - (8 << 10), dtype=torch.uint8)


def generated(key: Any, dtype: torch.dtype, rounds: bool, outputs: Outputs, names: Names) -> CellCode:
    low = dtype in (torch.float16, torch.bfloat16) or key[-1] == MIXED
    return generate(f"{key[0]}", outputs(), names(), low, dtype == torch.float64, rounds)


def mixed(cell: Cell) -> tuple[str, ...]:
    """The end of the key of functions for a gradient of another type than the weights have, as torch's `grad_dtype` makes them: these
    take all tensors to the type in which they compute."""
    gradient = cell.gradient
    return () if gradient is None or gradient.dtype == cell.weights.dtype else (MIXED,)


def joins(bound: Bound, compiled: bool) -> bool:
    """Whether a parameter goes through its function together with others, end to end."""
    return bound.code.elementwise and not bound.is_packed and is_small(bound, compiled)


def is_small(bound: Bound, compiled: bool) -> bool:
    """Whether copies of a parameter take little time and memory."""
    return not compiled or bound.weights.numel() <= SMALL


def is_common(bound: Bound) -> bool:
    """Whether sizes are such as one compiled function takes all of: it would treat 0 and 1 as kinds of their own."""
    shape = bound.weights.shape
    if any(1 in runs(bound.weights.numel(), length) for length in bound.code.runs):
        return False
    return all(size > 1 for size in shape[-2:]) and 0 not in shape if bound.code.shaped else bound.weights.numel() > 1
