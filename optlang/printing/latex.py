"""Expressions as LaTeX: names as papers write them, as few brackets as possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from optlang.ir import Node
from optlang.ops import OPS

GREEK = frozenset([
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho",
    "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
])  # fmt: skip
WORDS = {"lr": r"\eta", "eps": r"\epsilon", "weight_decay": r"\lambda", "momentum": r"\mu"}
FACTS = {"numel": "n", "rows": "r", "cols": "c", "rank": r"\mathrm{rank}", "fan_in": r"n_{\mathrm{in}}", "fan_out": r"n_{\mathrm{out}}"}
INFIX = {
    "add": "+", "sub": "-", "mul": r"\,", "lt": "<", "le": r"\leq", "gt": ">", "ge": r"\geq", "eq": "=", "ne": r"\neq",
    "and": r"\wedge", "or": r"\vee", "matmul": r"\,",
}  # fmt: skip
ATOM, PREFIX = 100, 6  # precedence of what never needs brackets, and of a leading minus


def symbol(name: str) -> str:
    """A name as in a paper: Greek letters, subscripts for digits, several letters upright, what it belongs to above."""
    owner, _, bare = name.rpartition(".")
    above = rf"^{{\mathrm{{{_upright(owner)}}}}}" if owner else ""
    if bare in WORDS:
        return WORDS[bare] + above
    letters, digits = re.findall(r"^(.*?)_?(\d*)$", bare, re.DOTALL)[0]
    below = f"_{{{digits}}}" if digits else ""
    if letters in GREEK:
        return rf"\{letters}{below}{above}"
    body = letters if len(letters) == 1 else rf"\mathrm{{{_upright(letters)}}}"
    return f"{body}{below}{above}"


def _upright(text: str) -> str:
    return text.replace("_", r"\_")


def at(name: str, time: str) -> str:
    """A state or the weights at a time: `m_{1,t-1}`."""
    written = symbol(name)
    found = re.search(r"_\{([^{}]*)\}", written)
    if found:
        return f"{written[: found.start()]}_{{{found[1]},{time}}}{written[found.end() :]}"
    head, caret, above = written.partition("^{")
    return f"{head}_{{{time}}}{caret}{above}"


class Printer:
    """Prints nodes; those in `names` by their name. `matrices`: there are matrix products, so others are told from them."""

    def __init__(self, names: Mapping[Node, str], matrices: bool = False) -> None:
        self.names, self.matrices = names, matrices

    def define(self, node: Node) -> str:
        """The expression itself, even where it has a name."""
        return self._print(node)[0]

    def text(self, node: Node, least: int = 0) -> str:
        """The expression, in brackets where it binds less tightly than `least`."""
        if node in self.names:
            return self.names[node]
        written, precedence = self._print(node)
        return written if precedence >= least else rf"\left({written}\right)"

    def _print(self, node: Node) -> tuple[str, int]:
        row = OPS[node.op]
        if not node.args:
            return _leaf(node)
        if node.op in ("where", "branch"):
            condition, yes, no = (self.text(arg) for arg in node.args)
            return rf"\begin{{cases}} {yes} & \text{{if }} {condition} \\ {no} & \text{{otherwise}} \end{{cases}}", 0
        if node.op == "sqrt" and _is_norm(node.args[0]):
            return self._norm(node.args[0]), ATOM
        if row.role == "reduce":
            return self._reduction(node), ATOM
        if node.op == "div":
            return rf"\frac{{{self.text(node.args[0])}}}{{{self.text(node.args[1])}}}", ATOM
        if node.op == "pow":
            return f"{{{self.text(node.args[0], ATOM)}}}^{{{self.text(node.args[1])}}}", 8
        if node.op in ("neg", "not"):
            return ("-" if node.op == "neg" else r"\neg ") + self.text(node.args[0], PREFIX), PREFIX - 1
        if node.op == "transpose":
            return rf"{{{self.text(node.args[0], ATOM)}}}^{{\top}}", 8
        if row.infix is not None:
            return self._infix(node, row.infix[1]), row.infix[1]
        if node.op == "hvp":
            return _filled(row.latex, [self.text(node.args[0], ATOM)]), PREFIX - 2
        inside = [self.text(arg, PREFIX if node.op == "mod" else 0) for arg in node.args]
        if row.latex:
            return _filled(row.latex, inside), ATOM
        return rf"\operatorname{{{_upright(node.op)}}}\left({', '.join(inside)}\right)", ATOM

    def _infix(self, node: Node, precedence: int) -> str:
        left, right = node.args
        tighter = precedence + 1 if node.op in ("sub", "lt", "le", "gt", "ge", "eq", "ne") else precedence
        first = self.text(left, precedence + self._mixed(node, left))
        second = self.text(right, max(tighter, precedence + self._mixed(node, right)))
        numbers = node.op == "mul" and second[:1].isdigit()
        sign = r"\cdot" if numbers else r"\odot" if self._elementwise(node) else INFIX[node.op]
        if second.startswith("-"):  # two signs never stand side by side
            second = rf"\left({second}\right)"
        return f"{first} {sign} {second}"

    def _elementwise(self, node: Node) -> bool:
        """Whether a product of elements could be read as one of matrices."""
        arrays = (arg.type.extent.level == "array" and str(arg.type.extent) != "matrix" for arg in node.args)
        return self.matrices and node.op == "mul" and all(arrays)

    def _mixed(self, node: Node, operand: Node) -> bool:
        """Whether a product of one kind stands in one of the other."""
        return {node.op, operand.op} == {"mul", "matmul"} and (self._elementwise(node) or self._elementwise(operand))

    def _norm(self, mean: Node) -> str:
        """Roots of sums and means of squares."""
        inside, below = self.text(mean.args[0].args[0]), _below(mean)
        return rf"\left\Vert {inside} \right\Vert{below}" if mean.op == "sum" else rf"\operatorname{{rms}}{below}\left({inside}\right)"

    def _reduction(self, node: Node) -> str:
        below = _below(node)
        inside = ", ".join(self.text(arg) for arg in node.args)
        if node.op == "sum":
            return rf"\sum{below} {self.text(node.args[0], 5)}"
        name = {"amax": r"\max", "amin": r"\min"}.get(node.op, rf"\operatorname{{{node.op}}}")
        return rf"{name}{below}\left({inside}\right)"


def _filled(template: str, inside: list[str]) -> str:
    """`{0}` is the first operand; doubled braces are single ones."""
    single = template.replace("{{", "{").replace("}}", "}")
    return re.sub(r"\{(\d)\}", lambda found: inside[int(found[1])], single)


def _is_norm(node: Node) -> bool:
    if node.op not in ("sum", "mean") or node.value == "window" or node.args[0].op != "pow":
        return False
    exponent = node.args[0].args[1]
    return exponent.op == "const" and exponent.value == 2


def _below(node: Node) -> str:
    """What a reduction leaves, where it is not one value for the whole parameter."""
    where = "" if node.value in ("window", None) else str(node.value)
    where = where.replace(" ", r"\ ")
    return rf"_{{\mathrm{{{where}}}}}" if where and where != "tensor" else ""


def _leaf(node: Node) -> tuple[str, int]:
    match node.op:
        case "const":
            return _number(node.value)
        case "hyper" | "input":
            return symbol(node.value), ATOM
        case "state":
            return at(node.value, "t-1"), ATOM
        case "fact":
            return FACTS[node.value], ATOM
        case "random":
            return rf"\operatorname{{{node.value[0]}}}()", ATOM
        case "w":
            return "w_{t-1}", ATOM
        case "g":
            return "g_{t}", ATOM
    return OPS[node.op].latex or node.op, ATOM


def _number(value: float | bool) -> tuple[str, int]:
    if isinstance(value, bool):
        return rf"\text{{{str(value).lower()}}}", ATOM
    if value != value:
        return r"\text{nan}", ATOM
    if value in (float("inf"), float("-inf")):
        return ("-" if value < 0 else "") + r"\infty", ATOM if value > 0 else PREFIX - 1
    mantissa, e, exponent = f"{value!r}".partition("e")
    if not e:
        return mantissa.removesuffix(".0"), ATOM if value >= 0 else PREFIX - 1
    power = f"10^{{{int(exponent)}}}"
    return (power if mantissa == "1" else rf"{mantissa} \cdot {power}"), 8 if value >= 0 else PREFIX - 1
