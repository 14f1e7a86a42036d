"""Tensors that say they are on a GPU and compute here: what torch would refuse on a GPU is refused, what a host would wait for is counted.

Operands on two devices are refused but for single numbers of the host in pointwise operators, as torch does. Transfers and other looks
of the host at what lies on the device are written down, and refused while a CUDA graph is captured. A graph takes down what is done on
the device, and does that again when it is replayed: whatever the host had to do with it stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest import mock
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
aten = torch.ops.aten
LOOKING = {  # the host waits for what they find
    aten._local_scalar_dense.default, aten.is_nonzero.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._linalg_eigh.default, aten.linalg_qr.default, aten.unique_consecutive.default, aten._unique2.default,
}  # fmt: skip
COPYING = {aten.copy_.default, aten._foreach_copy_.default}  # from wherever


_alive: WeakValueDictionary[int, There] = WeakValueDictionary()
_numbers = count()


class There(Tensor):
    """A tensor on the GPU that does not exist; `held` are its numbers."""

    held: Tensor
    device = GPU  # type: ignore[assignment]
    is_cuda = True  # type: ignore[assignment]
    is_cpu = False  # type: ignore[assignment]
    is_meta = False  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device="meta"
        )
        made.held = held
        _alive[next(_numbers)] = made
        return made  # type: ignore[no-any-return]

    def data_ptr(self) -> int:
        """Where kernels find it."""
        return self.held.data_ptr()

    def to(self, *args: Any, **more: Any) -> Any:  # type: ignore[override]
        """The tensor itself where nothing about it changes, which torch sees by a device that is not the one we claim."""
        where = more.get("device", next((x for x in args if isinstance(x, torch.device | str)), GPU))
        kind = more.get("dtype", next((x for x in args if isinstance(x, torch.dtype)), self.dtype))
        like = next((x for x in args if isinstance(x, Tensor)), None)
        where, kind = (torch.device(where), kind) if like is None else (like.device, like.dtype)
        if (where, kind) == (GPU, self.dtype) and not more.get("copy"):
            return self
        return aten._to_copy.default(self, dtype=kind, device=where, non_blocking=more.get("non_blocking", False))

    def new_tensor(self, data: Any, **more: Any) -> Any:  # type: ignore[override]
        """As above: on its device."""
        return torch.tensor(data, dtype=more.get("dtype", self.dtype)).to(more.get("device", GPU))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `on_a_gpu`")


class OnAGPU(TorchDispatchMode):
    """`looks`: what the host has waited for; `graph`: what is captured, if anything is."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []
        self.graph: Graph | None = None

    @property
    def captures(self) -> bool:
        return self.graph is not None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in given if isinstance(x, There)]
        wanted = kwargs.get("device")
        kwargs |= {"pin_memory": False} if kwargs.get("pin_memory") else {}
        if not there and (wanted is None or torch.device(wanted).type == "cpu"):
            return func(*args, **kwargs)
        goes = bool(there) if wanted is None else torch.device(wanted).type != "cpu"  # inside of torch it is "meta", too
        self._look(func, given, there, goes)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        known = {id(x.held): x for x in there}
        args, kwargs = tree_map(held, args), tree_map(held, kwargs)
        found = func(*args, **kwargs)
        self.note(lambda: _again(func(*args, **kwargs), found))
        return tree_map(lambda x: known.get(id(x), There(x) if goes else x) if isinstance(x, Tensor) else x, found)

    def note(self, action: Callable[[], Any]) -> None:
        """Something that the device has done."""
        if self.graph is not None:
            self.graph.actions.append(action)

    def _look(self, func: Any, given: list[Tensor], there: list[There], goes: bool) -> None:
        if func in LOOKING or (there and not goes) or (func in COPYING and not isinstance(given[0], There)):
            self.looks.append(str(func))
            assert not self.captures, f"the host waits for {func} in a capture"
            return
        if len(there) == len(given):
            return
        if func in COPYING or not there:
            assert not (self.captures and given), f"{func} copies from the host in a capture"
            return
        alone = torch.Tag.pointwise in func.tags and all(x.ndim == 0 for x in given if not isinstance(x, There))
        where = [(str(x.device), tuple(x.shape)) for x in given]
        assert alone and (isinstance(given[0], There) or not func._schema.is_mutable), f"{func} of {where}"
        assert not self.captures, f"{func} reads a number of the host in a capture"


