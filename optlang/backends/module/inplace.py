"""New values of states in place, as one writes them by hand: `m.mul_(beta1).add_(g, alpha=1 - beta1)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optlang.backends.module.spell import spell
from optlang.ir import Node
from optlang.printing.precedence import Piece, chained
from optlang.printing.python_text import PRODUCT, SUM

if TYPE_CHECKING:
    from optlang.backends.module.section import Section

Term = tuple[bool, Node]  # whether it is added, and what


def in_place(node: Node, leaf: Node, target: str, section: Section) -> str:
    """The statement that gives a state its new value."""
    if node.type.kind == "real" and not node.type.window:
        terms = _terms(node, section)
        text = _scaled_sum(terms, leaf, section) if len(terms) > 1 else _scaled(node, leaf, section)
        if text:
            return target + text
    return f"{target}.copy_({_whole(node, section)})"


def _whole(node: Node, section: Section) -> str:
    pieces = section.aligned(node, [section.pieces[arg] for arg in section.scene.operands(node)])
    return spell(node, pieces, section.scene.numbers, section.scene.like).text


def _is_written_out(node: Node, section: Section) -> bool:
    """Whether the operands of an expression may be taken apart: it has no name of its own."""
    named = node in section.named or node in section.claims or node in section.scene.rolled
    return bool(section.scene.operands(node)) and not named


def _terms(node: Node, section: Section) -> list[Term]:
    """A sum as its terms, in order."""
    found: list[Term] = []
    stack: list[tuple[bool, Node, bool]] = [(True, node, True)]
    while stack:
        plus, term, top = stack.pop()
        if term.op in ("add", "sub") and (top or _is_written_out(term, section)) and len(found) < 8:
            stack.append((plus == (term.op == "add"), term.args[1], False))
            stack.append((plus, term.args[0], False))
        else:
            found.append((plus, term))
    return found


def _factor(term: Node, leaf: Node, section: Section) -> Node | None:
    """`a` of a term `a*state`."""
    if term.op == "mul" and _is_written_out(term, section):
        for number, other in (term.args, term.args[::-1]):
            if other is leaf and number in section.scene.numbers:
                return number
    return None


def _scaled(node: Node, leaf: Node, section: Section) -> str:
    if node.op == "mul":
        for number, other in (node.args, node.args[::-1]):
            if other is leaf and leaf not in section.reads[number].old:
                return f".mul_({section.pieces[number].text})"
    return ""


def _scaled_sum(terms: list[Term], leaf: Node, section: Section) -> str:
    """`.mul_(a).add_(x)` for a sum of `a*state` and what does not read the state; "" where it is no such sum."""
    own = [t for t in terms if t[0] and (t[1] is leaf or _factor(t[1], leaf, section) is not None)]
    if len(own) != 1:
        return ""
    rest = [t for t in terms if t is not own[0]]
    factor = _factor(own[0][1], leaf, section)
    reads_itself = any(leaf in section.reads[term].old for _, term in rest)
    several = factor is not None or len(rest) > 1
    if len(rest) > 2 or (several and (reads_itself or leaf.op == "w")):  # weights may be of few bits: they are rounded once
        rest_sum = _summed(rest, section) if factor is None else ""
        return f".sub_({rest_sum})" if rest_sum else ""
    scale = f".mul_({section.pieces[factor].text})" if factor is not None else ""
    return scale + "".join(_added(plus, term, section) for plus, term in rest)


def _summed(rest: list[Term], section: Section) -> str:
    """Terms that are all subtracted, as one sum."""
    if any(plus for plus, _ in rest):
        return ""
    piece = section.pieces[rest[0][1]]
    for _, term in rest[1:]:
        piece = chained(piece, "+", section.pieces[term], SUM)
    return piece.text


def _added(plus: bool, term: Node, section: Section) -> str:
    """One term added to a tensor: with a number as `alpha`, squares and products as `addcmul_`, quotients as `addcdiv_`."""
    verb = "add_" if plus else "sub_"
    number, factors = _parts(term, section)
    if number is None or not factors:
        return f".{verb}({section.pieces[term].text})"
    if len(factors) == 1:
        over = factors[0]
        if over.op == "pow" and _is_written_out(over, section) and _is_two(over.args[1]) and _short(over.args[0], section):
            base = section.pieces[over.args[0]].text
            return f".addcmul_({base}, {base}, value={_signed(number, plus)})"
        if over.op == "div" and _is_written_out(over, section) and all(a not in section.scene.numbers for a in over.args):
            top, bottom = (section.pieces[a].text for a in over.args)
            return f".addcdiv_({top}, {bottom}, value={_signed(number, plus)})"
        return f".{verb}({section.pieces[over].text}, alpha={number.text})"
    if len(factors) == 2 and all(f.type.kind == "real" for f in factors):
        first, second = (section.pieces[f].text for f in factors)
        return f".addcmul_({first}, {second}, value={_signed(number, plus)})"
    return f".{verb}({section.pieces[term].text})"


def _parts(term: Node, section: Section) -> tuple[Piece | None, list[Node]]:
    """A product as its number, where torch takes it as `alpha`, and its other factors; a quotient keeps its divisor."""
    number: Piece | None = None
    factors: list[Node] = []
    stack = [term]
    while stack:
        node = stack.pop()
        if node in section.scene.numbers.moving:  # `alpha` is no tensor
            return None, []
        if node in section.scene.numbers:
            piece = section.pieces[node]
            number = piece if number is None else chained(number, "*", piece, PRODUCT)
        elif node.op == "mul" and _is_written_out(node, section):
            stack += [node.args[1], node.args[0]]
        else:
            factors.append(node)
    return number, factors


def _is_two(node: Node) -> bool:
    return node.op == "const" and node.value == 2


def _short(node: Node, section: Section) -> bool:
    return section.pieces[node].text.isidentifier()


def _signed(number: Piece, plus: bool) -> str:
    return number.text if plus else f"-{number.inside(PRODUCT)}"

