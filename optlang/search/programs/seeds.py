"""Programs to start from: library rules and files as assignments, with their settings as constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, count

from optlang import ir
from optlang.analysis.live_states import without_dead
from optlang.host import evaluate
from optlang.ir import Node, Program
from optlang.library import parted
from optlang.rules import Rule
from optlang.search.distil.listing import calls, depth, targets
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import SLOTS, UPDATE, Argument, Form, Genome, GenomeError, Statement, from_text, to_program
from optlang.types import TypeProblem

# Rules as searches start from them. Lion's search began with AdamW without eps and bias correction. Muon is without its factor
# for the shape, Adafactor (arXiv:1804.04235) with a fixed decay, the cautious rule (arXiv:2411.16085) without rescaling.
SEEDS: Mapping[str, str] = {
    "adam-bare": "a = square(g)\nm = interp(g, m, 0.9)\nv = interp(a, v, 0.999)\na = protected_sqrt(v)\nu = protected_div(m, a)",
    "adamw-bare": "a = square(g)\nm = interp(g, m, 0.9)\nv = interp(a, v, 0.999)\na = protected_sqrt(v)\nu = protected_div(m, a)\n"
                  "a = mul(w, 0.01)\nu = add(u, a)",
    "sgd-bare": "u = mul(g, 1.0)",
    "muon-bare": "m = interp(g, m, 0.95)\na = interp(g, m, 0.95)\nu = orthogonalize(a)",
    "adafactor-bare": "a = square(g)\nv = interp(a, v, 0.999)\na = factored(v)\na = sqrt(a)\na = protected_div(g, a)\n"
                      "b = rms_tensor(a)\nb = maximum(b, 1.0)\nu = div(a, b)",
    "cautious-adam-bare": "a = square(g)\nm = interp(g, m, 0.9)\nv = interp(a, v, 0.999)\na = protected_sqrt(v)\na = protected_div(m, a)\n"
                          "u = agreeing(a, g)",
}  # fmt: skip

DEEPEST = 300  # operations in its chains; what is read here goes down it by calls, of which Python allows a thousand


def seed(name: str, form: Form) -> Genome:
    """The genome of a name above, a library rule, `my.opt` or `my.opt:Rule`. Raises GenomeError for a rule that cannot be one, OptError."""
    if name in SEEDS:
        return from_text(SEEDS[name])
    return from_rule(Rule(*parted(name)), form)


def from_rule(rule: Rule, form: Form) -> Genome:
    """A rule as assignments. Raises GenomeError for one that cannot be a genome."""
    if not isinstance(rule.program, Program):
        raise GenomeError(f"`{rule.name}` is a route; a search starts from one rule. Name one of its rules")
    return from_program(rule.program, form)


def from_program(program: Program, form: Form) -> Genome:
    """A rule as assignments: settings become constants, states the form's slots, in order. Raises GenomeError."""
    if depth(program) > DEEPEST:
        raise GenomeError(f"rule `{program.name}` is nested far deeper than programs of a search may be")
    try:
        program = _settled(program, form)
    except TypeProblem as problem:
        raise GenomeError(f"rule `{program.name}` with its settings as constants: {problem}") from problem
    _refuse(program, form)
    slots = {state.node: ir.state(slot, state.type) for state, slot in zip(program.states, form.slots, strict=False)}
    given = program.replaced(ir.substitute(program.all_roots(), slots))
    names = dict(zip((s.name for s in program.states), form.slots, strict=False))
    try:
        found = _Assignments(given, form, names).genome()
    except ValueError as problem:
        raise GenomeError(f"rule `{program.name}`: {problem}") from problem
    to_program(found, form)
    return found


def _settled(program: Program, form: Form) -> Program:
    """Settings as constants, blocks that these decide as the side they take, and lr in front of the update."""
    fixed = {ir.hyper(h.name, h.kind): ir.const(h.default) for h in program.hypers if h.name != "lr"}
    program = program.replaced(ir.substitute(program.all_roots(), fixed))
    program = without_dead(program.replaced(ir.rewrite(program.all_roots(), _decided)))
    update = taken_away(program.weights)
    if update is None:
        return program
    rest = without_lr(update) if form.scaled else None
    return replace(program, weights=ir.sub(ir.W, update if rest is None else ir.mul(ir.hyper("lr"), rest)))


def taken_away(weights: Node) -> Node | None:
    """What a step takes away from w, where the new weights are w plus, minus and times other things: d*w + x of (1 - d)*w - x.
    None where they are anything else."""
    if weights is ir.W:
        return ir.const(0.0)
    if weights.op not in ("add", "sub", "mul"):
        return None
    led, other = weights.args[0], weights.args[-1]
    if weights.op != "sub" and taken_away(led) is None:
        led, other = other, led
    taken = taken_away(led)
    if taken is None:
        return None
    if weights.op != "mul":
        more = other if weights.op == "sub" else ir.neg(other)
        return more if taken is ir.const(0.0) else ir.add(taken, more)
    lost = other.args[1] if other.op == "sub" and other.args[0] is ir.const(1) else ir.sub(ir.const(1), other)
    return ir.mul(lost, ir.W) if led is ir.W else ir.add(ir.mul(lost, ir.W), ir.mul(other, taken))


