"""What the values that expressions start from are called in a generated module, and where they are found."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from optlang import ir
from optlang.ir import Hyper, Node, Program
from optlang.printing.identifiers import Names
from optlang.printing.python_text import quoted

RESERVED = (
    "w", "g", "t", "self", "param", "params", "group", "groups", "number", "state", "step", "closure", "loss", "cell", "cells",
    "team", "teams", "key", "others", "everyone", "all_teams", "dtype", "random_state", "places", "defaults", "home",
    "maximize", "foreach", "capturable", "differentiable", "fused", "seed", "betas",
    "torch", "math", "functools", "sys", "warnings", "sha256", "Optimizer", "contextmanager", "fnmatchcase",
    "get_close_matches",
    "max", "min", "abs", "round", "float", "int", "bool", "len", "range", "sum", "any", "all", "zip", "set", "list", "dict",
    "isinstance", "super", "enumerate", "name", "names", "inf", "nan", "print", "type", "tuple", "str", "RuntimeError",
    "ValueError", "TypeError", "math_", "rule", "copy", "asked", "put_back", "param_groups", "Any", "Callable", "Iterable", "Iterator",
    "ParamsT", "FakeTensor", "ExitStack", "holds", "tensors", "scalars", "elements", "triton", "tl",
)  # fmt: skip
BETAS = ("beta1", "beta2")


class Setting(NamedTuple):
    """What a group has a key for: a hyper, or all those that are the numbers of a table, row by row."""

    name: str
    word: str
    hypers: tuple[Hyper, ...]

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of a table."""
        return place_in_table(self.hypers[-1].name) if self.hypers[0].table else None


class Words:
    """The names of one program's hypers, states, inputs and equations as Python writes them. `counts`: those that are lengths of loops."""

    def __init__(self, program: Program, counts: Collection[str] = ()) -> None:
        self.program = program
        self.fixed = {h.name for h in program.hypers if h.baked and h.name not in counts}  # they have shaped the program
        self.names = Names(RESERVED)
        made: dict[str, list[Hyper]] = {}
        for h in program.hypers:
            made.setdefault(h.table or h.name, []).append(h)
        words = self.names.short([*made])
        self.settings = [Setting(name, words[name], tuple(hypers)) for name, hypers in made.items()]
        self.word_of = {h.name: s.word for s in self.settings for h in s.hypers}
        self.hypers = {name: f"{word}{_indices(name)}" for name, word in self.word_of.items()}
        self.states = self.names.short([s.name for s in program.states])
        self.inputs = self.names.short([i.name for i in program.inputs])
        self.has_betas = all(b in self.hypers.values() for b in BETAS)
        self.has_rate = "lr" in self.hypers.values()

    def setting(self, name: str, group: str = "group") -> str:
        """Where a group keeps a hyper."""
        word = self.word_of[name]
        if self.has_betas and word in BETAS:
            return f'{group}["betas"][{BETAS.index(word)}]'
        return f"{group}[{quoted(word)}]{_indices(name)}"

    def settings_lines(self, used: Iterable[str]) -> list[str]:
        """The lines that give settings their names, in the order of the rule; `used` are those that are needed."""
        named = set(used)
        wanted = [s.word for s in self.settings if s.word in named]
        plain = [word for word in wanted if not (self.has_betas and word in BETAS)]
        lines = []
        for start in range(0, len(plain), 3):
            part = plain[start : start + 3]
            lines.append(f"{', '.join(part)} = {', '.join(f'group[{quoted(word)}]' for word in part)}")
        found = [word for word in wanted if word not in plain]
        if len(found) == 2:
            lines.append('beta1, beta2 = group["betas"]')
        elif found:
            lines.append(f'{found[0]} = group["betas"][{BETAS.index(found[0])}]')
        return lines


