"""The update of parameters that know nothing of each other: one loop, as one writes it by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from optlang import ir
from optlang.backends.module.capturing import dear_choices, moving, refuses_graphs
from optlang.backends.module.elements import PUT_BACK, REAL, TOUCHED, mixes, refuses_sparse
from optlang.backends.module.layout import Lines, indented, mentions
from optlang.backends.module.leaves import Words, cell_leaves
from optlang.backends.module.numbers import Numbers
from optlang.backends.module.scene import Loop, Scene, Want
from optlang.backends.module.section import write
from optlang.backends.module.spell import shape_text, spell
from optlang.ir import Node, Program
from optlang.ops import ASKING, MATRIX_OPS, OPS
from optlang.plan import Plan, plan
from optlang.printing.precedence import Piece
from optlang.printing.python_text import literal, quoted
from optlang.types import needs_matrix

STEP_ON_CPU, STEP_ON_DEVICE = '"cpu"', 'param.device if group["capturable"] else "cpu"'
SIZES = ("numel", "rows", "cols", "fan_in", "fan_out")
DTYPE = "dtype = torch.promote_types(param.dtype, torch.float32)"
ALONE = "not self.inputs and _wants_states_alone(self)"  # what a rule reads is not there yet
PLACES = 'places = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}'


class Update:
    """What all ways to write an update share."""

    def __init__(self, program: Program, words: Words, always_matrix: bool, loops: Mapping[Node, Loop]) -> None:
        self.plan: Plan = plan(program)
        self.program = self.plan.program
        self.words, self.names, self.always_matrix, self.loops = words, words.names, always_matrix, loops
        everything = [*self.program.all_roots(), *(a for b in self.plan.barriers.values() for a in b.args)]
        everything += [n for loop in loops.values() for n in (loop.first, loop.turn)]
        self.everything = ir.walk(everything)
        self.mixes = mixes(program, loops.values())
        self.numbers = Numbers(program, everything)
        table = dict(zip(program.all_roots(), self.program.all_roots(), strict=True))
        named = [(label.rpartition(".")[2], node) for label, node in reversed(program.names) if node.args or node in loops]
        self.labels = {table.get(node, node): label for label, node in named}
        self.names.promise(self.labels[node] for node in self.everything if node in self.labels)
        self.draws = any(node.op == "random" for node in self.everything)
        asked = self.draws or any(i.type.extent.level not in ("group", "model") for i in program.inputs)
        self.key = "key" if asked and not self.mixes else "param"  # the parameter as it was given, where its parts are stepped
        self.uncapturable = refuses_graphs(words.program)
        self.numbers.moving = set() if self.uncapturable else moving(self.everything, self.numbers)
        self.asks = any(program.uses(op) for op in ASKING)
        self.later: Lines = []  # makes states that a setting decides about
        self.model: dict[Node, str] = {}  # values for all parameters, by the variable that holds them
        self.team: dict[Node, str] = {}  # values per group, by attribute
        self.cell: dict[Node, str] = {}  # values per parameter that a later loop needs, by attribute
        self.sparse = refuses_sparse(program, self.mixes)
        guarded = [s for s in self.program.states if s.guard is not None and s.type.extent.level not in ("group", "model")]
        self.guards = {s.node: s.guard for s in guarded if s.guard is not None and _may_exist(s)}
        self.partial = {s.node: s.guard for s in guarded if s.guard is not None and not _may_exist(s)}
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
        loop = self.loops.get(node)
        return node.args if loop is None else (loop.first, *loop.outer)

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
        return Scene(leaves, self.loops, ready, self.labels, targets, self.numbers, lambda node: self._draw(node, level), like,
                     self.guards, self.exposed, self.whole, partial=self.partial)  # fmt: skip

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
            *([] if self.mixes else REAL),
            f"{DTYPE}  # low precision is computed in float32",
            "if not state:",
            *indented(first),
            *self.later,
        ]

    def settings(self, body: Lines) -> Lines:
        """The lines that bind the hypers which some lines mention."""
        return self.words.settings_lines(name for name, word in self.words.hypers.items() if mentions(body, word))

    def one_loop(self, first: Lines, groups: str) -> Lines:
        body, _ = write(self.wants(), self.cell_scene(False), self.names)
        if self.takes_sparse:
            body = [*TOUCHED, 'state["step"] += 1', *body, *PUT_BACK]
        else:
            body = ['state["step"] += 1', *body]
        alone = ["if states_alone:", "    continue"] if self.program.inputs else []
        inner = [*self.before_update(first), *alone, *body]
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


def start_lines(update: Update, states: Sequence[ir.State], write_init: Callable[[ir.State], Lines]) -> Lines:
    """`state["m"] = …` for each state of a parameter, under an `if` where it exists for some parameters only."""
    lines = [f'state["step"] = torch.zeros((), device={STEP_ON_CPU if update.uncapturable else STEP_ON_DEVICE})']
    guards: dict[Node | None, Lines] = {}
    for s in states:
        guards.setdefault(s.guard, []).extend(write_init(s))
    for guard, made in guards.items():
        if guard is None:
            lines += made
        elif guard.op == "not" and guard.args[0] in guards and list(guards)[list(guards).index(guard) - 1] is guard.args[0]:
            lines += ["else:", *indented(made)]
        else:
            lines += [f"if {expression(update, guard)}:", *indented(made)]
    return lines


def _may_exist(state: ir.State) -> bool:
    """Whether a parameter may have a state whatever its guard says: one per row is of matrices alone."""
    return may_come_later(state) or not needs_matrix(state.type.extent)


def may_come_later(state: ir.State) -> bool:
    """Whether a setting, which may be changed at any time, decides that a state exists."""
    return state.guard is not None and any(n.op == "hyper" for n in ir.walk([state.guard]))


def later_lines(update: Update, states: Sequence[ir.State]) -> Lines:
    """Makes each such state when it is first needed."""
    lines: Lines = []
    for guard, some in itertools.groupby(states, lambda s: s.guard):
        assert guard is not None
        alike, condition = [*some], expression(update, guard)
        condition = f"({condition})" if " or " in condition or " if " in condition else condition
        lines.append(f"if {condition} and {quoted(alike[0].name)} not in state:")
        lines += indented(line for s in alike for line in init_lines(update, s))
    return lines


def expression(update: Update, node: Node) -> str:
    """A number written out where it stands; hypers are read from the group."""
    leaves = {n: (text[1].split(" if ")[0] if n.op == "fact" and text[1] else text[0], "")
              for n, text in cell_leaves(update.words, False, True).items() if n.op != "hyper"}  # fmt: skip
    leaves |= {ir.hyper(h.name, h.kind): (update.words.setting(h.name), "") for h in update.words.program.hypers}
    scene = update.scene("cell", leaves, {}, {})
    pieces: dict[Node, Piece] = {}
    for n in ir.walk([node]):
        if n in leaves:
            pieces[n] = Piece(leaves[n][0])
        elif n.op == "const":
            pieces[n] = literal(n.value)
        else:
            pieces[n] = spell(n, [pieces[a] for a in n.args], update.numbers, scene.like)
    return pieces[node].text


def init_lines(update: Update, s: ir.State) -> Lines:
    """The first value of a state."""
    key, dtype = f"state[{quoted(s.name)}]", {"bool": "torch.bool", "int": "torch.int64"}.get(s.type.kind, "dtype")
    if s.init is ir.W and not s.type.window and str(s.type.extent) == "element":
        return [f"{key} = param.to(dtype, copy=True)"]
    shape, element = shape_text(s.type.extent), str(s.type.extent) == "element"
    if s.type.window:
        shape = f"({s.type.window}, *{shape})" if shape != "()" else f"({s.type.window},)"
    if s.init in update.numbers:
        value = expression(update, s.init)
        if s.init in update.numbers.moving:
            return [f"{key} = param.new_zeros({shape}, dtype={dtype}) + {value}" if not element or s.type.window else
                    f"{key} = torch.zeros_like(param, dtype={dtype}).add_({value})"]
        if element and not s.type.window:
            like = f"torch.zeros_like(param, dtype={dtype})" if value == "0" else f"torch.full_like(param, {value}, dtype={dtype})"
            return [f"{key} = {like}"]
        if value == "0" and dtype != "torch.bool":
            return [f"{key} = param.new_zeros({shape}, dtype={dtype})"]
        return [f"{key} = param.new_full({shape}, {value}, dtype={dtype})"]
    body, _ = write([Want(s.init, template=f"{key} = torch.as_tensor({{}}, dtype={dtype}, device=param.device).expand({shape}).clone()")],
                    update.cell_scene(False), update.names)  # fmt: skip
    return [*update.settings(body), *body]
