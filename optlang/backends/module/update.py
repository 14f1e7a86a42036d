"""The update of parameters that know nothing of each other: one loop, as one writes it by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optlang import ir
from optlang.backends.module.capturing import dear_choices, moving, refuses_graphs
from optlang.backends.module.elements import PUT_BACK, REAL, TOUCHED, complexes, mixes, refuses_sparse
from optlang.backends.module.layout import Lines, indented, mentions
from optlang.backends.module.leaves import Words, cell_leaves
from optlang.backends.module.numbers import Numbers
from optlang.backends.module.scene import Rolled, Scene, Want
from optlang.backends.module.section import write
from optlang.backends.module.spell import shape_text
from optlang.ir import Node, Program
from optlang.ops import ASKING, MATRIX_OPS, OPS
from optlang.plan import Plan, plan
from optlang.printing.python_text import quoted
from optlang.types import needs_matrix

SIZES = ("numel", "rows", "cols", "fan_in", "fan_out")
DTYPE = "dtype = torch.promote_types(param.dtype, torch.float32)"
ALONE = "not self.inputs and _wants_states_alone(self)"  # what a rule reads is not there yet
PLACES = 'places = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}'


class Update:
    """What all ways to write an update share."""

    def __init__(self, program: Program, words: Words, always_matrix: bool, rolled: Mapping[Node, Rolled]) -> None:
        self.plan: Plan = plan(program)
        self.program = self.plan.program
        self.words, self.names, self.always_matrix, self.rolled = words, words.names, always_matrix, rolled
        everything = [*self.program.all_roots(), *(a for b in self.plan.barriers.values() for a in b.args)]
        everything += [n for one in rolled.values() for n in one.computed]
        self.everything = ir.walk(everything)
        self.mixes = mixes(program, rolled.values())
        self.numbers = Numbers(program, everything)
        table = dict(zip(program.all_roots(), self.program.all_roots(), strict=True))
        named = [(label.rpartition(".")[2], node) for label, node in reversed(program.names) if node.args or node in rolled]
        self.labels = {table.get(node, node): label for label, node in named}
        self.names.promise(self.labels[node] for node in self.everything if node in self.labels)
        self.inner = {node: f"{words.states[name]}_new" for name, node in self.program.updates.items() if node.args}
        self.inner |= {node: name for name, node in self.program.inner}
        self.draws = any(node.op == "random" for node in self.everything)
        asked = self.draws or any(i.type.extent.level not in ("group", "model") for i in program.inputs)
        self.complexes = complexes(words.program, self.mixes)
        self.key = "key" if asked and self.complexes else "param"  # the parameter as it was given, where its parts are stepped
        self.uncapturable = refuses_graphs(words.program)
        self.numbers.moving = set() if self.uncapturable else moving(self.everything, self.numbers)
        self.asks = any(program.uses(op) for op in ASKING)
        self.later: Lines = []  # makes states that a setting decides about
        self.model: dict[Node, str] = {}  # values for all parameters, by the variable that holds them
        self.team: dict[Node, str] = {}  # values per group, by attribute
        self.cell: dict[Node, str] = {}  # values per parameter that a later loop needs, by attribute
        self.sparse = refuses_sparse(program, self.mixes)
        guarded = [s for s in self.program.states if s.guard is not None and s.type.extent.level not in ("group", "model")]
        self.guards = {s.node: s.guard for s in guarded if s.guard is not None and _may_exist(s, words)}
        self.partial = {s.node: s.guard for s in guarded if s.guard is not None and not _may_exist(s, words)}
        self.on_gpu: Lines = []  # steps a parameter by a kernel, where it can, and goes on with the next one
        self.exposed: set[Node] = set()  # of those with a guard, the ones that are read where it need not hold
        self.whole: set[Node] = set()  # branches by numbers of the step that are no states' new values alone

    @property
    def is_simple(self) -> bool:
        shared = (n.type.extent.level in ("group", "model") and n not in self.numbers for n in self.everything)
        return not (self.plan.barriers or self.program.reports or any(shared))

    @property
    def chooses(self) -> set[Node]:
        """Such branches that need not be written as an `if`: torch may choose between their sides."""
        return self.whole - dear_choices(self.program)

    @property
    def takes_sparse(self) -> bool:
        return self.sparse[1] is not None

    def operands(self, node: Node) -> tuple[Node, ...]:
        """What an expression is computed from; of a loop what it starts from and reads."""
        rolled = self.rolled.get(node)
        return node.args if rolled is None else rolled.operands

    @property
    def count(self) -> str:
        """The number of the step of one parameter."""
        return '_count(state["step"])' if self.uncapturable else '_count(state["step"], group["capturable"])'

    @property
    def leaves_out_empty(self) -> bool:
        """Whether parameters without elements, of which nobody sees anything, are left out: reductions and divisions by sizes may fail."""
        sizes = {ir.fact(name) for name in SIZES}
        partial = (n for n in self.everything if n.op in ("div", "mod", "log", "pow") and n in self.numbers)
        reduced = any(OPS[n.op].role in ("reduce", "matrix") for n in self.everything)
        return self.is_simple and (reduced or not sizes.isdisjoint(ir.walk(partial)))

    def scene(self, level: str, leaves: Mapping[Node, tuple[str, str]], ready: Mapping[Node, str], targets: Mapping[Node, str]) -> Scene:
        like = "w" if level == "cell" else "home"
        return Scene(leaves, self.rolled, ready, self.labels, targets, self.numbers, lambda node: self._draw(node, level), like,
                     self.guards, self.exposed, self.whole, partial=self.partial, inner=self.inner)  # fmt: skip

    def _draw(self, node: Node, level: str) -> str:
        distribution, site = node.value
        seed, like = 'cells[0].group["seed"]', "home"
        if level == "cell":
            stream = f"places[{self.key}]" if self.is_simple else "cell.place"
            seed, like = 'group["seed"]' if self.is_simple else seed, "w"
        elif level == "group":
            stream = "0xFFFFFFFF - team.number"
        else:
            stream = "0xFFFFFFFF"
        shape = shape_text(node.type.extent)
        return f"_draw({quoted(distribution)}, {site}, {shape}, like={like}, t=t, seed={seed}, stream={stream})"

    def cell_scene(self, gathered: bool, stored: bool = False) -> Scene:
        """`stored`: after the step, so that `t` is the number of updates taken."""
        leaves = cell_leaves(self.words, gathered and not stored, self.always_matrix, self.key)
        if not gathered or stored:
            leaves[ir.T] = ("t", self.count)
        leaves |= {node: (name, f"cell.team.{name}") for node, name in self.team.items()}
        leaves |= {node: (name, f"cell.{name}") for node, name in self.cell.items()}
        targets = {s.node: self.words.states[s.name] for s in self.program.states if s.node in leaves and s.type.kind != "int"}
        return self.scene("cell", leaves, self.model, {**targets, ir.W: "param"})

    def wants(self) -> list[Want]:
        """The states per parameter, then the weights."""
        found = []
        for s in self.program.states:
            if s.type.extent.level not in ("group", "model"):
                node = self.program.updates[s.name]
                if s.type.kind != "int":
                    found.append(Want(node, leaf=s.node))
                elif node is not s.node:
                    found.append(Want(node, template=f"state[{quoted(s.name)}].copy_({{}})"))
        return [*found, Want(self.program.weights, leaf=ir.W)]

    def before_update(self, first: Lines) -> Lines:
        """The state of a parameter is made on its first step."""
        return [
            f"if param.grad is None{' or param.numel() == 0' * self.leaves_out_empty}:",
            "    continue",
            "state = self.state[param]",
            *["key = param  # as it was given"] * (self.key == "key"),
            *(REAL if self.complexes else []),
            f"{DTYPE}  # low precision is computed in float32",
            'if "step" not in state:',
            *indented(first),
            *self.later,
        ]

    def settings(self, body: Lines) -> Lines:
        """The lines that bind the settings which some lines mention."""
        return self.words.settings_lines(s.word for s in self.words.settings if mentions(body, s.word))

    def one_loop(self, first: Lines, groups: str) -> Lines:
        body, _ = write(self.wants(), self.cell_scene(False), self.names)
        if self.takes_sparse:
            body = [*TOUCHED, 'state["step"] += 1', *body, *PUT_BACK]
        else:
            body = ['state["step"] += 1', *body]
        alone = ["if states_alone:", "    continue"] if self.program.inputs else []
        inner = [*self.before_update(first), *self.on_gpu, *alone, *body]
        return [
            *([PLACES] if self.draws else []),
            *([f"states_alone = {ALONE}"] if alone else []),
            f"for group in {groups}:",
            *indented(self.settings(inner)),
            '    for param in group["params"]:',
            *indented(inner, 2),
        ]

    def evaluation(self) -> Lines:
        """`eval = …` for one parameter that has taken a step."""
        assert self.program.evaluation is not None
        body, _ = write([Want(self.program.evaluation, leaf=ir.W)], self.cell_scene(False, stored=True), self.names)
        return body


def treats_matrices(roots: Sequence[Node]) -> bool:
    """Whether every parameter that some expressions are computed from has to be a matrix, whatever its facts."""

    def needs(node: Node, args: tuple[bool, ...]) -> bool:
        extent = node.type.extent
        if node.op == "branch":
            return args[0] or (args[1] and args[2])
        return any(args) or node.op in MATRIX_OPS or needs_matrix(extent) or (extent.level == "array" and extent.frame == "flat")

    found = ir.fold(roots, needs)
    return any(found[root] for root in roots)


def _may_exist(state: ir.State, words: Words) -> bool:
    """Whether a parameter may have a state whatever its guard says: one per row is of matrices alone."""
    return may_come_later(state, words) or not needs_matrix(state.type.extent)


def may_come_later(state: ir.State, words: Words) -> bool:
    """Whether a setting that may be changed at any time decides that a state exists."""
    return state.guard is not None and any(n.op == "hyper" and n.value not in words.fixed for n in ir.walk([state.guard]))
