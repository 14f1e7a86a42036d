"""What the values that expressions start from are called in a generated module, and where they are found."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from optlang import ir
from optlang.ir import Node, Program
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
    "ParamsT", "FakeTensor", "ExitStack", "holds",
)  # fmt: skip
BETAS = ("beta1", "beta2")


class Words:
    """The names of one program's hypers, states, inputs and equations as Python writes them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = Names(RESERVED)
        self.hypers = self.names.short([h.name for h in program.hypers])
        self.states = self.names.short([s.name for s in program.states])
        self.inputs = self.names.short([i.name for i in program.inputs])
        self.has_betas = all(b in self.hypers.values() for b in BETAS)
        self.has_rate = "lr" in self.hypers.values()

    def setting(self, name: str, group: str = "group") -> str:
        """Where a group keeps a hyper."""
        word = self.hypers[name]
        if self.has_betas and word in BETAS:
            return f'{group}["betas"][{BETAS.index(word)}]'
        return f"{group}[{quoted(word)}]"

    def settings_lines(self, used: Iterable[str]) -> list[str]:
        """The lines that give the hypers their names, in the order of the rule."""
        named = set(used)
        wanted = [h.name for h in self.program.hypers if h.name in named]
        plain = [n for n in wanted if not (self.has_betas and self.hypers[n] in BETAS)]
        lines = []
        for start in range(0, len(plain), 3):
            part = plain[start : start + 3]
            lines.append(f"{', '.join(self.hypers[n] for n in part)} = {', '.join(self.setting(n) for n in part)}")
        found = [self.hypers[n] for n in wanted if n not in plain]
        if len(found) == 2:
            lines.append('beta1, beta2 = group["betas"]')
        elif found:
            lines.append(f'{found[0]} = group["betas"][{BETAS.index(found[0])}]')
        return lines


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
        word, node = words.hypers[h.name], ir.hyper(h.name, h.kind)
        if level == "group":
            leaves[node] = (word, words.setting(h.name, "team.group"))
            continue
        if words.has_betas and word in BETAS:
            value = f'_agreed(cells, "betas")[{BETAS.index(word)}]'
        else:
            value = f"_agreed(cells, {quoted(word)})"
        leaves[node] = (word, value) if node in certain else (value, "")
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