def place_in_table(name: str) -> tuple[int, int]:
    """Row and column, counted from 1, of a hyper that is a number of a table."""
    row, col = name.partition("[")[2].rstrip("]").split(",")
    return int(row), int(col)


def _indices(name: str) -> str:
    """How Python takes a number out of its table."""
    return "".join(f"[{place - 1}]" for place in place_in_table(name)) if "[" in name else ""


def cell_leaves(words: Words, gathered: bool, always_matrix: bool, key: str = "param") -> dict[Node, tuple[str, str]]:
    """Leaves of code for one parameter. `gathered`: parameters were collected into cells first; `key`: by which inputs are given."""
    gradient = 'cell.g' if gathered else '(-param.grad if group["maximize"] else param.grad).to(dtype)'
    leaves = {ir.W: ("w", "param.to(dtype)"), ir.G: ("g", gradient), ir.T: ("t", "cell.t" if gathered else '_count(state["step"])')}
    leaves |= {ir.hyper(h.name, h.kind): (words.hypers[h.name], "") for h in words.program.hypers}
    for s in words.program.states:
        if s.type.extent.level not in ("group", "model"):
            wide = ".double()" if s.type.kind == "int" else ""
            leaves[s.node] = (words.states[s.name], f"state[{quoted(s.name)}]{wide}")
    for i in words.program.inputs:
        if i.type.extent.level not in ("group", "model"):
            leaves[ir.input_(i.name, i.type)] = (words.inputs[i.name], f"self._input({quoted(i.name)}, {key}, dtype)")
    return leaves | fact_leaves(always_matrix)


def fact_leaves(always_matrix: bool) -> dict[Node, tuple[str, str]]:
    """Static facts; those of matrices are NaN for a parameter that is none."""
    matrix = {
        "rows": "param.shape[-2]", "cols": "param.shape[-1]", "fan_in": "math.prod(param.shape[1:])",
        "fan_out": "param.shape[0] * math.prod(param.shape[2:])",
    }  # fmt: skip
    leaves = {ir.fact("rank"): ("param.ndim", ""), ir.fact("numel"): ("param.numel()", "")}
    guard = "" if always_matrix else " if param.ndim > 1 else math.nan"
    return leaves | {ir.fact(name): (name, text + guard) for name, text in matrix.items()}


def shared_leaves(words: Words, level: str, certain: Collection[Node] = ()) -> dict[Node, tuple[str, str]]:
    """Leaves of code for a group (`level` "group") or for all parameters. Groups must agree in a setting where it is read:
    those that are not `certain` to be read have no line of their own."""
    where = "team" if level == "group" else "cells"
    latest = "_latest(team.cells)" if level == "group" else "_latest(cells)"
    leaves = {ir.T: ("t", latest)}
    for h in words.program.hypers:
        word, node = words.word_of[h.name], ir.hyper(h.name, h.kind)
        if level == "group":
            value = words.setting(h.name, "team.group")
        elif words.has_betas and word in BETAS:
            value = f'_agreed(cells, "betas")[{BETAS.index(word)}]'
        else:
            value = f"_agreed(cells, {quoted(word)}){_indices(h.name)}"
        is_named = not h.table and (level == "group" or node in certain)
        leaves[node] = (word, value) if is_named else (value, "")
    if level == "model":
        signed = '-loss if cells[0].group["maximize"] else loss'
        leaves[ir.LOSS] = ("loss_value", f"_mean_loss({signed}, [cell.param for cell in cells], home)")
    first = "team.cells[0].state" if where == "team" else "cells[0].state"
    for s in words.program.states:
        if s.type.extent.level == level:
            leaves[s.node] = (words.states[s.name], f"{first}[{quoted(s.name)}]")
    for i in words.program.inputs:
        if i.type.extent.level == level:
            number = ", team.number" if level == "group" else ""
            leaves[ir.input_(i.name, i.type)] = (words.inputs[i.name], f"self._shared_input({quoted(i.name)}, home{number})")
    return leaves
