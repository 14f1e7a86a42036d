"""Functions that run as kernels over all parameters of a kind at once, where they can; the others go the torch way."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell, Way
from optlang.backends.formats import Packed
from optlang.backends.kernels import passes
from optlang.backends.kernels.halves import Halves, Kernel, halves
from optlang.backends.kernels.handed import Handed, handed, stored
from optlang.backends.outputs import Output
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.tables import Table, fits
from optlang.backends.torch.bound import NOT_ASKED, Bound
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.code_cache import kept_code
from optlang.backends.torch.functions import Calls, Functions, Names, Outputs, generated, is_small
from optlang.backends.torch.views import put_back, view
from optlang.ir import Node, W

STAGES = ("final", "level")  # what is worth a kernel: not what runs once
HALVING = ("cpp",)  # backends whose kernels are worth a call for one parameter beside products
TOGETHER = "one call for all parameters of a kind"
Array = Any  # numpy.ndarray


class Wanted(NamedTuple):
    """What a kernel is asked for. `types`: how each of the `tensors` is stored, a word of the kernel's language or a `Packed`;
    behind those of the function lie those of what is `handed` out."""

    outputs: Sequence[Output]
    types: Mapping[Node, str | Packed]
    tensors: Sequence[Node]
    handed: Handed

    def places(self, columns: Sequence[tuple[Node, int]]) -> tuple[tuple[int, int], ...]:
        """Where the tensor of each column lies, and which part of it the column is."""
        return tuple((self.tensors.index(node), part) for node, part in columns)


class KernelFunctions(Functions):
    """`name`: of the backend that kernels are of; `words`: how their language calls types of numbers."""

    name = ""
    words: Mapping[torch.dtype, str] = {}

    def __init__(self) -> None:
        super().__init__()
        self.trouble = ""  # why no kernel could be compiled
        self._outputs: dict[CellCode, Outputs] = {}
        self._kernels: dict[Any, Any] = {}
        self._refused: dict[Any, str] = {}
        self._halves: dict[Any, Halves | None] = {}

    @abstractmethod
    def fits(self, bound: Bound) -> bool:
        """Whether the tensors are where kernels can reach them."""

    def refuses(self, bound: Bound, outputs: Sequence[Output]) -> str:
        """Why no kernel does what a function does, or an empty string. Blocks of packed tensors do not end where rows do."""
        return passes.refuses(stored(outputs), lined=not bound.is_packed)

    def wanted(self, bound: Bound, outputs: Sequence[Output]) -> Wanted | None:
        """None where there is no such kernel."""
        given = zip(bound.code.tensors, bound.tensors, strict=True)
        types = {node: x if isinstance(x, Packed) else self.words.get(x.dtype, "") for node, x in given}
        if self.refuses(bound, outputs) or not all(types.values()):
            return None
        outputs = stored(outputs)
        out = handed(outputs, bound.s.dtype)
        types |= {node: self.words[dtype] for node, dtype in zip(out.nodes, out.types, strict=True)}
        return Wanted(outputs, types, [*bound.code.tensors, *out.nodes], out)

    @abstractmethod
    def made(self, bound: Bound, outputs: Outputs) -> Any:
        """The kernel of a function for tensors of such types; None where there is none."""

    @abstractmethod
    def launch(self, kernel: Any, calls: Sequence[Bound], fresh: Sequence[Sequence[Tensor]] = ()) -> Tensor:
        """One call for many parameters; [parameters, returned] numbers. `fresh`: see `Handed`."""

    def _handed(self, kernel: Any, calls: Sequence[Bound]) -> list[Sequence[Tensor]]:
        """One call for many parameters; what the function hands out for each."""
        made = kernel.handed.fresh(calls)
        found: list[Sequence[Tensor]] = kernel.handed.merged(made, self.launch(kernel, calls, made))
        return found

    @abstractmethod
    def table(self, kernel: Any, calls: Sequence[tuple[Cell, Bound]]) -> Table:
        """What steps the same parameters again by a kernel."""

    def each_table(self, calls: Calls, places: Sequence[int], compiled: bool, answering: bool) -> list[tuple[Table, Sequence[int]]]:
        """Kernels' own of all that have one."""
        together = self._together([calls[place][1] for place in places])
        made = super().each_table(calls, [places[i] for i in together.pop(None, [])], compiled, answering)
        for (kernel, _), some in together.items():
            mine = [calls[places[i]] for i in some]
            if not fits(kernel.kernel.columns, kernel.places, [bound for _, bound in mine]):
                raise Unseen
            made.append((self.table(kernel, mine), [places[i] for i in some]))
        return made

    def new_code(self, key: Any, dtype: torch.dtype, outputs: Outputs, names: Names) -> CellCode:
        """As in torch, or as an earlier process has kept it; what a function computes is remembered for the kernel."""
        outputs = cache(outputs)
        make = partial(generated, key, dtype, self.rounds, outputs, names)
        code = kept_code(make, self.mark, repr(key), str(dtype), str(self.rounds)) if self.mark and key[0] in STAGES else make()
        self._outputs[code] = outputs
        return code

    def run(self, bound: Bound, compiled: bool) -> Any:
        """One function with one parameter."""
        kernel = self.kernel(bound)
        return super().run(bound, compiled) if kernel is None else self._handed(kernel, [bound])[0]

    def run_all(self, calls: Sequence[Bound], compiled: bool) -> None:
        """All parameters that share a kernel are stepped by one call."""
        together = self._together(calls)
        rest = together.pop(None, [])
        for (kernel, _), places in together.items():
            self.launch(kernel, [calls[place] for place in places])
        halved = [place for place in rest if self.halves(calls[place], compiled)]
        super().run_all([calls[place] for place in rest if place not in halved], compiled)
        for place in halved:
            self._run_halves(calls[place], compiled)

    def _run_halves(self, bound: Bound, compiled: bool) -> None:
        found = self.halves(bound, compiled)
        assert found is not None
        made = [x for one in found.begun(bound) for x in self._handed(self.kernel(one), [one])[0]]
        given = super().run(found.multiplying(bound, made), compiled)
        writing = found.writing(bound, made, given[: len(found.given)])
        self.launch(self.kernel(writing), [writing])
        found.finish(bound, given[len(found.given) :])

    def halves(self, bound: Bound, compiled: bool) -> Halves | None:
        """Where torch is only to multiply for a large parameter, and kernels have what is before and behind."""
        code = bound.code
        multiplies = code.multiplies and code.name in STAGES and self.name_at(bound) in HALVING
        if not multiplies or bound.is_packed or is_small(bound, compiled) or not self.fits(bound):
            return None
        key = (code, *[x.dtype for x in bound.tensors if isinstance(x, Tensor)])
        if key not in self._halves:
            found = halves(code, self._outputs[code](), bound, self.rounds)
            for part in found.parts if found else ():
                self._outputs[part.code] = partial(Kernel.asked, part)
            fits = found and all(self.kernel(one) is not None for one in (*found.begun(bound), found.writing(bound)))
            self._halves[key] = found if fits else None
        return self._halves[key]

    def answers(self, calls: Sequence[Bound], compiled: bool) -> list[Sequence[Any]]:
        """All parameters that share a kernel are asked by one call."""
        together = self._together(calls)
        rest = together.pop(None, [])
        found: dict[int, Sequence[Any]] = dict(zip(rest, super().answers([calls[place] for place in rest], compiled), strict=True))
        for (kernel, _), places in together.items():
            found |= zip(places, self._handed(kernel, [calls[place] for place in places]), strict=True)
        return [found[place] for place in range(len(calls))]

    def _together(self, calls: Sequence[Bound]) -> dict[Any, list[int]]:
        """The places of calls that share a kernel and a device; under None those that have no kernel."""
        found: dict[Any, list[int]] = {}
        for place, bound in enumerate(calls):
            kernel = self.kernel(bound)
            found.setdefault(None if kernel is None else (kernel, bound.weights.device), []).append(place)
        return found

    def way(self, bound: Bound, compiled: bool, compile_from: int) -> Way:
        """As in torch, or a kernel."""
        if self.kernel(bound) is not None:
            return Way(self.name_at(bound), TOGETHER)
        if refused := self._why(bound):
            halved = f"; {self.name_at(bound)} computes what is before and behind products" if self.halves(bound, compiled) else ""
            return Way("torch", f"the rule {refused}{halved}")
        return Way("torch", self.trouble or f"there are no such kernels for {bound.weights.dtype} on {bound.weights.device.type}")

    def _why(self, bound: Bound) -> str:
        """What `refuses` says: it goes over all of a function, and each parameter asks in each step."""
        key = (bound.code, self.name_at(bound), bound.is_packed)
        if key not in self._refused:
            self._refused[key] = self.refuses(bound, self._outputs[bound.code]())
        return self._refused[key]

    def name_at(self, bound: Bound) -> str:
        """The backend whose kernels step such a parameter."""
        return self.name

    def kernel(self, bound: Bound) -> Any:
        """The kernel of a function for tensors of such types; None where there is none."""
        if bound.kernel is NOT_ASKED:
            bound.kernel = self._kernel(bound)
        return bound.kernel

    def _kernel(self, bound: Bound) -> Any:
        if bound.code.name not in STAGES or not self.fits(bound):
            return None
        key = (bound.code, self.name_at(bound), *[x.key if isinstance(x, Packed) else x.dtype for x in bound.tensors])
        if key not in self._kernels:
            self._kernels[key] = self.made(bound, self._outputs[bound.code])
        return self._kernels[key]