def _decided(node: Node) -> Node | None:
    """A block as the side that settings choose, and without what a setting of 0 turns off."""
    if node.op == "mul" and any(_is_zero(arg) for arg in node.args):
        return ir.const(0)
    if node.op in ("add", "sub") and _is_zero(node.args[1]):
        return _of_type(node, node.args[0])
    if node.op == "add" and _is_zero(node.args[0]):
        return _of_type(node, node.args[1])
    if node.op != "branch" or any(leaf.op != "const" for leaf in ir.walk([node.args[0]]) if not leaf.args):
        return None
    return node.args[1] if evaluate(node.args[0], {}) else node.args[2]


def _of_type(node: Node, side: Node) -> Node | None:
    """The side that is left, where nothing else gave the sum its shape: a row plus zeros of a matrix is a matrix."""
    return side if side.type == node.type else None


def _is_zero(node: Node) -> bool:
    return node.op == "const" and not isinstance(node.value, bool) and node.value == 0


def without_lr(node: Node) -> Node | None:
    """A value divided by the step size, where that is a factor of it; else None."""
    if node is ir.hyper("lr"):
        return ir.const(1.0)
    if node.op == "mul":
        for factor, other in (node.args, node.args[::-1]):
            rest = without_lr(factor)
            if rest is not None:
                return other if rest is ir.const(1.0) else ir.mul(rest, other)
    if node.op in ("div", "neg"):
        rest = without_lr(node.args[0])
        return None if rest is None else ir.make(node.op, (rest, *node.args[1:]))
    if node.op in ("add", "sub"):
        both = [without_lr(arg) for arg in node.args]
        return None if both[0] is None or both[1] is None else ir.make(node.op, (both[0], both[1]))
    return None


def _refuse(program: Program, form: Form) -> None:
    if len(program.states) > len(form.slots):
        states = len(program.states)
        more = f"begin one with --limit slots={states}" if states <= len(SLOTS) else f"there are {len(SLOTS)} at most"
        raise GenomeError(f"rule `{program.name}` has {states} states, the search {len(form.slots)} slots; {more}")
    for state in program.states:
        zero = state.init.op == "const" and state.init.value == 0
        if str(state.type) != "real per element" or not zero:
            begin = "" if zero else ", and does not begin at 0"
            raise GenomeError(f"rule `{program.name}`: the state `{state.name}` is {state.type}{begin}; a search takes rules whose states "
                              "are real per element and begin at 0")  # fmt: skip
    if program.weights.op != "sub" or program.weights.args[0] is not ir.W:
        raise GenomeError(f"rule `{program.name}`: its new weights are not w less, plus or times something, as in w' = w - lr*g")
    if program.evaluation is not None:
        raise GenomeError(f"rule `{program.name}` evaluates other weights than it trains, which programs of a search do not")


class _Assignments:
    """The calls of a program put into the few names that a form has: a name is free again after its last reader."""

    def __init__(self, program: Program, form: Form, slots: Mapping[str, str]) -> None:
        self.form = form
        self.calls = calls(program, form.scaled)
        self.ends = {(slots.get(name.rstrip("'"), name)): node for name, node in targets(program, form.scaled)}
        self.inputs = {node: name for name, node in form.inputs().items()}
        self.home: dict[Node, str] = dict(self.inputs)
        self.last = {arg: place for place, call in enumerate(self.calls) for arg in call.args}
        self.lines: list[Statement] = []

    def genome(self) -> Genome:
        for place, call in enumerate(self.calls):
            args = tuple(self._argument(arg) for arg in call.args)
            self._release(place)
            target = self._target(call.node, place)
            self.home[call.node] = target
            self.lines.append(Statement(call.function, target, args))
        self._hand_on()
        return tuple(self.lines)

    def _argument(self, node: Node) -> Argument:
        if node in self.home:
            return self.home[node]
        if any(one.op == "hyper" for one in ir.walk([node])):
            raise ValueError("the step size is used other than as a factor of the update; say `w' = w - lr*(…)`, or search unscaled")
        try:
            return float(evaluate(node, {}))
        except ValueError as problem:
            raise ValueError(f"programs of a search read w, g, t, facts of the parameter and slots alone: {problem}") from problem

    def _release(self, place: int) -> None:
        """Forgets what nothing reads any more."""
        ends = set(self.ends.values())
        for node in [n for n, name in self.home.items() if n.args and self.last.get(n, -1) <= place and n not in ends]:
            del self.home[node]

    def _target(self, node: Node, place: int) -> str:
        """The slot or update that a value is for, if nothing needs what is there; else a free temporary."""
        for name, end in self.ends.items():
            if end is node and (name == UPDATE or not self._is_needed(name, place)):
                return name
        taken = set(self.home.values()) | {UPDATE}
        more = (f"x{number}" for number in count(1))  # where the form has too few: mutation reads and leaves them
        return next(name for name in chain(self.form.temporaries, more) if name not in taken)

    def _is_needed(self, slot: str, place: int) -> bool:
        """Whether a slot's value from before the step is read later."""
        old = next((node for node, name in self.inputs.items() if name == slot), None)
        if old is None or old not in self.home:
            return False
        if self.last.get(old, -1) > place or old in self.ends.values():
            return True
        del self.home[old]
        return False

    def _hand_on(self) -> None:
        """Slots and updates whose value was computed under another name, or is another slot's."""
        moved = [(name, self._argument(node)) for name, node in self.ends.items() if self.home.get(node) != name]
        for name, source in moved:
            if any(other == name for _, other in moved):
                raise ValueError("slots that change places are not supported")
            self.lines.append(Statement("mul", name, (source, 1.0)))


assert all(statement.function in FUNCTIONS for text in SEEDS.values() for statement in from_text(text))