def held(x: Any) -> Any:
    """Its numbers, of whatever else the thing itself."""
    return x.held if isinstance(x, There) else x


def _again(now: Any, before: Any) -> None:
    """What was computed again lies where it lay."""
    for new, old in zip(tree_leaves(now), tree_leaves(before), strict=True):
        if isinstance(old, Tensor) and old is not new:
            old.copy_(new)


class Graph:
    """As `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], Any]] = []

    def replay(self) -> None:
        for action in self.actions:
            action()


class Event:
    """As `torch.cuda.Event`: a millisecond passes between any two."""

    def __init__(self, **options: Any) -> None:
        self.record = lambda: None

    def elapsed_time(self, other: Any) -> float:
        return 1.0


class Generator(torch.Generator):
    """Of the host, whatever it is asked for."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        return super().__new__(cls)


def _cuda(mode: OnAGPU) -> dict[str, Any]:
    """What there is of `torch.cuda`."""

    @contextmanager
    def graph(graph: Graph) -> Iterator[None]:
        before = [(x.held, x.held.clone()) for x in _alive.values()]
        mode.graph = graph
        try:
            yield
        finally:
            mode.graph = None
            for now, then in before:
                now.copy_(then)

    @contextmanager
    def around(*given: Any) -> Iterator[None]:
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    return {
        "_lazy_init": lambda: None, "is_initialized": lambda: True, "is_current_stream_capturing": lambda: mode.captures, "graph": graph,
        "CUDAGraph": Graph, "Event": Event, "synchronize": lambda *given: None, "empty_cache": lambda: None, "Stream": lambda: stream,
        "stream": around, "current_stream": lambda: stream, "device": around, "current_device": lambda: 0,
        "memory_allocated": lambda: 0, "max_memory_allocated": lambda: 0, "reset_peak_memory_stats": lambda: None,
    }  # fmt: skip


@contextmanager
def on_a_gpu() -> Iterator[OnAGPU]:
    """In here tensors can be made on `GPU` and moved there."""
    mode, before = OnAGPU(), torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # numbers become tensors here first
    try:
        with (
            mock.patch.multiple(torch.cuda, **_cuda(mode)), mock.patch.object(Tensor, "pin_memory", lambda x: x),
            mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            mock.patch.object(torch, "Generator", Generator), mode,
        ):  # fmt: skip
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


class _Kernel:
    def __init__(self, kernel: Any, mode: OnAGPU) -> None:
        self.kernel, self.mode = kernel, mode

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args: _run(self.mode, lambda: self.kernel[grid](*map(held, args)))


def _run(mode: OnAGPU, action: Callable[[], Any]) -> None:
    action()
    mode.note(action)


def _held_tables(launches: Any) -> Any:
    return [(function, held(table), *more) for function, table, *more in launches]


@contextmanager
def interpreted(mode: OnAGPU) -> Iterator[None]:
    """In here Triton's interpreter, which must be on, finds the numbers of such tensors."""
    from optlang.backends.triton import kernels, prelude, scalars

    run, launched = kernels.run, scalars.TritonScalars._launched
    with (
        mock.patch.object(kernels, "built", lambda *given: {}),
        mock.patch.object(kernels, "run", lambda launches, args: _run(mode, lambda: run(_held_tables(launches), list(map(held, args))))),
        mock.patch.object(scalars.TritonScalars, "_launched", lambda self, kernel, *n: launched(self, _Kernel(kernel, mode), *n)),
        mock.patch.object(prelude, "fetch", _Kernel(prelude.fetch, mode)),
    ):
        yield
