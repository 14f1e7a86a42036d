"""Optimizers of rules with `eval = …`: the model holds other weights while it is evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from optlang.runtime.checkpoints.fitting import COUNT, TRAINING
from optlang.runtime.distributed.processes import show
from optlang.runtime.distributed.sharded import put
from optlang.runtime.groups.parameters import real
from optlang.runtime.modes import exactly
from optlang.runtime.optimizer import RuleOptimizer
from optlang.runtime.steps.repeated import Work


class Evaluating(RuleOptimizer):
    """For rules with `eval = …`: other weights to evaluate with than to train with."""

    @torch.no_grad()
    def eval(self) -> None:
        """Puts the weights to evaluate with into the model; call `train` before the next step."""
        if self._evaluates():
            return
        with exactly():
            work = self._stepped()
            found = [(cells, executable.evaluation(self._step_of(cells, work))) for executable, cells in work.values()]
        for cells, values in found:
            for cell, value in zip(cells, values, strict=True):
                cell.state[TRAINING] = cell.weights.detach().clone()
                cell.weights.copy_(value)
            self._put_back(cells)
        show(self._parameters())

    @torch.no_grad()
    def train(self, mode: bool = True) -> None:
        """Puts the weights that are trained back, exactly; `train(False)` is `eval()`."""
        if not mode:
            self.eval()
            return
        for parameter, state in self.state.items():
            if isinstance(parameter, Tensor) and TRAINING in state:
                put(real(parameter), state.pop(TRAINING))
        show(self._parameters())

    def _evaluates(self) -> bool:
        return any(TRAINING in state for parameter, state in self.state.items() if isinstance(parameter, Tensor))

    def _check_mode(self) -> None:
        """While dictionaries are as in the last step, which trained, nothing has been put aside."""
        if not (self._again is not None and self._again.belongings.keeps(self.state)) and self._evaluates():
            raise RuntimeError("the model holds the weights to evaluate with; call `optimizer.train()` before training goes on")

    def _stepped(self) -> Work:
        """The cells that have taken a step."""
        work: Work = {}
        index = 0
        for number, (group, hypers) in enumerate(zip(self.param_groups, self.read_settings(), strict=True)):
            key, executable = self.case_of(group).executable(hypers)
            for place, parameter in enumerate(group["params"]):
                if self.state.get(parameter, {}).get(COUNT, 0) > 0:
                    cell = self._cell(parameter, number, place, index)
                    cell.hypers, cell.t = hypers, int(cell.state[COUNT])
                    work.setdefault(key, (executable, []))[1].append(cell)
                index += 1
        return work
