"""Steps of every rule by kernels that look at each address before they use it: `make sanitize`, or some rules by name.

GCC's sanitizers end the process and say where memory is touched before its beginning, behind its end or after its time, or where C++
leaves open what happens. Tensors end where their memory does, so what is read behind them counts. Between steps happens what moves memory.
"""

from __future__ import annotations

import argparse
import copy
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from stepping import shapes_for
from torch import Tensor

import optlang
from optlang import library
from optlang.ir import walk

# Nothing; less than a vector holds; a block and one more; a part and one more; a chunk and one more, several; rows of several chunks
VECTORS = [(), (1,), (0,), (7,), (257,), (4097,), (16385,), (40001,)]
MATRICES = [(1, 1), (3, 0), (5, 3), (3, 257), (129, 65), (2, 3, 4, 5), (1500, 17), (2, 20001)]
MOST = 300  # rows or columns where matrices are multiplied
MULTIPLY = {"matmul", "inverse", "eigenvectors", "orthonormal", "solve"}
FORMS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "int8": (torch.float32, {"state": "int8"}),
    "float64": (torch.float64, {}),
    "float16": (torch.float16, {}),
    "bf16": (torch.bfloat16, {"state": "bf16"}),
    "int4": (torch.bfloat16, {"state": "int4", "weights": "stochastic"}),
    "fp8": (torch.bfloat16, {"state": "fp8", "weights": "compensated"}),
}
OF_ALL = 2  # forms that every rule is stepped in
SOME = ["adamw", "lion", "adafactor", "lamb", "prodigy", "came", "schedulefreeadamw", "lookahead", "sm3", "adagradsubsetnorm"]  # in all


class Run:
    """One rule in one form on parameters of many shapes."""

    def __init__(self, rule: str, form: str) -> None:
        self.dtype, settings = FORMS[form]
        self.made: Any = optlang.load(rule, backend="cpp", **settings)
        self.draws = torch.Generator().manual_seed(0)
        self.shapes = [shape for shape in shapes_for(self.made.rule, [*VECTORS, *MATRICES]) if max(shape, default=1) <= self._most()]
        self.params = [torch.nn.Parameter(self.some(shape)) for shape in self.shapes]
        self.optimizer = self.made([(f"layer{place}.weight", p) for place, p in enumerate(self.params)])

    def _most(self) -> int:
        nodes = [node for case in self.made.cases for node in walk(case.program.all_roots())]
        return MOST if any(node.op in MULTIPLY for node in nodes) or self.made.asks_again else 1 << 20

    def some(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(shape, generator=self.draws).to(self.dtype)

    def give(self) -> None:
        """New gradients, and inputs where they are read."""
        for p in self.params:
            p.grad = self.some(p.shape)
        for name in [wanted.name for case in self.made.cases for wanted in case.program.inputs]:
            self.optimizer.inputs[name] = {p: self.some(p.shape).abs() for p in self.params}

    def step(self) -> None:
        self.optimizer.step(*([self._loss] if self.made.asks_again else []))

    def _loss(self) -> Tensor:
        self.optimizer.zero_grad()
        found = torch.stack([((p.float() - 1) ** 2).sum() for p in self.params]).sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found.detach()

    def steps(self, change: Callable[[Run], None]) -> None:
        """Three after a change: one looks at everything, and two find it as it was."""
        self.give()
        change(self)
        for _ in range(2):
            self.step()
            self.give()
        self.step()


def nothing(run: Run) -> None:
    pass


def other_gradients(run: Run) -> None:
    """One is not there, some lie in another order, some are one number."""
    run.params[0].grad = None
    for p in run.params[1::2]:
        p.grad = run.some((*p.shape, 2))[..., 0]
    for p in run.params[2::2]:
        p.grad = run.some(()).expand(p.shape)


def moved_weights(run: Run) -> None:
    """Into memory of which they are the end, and which begins where no vector does."""
    for p in run.params:
        p.data = torch.cat([run.some((1,)), p.detach().reshape(-1)])[1:].view(p.shape)


def moved_states(run: Run) -> None:
    for state in run.optimizer.state.values():
        state.update({name: x.clone() for name, x in state.items() if isinstance(x, Tensor)})


def loaded(run: Run) -> None:
    run.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))


def added(run: Run) -> None:
    more = [torch.nn.Parameter(run.some(shape)) for shape in run.shapes[-3:]]
    run.params += more
    run.optimizer.add_param_group({"params": [(f"more{place}.weight", p) for place, p in enumerate(more)]})
    run.give()


def settings(run: Run) -> None:
    for group in run.optimizer.param_groups:
        if "lr" in group:
            group["lr"] = float(group["lr"]) * 0.5


def crossed(run: Run) -> None:
    """Parameters and their states stand in another order."""
    run.optimizer.param_groups[0]["params"].reverse()


def copied(run: Run) -> None:
    """The copy goes on, and the first one is gone."""
    run.params, run.optimizer = copy.deepcopy((run.params, run.optimizer))
    run.give()


def another_thread(run: Run) -> None:
    """Takes a step; gradients are kept meanwhile."""
    stepping = threading.Thread(target=run.step)
    stepping.start()
    stepping.join()


CHANGES = (nothing, other_gradients, moved_weights, moved_states, loaded, added, settings, another_thread, crossed, copied)


def forms_of(rule: str) -> Iterator[str]:
    yield from FORMS if rule in SOME else list(FORMS)[:OF_ALL]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="default: all")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), help="default: two, of some rules all")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # about what goes to which rule
    failed = 0
    for rule in chosen.rules or library.names():
        for form in chosen.forms or forms_of(rule):
            began, change = time.process_time(), nothing
            print(rule, form, end=" ", flush=True)  # what it was about, if the process ends here
            try:
                run = Run(rule, form)
                for change in CHANGES:
                    run.steps(change)
            except Exception as problem:
                failed += 1
                print(f"{change.__name__}: {type(problem).__name__}: {problem}"[:300], end=" ")
            print(f"{time.process_time() - began:.1f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
