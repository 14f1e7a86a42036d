"""Equal signs, operators and operands."""

from __future__ import annotations

from optlang.errors import Fix, Span
from optlang.front.advice.trouble import ENDS_VALUE, OPERATORS, VALUES, Advice, Trouble, begins_statement, shown
from optlang.front.foreign import WEIGHTS
from optlang.front.scan import Lexeme

OVER = frozenset(["over", "along", "across", "axis", "dim"])  # before what others reduce


def equal_signs(x: Trouble) -> Advice | None:
    """`=` for `==` and the other way round, two of them, or none behind which something stands."""
    if x.here.type == "COMPARE" and x.here.text == "==" and x.index == x.start + 1 and x.first.type in ("NAME", "PRIMED"):
        found = x.say("S09", "an equation has one `=`", "`==` compares; write `=`", fix=Fix(x.here.span, "="))
        return Advice(found, x.instead(Lexeme("EQUAL", "=", x.here.start, x.here.end)))
    if x.here.type != "EQUAL":
        return None
    if x.before.type in ("NAME", "PRIMED") and x.before.fresh and x.index - 2 >= x.start:
        return _missing_value(x, x.index - 2)
    if x.before.type == "EQUAL":
        return Advice(x.say("S09", "two `=` in a row", "an equation has one `=`; `==` compares", fix=Fix(x.here.span, "")), x.instead())
    if x.first.type in ("EVERY", "REPEAT") and x.before.type == "NAME" and x.index == x.start + 2:
        help_ = f"write the number alone, `{x.first.text} 10 {{ … }}`, or an `int` hyper"
        return Advice(x.say("S09", f"nothing is set behind `{x.first.text}`", help_), (x.index - 1, x.index + 1, []))
    if x.first.type == "WHEN" or x.has("EQUAL"):
        found = x.say("S09", "`=` does not compare", "write `==`", fix=Fix(x.here.span, "=="))
        return Advice(found, x.instead(Lexeme("COMPARE", "==", x.here.start, x.here.end)) if "COMPARE" in x.wants else None)
    return None


def _missing_value(x: Trouble, at: int) -> Advice:
    """An operator or `=` at the end of a statement. `at` is its index; what follows is read as the next statement."""
    sign = x.lexemes[at]
    nothing = Lexeme("NAME", "", sign.end, sign.end)
    found = x.say("S16", f"a value is missing after `{sign.text}`", "write what is meant, or delete the sign", sign)
    return Advice(found, (at + 1, at + 1, [nothing]))


def dangling(x: Trouble) -> Advice | None:
    """`w' = w -`, then the next statement, a bracket or the end."""
    if "NUMBER" not in x.wants or x.before.type not in OPERATORS | {"EQUAL", "COMMA", "LPAR", "RETURN"}:
        return None
    ends = x.here.type in ("RBRACE", "RPAR", "COMMA", "$END", "LBRACE") or begins_statement(x.lexemes, x.index)
    if x.here.type in OPERATORS and x.before.type in OPERATORS:
        return Advice(x.say("S16", f"a value is missing between `{x.before.text}` and `{x.here.text}`",
                            "write what is meant, or delete one of the signs"), x.instead())  # fmt: skip
    if ends and x.before.type != "LPAR":
        return _missing_value(x, x.index - 1)
    return None


def index(x: Trouble) -> Advice | None:
    """`m[t-1]`, `m_{t-1}`, `m[0]`, `h[-1]`, `max{a, b}` and lists."""
    if x.here.type == "LBRACE" and x.before.type in ("NAME", "PRIMED") and "LBRACE" not in x.wants and x.before.end == x.here.start:
        return _in_braces(x)
    if x.here.type == "LSQB" and "NUMBER" in x.wants:
        return Advice(x.say("S11", "there are no lists", "give every value a name of its own"))
    if x.here.type != "LSQB" or x.before.type not in ("NAME", "PRIMED", "RPAR"):
        return None
    inside = x.source.text[x.here.end : x.here.partner.start if x.here.partner else x.here.end].replace(" ", "")
    if inside.startswith("t"):
        help_ = _old_or_new(x.before.text, inside)
    elif x.before.text == "betas":
        help_ = "declare `hyper beta1` and `hyper beta2`; the optimizer then takes `betas = (…, …)`"
    elif x.before.text in ("E", "𝔼"):
        help_ = "an average over elements is `mean(x)`, one over steps a state: `m' = beta*m + (1 - beta)*x`"
    else:
        help_ = "values have no elements to pick; reduce them (`mean(x per row)`), or keep a window: `state h[10] = nan`"
    return Advice(x.say("S11", "values cannot be indexed", help_))


def _in_braces(x: Trouble) -> Advice:
    inside = x.source.text[x.here.end : x.here.partner.start if x.here.partner else x.here.end].replace(" ", "")
    name = x.before.text.rstrip("_")
    if name == x.before.text:
        return Advice(x.say("S11", "braces hold statements, not values", "arguments stand in round brackets, `max(a, b)`"))
    help_ = _old_or_new(name, inside) if inside.startswith("t") else f"it is part of the name: `{name}_{inside[:20]}`, say"
    return Advice(x.say("S11", "there are no indices", help_, x.before.span.to(x.here.span)))


def _old_or_new(name: str, index: str) -> str:
    """What `m[t-1]` and `m[t]` are here."""
    if name in ("g", "t", "loss"):
        return f"`{name}` is that of this step"
    name = "w" if name in WEIGHTS else name
    if index in ("t", "t+1"):
        return f"the new value is `{name}'`"
    return f"the value before this step is `{name}` itself, the new one `{name}'`"


def missing_operator(x: Trouble) -> Advice | None:
    """`beta1 m`, `2 (a + b)`, `(a)(b)`."""
    if x.before.type not in ENDS_VALUE or x.here.type not in VALUES | {"LPAR"} or x.here.fresh or not x.wants & {"TIMES", "COMMA"}:
        return None
    if "STRING" in (x.before.type, x.here.type) or begins_statement(x.lexemes, x.index):
        return None
    span = x.before.span.to(x.here.span)
    if x.here.type == "NAME" and x.after().type == "EQUAL":
        return Advice(x.say("S07", f"a comma is missing before {shown(x.here)}", "write `,` between arguments",
                            fix=Fix(Span(x.before.end, x.before.end), ",")), x.put(x.virtual("COMMA", ",")))  # fmt: skip
    if x.here.text in OVER:
        help_ = "what remains is said, not what is reduced: `mean(x per row)` is one value per row"
    elif x.before.depth > 0:
        help_ = "write `*` for a product, or a comma between operands"
    else:
        help_ = "a product needs its `*`"
    found = x.say("S07", f"an operator is missing between {shown(x.before)} and {shown(x.here)}", help_, span,
                  fix=Fix(Span(x.before.end, x.here.start), "*"))  # fmt: skip
    return Advice(found, x.put(x.virtual("TIMES", "*")) if "TIMES" in x.wants else None)