def part_of(tensor: Tensor | Packed, part: int) -> Tensor:
    """One of the tensors that store a tensor, in most cases itself."""
    return tensor.parts[part] if isinstance(tensor, Packed) else tensor


def in_order(tensor: Tensor, node: Node) -> Tensor:
    return tensor if tensor.is_contiguous() else view(tensor, node.type, False)


def counters(calls: Sequence[Bound]) -> Array:
    """(t, seed, stream) of each parameter."""
    if calls[0].counter is None:
        return np.zeros(3 * len(calls), dtype=np.uint32)
    return np.array([bound.counter.tolist()[:3] for bound in calls if bound.counter is not None], dtype=np.int64).astype(np.uint32)


def after(
    columns: Sequence[tuple[Node, int]], written: Sequence[int], calls: Sequence[Bound], given: Sequence[Sequence[Tensor]],
    seen: Sequence[Sequence[Tensor]],
) -> None:  # fmt: skip
    """What was written into copies goes where it belongs; autograd is told what was written behind its back."""
    for place in written:
        for before, now in zip(given, seen, strict=True):
            if before[place] is not now[place]:
                put_back(before[place], now[place])
    if any(columns[place][0] is W for place in written):
        torch.autograd.graph.increment_version([bound.weights for bound in calls])


def warn(instead: str, problem: str) -> None:
    """Once for each reason: Python shows the same warning from the same line only once."""
    warnings.warn(f"optlang steps with torch instead of {instead}, and slower: {problem}", RuntimeWarning, stacklevel=2)
