"""The states of a parameter: made on its first step, or later, where a setting decides that they exist."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from optlang import ir
from optlang.backends.module.layout import Lines, bracketed, indented
from optlang.backends.module.leaves import cell_leaves
from optlang.backends.module.scene import Want
from optlang.backends.module.section import write
from optlang.backends.module.spell import shape_text, spell
from optlang.backends.module.update import Update, may_come_later
from optlang.ir import Node
from optlang.printing.precedence import Piece
from optlang.printing.python_text import literal, quoted

KINDS = {"bool": "torch.bool", "int": "torch.int64"}
STEP_ON_CPU, STEP_ON_DEVICE = '"cpu"', 'param.device if group["capturable"] else "cpu"'
Guarded = tuple[tuple[Node, ...], Lines]  # conditions, one in the other, and lines that need all of them


def first_lines(update: Update) -> Lines:
    """What a first step makes; `update` is told what later ones make."""
    own = [s for s in update.program.states if s.type.extent.level not in ("group", "model")]
    update.later = later_lines(update, [s for s in own if may_come_later(s, update.words)])
    return start_lines(update, [s for s in own if not may_come_later(s, update.words)])


def start_lines(update: Update, states: Sequence[ir.State]) -> Lines:
    """`state["m"] = …` for each state of a parameter, under an `if` where it exists for some parameters only."""
    made: dict[Node | None, Lines] = {}
    for s in states:
        made.setdefault(s.guard, []).extend([] if _is_computed(update, s) else init_lines(update, s))
    for guard, lines in made.items():
        lines += computed_lines(update, [s for s in states if s.guard is guard and _is_computed(update, s)])
    step = f'state["step"] = torch.zeros((), device={STEP_ON_CPU if update.uncapturable else STEP_ON_DEVICE})'
    return [step, *_nested(update, [(_conditions(guard), lines) for guard, lines in made.items()])]


def later_lines(update: Update, states: Sequence[ir.State]) -> Lines:
    """Makes each such state when it is first needed."""
    guarded: list[Guarded] = []
    for guard, some in itertools.groupby(states, lambda s: s.guard):
        *around, last = _conditions(guard)
        alike, condition = [*some], expression(update, last)
        condition = f"({condition})" if " or " in condition or " if " in condition else condition
        made = indented(line for s in alike for line in init_lines(update, s))
        guarded.append((tuple(around), [f"if {condition} and {quoted(alike[0].name)} not in state:", *made]))
    return _nested(update, guarded)


def shapes_body(update: Update, names: set[str]) -> Lines:
    """What tells the shapes of some states, those left out that a setting decides about."""
    made: dict[Node | None, Lines] = {}
    entries = ['"step": ()']
    for s in update.program.states:
        if s.name in names and s.guard is None:
            entries.append(f"{quoted(s.name)}: {_shape(s)}")
        elif s.name in names and not may_come_later(s, update.words):
            made.setdefault(s.guard, []).append(f"shapes[{quoted(s.name)}] = {_shape(s)}")
    known = f"{{{', '.join(entries)}}}"
    known_lines = [f"return {known}"] if len(known) <= 100 else bracketed("return {", entries, "}")
    if not made:
        return known_lines
    known_lines = [line.replace("return ", "shapes: dict[str, tuple[int, ...]] = ", 1) for line in known_lines]
    return [*known_lines, *_nested(update, [(_conditions(guard), lines) for guard, lines in made.items()]), "return shapes"]


def _shape(s: ir.State) -> str:
    shape = shape_text(s.type.extent)
    if not s.type.window:
        return shape
    return f"({s.type.window}, *{shape})" if shape != "()" else f"({s.type.window},)"


def _conditions(guard: Node | None) -> tuple[Node, ...]:
    """What must hold one by one, from the outermost block to the innermost."""
    if guard is None:
        return ()
    return (*_conditions(guard.args[0]), *_conditions(guard.args[1])) if guard.op == "and" else (guard,)


def _nested(update: Update, guarded: Sequence[Guarded]) -> Lines:
    """Lines under their conditions: those of one condition under one `if`, what follows for its opposite under an `else`."""
    lines: Lines = []
    before: Node | None = None
    for condition, some in itertools.groupby(guarded, lambda one: one[0][0] if one[0] else None):
        if condition is None:
            lines += [line for _, made in some for line in made]
        else:
            opposite = condition.op == "not" and condition.args[0] is before
            inner = _nested(update, [(conditions[1:], made) for conditions, made in some])
            if opposite:
                lines += [f"el{inner[0]}", *inner[1:]] if is_one_choice(inner) else ["else:", *indented(inner)]
            else:
                lines += [f"if {expression(update, condition)}:", *indented(inner)]
        before = condition
    return lines


def is_one_choice(lines: Lines) -> bool:
    """Whether some lines are one `if`, with an `else` or without."""
    first, *others = [line for line in lines if not line.startswith(" ")]
    return first.startswith("if ") and others in ([], ["else:"])


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
    if _is_computed(update, s):
        return computed_lines(update, [s])
    key, dtype = f"state[{quoted(s.name)}]", KINDS.get(s.type.kind, "dtype")
    if s.init is ir.W:
        return [f"{key} = param.to(dtype, copy=True)"]
    shape, element = _shape(s), str(s.type.extent) == "element"
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


def _is_computed(update: Update, s: ir.State) -> bool:
    """Whether a state starts from what only lines of their own can say."""
    return s.init not in update.numbers and not (s.init is ir.W and not s.type.window and str(s.type.extent) == "element")


def computed_lines(update: Update, states: Sequence[ir.State]) -> Lines:
    body, _ = write([Want(s.init, template=_start(s)) for s in states], update.cell_scene(False), update.names)
    return [*update.settings(body), *body]


def _start(s: ir.State) -> str:
    key, shape = f"state[{quoted(s.name)}]", _shape(s)
    if s.type.kind in KINDS:
        return f"{key} = torch.as_tensor({{}}, dtype={KINDS[s.type.kind]}, device=param.device).expand({shape}).clone()"
    return f"{key} = torch.broadcast_to({{}}, {shape}).clone()"
