"""Generated functions, loaded and compiled: each text once, each kind of tensors once."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.fx.experimental import _config as shape_settings

from optlang import ir
from optlang.backends.base import Cell, Step, Way
from optlang.backends.device_scalars import DeviceScalars
from optlang.backends.formats import Packed
from optlang.backends.torch import batches as torch_batches
from optlang.backends.torch import ops as torch_ops
from optlang.backends.torch.code import CellCode, Output, generate
from optlang.backends.torch.views import alone, put_back, view
from optlang.host import HostScalars
from optlang.ir import Node

Function = Callable[..., Any]
COMPILE_FROM = 1 << 18  # elements in one step; below, calling single operators is as quick


# Precompiled headers pay off after several kernels only, and there is one here. Patterns of models (1 s to load) are not to be
# found here. Which vector instructions work need not be tried (6 s): see `_widest_vectors`.
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "cpp.vec_isa_ok": True,
    "cpp_cache_precompile_headers": False,
    "pattern_matcher": False,
}


@dataclass(frozen=True)
class Slots:
    """Numbers known from hypers, then those per group and model; `order` puts them where the function looks.

    `device`: all of them, where the host does not know them and none is per group or model.
    """

    host: HostScalars
    device: DeviceScalars
    shared: tuple[Node, ...]
    order: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Bound:
    """A function with what one parameter gives it."""

    code: CellCode
    weights: Tensor
    tensors: list[Tensor | Packed]
    s: Tensor
    counter: Tensor | None
    first: int

    @property
    def is_packed(self) -> bool:
        """Whether a tensor is stored in another form than that of its numbers."""
        return any(isinstance(x, Packed) for x in self.tensors)


class Functions:
    """The functions of one executable."""

    def __init__(self) -> None:
        self.rounds = False  # factors of products of matrices to bfloat16
        self._codes: dict[Any, CellCode] = {}
        self._scalars: dict[CellCode, Slots] = {}
        self._plain: dict[CellCode, Function] = {}
        self._compiled: dict[Any, Function] = {}

    def has(self, key: Any, dtype: torch.dtype) -> bool:
        return (key, dtype) in self._codes

    def code(self, key: Any, outputs: Sequence[Output], dtype: torch.dtype, names: tuple[tuple[str, Node], ...] = ()) -> CellCode:
        """The text for a key, made from the outputs the first time."""
        if (key, dtype) not in self._codes:
            low, double = dtype in (torch.float16, torch.bfloat16), dtype == torch.float64
            self._codes[key, dtype] = generate(f"{key[0]}", outputs, names, low, double, self.rounds)
        return self._codes[key, dtype]

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

    def again(self, step: Step) -> Callable[[], None] | None:
        """What takes a step of the same parameters as before, where that is known; else None."""
        return None

    def remember(self, cells: Sequence[Cell], calls: Sequence[Bound], compiled: bool) -> None:
        """A step that needs nothing but these calls, one for each cell."""

    def way(self, bound: Bound, compiled: bool) -> Way:
        """How a parameter is stepped by such a call."""
        if bound.code.multiplies:
            return Way("torch", "uncompiled, as products of matrices or sorting take its time; those of a shape together")
        return Way("torch", "fused by torch.compile" if compiled else f"uncompiled, as steps of fewer than {COMPILE_FROM:,} elements are")

    def run(self, bound: Bound, compiled: bool) -> Any:
        """Runs a function on the views that it wants; what it wrote into copies goes where it belongs."""
        code = bound.code
        tensors = [x.open() if isinstance(x, Packed) else x for x in bound.tensors]
        seen = [view(x, node.type, code.shaped) for x, node in zip(tensors, code.tensors, strict=True)]
        result = self.call(code, seen, bound.s, bound.counter, bound.first, compiled and is_common(bound))
        for place in code.written:
            put_back(tensors[place], seen[place])
            stored = bound.tensors[place]
            if isinstance(stored, Packed):
                stored.close(tensors[place], bound.counter)
            if compiled and code.tensors[place] is ir.W:
                torch.autograd.graph.increment_version(bound.weights)  # written behind its back
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
            joins = bound.code.elementwise and not compiled and not bound.is_packed
            together.setdefault((bound.code, id(bound.s)) if joins else (place,), []).append(bound)
        for some in [found for found in together.values() if len(found) > 1]:
            self._run_together(some)
        self.answers([some[0] for some in together.values() if len(some) == 1], compiled)

    def _is_mapped(self, bound: Bound, compiled: bool) -> bool:
        """Whether a call may go through with others of its shape."""
        return bound.code.multiplies or (bound.code.shaped and not compiled)

    def _run_mapped(self, some: Sequence[Bound]) -> list[Sequence[Any]]:
        return torch_batches.run(self._uncompiled(some[0].code), some)

    def _run_together(self, some: list[Bound]) -> None:
        code = some[0].code
        tensors = [[x for x in bound.tensors if isinstance(x, Tensor)] for bound in some]  # all: what is packed goes alone
        parts = [[row[i].reshape(-1) for row in tensors] for i in range(len(code.tensors))]
        joined = [torch.cat(flat) for flat in parts]
        self.call(code, joined, some[0].s, None, 0, False)
        sizes = [bound.weights.numel() for bound in some]
        # from here on nothing asks for memory
        new = [(place, joined[place].split(sizes)) for place in code.written]  # type: ignore[no-untyped-call]
        for place, values in new:
            torch._foreach_copy_(parts[place], values)
            for row, part in zip(tensors, parts[place], strict=True):
                put_back(row[place], part)

    def call(self, code: CellCode, tensors: Sequence[Tensor], s: Tensor, counter: Tensor | None, first: int, compiled: bool) -> Any:
        """Runs a function, compiled for the kind of its tensors where that is wanted."""
        if not compiled or code.multiplies:
            return self._uncompiled(code)(*tensors, s, counter, first)
        tensors, s, counter = [alone(x) for x in tensors], alone(s), None if counter is None else alone(counter)
        key = (code, s.device, *((x.dtype, x.ndim, x.shape[:1] == (1,)) for x in tensors))
        if key not in self._compiled:
            return self._first_call(key, code, tensors, s, counter, first)
        return self._compiled[key](*tensors, s, counter, first)

    def _uncompiled(self, code: CellCode) -> Function:
        if code not in self._plain:
            self._plain[code] = load(code, frees=True)
        return self._plain[code]

    def _first_call(self, key: Any, code: CellCode, tensors: Sequence[Tensor], s: Tensor, counter: Tensor | None, first: int) -> Any:
        """Compiles. Each kind has a function object of its own, so that torch never has to tell kinds apart."""
        function = torch.compile(load(code), dynamic=True, fullgraph=True, options=OPTIONS)
        for numbers in (s, counter):
            if numbers is not None:
                torch._dynamo.mark_static(numbers)  # as many for every parameter
        try:
            # rows and columns that happen to be equal are still two sizes
            with shape_settings.patch(use_duck_shape=False), _widest_vectors():  # type: ignore[attr-defined]
                result = function(*tensors, s, counter, first)
        except Exception as problem:
            if not _is_of_the_compiler(problem):
                raise
            warnings.warn(f"torch.compile does not work here, so steps run uncompiled and slower: {_first_line(problem)}", stacklevel=2)
            function = self._uncompiled(code)
            result = function(*tensors, s, counter, first)
        self._compiled[key] = function
        return result


@contextmanager
def _widest_vectors() -> Iterator[None]:
    """The vectors that torch's own operators use here. Its compiler would build and load up to five programs to see whether
    instructions for small integers and matrices work too (2 s), which no function of ours has a use for."""
    from torch._inductor import cpu_vec_isa  # noqa: PLC0415 - slow to import, and needed from here on

    name = {"AVX512": "VecAVX512", "AVX2": "VecAVX2"}.get(torch.backends.cpu.get_cpu_capability(), "")
    if not hasattr(cpu_vec_isa, name):
        yield
        return
    widest = type(name, (getattr(cpu_vec_isa, name),), {"__bool__": lambda _: True})()  # asked whether it works, others try
    with patch.object(cpu_vec_isa, "valid_vec_isa_list", lambda: [widest]):
        yield


def is_common(bound: Bound) -> bool:
    """Whether sizes are such as one compiled function takes all of: it would treat 0 and 1 as kinds of their own."""
    shape = bound.weights.shape
    return all(size > 1 for size in shape[-2:]) and 0 not in shape if bound.code.shaped else bound.weights.numel() > 1


def load(code: CellCode, frees: bool = False) -> Function:
    """The function of a generated text. The text is ours: names in it are sanitized, numbers are printed numbers. `frees`: each
    value goes as soon as it has been used for the last time."""
    namespace: dict[str, Any] = {"torch": torch, "ops": torch_ops}
    text = ast.parse(code.text)
    if frees:
        _free(text)
    exec(compile(text, f"<optlang {code.name}>", "exec"), namespace)
    return namespace[code.name]  # type: ignore[no-any-return]


def _free(text: ast.Module) -> None:
    """Deletes names behind the statements that use them last."""
    [function] = text.body
    assert isinstance(function, ast.FunctionDef)
    body: list[ast.stmt] = []
    used: set[str] = {arg.arg for arg in function.args.args} | {"torch", "ops"}
    for statement in reversed(function.body):
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - used
        used |= names
        if names and not isinstance(statement, ast.Return):
            body.append(ast.Delete([ast.Name(name, ast.Del()) for name in sorted(names)]))
        body.append(statement)
    function.body = body[::-1]
    ast.fix_missing_locations(text)


def _is_of_the_compiler(problem: Exception) -> bool:
    return type(problem).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _first_line(problem: Exception) -> str:
    """What a failure says first; torch begins with the stage that failed."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip() and not line.strip().endswith("raised:")]
    return lines[0] if lines else type(problem).__name__
