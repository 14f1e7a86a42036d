"""One operator as Python text: tensors with torch, numbers as `spell_numbers` has them."""

from __future__ import annotations

from collections.abc import Sequence

from optlang.backends.module.numbers import Numbers
from optlang.backends.module.spell_numbers import moving_number, number
from optlang.ir import Node
from optlang.ops import OPS
from optlang.printing.precedence import ATOM, Piece, chained
from optlang.printing.python_text import BIT_AND, BIT_OR, COMPARISONS, MINUS, POWER, PRODUCT, call, infix, is_one_call, ternary
from optlang.types import ELEMENT, Dim, Extent, Frame, needs_matrix, reduced_dims


def spell(node: Node, args: Sequence[Piece], numbers: Numbers, like: str) -> Piece:
    """The text of an operator over the texts of its operands. `like`: the name of a tensor where the result is to be."""
    row = OPS[node.op]
    if node in numbers:
        return moving_number(node, args, numbers) if node in numbers.moving else number(node, args, numbers)
    if node.op in COMPARISONS:
        return infix(node, args)
    if node.op in ("and", "or"):
        symbol, level = ("&", BIT_AND) if node.op == "and" else ("|", BIT_OR)
        return chained(args[0], symbol, args[1], level)
    if node.op in ("neg", "not"):
        return Piece(("-" if node.op == "neg" else "~") + args[0].inside(MINUS), MINUS)
    if row.role in ("reduce", "matrix", "spread"):
        large = [arg in numbers and arg.type.extent.level == "array" for arg in node.args]
        args = [filled(n, a, n in numbers.moving) if is_large else a for n, a, is_large in zip(node.args, args, large, strict=True)]
    if row.infix is not None:
        return infix(node, args)
    if node.op in ("where", "branch"):
        return _choice(node, args, numbers, like)
    if node.op in ("maximum", "minimum"):
        return _bound(node, args, numbers)
    if row.role == "reduce":
        if node.value != "window" and node.value.level != "array" and is_alone(node.args[0]):
            args = [Piece(f"{args[0].inside(ATOM)}.expand({shape_text(node.args[0].type.extent)})"), *args[1:]]
        return _reduction(node, args)
    return _other(node, args, numbers, like)


# --------------------------------------------------------------------------------------------------------- tensors


def _choice(node: Node, args: Sequence[Piece], numbers: Numbers, like: str) -> Piece:
    condition, yes, no = args
    if chooses_whole(node, numbers):
        is_known = node.args[0] in numbers and node.args[0] not in numbers.moving
        return ternary(condition, yes, no) if is_known else call("_where", *(a.text for a in args))
    if node.type.kind != "bool" and node.args[1] in numbers and node.args[2] in numbers:
        yes = wrapped(node.args[1], yes, numbers, like)  # two numbers would become one of torch's default type
    if node.args[0].type.extent.level == "tensor" and node.type.extent == ELEMENT:
        return call("_chosen", "param", condition.text, yes.text, no.text)
    return call("torch.where", condition.text, yes.text, no.text)


def _bound(node: Node, args: Sequence[Piece], numbers: Numbers) -> Piece:
    side = "min" if node.op == "maximum" else "max"
    for place in (1, 0):
        if node.args[place] in numbers:
            value, text = node.args[1 - place], args[1 - place].text
            from_below = value.op == "maximum" and text.startswith("torch.clamp(") and is_one_call(text)
            fixed = not any(a in numbers.moving or a in numbers.learned for a in (*node.args, *value.args))
            both = node.op == "minimum" and from_below and fixed
            first = text[len("torch.clamp(") : -1] if both else text  # both bounds in one call, which takes no number beside a tensor
            return call("torch.clamp", first, f"{side}={args[place].text}")
    return call(f"torch.{node.op}", args[0].text, args[1].text)


def _reduction(node: Node, args: Sequence[Piece]) -> Piece:
    more = [a.text for a in args[1:]]
    if node.value == "window":
        return call(f"_window_{node.op}", args[0].text, *more)
    dims = reduced_dims(node.args[0].type.extent, node.value)
    args = [in_runs(node, args[0]), *args[1:]]
    if node.op == "quantile":
        if dims == ():  # a quantile of one value each: that, or NaN where there is no such quantile
            return Piece(f"_quantile({args[0].inside(ATOM)}.unsqueeze(-1), {more[0]}, (-1,)).squeeze(-1)")
        return call("_quantile", args[0].text, *more, *([] if dims is None else [f"({', '.join(map(str, dims))},)"]))
    if dims == ():
        return args[0]
    inside = "" if dims is None else f"dim={dims[0] if len(dims) == 1 else dims}, keepdim=True"
    return Piece(f"{args[0].inside(ATOM)}.{node.op}({inside})")


