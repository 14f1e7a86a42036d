"""Generated functions compiled by torch, for tensors of one kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.fx.experimental import _config as shape_settings

from optlang.backends.torch import inductor_cache
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.loading import load

Function = Callable[..., Any]

# Precompiled headers pay off after several kernels only, and there is one here. Patterns of models (1 s to load, and half a second
# for those of forward and backward passes) are not to be found here. Which vector instructions work need not be tried (6 s): see
# `_widest_vectors`.
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "cpp.vec_isa_ok": True,
    "cpp_cache_precompile_headers": False,
    "pattern_matcher": False,
    "use_joint_graph_passes": False,
}


def first_call(code: CellCode, tensors: Sequence[Tensor], s: Tensor, counter: Tensor | None, first: Any) -> tuple[Function, Any]:
    """The function for tensors like these, and its result for these. Where torch cannot compile, a warning says so."""
    name = inductor_cache.name_of(code, tensors, s, OPTIONS)
    function = inductor_cache.find(name) if name else None
    if function is not None:
        return function, function(*tensors, s, counter, first)
    try:
        return _compiled_somehow(code, tensors, s, counter, first, name)
    except Exception as problem:  # what torch's compiler raises has no class in common
        if not _is_of_the_compiler(problem):
            raise
        warnings.warn(f"torch.compile does not work here, so steps run uncompiled and slower: {_first_line(problem)}", stacklevel=2)
        function = load(code, frees=True)
        return function, function(*tensors, s, counter, first)


def _compiled_somehow(
    code: CellCode, tensors: Sequence[Tensor], s: Tensor, counter: Tensor | None, first: Any, name: str
) -> tuple[Function, Any]:
    try:
        return _compiled(code, tensors, s, counter, first, name)
    except Exception as problem:  # any class of torch's compiler may carry it
        if not isinstance(getattr(problem, "inner_exception", None), KeyError):
            raise
    with _outer_loops_apart():
        return _compiled(code, tensors, s, counter, first, name)


def _compiled(code: CellCode, tensors: Sequence[Tensor], s: Tensor, counter: Tensor | None, first: Any, name: str) -> tuple[Function, Any]:
    """Each kind has a function object of its own, so that torch never has to tell kinds apart. What is kept under a name of ours
    does without torch's own store, for whose keys all of torch's sources are read."""
    options = OPTIONS | {"fx_graph_cache": not name}
    function = torch.compile(load(code), dynamic=True, fullgraph=True, options=options)
    begun, s, counter = [_from_the_start(x) for x in tensors], _from_the_start(s), None if counter is None else _from_the_start(counter)
    for numbers in (s, counter):
        if numbers is not None:
            torch._dynamo.mark_static(numbers)  # as many for every parameter
    with inductor_cache.listening(name) as kernels:
        # rows and columns that happen to be equal are still two sizes
        with shape_settings.patch(use_duck_shape=False), _widest_vectors():  # type: ignore[attr-defined]
            result = function(*begun, s, counter, first)
        for place in code.written:
            if begun[place] is not tensors[place]:
                tensors[place].copy_(begun[place])
        return inductor_cache.keep(name, function, kernels, tensors, s, first), result


def _from_the_start(x: Tensor) -> Tensor:
    """One that begins where its memory does: what is compiled for such takes parts of a buffer, too, but not the other way round."""
    return x.clone() if x.storage_offset() else x


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


@contextmanager
def _outer_loops_apart() -> Iterator[None]:
    """Inductor 2.13 looks for every buffer of fused outer loops among what its users read, and ends in KeyError where one of them
    only has to come later, as what writes `w` after all that read it."""
    from torch._inductor.codegen import cpp  # noqa: PLC0415 - slow to import, and seldom needed

    with patch.object(cpp.CppScheduling, "can_fuse_vertical_outer_loop", lambda *nodes: False, create=True):
        yield


def _is_of_the_compiler(problem: Exception) -> bool:
    return type(problem).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _first_line(problem: Exception) -> str:
    """What a failure says first; torch begins with the stage that failed."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip() and not line.strip().endswith("raised:")]
    return lines[0] if lines else type(problem).__name__
