"""What a step costs before anything is measured: memory kept and moved, passes over a parameter, launches.

Bytes are per element of a parameter whose weights and gradient are float32. The *floor* moves each tensor of a stage once;
what a backend moves beyond it are passes that wait for a reduction. Steps that differ (`every`, `when`) are averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch

from optlang import ir
from optlang.analysis.costs import Stage, stages, truths_of
from optlang.backends.formats import Format, Storage, applies
from optlang.backends.kernels.handed import stored
from optlang.backends.kernels.passes import Passes, kind, refuses
from optlang.backends.outputs import TENSORS, Output, is_slot
from optlang.backends.places import full_shape
from optlang.backends.triton.lines import generate
from optlang.ir import Node
from optlang.plan import Plan, Truth
from optlang.runtime.facts import facts_of
from optlang.runtime.precision import storage
from optlang.types import BYTES

STEPS = 1000  # that are averaged


@dataclass(frozen=True)
class Footprint:
    """What the steps of a plan cost for a parameter of a shape, with states in a format of `STATE_FORMATS`.

    Raises StepError where the rule does not step parameters of such a shape.
    """

    plan: Plan
    shape: tuple[int, ...]
    form: str = "fp32"

    @property
    def kept(self) -> float:
        """Bytes of all states."""
        place = self.plan.conditions.index
        states = [s for s in self.plan.program.states if s.guard is None or any(truth[place(s.guard)] for truth in self.truths)]
        return sum(self._bytes(s.node) for s in states) / self.count

    @property
    def floor(self) -> float:
        """Bytes read and written where each stage reads what it needs once."""
        return self._mean(self._once)

    @property
    def moved(self) -> float:
        """Bytes read and written by the passes of generated kernels."""
        return self._mean(self._by_passes)

    @property
    def moved_by_cpp(self) -> float:
        """As `moved`: where a pass makes new states that later ones need, C++ writes them and reads them again, not what they are of."""
        return self._mean(self._by_cpp)

    @property
    def passes(self) -> float:
        """How often the memory of the parameter is gone over."""
        return self._mean(self._passes) * self.count

    def in_a_step(self, truth: Truth) -> tuple[float, int]:
        """The bytes that C++ reads and writes in a step that takes such blocks, and how many passes that are."""
        return sum(map(self._by_cpp, self._stages(truth))), sum(map(self._passes, self._stages(truth)))

    @property
    def traffic(self) -> list[tuple[set[str], set[str]]]:
        """What each pass of C++ reads and what it writes of the values per element, by name, in the step that is taken most often."""
        truth = max(self.truths, key=lambda one: self.truths[one])
        return [
            (set(map(_name, read)), set(map(_name, written)))
            for stage in self._stages(truth) for read, written in self._over_elements(stage, ahead=True)
        ]  # fmt: skip

    @property
    def launches(self) -> float:
        """Kernels that Triton launches for the whole model, whatever its number of parameters, or for each wave of a large one with rows
        and columns (see `triton.layout`); 0 where it launches none."""
        return self._mean(self._launches) * self.count

    @property
    def refused(self) -> str:
        """Why kernels cannot be generated for a stage, so that torch computes it; else empty."""
        reasons = (self._refuses(outputs_of(stage)) for truth in self.truths for stage in self._stages(truth))
        return next(filter(None, reasons), "")

    def _refuses(self, outputs: Sequence[Output]) -> str:
        """Blocks of packed states do not end where rows do."""
        return refuses(outputs, lined=not any(self._form_of(node) for node in types_of(outputs)))

    @cached_property
    def count(self) -> int:
        return prod(self.shape)

    def of(self, form: str) -> Footprint:
        """With states in another format: which blocks the steps take is the same."""
        other = replace(self, form=form)
        vars(other).update(truths=self.truths, _found=self._found)
        return other

    @cached_property
    def _found(self) -> dict[Truth, list[Stage]]:
        return {}

    def _stages(self, truth: Truth) -> list[Stage]:
        if truth not in self._found:
            self._found[truth] = stages(self.plan, truth)
        return self._found[truth]

    @cached_property
    def truths(self) -> Mapping[Truth, int]:
        """How many steps take which blocks."""
        facts = facts_of(torch.empty(self.shape, device="meta"))
        return Counter(truths_of(self.plan, facts, range(1, STEPS + 1)))

    @cached_property
    def _storage(self) -> Storage:
        return storage(self.plan.program, self.form if self.form != "fp32" else None, "nearest")

    def _mean(self, cost: Callable[[Stage], float]) -> float:
        """Of all steps, for each element: a step costs what its stages do."""
        return sum(sum(map(cost, self._stages(truth))) * count for truth, count in self.truths.items()) / STEPS / self.count

    def _bytes(self, node: Node) -> float:
        """The memory of a tensor."""
        if node.op not in ("state", "w", "g", "input"):
            return 0
        count = prod(full_shape(node.type, self.shape))
        form = self._form_of(node)
        return form.bytes_of(count) if form else count * BYTES[node.type.kind]

    def _form_of(self, node: Node) -> Format | None:
        """The format in fewer bits that a tensor is kept in, if any."""
        form = self._storage.states.get(str(node.value)) if node.op == "state" else None
        return form if form is not None and applies(form, torch.empty(self.shape, device="meta")) else None

    def _once(self, stage: Stage) -> float:
        return sum(map(self._bytes, [*_read(ir.walk(node for node, _ in stage.results)), *_written(stage)]))

    def _by_passes(self, stage: Stage, ahead: bool = False) -> float:
        return sum(self._bytes(n) for read, _ in self._over_elements(stage, ahead) for n in read) + sum(map(self._bytes, _written(stage)))

    def _by_cpp(self, stage: Stage) -> float:
        return self._by_passes(stage, ahead=True)

    def _passes(self, stage: Stage) -> int:
        return len(self._over_elements(stage))

    def _over_elements(self, stage: Stage, ahead: bool = False) -> list[tuple[set[Node], set[Node]]]:
        """What each pass over the parameter reads and writes. `ahead`: states are written by the first pass that has them."""
        outputs = outputs_of(stage)
        if self._refuses(outputs):
            return [(_read(ir.walk(o.node for o in outputs)), set(_written(stage)))] if outputs else []
        made = Passes(outputs, (), types_of(outputs))
        early = made.early(lambda target: target.type.kind == "real") if ahead else {}
        found = [(_read(made.body(k, early)) | made.read_again(k, early), _written_by(made, k, early)) for k in range(made.passes)]
        return [(read, written) for read, written in found if any(kind(n.type.extent) == "element" for n in read)]

    def _launches(self, stage: Stage) -> int:
        outputs = outputs_of(stage)
        if self._refuses(outputs) or not outputs:
            return 0
        nodes = ir.walk(o.node for o in outputs)
        known = ir.on_host([o.node for o in outputs])
        return len(generate(outputs, [n for n in nodes if is_slot(n, known)], types_of(outputs), False).launches)


def outputs_of(stage: Stage) -> list[Output]:
    """What generated kernels compute of a stage."""
    known = ir.on_host([node for node, _ in stage.results])
    return stored([Output(node, target) for node, target in stage.results if target is not None or not known[node]])


def _read(nodes: Iterable[Node]) -> set[Node]:
    """Tensors among nodes; one number for a whole parameter is not worth counting."""
    return {n for n in nodes if n.op in TENSORS and n.type.extent.level == "array"}


def _written(stage: Stage) -> Iterable[Node]:
    return [target for _, target in stage.results if target is not None and target.type.extent.level == "array"]


def _written_by(made: Passes, number: int, early: Mapping[Node, int]) -> set[Node]:
    """What one pass writes: what is not early, the last one."""
    return {target for node, target in made.writes() if early.get(node, made.passes - 1) == number}


def _name(node: Node) -> str:
    return str(node.value) if node.op in ("state", "input") else node.op


def types_of(outputs: Sequence[Output]) -> dict[Node, str]:
    """The number types of the tensors that outputs read and write: all are float32."""
    nodes = [*ir.walk(o.node for o in outputs), *(o.target for o in outputs if o.target is not None)]
    return {n: "float32" for n in nodes if n.op in TENSORS}