def in_runs(node: Node, value: Piece) -> Piece:
    """What a reduction to runs takes: a row for each."""
    is_whole = node.value.run and not node.args[0].type.extent.run
    return call("_runs", value.text, str(node.value.run)) if is_whole else value


def filled(node: Node, number: Piece, moves: bool) -> Piece:
    """A number as the tensor of an extent, whose values are counted. `moves`: it may be a tensor itself."""
    shape = shape_text(node.type.extent)
    return Piece(f"_alike({number.text}, w).expand({shape})" if moves else f"w.new_full({shape}, {number.text})")


def wrapped(node: Node, number: Piece, numbers: Numbers, like: str) -> Piece:
    """A number as a tensor without dimensions."""
    return call("_alike", number.text, like) if node in numbers.moving else Piece(f"{like}.new_full((), {number.text})")


def chooses_whole(node: Node, numbers: Numbers) -> bool:
    """Whether a choice is made for the whole, by a number or by one value of several parameters: it gives one side as it is."""
    condition = node.args[0] if node.op == "where" else node
    one = condition.type.extent.level in ("host", "group", "model") and not condition.type.window
    return node.op == "where" and (condition in numbers or one)


def is_alone(node: Node) -> bool:
    """Whether a value of matrices is written once for all matrices of a batch: made of `eye` and `places` alone."""
    left, large = [node], False
    while left:
        one = left.pop()
        if one.type.extent.level == "array":
            large = large or one.op in ("eye", "places")
            if not one.args and one.op not in ("eye", "places"):
                return False
            left += one.args
    return large


def counted(node: Node, value: Piece) -> Piece:
    """`count(x)`: a number that the shape tells."""
    dims = reduced_dims(node.args[0].type.extent, node.value)
    if dims is None:
        batch = f".expand({shape_text(node.args[0].type.extent)})" if is_alone(node.args[0]) else ""
        return Piece(f"{value.inside(ATOM)}{batch}.numel()")
    value = in_runs(node, value)
    return Piece(" * ".join(f"{value.inside(ATOM)}.shape[{d}]" for d in dims) or "1", PRODUCT if len(dims) > 1 else ATOM)


def _other(node: Node, args: Sequence[Piece], numbers: Numbers, like: str) -> Piece:
    texts = [a.text for a in args]
    match node.op:
        case "transpose":
            return Piece(f"{args[0].inside(ATOM)}.mT")
        case "as_matrix":
            return Piece(f"{args[0].inside(ATOM)}.flatten(1)")
        case "as_param":
            return Piece(f"{args[0].inside(ATOM)}.reshape(param.shape)")
        case "spread":
            return call("_spread", texts[0], "param")
        case "push" | "eigenvectors" | "orthonormal" | "descending" | "inverse":
            return call(f"_{node.op}", *texts)
        case "mod":
            return call("torch.remainder", *texts)
        case "atan2":
            pairs = zip(node.args, args, strict=True)
            return call("torch.atan2", *((wrapped(n, a, numbers, like) if n in numbers else a).text for n, a in pairs))
        case "cbrt":
            return chained(call("torch.sign", texts[0]), "*", Piece(f"torch.abs({texts[0]}) ** (1 / 3)", POWER), PRODUCT)
        case _:
            return call(f"torch.{node.op}", *texts)


def shape_text(extent: Extent, tensor: str = "param") -> str:
    """The shape of one value of an extent, for a parameter."""
    if extent.level != "array":
        return "()"
    if extent.run:
        return f"(len(_runs({tensor}, {extent.run})), 1)"
    rows, cols = (size_text(dim, extent.frame, tensor) for dim in (extent.rows, extent.cols))
    if extent.frame == "flat":
        return f"({rows}, {cols})"
    if not needs_matrix(extent):
        return f"{tensor}.shape"
    return f"(*{tensor}.shape[:-2], {rows}, {cols})"


def size_text(dim: Dim, frame: Frame, tensor: str = "param") -> str:
    """The size of one dimension of a matrix."""
    sizes = {"rows": f"{tensor}.shape[0]", "cols": f"{tensor}[0].numel()"}
    if frame == "param":
        sizes = {"rows": f"{tensor}.shape[-2]", "cols": f"{tensor}.shape[-1]"}
    return sizes.get(str(dim), str(dim))
