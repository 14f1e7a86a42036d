"""The batch of one step, asked again: gradients at other weights and products with the Hessian, by way of the closure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optlang.backends.base import Moving
from optlang.backends.repeated.saved_gradients import Gradients, SavedGradients, gradients_of
from optlang.runtime.distributed.processes import averaged, mean_of, show, watched
from optlang.runtime.modes import autocasting, has_modes
from optlang.runtime.steps.second_derivatives import backward_by, keeping_the_graph, refuse_breaks, refuse_parts, twice

Closure = Callable[[], Any]
Points = list[Tensor] | Moving
Random = tuple[Tensor, list[Tensor]]
Graph = tuple[list[Tensor | None], Any]  # gradients that hang on the weights, and the models that processes average


class Batch:
    """Calls a closure as often as needed, each time with the random numbers of the first time, so with the same dropout."""

    def __init__(
        self, closure: Closure, gradients: Callable[[], Gradients], spread: Callable[[], Sequence[Tensor]], again: bool = True,
    ) -> None:  # fmt: skip
        """`gradients`: those of all parameters; `spread`: the parameters, if processes hold parts of some by now; `again`: whether the
        model is called more than once."""
        self.closure, self._gradients, self._spread = closure, gradients, spread
        self.random = _random_state() if again else None
        self.autocast = {kind: torch.get_autocast_dtype(kind) for kind in autocasting()}
        self.device = torch.get_default_device() if has_modes() else None
        mode = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(True)  # as `torch.enable_grad`, which takes longer
            with watched() as self.models:
                self.loss = closure()
        finally:
            torch._C._set_grad_enabled(mode)
        self._after = _random_state() if again else None
        self._mean: Any = None  # over all processes, where that has been asked for
        self._weights: list[Tensor] | None = None  # of points that are asked for together, see `asked`
        self._shares = False
        self._graph: Graph | None = None  # what products share, see `one_graph`

    def mean_loss(self) -> Any:
        """The loss of all processes, which meet for it once."""
        if self._mean is None:
            self._mean = self._mean_of(as_number(self.loss))
        return self._mean

    def _mean_of(self, loss: Any) -> Any:
        return mean_of(loss, self._spread(), self.models)

    def gradients(self, cells: Sequence[Tensor], points: Points) -> list[Tensor]:
        """The gradients with the parameters moved to other points."""
        found: list[Tensor] = self.at(cells, points, lambda _: gradients_of(cells))
        return found

    def at(self, cells: Sequence[Tensor], points: Points, answer: Callable[[SavedGradients], Any]) -> Any:
        """What is answered while the parameters are elsewhere, with their gradients; these are put back whatever happens."""

        def ask(kept: SavedGradients) -> Any:
            self.closure()
            return answer(kept)

        return self._again(True, lambda kept: self._moved(cells, points, partial(ask, kept)))

    def loss_at(self, cells: Sequence[Tensor], points: Points) -> Any:
        """The loss with the parameters moved to other points, without a backward pass; the weights are put back."""
        return self.losses(cells, [points])[0]

    def losses(self, cells: Sequence[Tensor], some: Iterable[Points]) -> list[Any]:
        """Those at some points one by one, while gradients are set aside once."""
        found: list[Any] = []

        def ask(kept: SavedGradients) -> None:
            for points in some:
                if found:
                    kept.drop()
                found.append(self._as_at_first(False, partial(self._moved, cells, points, self._number)))

        with backward_by(lambda *args, **more: None):
            self._aside(ask)
        return [self._mean_of(loss) for loss in found]

    def _number(self) -> Any:
        return as_number(self.closure())

    def hessian(self, cells: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """The Hessian at the weights times vectors, exactly. Raises RuntimeError where the model cannot be differentiated twice."""
        found, models = self._again(True, lambda _: self._products(cells, vectors))
        averaged(found, cells, models)
        return found  # type: ignore[no-any-return]

    def _products(self, cells: Sequence[Tensor], vectors: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        with keeping_the_graph() as passes:
            gradients, models = self._graph or self._differentiable(cells, passes)
            if self._shares:
                self._graph = gradients, models
            graphs = [(g, v.to(g.dtype)) for g, v in zip(gradients, vectors, strict=True) if g is not None and g.requires_grad]
            if not graphs:
                return [torch.zeros_like(p) for p in cells], ()
            with twice():
                outputs, given = zip(*graphs, strict=True)
                products = torch.autograd.grad(outputs, list(cells), given, self._shares, allow_unused=True)
            return [torch.zeros_like(p) if x is None else x.detach() for p, x in zip(cells, products, strict=True)], models

    def _differentiable(self, cells: Sequence[Tensor], passes: list[Any]) -> Graph:
        """The gradients at the weights, each with what it came from."""
        with watched(apart=True) as models:
            self.closure()
        if not passes:
            raise RuntimeError("the rule needs Hessian-vector products: the closure must call `loss.backward()`, for the gradients are "
                               "differentiated again")  # fmt: skip
        refuse_parts(cells)
        refuse_breaks([p.grad for p in cells if p.grad is not None and p.grad.requires_grad])
        return [p.grad for p in cells], models

    @contextmanager
    def one_graph(self) -> Iterator[None]:
        """Products with the Hessian in here are of the same gradients, so that the model is asked once. Weights stay as they are."""
        self._shares = True
        try:
            yield
        finally:
            self._shares, self._graph = False, None

    @contextmanager
    def asked(self) -> Iterator[None]:
        """In here weights stay as they are but while they are moved: one copy of them does for all points."""
        self._weights = []
        try:
            yield
        finally:
            self._weights = None

    def _moved(self, cells: Sequence[Tensor], points: Points, ask: Callable[[], Any]) -> Any:
        """A list is emptied: points that the weights are at are needed no more, and would lie beside all that the model computes."""
        if not isinstance(points, list):
            return points.at(ask)
        kept = self._weights or [p.detach().clone() for p in cells]
        if self._weights is not None:
            self._weights = kept
        try:
            _write(cells, points)
            points.clear()
            return ask()
        finally:
            _write(cells, kept)

    def _again(self, graph: bool, ask: Callable[[SavedGradients], Any]) -> Any:
        return self._aside(lambda kept: self._as_at_first(graph, partial(ask, kept)))

    def _aside(self, ask: Callable[[SavedGradients], Any]) -> Any:
        """What is answered while gradients are set aside, so that the closure cannot zero them in place."""
        saved, mode = self._gradients().room(), torch.is_grad_enabled()
        saved.exchange()
        try:
            return ask(saved)
        finally:
            torch._C._set_grad_enabled(mode)
            if self._after is not None:
                _set_random_state(self._after)
            saved.exchange()

    def _as_at_first(self, graph: bool, ask: Callable[[], Any]) -> Any:
        """What is answered with random numbers as at the first call, and what was on around it. `graph`: whether autograd keeps one."""
        assert self.random is not None  # such rules say beforehand that they will ask
        _set_random_state(self.random)
        torch._C._set_grad_enabled(graph)
        if not self.autocast and self.device is None:
            return ask()
        with self._surroundings():
            return ask()

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What was switched on around the first call. Autocast keeps casts of weights, which are elsewhere now and will be back then."""
        with ExitStack() as around:
            if self.device is not None:
                around.enter_context(self.device)
            for kind, dtype in self.autocast.items():
                around.enter_context(torch.autocast(kind, dtype))
            torch.clear_autocast_cache()
            around.callback(torch.clear_autocast_cache)
            yield


def as_number(loss: Any) -> Any:
    """What a closure returned as one number. Raises RuntimeError where it is something else."""
    if isinstance(loss, Tensor) and loss.numel() == 1:
        loss = loss.detach() if loss.requires_grad else loss
        return loss.reshape(()) if loss.dim() else loss
    if isinstance(loss, bool) or not isinstance(loss, int | float):
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise RuntimeError(f"the rule reads the loss: the closure must return it as one number, not {what}")
    return loss


def _write(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value if isinstance(value, Tensor) else torch.as_tensor(value))
    show(parameters)


def _random_state() -> Random:
    return torch.default_generator.get_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _set_random_state(state: Random) -> None:
    torch.default_generator.set_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
