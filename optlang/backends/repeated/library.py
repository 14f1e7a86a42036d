"""The library of our own that looks at torch's tensors and Python's objects, and how it comes to know where these keep what.

It calls the functions of Python and torch that are exported by name. It is tried on a few tensors before it is believed; where
anything is not as expected there is none, and steps are gathered anew each time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.kernels import build
from optlang.backends.repeated import tensor_words

Array = Any  # numpy.ndarray
WORD = ctypes.sizeof(ctypes.c_void_p)
PYTHON = ("PyList_Size", "PyDict_Size", "PyList_GetItem", "PyDict_Next")
TORCH = ("libc10._ZNK3c1010TensorImpl4gradEv", "libc10._ZN3c1010TensorImpl12mutable_gradEv",
         "libtorch_cpu._ZN5torch8autograd4impl12bump_versionERKN2at6TensorE",
         "libtorch_cpu._ZN2at6native6is_negERKNS_6TensorE", "libtorch_cpu.aoti_torch_get_data_ptr",
         "libtorch_cpu.aoti_torch_get_numel", "libtorch_cpu.aoti_torch_get_dim", "libtorch_cpu.aoti_torch_get_sizes",
         "libtorch_cpu.aoti_torch_get_strides", "libtorch_cpu.aoti_torch_get_dtype", "libtorch_cpu.aoti_torch_get_layout",
         "libtorch_cpu.aoti_torch_get_device_type", "libtorch_cpu.aoti_torch_get_device_index",
         "libtorch_cpu.aoti_torch_assign_tensors")  # fmt: skip
FLAGS = ("-fexceptions", "-lstdc++", "-lgcc_s", "-O3")  # beside those of kernels: these have no exceptions, and loops that ask for vectors
ASSIGN, NONE = len(PYTHON) + len(TORCH) - 1, len(PYTHON) + len(TORCH) + 1  # places of `assign` and `none` in `Outside` of watch.h
FACTS = ("type", "device", "shape", "size", "data")  # of `Facts` in watch.h


class Unseen(Exception):
    """Something cannot be watched."""


def sees() -> bool:
    """Whether anything can be watched in this process."""
    return _found() is not None


def is_loaded() -> bool:
    """Whether it is there by now: first steps do not wait until it is compiled."""
    return bool(_found.cache_info().currsize) and sees()


def pointer(array: Array) -> ctypes.c_void_p:
    """Where the numbers of an array are."""
    return ctypes.c_void_p(array.ctypes.data)


def places(objects: Iterable[Any]) -> Array:
    return np.array(list(map(id, objects)), dtype=np.uint64)


def library() -> tuple[ctypes.PyDLL, Any]:
    found = _found()
    if found is None:
        raise Unseen
    return found


@cache
def _found() -> tuple[ctypes.PyDLL, Any] | None:
    """The library and what it is given of torch and Python; None where they do not go together."""
    try:
        place = _place_of_tensors()
        text = _text()
        library = ctypes.PyDLL(build.library(text, "look", FLAGS)._name)  # keeps Python waiting, whose objects it looks at
        library.room.restype = ctypes.c_void_p
        words: list[Any] = [*(_address(getattr(ctypes.pythonapi, name)) for name in PYTHON), *map(address_in_torch, TORCH), place]
        words += [_nothing(words[len(PYTHON)]), tensor_words.word_of_versions()]
        outside = (ctypes.c_void_p * len(words))(*words)
        _try(library, outside)
    except (OSError, AttributeError, build.NoCompiler, Unseen):
        return None
    return library, outside


def _text() -> str:
    """The source of the library, for tensors as this torch keeps them."""
    masks = tensor_words.masks()
    sizes = f"#define WORDS {1 if masks is None else masks.shape[1]}\n#define RANKS {tensor_words.RANKS}\n"
    return sizes + "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("watch.h", "values.h"))


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def address_in_torch(name: str) -> int | None:
    """The address of a function in one of torch's libraries, which are loaded."""
    library, _, symbol = name.partition(".")
    return _address(_library_of_torch(library)[symbol])


@cache
def _library_of_torch(name: str) -> ctypes.CDLL:
    """Its file is looked for once: the folder is a long one."""
    return ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob(f"{name}.*"), name)))


def _place_of_tensors() -> int:
    """Where Python's objects keep torch's tensors, in bytes."""
    some = [torch.ones(2, device="cpu"), torch.nn.Parameter(torch.ones(3, device="cpu"))]
    words = [(ctypes.c_void_p * (type(x).__basicsize__ // WORD)).from_address(id(x)) for x in some]
    places = [{k for k, word in enumerate(row) if word == x._cdata} for row, x in zip(words, some, strict=True)]
    if len(common := set.intersection(*places)) != 1:
        raise Unseen
    return common.pop() * WORD


def _nothing(gradient: int) -> int | None:
    """What stands where there is no gradient."""
    ask = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(gradient)
    found = {ctypes.c_void_p.from_address(ask(x._cdata)).value for x in (torch.ones(2), torch.nn.Parameter(torch.ones(2)))}
    if len(found) != 1:
        raise Unseen
    return found.pop()


def _try(library: ctypes.PyDLL, outside: Any) -> None:
    """Raises Unseen where what is seen of some tensors is not what they say."""
    x, y = torch.nn.Parameter(torch.ones(3, 2, device="cpu")), torch.ones(2, 3, dtype=torch.float64, device="cpu")
    nothing = _seen(library, outside, x, gradient=True)
    x.grad = torch.ones(3, 2, device="cpu")
    facts = [_seen(library, outside, x), _seen(library, outside, x, gradient=True), _seen(library, outside, y)]
    kinds = {tuple(found[:3]) for found in facts if found is not None}
    memory = [found[3:] for found in facts if found is not None]
    if nothing is not None or len(kinds) != 2 or memory != [[z.numel(), z.data_ptr()] for z in (x, x.grad, y)]:
        raise Unseen
    strange = (x.detach().T, y[:, :1].expand(2, 3), torch._neg_view(y), y.to_sparse(), y.to("meta"))
    if any(_seen(library, outside, z) is not None for z in strange) or not _keeps(library, outside, x):
        raise Unseen


def _keeps(library: ctypes.PyDLL, outside: Any, x: Tensor) -> bool:
    """Whether a tensor is kept by whom it is assigned to, and let go of again."""
    assign = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(outside[ASSIGN])
    given, keep = (ctypes.c_void_p * 1)(x._cdata), (ctypes.c_void_p * 1)(outside[NONE])
    uses: Any = x._use_count  # type: ignore[attr-defined]
    counts = [uses(), assign(given, keep), uses(), library.let_go(outside, ctypes.c_int64(1), keep), uses()][::2]
    return counts == [counts[0], counts[0] + 1, counts[0]] and keep[0] == outside[NONE]


def _seen(library: ctypes.PyDLL, outside: Any, x: Tensor, gradient: bool = False) -> list[int] | None:
    """The facts of one tensor, or of its gradient."""
    facts = np.zeros(len(FACTS), dtype=np.int64)
    arrays = places([x]), np.array([gradient]), facts
    return facts.tolist() if library.look(outside, ctypes.c_int64(1), *map(pointer, arrays)) else None
