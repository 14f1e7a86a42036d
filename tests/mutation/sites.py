"""Where and how a module can be changed: one change of one expression or statement is a mutant."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitXor: ast.BitOr,
}  # fmt: skip
UNTOUCHED = ("__repr__", "__str__")
Change = tuple[str, ast.AST, ast.AST]  # the operator, what was there, what comes there


@dataclass(frozen=True)
class Mutant:
    """One change: bytes `start` to `end` of a file become `new`. `statement`: its first line and its last."""

    file: str
    operator: str
    line: int
    start: int
    end: int
    old: str
    new: str
    statement: tuple[int, int]

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants(root: Path, file: str) -> list[Mutant]:
    """All mutants of a file, in the order of the text."""
    source = (root / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for (operator, old, new), statement in _changes(ast.parse(source)):
        assert isinstance(old, ast.expr | ast.stmt) and old.end_lineno is not None and old.end_col_offset is not None
        start, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
        text = f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
        assert isinstance(statement, ast.stmt)
        lines = (statement.lineno, _head_end(statement))
        found.append(Mutant(file, operator, old.lineno, start, end, source[start:end].decode(), text, lines))
    return sorted(found, key=lambda m: (m.start, m.end, m.new))


def _head_end(statement: ast.stmt) -> int:
    """The last line of a statement without its body."""
    body = getattr(statement, "body", None)
    return max(statement.lineno, body[0].lineno - 1) if isinstance(body, list) else statement.end_lineno or statement.lineno


def _changes(tree: ast.Module) -> Iterator[tuple[Change, ast.stmt]]:
    waiting: list[tuple[ast.AST, ast.stmt | None]] = [(tree, None)]
    while waiting:
        node, statement = waiting.pop()
        statement = node if isinstance(node, ast.stmt) else statement
        if statement is not None:
            yield from ((change, statement) for change in _of(node))
        waiting.extend((child, statement) for child in _inside(node))


def _inside(node: ast.AST) -> list[ast.AST]:
    """The parts of a node that are changed: no types, documentation, messages, text made of pieces, or words for a reader."""
    match node:
        case ast.FunctionDef(name=name) if name in UNTOUCHED:
            return []
        case ast.FunctionDef():
            return [*node.args.defaults, *(x for x in node.args.kw_defaults if x is not None), *node.body]
        case ast.ClassDef():
            return [*node.body]
        case ast.AnnAssign():
            return [node.value] if node.value is not None and not _is_type(node) else []
        case ast.Import() | ast.ImportFrom() | ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            return []
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return []
        case ast.Assign(value=ast.Subscript(value=ast.Name(id="Literal" | "Callable" | "tuple"))):
            return []
        case ast.Call(func=ast.Name(id="cast" | "TypeVar")):
            return []
    return [*ast.iter_child_nodes(node)]


def _is_type(node: ast.AnnAssign) -> bool:
    return isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"


def _of(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.stmt():
            yield from _of_statement(node)
        case ast.Constant():
            yield from (("constant", node, ast.Constant(value)) for value in _beside(node.value))
        case ast.expr():
            yield from _of_expression(node)
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.comprehension):
        yield from _conditions(node)


def _of_expression(node: ast.expr) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=[op]):
            yield "comparison", node, _with(node, ops=[COMPARED[type(op)]()])
        case ast.BinOp(op=op) if type(op) in COMPUTED and not _is_text(node.left) and not _is_text(node.right):
            yield "arithmetic", node, _with(node, op=COMPUTED[type(op)]())
        case ast.BoolOp(op=op):
            yield "and/or", node, _with(node, op=ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not()):
            yield "not", node, node.operand
        case ast.Call(func=ast.Name(id="isinstance" | "getattr" | "hasattr")):
            return  # of no use: every test fails
        case ast.Call(args=[first, second, *rest]) if not _starred(first, second) and ast.dump(first) != ast.dump(second):
            yield "arguments", node, _with(node, args=[second, first, *rest])


def _of_statement(node: ast.stmt) -> Iterator[Change]:
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", node, ast.Return(None)
        case ast.AugAssign(op=op) if type(op) in COMPUTED and not _is_text(node.value):
            yield "arithmetic", node, _with(node, op=COMPUTED[type(op)]())
    match node:
        case ast.Expr(value=value) if not isinstance(value, ast.Constant | ast.Yield | ast.YieldFrom):
            yield "statement", node, ast.Pass()
        case ast.AugAssign() | ast.Continue() | ast.Break() | ast.Raise() | ast.Delete():
            yield "statement", node, ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", node, ast.Pass()


def _beside(value: object) -> list[float]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1]
        case float():
            return [value + 1]
    return []


def _conditions(node: ast.If | ast.IfExp | ast.While | ast.comprehension) -> Iterator[Change]:
    tests = node.ifs if isinstance(node, ast.comprehension) else [node.test]
    for test in tests:
        if not isinstance(test, ast.Constant):
            values = (False,) if isinstance(node, ast.While) else (True, False)
            yield from (("condition", test, ast.Constant(value)) for value in values)


def _with(node: ast.AST, **parts: object) -> ast.AST:
    changed = copy.copy(node)
    for name, part in parts.items():
        setattr(changed, name, part)
    return changed


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _starred(*nodes: ast.AST) -> bool:
    return any(isinstance(node, ast.Starred) for node in nodes)
