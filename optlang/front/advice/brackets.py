"""Brackets that are open, closed twice or closed by others."""

from __future__ import annotations

from optlang.errors import Fix, Label, Span
from optlang.front.advice.trouble import ENDS_VALUE, Advice, Trouble, begins_statement, shown
from optlang.front.scan import Lexeme


def unclosed(x: Trouble) -> Advice | None:
    """`x = (a + b`, then the next statement; its name may have been read as an operand before the `=` came."""
    if x.unclosed is None:
        return None
    if x.here.type == "COMMA" and "RPAR" in x.wants:
        around = [y for y in x.lexemes[x.start : x.index] if y.type == "LPAR" and y.depth <= x.here.depth]
        group = around[-1] if around else x.unclosed
        found = x.say("S03", "`(` is never closed", "write `)` where it ends", group, "opened here",
                      Fix(Span(x.before.end, x.before.end), ")"))  # fmt: skip
        return Advice(found, x.put(x.virtual("RPAR", ")")))
    at = x.index - (x.here.type == "EQUAL" and x.before.fresh)
    if at == x.index and x.here.type not in ("RBRACE", "LBRACE", "$END") and not begins_statement(x.lexemes, at):
        return None
    last = x.lexemes[at - 1]
    close = Lexeme("RPAR", ")", last.end, last.end) if x.unclosed.type == "LPAR" else Lexeme("RSQB", "]", last.end, last.end)
    nothing = [] if last.type in ENDS_VALUE else [Lexeme("NAME", "", last.end, last.end)]
    found = x.say("S03", f"`{x.unclosed.text}` is never closed", f"write `{close.text}` where it ends", x.unclosed,
                  "opened here", Fix(Span(last.end, last.end), close.text))  # fmt: skip
    return Advice(found, (at, at, [*nothing, close]))


def open_brace(x: Trouble) -> Advice | None:
    """The next rule, or the end, before a `}`."""
    if not x.open or x.in_statement or x.here.type not in ("RULE", "DEF", "ROUTE", "FROM", "$END"):
        return None
    if x.here.type in ("RULE", "DEF", "ROUTE") and all(y.partner is not None for y in x.open) and not _at_margin(x, x.here):
        return Advice(x.say("S19", f"{shown(x.here)} cannot stand inside a block", "move it out, to the top level of the file"))
    brace = _suspect(x)
    line, _ = x.source.position(brace.start)
    labels = (Label(x.here.span, "still open here"),) if x.here.type != "$END" else ()
    found = x.say("S03", "`{` is never closed", f"write `}}` at the end of the block that line {line} opens", brace,
                  "opened here", labels=labels)  # fmt: skip
    return Advice(found, x.put(*[x.virtual("RBRACE", "}") for _ in x.open]))


def _indent(x: Trouble, lexeme: Lexeme) -> int:
    line = x.source.line(x.source.position(lexeme.start)[0])
    return len(line) - len(line.lstrip())


def _at_margin(x: Trouble, lexeme: Lexeme) -> bool:
    """Whether a form stands no deeper than the one that is still open, on a line of its own."""
    return lexeme.fresh and _indent(x, lexeme) <= _indent(x, x.open[0])


def _suspect(x: Trouble) -> Lexeme:
    """The brace that was most likely forgotten: the innermost one whose partner is indented less than its line."""
    for lexeme in x.lexemes[: x.index]:
        partner = lexeme.partner
        paired = lexeme.type == "LBRACE" and partner is not None and partner.fresh
        if paired and partner is not None and _indent(x, partner) < _indent(x, lexeme):
            return lexeme
    return x.open[-1]


def closes_nothing(x: Trouble) -> Advice | None:
    if x.here.type not in ("RPAR", "RSQB", "RBRACE") or (x.here.partner is not None and (x.open or x.here.type != "RBRACE")):
        return None
    help_ = f"delete it, or open it with `{ {'RPAR': '(', 'RSQB': '[', 'RBRACE': '{'}[x.here.type] }` where it begins"
    return Advice(x.say("S04", f"`{x.here.text}` closes nothing", help_, fix=Fix(x.here.span, "")), x.instead())


def wrong_bracket(x: Trouble) -> Advice | None:
    """`f(x]`."""
    other = {"RPAR": ("RSQB", "]"), "RSQB": ("RPAR", ")")}.get(x.here.type)
    opened = x.here.partner
    if other is None or opened is None or opened.type[1:] == x.here.type[1:]:
        return None
    found = x.say("S04", f"`{opened.text}` is closed by `{x.here.text}`", f"write `{other[1]}`", fix=Fix(x.here.span, other[1]),
                  labels=(Label(opened.span, "opened here"),))  # fmt: skip
    mended = Lexeme(other[0], other[1], x.here.start, x.here.end, partner=opened)
    return Advice(found, x.instead(mended) if other[0] in x.wants else None)
