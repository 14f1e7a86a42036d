"""Expressions as LaTeX: names as papers write them, as few brackets as possible."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT, Dim, Extent

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ", "iota": "ι", "kappa": "κ",
    "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "φ", "chi": "χ",
    "psi": "ψ", "omega": "ω",
}  # fmt: skip
CAPITALS = {
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Upsilon": "Υ", "Phi": "Φ", "Psi": "Ψ",
    "Omega": "Ω",
}  # fmt: skip
NUMBERED = re.compile(rf"(.|{'|'.join(GREEK)})(\d*)", re.DOTALL)  # what may have a word below it: a letter, `beta2`
COMMANDS = {letter: rf"\{word}" for word, letter in {**GREEK, **CAPITALS}.items()}
WORDS = {"lr": r"\eta", "eps": r"\epsilon", "weight_decay": r"\lambda", "momentum": r"\mu"}
FACTS = {"fan_in": r"n_{\mathrm{in}}", "fan_out": r"n_{\mathrm{out}}"}
INFIX = {
    "add": "+", "sub": "-", "mul": r"\,", "lt": "<", "le": r"\leq", "gt": ">", "ge": r"\geq", "eq": "=", "ne": r"\neq",
    "and": r"\wedge", "or": r"\vee", "matmul": r"\,",
}  # fmt: skip
ATOM, PREFIX = 100, 6  # precedence of what never needs brackets, and of a leading minus


def symbol(name: str, time: str = "") -> str:
    """A name as in a paper, a state with its time: Greek letters, subscripts, several letters upright, what it belongs to above.

    `β_fast` is `\\beta_{\\mathrm{fast}}`, `beta2_min` is `\\beta_{2,\\mathrm{min}}`, `m1` at `t-1` is `m_{1,t-1}`, the number `W[2,1]` of a
    table `W_{2,1}`.
    """
    owner, _, bare = name.rpartition(".")
    letters, place, digits = re.findall(r"^(.+?)(?:\[(.*)\]|_?(\d*))$", bare, re.DOTALL)[0]
    head, _, word = letters.partition("_")
    if bare in WORDS:
        body, below = WORDS[bare], [time]
    elif word and (numbered := NUMBERED.fullmatch(head)):
        body, below = _letter(numbered[1]), [numbered[2], rf"\mathrm{{{_upright(word)}}}", place or digits, time]
    else:
        body, below = _letter(letters), [place or digits, time]
    subscript = ",".join(part for part in below if part)
    above = rf"^{{\mathrm{{{_upright(owner)}}}}}" if owner else ""
    return body + (f"_{{{subscript}}}" if subscript else "") + above


def _letter(letters: str) -> str:
    if letters in GREEK:
        return rf"\{letters}"
    if len(letters) == 1:
        return COMMANDS.get(letters, letters)
    return rf"\mathrm{{{_upright(letters)}}}"


def _upright(text: str) -> str:
    return "".join(r"\_" if c == "_" else f"{{{COMMANDS[c]}}}" if c in COMMANDS else c for c in text)


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
            return rf"\frac{{{self.text(node.args[0])}}}{{{self.text(node.args[1])}}}", ATOM - 1  # in brackets where it is raised
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
    return "" if node.value in ("window", None) or node.value.level == "tensor" else rf"_{{\mathrm{{{node.value.left}}}}}"


def _one_per(extent: Extent) -> str:
    """Behind a draw, what it has one value for, unless that is each element; or the sizes of a matrix."""
    if extent.left != "element":
        return rf"_{{\mathrm{{{extent.left}}}}}"
    return "" if (extent.rows, extent.cols) == (ELEMENT.rows, ELEMENT.cols) else _sizes(extent)


def _sizes(extent: Extent) -> str:
    """Of a matrix, as a subscript."""
    return rf"_{{{_size(extent.rows)} \times {_size(extent.cols)}}}"


def _size(size: Dim) -> str:
    return rf"\mathrm{{{size}}}" if isinstance(size, str) else f"{size}"


def _leaf(node: Node) -> tuple[str, int]:
    match node.op:
        case "const":
            return _number(node.value)
        case "hyper" | "input":
            return symbol(node.value), ATOM
        case "state":
            return symbol(node.value, "t-1"), ATOM
        case "fact":
            return FACTS.get(node.value, rf"\mathrm{{{node.value}}}"), ATOM
        case "random":
            return rf"\operatorname{{{node.value[0]}}}{_one_per(node.type.extent)}()", ATOM
        case "eye" if node.type.extent.rows != node.type.extent.cols:
            return rf"I{_sizes(node.type.extent)}", ATOM
        case "w":
            return "w_{t-1}", ATOM
        case "g":
            return "g_{t}", ATOM
    return OPS[node.op].latex or node.op, ATOM


def _number(value: float | bool) -> tuple[str, int]:
    if value == math.pi:
        return r"\pi", ATOM
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
