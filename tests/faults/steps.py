"""Memory that ends at any operation of a step, checkpoints cut anywhere, kernels damaged anywhere, interrupts."""

from __future__ import annotations

import copy
import gc
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import optlang
from optlang.backends.cache import sealed_files
from optlang.backends.kernels import build

SHAPES = ((3, 4), (5,), (4, 2), (2, 2, 2))
LARGE = ((64, 64), (5,), (64, 64), (96, 50))  # large enough for states in blocks, but one
PACKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("adamw", {"state": "int8"}), ("adamw", {"state": "int4"}), ("adamw", {"state": "fp8"}), ("adamw", {"state": "bf16"}),
    ("adafactor", {"state": "bf16"}), ("muon", {"state": "int8", "shapes": (LARGE[0], *LARGE[2:])}),
    ("adamw", {"state": "int8", "weights": "stochastic", "dtype": torch.bfloat16}),
    ("adamw", {"weights": "compensated", "dtype": torch.bfloat16}),
)  # fmt: skip
Snapshot = list[tuple[Tensor, ...]]


def model(name: str, backend: str, shapes: tuple[tuple[int, ...], ...] = SHAPES, dtype: torch.dtype = torch.float32,
          **storage: Any) -> tuple[list[Tensor], Any]:  # fmt: skip
    drawn = [torch.randn(s, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(shapes)]
    params = [x.to(dtype).requires_grad_() for x in drawn]
    optimizer: Any = optlang.load(name, backend=backend, **storage)(params, lr=0.1)
    return params, optimizer


def closure_of(params: list[Tensor], optimizer: Any) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([((p - 1) ** 2).sum() for p in params]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return closure


def snapshot(params: list[Tensor], optimizer: Any) -> Snapshot:
    """Weights, states and counts of each parameter."""
    return [(p.detach().clone(), *(v.clone() for _, v in sorted(optimizer.state.get(p, {}).items()) if isinstance(v, Tensor)))
            for p in params]  # fmt: skip


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


IN_PLACE = frozenset(["copy_", "_foreach_copy_", "fill_", "detach", "view", "alias", "_record_function_exit"])  # ask for no memory


class Failing(TorchDispatchMode):
    """Memory ends at one operation, or from one on."""

    def __init__(self, at: int, lasting: bool) -> None:
        super().__init__()
        self.at, self.lasting, self.count, self.failed = at, lasting, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if func.overloadpacket.__name__ not in IN_PLACE and (self.count >= self.at if self.lasting else self.count == self.at):
            self.failed += 1
            raise torch.OutOfMemoryError("out of memory")
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "_foreach_copy_":
            torch.autograd.graph.increment_version(args[0])  # torch does, but not in here
        return result


def memory_ends(name: str, backend: str, lasting: bool, stride: int = 7, **made: Any) -> int:
    """How often a step was cut off. Each parameter is stepped with its states and its count, or all of these are as before; what
    passes is over is made up for. The first 30 operations are tried one by one, then every `stride`-th. `made`: see `model`."""
    params, optimizer = model(name, backend, **made)
    closure = closure_of(params, optimizer)
    closure()
    optimizer.step()
    before, saved = snapshot(params, optimizer), copy.deepcopy(optimizer.state_dict())
    weights = [p.detach().clone() for p in params]
    optimizer.step()
    after, at, failed = snapshot(params, optimizer), 0, 0
    gc.freeze()  # each fault collects garbage: what is there now need not be looked through
    while True:
        at += 1 if at < 30 else stride
        optimizer.load_state_dict(saved)
        for p, w in zip(params, weights, strict=True):
            p.data.copy_(w)
        mode, told = Failing(at, lasting), False
        try:
            with mode:
                optimizer.step()
        except (MemoryError, RuntimeError):
            told = True
        now = snapshot(params, optimizer)
        stepped = [same(x, y) for x, y in zip(now, after, strict=True)]
        assert all(s or same(x, y) for s, x, y in zip(stepped, now, before, strict=True)), f"half done at {at}"
        assert told or all(stepped), f"nothing was said at {at}"
        assert lasting or not (told and any(stepped)), f"a step was not made up for at {at}"
        if mode.count < at:
            gc.unfreeze()
            return failed
        failed += bool(mode.failed)


def checkpoint_cut(places: int) -> int:
    """A file cut at so many places, from the first byte to the last, is refused, and nothing has changed."""
    params, optimizer = model("adamw", "torch")
    closure_of(params, optimizer)()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    whole, before, cut = file.getvalue(), snapshot(params, optimizer), 0
    for place in range(0, len(whole) - 1, max(1, len(whole) // places)):
        try:
            optimizer.load_state_dict(torch.load(io.BytesIO(whole[:place])))
        except Exception:  # of torch, pickle or zipfile
            cut += 1
        else:
            raise AssertionError(f"a file cut at byte {place} was taken")
        assert all(map(same, before, snapshot(params, optimizer)))
    optimizer.load_state_dict(torch.load(io.BytesIO(whole)))
    return cut


def kernel_damaged(folder: Path, times: int) -> int:
    """A library cut, or with one bit turned, at so many places is not loaded."""
    with mock.patch.object(sealed_files, "cache_file", lambda name: folder / name):
        text = 'extern "C" int answer() { return 42; }\nextern "C" void step() {}\n'
        assert build.library(text).answer() == 42
        [path] = folder.glob("kernel-*.so")
        whole, dice = path.read_bytes(), random.Random(1)
        path.unlink()
        damaged = folder / "kernel-damaged.so"
        for place in [0, 1, 31, 32, 33, *(dice.randrange(len(whole)) for _ in range(times)), len(whole) - 1]:
            for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]):
                damaged.write_bytes(data)
                assert build._loaded(damaged) is None, f"damaged at byte {place}, and loaded"
        assert build.library(text).answer() == 42
    return 2 * (times + 6)
