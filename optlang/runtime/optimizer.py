"""The `torch.optim.Optimizer` around compiled programs: `step` as torch calls it. `factory` makes the subclasses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._compile import _disable_dynamo

from optlang.resources import uncollected
from optlang.runtime.distributed import agreement
from optlang.runtime.distributed.sharded import is_zero
from optlang.runtime.groups.settings import plain
from optlang.runtime.modes import NOTHING, exactly
from optlang.runtime.stepped import Stepped
from optlang.runtime.steps import captured, traced
from optlang.runtime.steps.batch import Batch, Closure
from optlang.runtime.steps.hooks import with_hooks
from optlang.runtime.steps.scaling import overflowed


class RuleOptimizer(Stepped):
    """What all optimizers made from rules share."""

    calls_model: ClassVar[bool]  # asks it for gradients or losses at other points
    reads_inputs: ClassVar[frozenset[str]]  # what the training loop is to set
    released: Any = None  # what steps parameters inside `backward`, where that was asked for: see `release`
    profile_hook_step = staticmethod(with_hooks)  # with this torch wraps `step`

    def __init__(self, /, *args: Any, **settings: Any) -> None:
        self._begin()
        super().__init__(*args, **settings)

    def _begin(self) -> None:
        """What is not part of a checkpoint; `reports` outlive loading one."""
        super()._begin()
        self.reports = self.__dict__.get("reports", {})
        self._taken: int = self.__dict__.get("_taken", 0)  # steps, as long as other processes are looked at
        self.number = traced.numbered(self)
        self._list_parameters()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a route splits the group by rule. Raises ValueError for a parameter that its rule cannot take."""
        super().add_param_group(param_group)
        self._list_parameters()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._list_parameters()

    # -------------------------------------------------------------------------------------------------- step

    def step(self, closure: Closure | None = None) -> Any:
        """One update of every parameter that has a gradient. Returns what the closure returned.

        Raises before anything has changed: ValueError for a setting outside its range, RuntimeError for a missing closure.
        """
        if torch.compiler.is_compiling():
            return traced.step(self.stepped, self.number, self.is_captured) if closure is None and self.is_traced else self.take(closure)
        return self._without_gradients(closure) if get_eval_frame_callback() is None else self.take(closure)

    @_disable_dynamo  # the rule is compiled, what surrounds it is not
    def take(self, closure: Closure | None = None) -> Any:
        """`step` without hooks, and as it is outside of functions that are compiled."""
        return self._without_gradients(closure)

    def _without_gradients(self, closure: Closure | None) -> Any:
        mode = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(False)  # by itself: an interrupt may come inside of `torch.no_grad`, and leave it off
            return self._take(closure)
        finally:
            torch._C._set_grad_enabled(mode)

    def _take(self, closure: Closure | None) -> Any:
        self._check_mode()
        if closure is None and self._wants_states_alone():
            with exactly():
                self._prepare()
            return None
        if closure is None and self.asks_again:
            raise RuntimeError(f"{type(self).__name__} asks the model more than once a step: call `step(closure)` with a closure "
                               "that zeroes the gradients, computes the loss, calls backward and returns the loss")  # fmt: skip
        if self._is_hollow:
            self._list_parameters()  # they may have got memory since
        if self._is_hollow:
            return self._without_numbers(closure)
        self._guards = captured.guards(self)
        settings = self.read_settings(self._guards or None)
        self._check_inputs()
        batch = None if closure is None else Batch(closure, self._set_aside, self._spread, self.calls_model)
        captured.check_capture(self, settings)
        if self._taken < agreement.LOOKS[-1]:
            agreement.check(self, settings, self._taken)
            self._taken += 1
        if self._guards or not overflowed(self):
            with exactly(), uncollected() if self._again is None and not self.calls_model else NOTHING:  # models may leave much of it
                self._update(settings, batch)
                if self.released is not None:
                    self.released.finish()
        return None if batch is None else batch.loss

    def _wants_states_alone(self) -> bool:
        """Whether distributed checkpoints ask which states there are: by a first step of size 0, with gradients of 0. Of a rule without
        `lr` such a step is taken as any other, unless it could not be."""
        if (self.state and not self.asks_again) or any(plain(group.get("lr", 0)) != 0 for group in self.param_groups):
            return False
        has_size = all("lr" in group for group in self.param_groups)
        if self.asks_again and has_size:
            return True
        if not has_size and (self.state or not (self.asks_again or self.reads_inputs - self.inputs.keys())):
            return False
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        return bool(gradients) and all(g.layout == torch.strided and not g.is_meta and is_zero(g) for g in gradients)

    def _without_numbers(self, closure: Closure | None) -> Any:
        """A step that makes all states, as one with numbers would, and moves nothing."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with exactly():
            self._prepare()
        return loss

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `GradScaler` leaves unscaling and skipping to the step: as in torch where `fused` was asked for."""
        return any(group.get("fused") for group in self.param_groups)

    def _check_inputs(self) -> None:
        if not isinstance(self.inputs, Mapping):
            raise TypeError(f"{type(self).__name__}: `inputs` is a dictionary by name, not {type(self.inputs).__name__}")
        if self.reads_inputs and (missing := sorted(self.reads_inputs - self.inputs.keys())):
            raise RuntimeError(f"{type(self).__name__} needs optimizer.inputs[{missing[0]!r}]: set it before each step")
