"""A Triton kernel that steps one parameter, for modules that are to carry one: of rules that go element by element.

It computes what the lines beside it compute, in one pass over memory. Numbers that are known before the step are computed by Python,
in float64, and handed over. Quotients and roots are rounded as torch's are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from optlang import ir
from optlang.backends.module.layout import Lines, indented, packed, wrapped
from optlang.backends.module.scene import Want
from optlang.backends.module.section import write
from optlang.backends.module.update import Update
from optlang.ir import Node
from optlang.ops import OPS
from optlang.printing.identifiers import Names
from optlang.printing.precedence import Piece, chained
from optlang.printing.python_text import BIT_AND, BIT_OR, COMPARE, COMPARISONS, MINUS, PRODUCT, infix, literal, ternary
from optlang.types import ELEMENT

RESERVED = ("tl", "triton", "libdevice", "torch", "math", "i", "inside", "size", "maximize", "BLOCK", "float", "w", "g")
BLOCK = 1024  # elements for each program
TELLING = 30  # characters of a name that says how a number is made; others are called `known`
BETWEEN = {"add": "_plus_", "sub": "_less_", "mul": "_times_", "div": "_over_", "pow": "_to_"}
WIDE = 100  # an expression beyond has its longest operand named
HIGHEST = 4  # power that is written as a product
SPELLED = {
    "div": "tl.div_rn({}, {})", "sqrt": "tl.sqrt_rn({})", "abs": "tl.abs({})", "where": "tl.where({}, {}, {})",
    "branch": "tl.where({}, {}, {})", "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0))",
    "isfinite": 'tl.abs({}) < float("inf")',
    "maximum": "tl.maximum({}, {}, tl.PropagateNan.ALL)", "minimum": "tl.minimum({}, {}, tl.PropagateNan.ALL)",
}  # fmt: skip
INFIX = COMPARISONS | {"add", "sub", "mul"}
OTHERS = frozenset(["neg", "not", "and", "or", "isnan", "pow", "spread"])


class Kernel(NamedTuple):
    """`function`: the text of the kernel. `step`: lines that launch it for one parameter and go on with the next one, where they can."""

    function: str
    step: Lines


def why_none(update: Update) -> str:
    """Why the rule of an update has no such kernel, or an empty string."""
    program = update.program
    reasons = {
        "it asks the model again": update.asks,
        "it draws random numbers": update.draws,
        "it is given inputs": program.inputs,
        "it has a loop": update.rolled,
        "it has values of several parameters, or reports": not update.is_simple,
        "it has states that some parameters, or settings, do without": any(s.guard is not None for s in program.states),
    }
    for state in program.states:
        reasons[f"its state `{state.name}` is {state.type}"] = state.type != ir.W.type
    for node in _computed(update):
        reasons[f"it needs {OPS[node.op].doc}"] = node.type.extent != ELEMENT or not (node.op in ("w", "g", "state") or _is_spelled(node))
    return next((reason for reason, holds in reasons.items() if holds), "")


def kernel_of(update: Update, name: str) -> Kernel:
    """The kernel, called by that name, of a rule that has one: see `why_none`."""
    return _Writer(update, name).kernel()


def _computed(update: Update) -> list[Node]:
    """What has to be computed of elements, operands first."""
    program = update.program
    return [n for n in ir.walk([*program.updates.values(), program.weights], lambda n: () if n in update.numbers else n.args)
            if n not in update.numbers]  # fmt: skip


def _is_spelled(node: Node) -> bool:
    return node.op in SPELLED or node.op in INFIX or node.op in OTHERS or OPS[node.op].triton.startswith("libdevice.")


class _Writer:
    """A kernel as it is written: `names` are those within it."""

    def __init__(self, update: Update, name: str) -> None:
        self.update, self.name, self.program = update, name, update.program
        self.computed = _computed(update)
        self.uses = Counter(arg for node in self.computed for arg in node.args)
        self.uses.update([*self.program.updates.values(), self.program.weights])
        self.uses.update(node.args[0] for node in self.computed if node.op in ("sign", "isnan") or _whole_power(node))  # read twice
        self.names = Names(RESERVED)
        self.states = {s.node: self.names.fresh(update.words.states[s.name]) for s in self.program.states}
        self.numbers = self._numbers()
        self.choices = {node: name for node, name in self.numbers.items() if node.type.kind == "bool"}  # a kernel is compiled for each
        self.real = {node: name for node, name in self.numbers.items() if node not in self.choices}
        self.pieces: dict[Node, Piece] = {ir.W: Piece("w"), ir.G: Piece("g"), **{leaf: Piece(name) for leaf, name in self.states.items()}}

    def _numbers(self) -> dict[Node, str]:
        """What is known before the step and read by elements, by the name of the argument."""
        roots = [*self.program.updates.values(), self.program.weights]
        read = [arg for node in self.computed for arg in node.args] + roots
        wanted = [n for n in dict.fromkeys(read) if n in self.update.numbers and n.op != "const"]
        return {node: self.names.fresh(self._wish(node)) for node in wanted}

    def _wish(self, node: Node) -> str:
        """The name of a setting, or of an equation; else one that says how it is made, where that is short."""
        if node.op == "hyper" and "[" not in node.value:
            return self.update.words.hypers[node.value]
        if node in self.update.labels or node is ir.T:
            return self.update.labels.get(node, "t")
        if node.op == "const":
            return str(node.value)
        words = [self._wish(arg) for arg in node.args]
        wish = "{}_of_{}".format("rest", words[1]) if node.op == "sub" and words[0] == "1" else BETWEEN.get(node.op, "").join(words)
        if len(words) == 2 and node.op in BETWEEN and len(wish) <= TELLING and wish.isidentifier():
            return wish
        return "case" if node.type.kind == "bool" else "known"

    # ------------------------------------------------------------------------------------------------- kernel

    def kernel(self) -> Kernel:
        tensors = ["w", "g", *self.states.values()]
        arguments = [*(f"{name}_ptr: tl.tensor" for name in tensors), *(f"{name}: float" for name in self.real.values()), "size: tl.int64"]
        arguments += [f"{word}: tl.constexpr" for word in (*self.choices.values(), "maximize", "BLOCK")]
        loads = [f"{name} = tl.load({name}_ptr + i, mask=inside).to(tl.float32)" for name in tensors]
        body = [
            "i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
            "inside = i < size",
            *loads,
            "if maximize:",
            "    g = -g",
            *self._equations(),
        ]
        head = wrapped(f"def {self.name}({', '.join(arguments)}) -> None:")
        about = f'"""A step of `size` elements in one pass over memory, {BLOCK} of them in each program."""'
        function = "\n".join(["@triton.jit  # type: ignore", *head, *indented([about, *body])])
        return Kernel(function, self._step())

    def _equations(self) -> Lines:
        """Values by the names of the rule, and what is stored, when all has been read."""
        lines: Lines = []
        for node in self.computed:
            if node in self.pieces:
                continue
            while len(self._spelled(node).text) > WIDE and (long := [arg for arg in node.args if "(" in self._piece(arg).text]):
                lines.append(self._named(max(long, key=lambda arg: len(self._piece(arg).text))))
            self.pieces[node] = self._spelled(node)
            if self.uses[node] > 1 or node in self.update.labels:
                lines.append(self._named(node))
        new = {self.states[s.node]: self.program.updates[s.name] for s in self.program.states} | {"w": self.program.weights}
        texts = {name: self._piece(node).text for name, node in new.items()}
        return lines + [f"tl.store({name}_ptr + i, {text}, mask=inside)" for name, text in texts.items() if text != name]

    def _named(self, node: Node) -> str:
        """The line that gives a value a name, by which it is known from then on."""
        text, name = self.pieces[node].text, self.names.fresh(self.update.labels.get(node) or self._result(node) or "x")
        self.pieces[node] = Piece(name)
        return f"{name} = {text}"

    def _result(self, node: Node) -> str:
        """The state that a value becomes."""
        return next((f"new_{self.states[s.node]}" for s in self.program.states if self.program.updates[s.name] is node), "")

    def _piece(self, node: Node) -> Piece:
        if node in self.numbers:
            return Piece(self.numbers[node])
        if node.op == "const":
            return Piece(f'float("{node.value}")') if re.search("inf|nan", str(node.value)) else literal(node.value)
        return self.pieces[node]

    def _spelled(self, node: Node) -> Piece:
        args = [self._piece(arg) for arg in node.args]
        match node.op:
            case "spread":
                return args[0]
            case "neg":
                return Piece(f"-{args[0].inside(MINUS)}", MINUS)
            case "not":
                return chained(args[0], "==", Piece("0"), COMPARE, associates="none")
            case "isnan":
                return chained(args[0], "!=", args[0], COMPARE, associates="none")
            case "where" | "branch" if node.args[0] in self.choices:
                return ternary(*args)
            case "and" | "or":
                args.sort(key=lambda piece: piece.text in self.choices.values())  # a tensor has the operator
                return chained(args[0], "&" if node.op == "and" else "|", args[1], BIT_AND if node.op == "and" else BIT_OR)
            case "pow" if (power := _whole_power(node)):
                return Piece(" * ".join([args[0].inside(PRODUCT + 1)] * power), PRODUCT)
        if node.op in INFIX:
            return infix(node, args)
        if node.op in SPELLED:
            return Piece(SPELLED[node.op].format(*(arg.text for arg in args)))
        return Piece(OPS[node.op].triton.format(*(arg.text for arg in args)))

    # --------------------------------------------------------------------------------------------------- step

    def _step(self) -> Lines:
        """The launch; what is computed before it stands in lines of its own."""
        names = self.update.names.copy()
        has_name = self.update.labels.keys() | {node for node in self.numbers if node.op == "hyper"}
        named = {node: name if node in has_name else names.fresh(name) for node, name in self.numbers.items()}
        wants = [Want(node, template=f"{named[node]} = {{}}") for node in self.numbers if node.op != "hyper" or "[" in node.value]
        lines, _ = write(wants, replace(self.update.cell_scene(False), exposed=set(), whole=set()), names)
        floats = packed("scalars = map(float, [", [named[n] for n in self.real], "])") if self.real else []
        tensors = ["param", "param.grad", *(f'state["{s.name}"]' for s in self.program.states)]
        arguments = ["*tensors", *["*scalars"] * bool(floats), "elements", *(named[n] for n in self.choices), 'group["maximize"]']
        arguments.append(f"BLOCK={BLOCK}")
        launch = ["elements = tensors[0].numel()", *floats, *packed(f"{self.name}[(triton.cdiv(elements, {BLOCK}),)](", arguments, ")")]
        inner = ['state["step"] += 1', *lines, "with torch.cuda.device(tensors[0].device):", *indented(launch),
                 "torch.autograd.graph.increment_version([tensors[0], *tensors[2:]])", "continue"]  # fmt: skip
        return [f"tensors = _for_kernel(group, {', '.join(tensors)})", "if tensors:  # one pass over memory", *indented(inner)]


def _whole_power(node: Node) -> int:
    """The exponent, where a power is written as a product, else 0."""
    is_whole = node.op == "pow" and node.args[1].op == "const" and node.args[1].value in range(2, HIGHEST + 1)
    return int(node.args[1].value) if is_whole else 0


def jitted(kernels: Sequence[Kernel]) -> str:
    """The kernels of a module, where Triton is there."""
    texts = ["\n".join(indented(kernel.function.splitlines())) for kernel in kernels]
    return "\n".join(["if triton is not None:", "", "\n\n".join(texts)])
