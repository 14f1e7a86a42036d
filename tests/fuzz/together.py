"""C++ kernels of many programs in one compilation: the prelude and the start of the compiler are paid once."""

from __future__ import annotations

import ctypes
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from optlang.backends.cpp.source import header
from optlang.backends.kernels import build
from optlang.backends.repeated.library import sees

PRELUDE = header("prelude.h")
INCLUDES = re.compile(r"^#include .*$", re.MULTILINE)


@contextmanager
def noted(texts: dict[str, None]) -> Iterator[None]:
    """Kernels are written down and not compiled: what asks for them goes on without."""
    sees()  # its library is no kernel

    def library(text: str, **flags: Any) -> Any:
        texts[text] = None
        raise build.NoCompiler("noted")

    with mock.patch.object(build, "library", library), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def one_text(texts: Sequence[str]) -> str:
    """Each kernel in a namespace of its own, its entry under a number."""
    parts = []
    for number, text in enumerate(texts):
        assert text.startswith(PRELUDE)
        own = text[len(PRELUDE) :].replace('extern "C" void step(', f'extern "C" void step_{number}(')
        parts.append(f"namespace kernel_{number} {{\n{own}\n}}")
    includes = "\n".join(dict.fromkeys(INCLUDES.findall("\n".join(parts))))
    return "\n".join([PRELUDE, includes, *(INCLUDES.sub("", part) for part in parts), 'extern "C" void step() {}'])


@contextmanager
def compiled(texts: Sequence[str], change: Callable[[str], str] = lambda text: text, more: str = "") -> Iterator[ctypes.CDLL]:
    """Kernels among these are found in one library, others made as always. `change`: what is compiled of each; `more`: beside all."""
    made: ctypes.CDLL = build.library(one_text(list(map(change, texts))) + more)
    steps = {text: getattr(made, f"step_{number}") for number, text in enumerate(texts)}
    for step in steps.values():
        step.restype = None
    single, _ = build.library, sees()

    def library(text: str, *entry: str, **flags: Any) -> Any:
        return SimpleNamespace(step=steps[text]) if text in steps else single(text, *entry, **flags)

    with mock.patch.object(build, "library", library):
        yield made
