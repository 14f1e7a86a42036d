"""`load` and `loads`: optimizer classes from names, files and texts, the same class for the same text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang import library
from optlang.errors import Source
from optlang.ir import Program, Routing
from optlang.resources import uncollected
from optlang.rules import TEXT, Rule, compile_options, worded

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from optlang.backends.base import Math
    from optlang.runtime.cases import CompileOptions

NAMES = "a library name or a path"
Imports = tuple[tuple[str, str, str, str], ...]  # who imports a file under which name; the file's path and text


def load(
    what: str | Path, rule: str | None = None, *, backend: str = "auto", math: Math = "safe",
    state: str | Mapping[str, str] | None = None, weights: str = "nearest", products: str = "fp32",
) -> type[Optimizer]:  # fmt: skip
    """The optimizer class of a library name or a `.opt` file: `Lion = load("lion")`, then `Lion(model.parameters(), lr=1e-4)`.

    `backend` is "auto" (C++ on the CPU, Triton on CUDA, else torch), "cpp", "triton", "torch" or "reference"; `math` is "safe" (as accurate
    as written), "strict" (as written) or "fast". `state` stores the states with a number for each element in fewer bits: "bf16",
    "fp8", "int8" or "int4" for all, or by name as `{"m": "bf16", "v": "int8"}`. `weights` says how parameters of bfloat16 are
    rounded: to "nearest", "stochastic", or "compensated" with what rounding took away kept beside them. `products` "bf16" rounds
    the factors of products of matrices to bfloat16, as Muon's authors do, and what is added to a product for another one, unless
    parameters are float64. Raises OptError for a file that is wrong or missing, ValueError for an unknown backend, math, state or format.
    """
    return _made(library.find(worded(what, NAMES)), rule, compile_options(backend, math, state, weights, products))


def loads(
    text: str, rule: str | None = None, *, backend: str = "auto", math: Math = "safe",
    state: str | Mapping[str, str] | None = None, weights: str = "nearest", products: str = "fp32",
) -> type[Optimizer]:  # fmt: skip
    """Like `load`, for the text of a `.opt` file."""
    what = worded(text, f"{TEXT} (`optlang.load` takes names and paths)", str)
    return _made(Source(what), rule, compile_options(backend, math, state, weights, products))


def _made(source: Source, rule: str | None, options: CompileOptions) -> type[Optimizer]:
    """The class of a text and the files beside it as they are now: the same for the same ones."""
    imports = tuple((*key, one.name, one.text) for key, one in library.pinned(source).imports.items())
    states = tuple(options.state.items()) if isinstance(options.state, Mapping) else None  # a dictionary is no key to what is kept
    with uncollected():
        return _compiled(source.text, source.name, imports, rule, options if states is None else options._replace(state=None), states)


class _Lowering:
    """Gives a rule's program for other values of what shapes it; the text is read when that is asked for the first time."""

    def __init__(self, source: Source, name: str | None) -> None:
        self._source, self._name = source, name

    @cached_property
    def rule(self) -> Rule:
        return Rule.from_source(self._source, self._name)

    def __call__(self, baked: dict[str, Any]) -> Program | Routing:
        return self.rule.lowered(baked)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Lowering, (self._source, self._name)


@lru_cache(maxsize=256)
def _compiled(
    text: str, name: str, imports: Imports, rule: str | None, options: CompileOptions, states: tuple[tuple[str, str], ...] | None = None
) -> type[Optimizer]:
    """The class of a text. `states`: their formats by name, in place of the one of `options`."""
    from optlang.backends.cache import programs  # noqa: PLC0415
    from optlang.runtime import make_optimizer  # noqa: PLC0415

    source = library.with_imports(Source(text, name), {(who, word): Source(other, path) for who, word, path, other in imports})
    lowering = _Lowering(source, rule)
    program = programs.lowered(source, rule, lambda: lowering.rule.program)
    made = make_optimizer(program, lowering, options if states is None else options._replace(state=dict(states)))
    made._origin = (_compiled, (text, name, imports, rule, options, states))
    return made
