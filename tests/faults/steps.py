"""Memory that ends at any operation of a step, checkpoints cut anywhere, kernels damaged anywhere, interrupts."""

from __future__ import annotations

import copy
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
from optlang.backends import stored
from optlang.backends.cpp import build

SHAPES = ((3, 4), (5,), (4, 2), (2, 2, 2))
Snapshot = list[tuple[Tensor, ...]]


def model(name: str, backend: str, shapes: tuple[tuple[int, ...], ...] = SHAPES, **settings: Any) -> tuple[list[Tensor], Any]:
    params = [torch.randn(s, generator=torch.Generator().manual_seed(i)).requires_grad_() for i, s in enumerate(shapes)]
    optimizer: Any = optlang.load(name, backend=backend)(params, lr=0.1, **settings)
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


IN_PLACE = frozenset(["copy_", "_foreach_copy_", "fill_", "detach", "view", "alias"])  # these ask for no memory


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
        return func(*args, **(kwargs or {}))


def memory_ends(name: str, backend: str, lasting: bool, stride: int = 7) -> int:
    """How often a step was cut off. Each parameter is stepped with its states and its count, or all of these are as before; what
    passes is over is made up for. The first 30 operations are tried one by one, then every `stride`-th."""
    params, optimizer = model(name, backend)
    closure = closure_of(params, optimizer)
    closure()
    optimizer.step()
    before, saved = snapshot(params, optimizer), copy.deepcopy(optimizer.state_dict())
    weights = [p.detach().clone() for p in params]
    optimizer.step()
    after, at, failed = snapshot(params, optimizer), 0, 0
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
        if not mode.failed:
            return failed
        failed += 1


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
    with mock.patch.object(stored, "cache_file", lambda name: folder / name):
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
