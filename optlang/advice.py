"""What to say about a lexeme that does not fit. The patterns stand in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from optlang.errors import Diagnostic, Fix, Label, Source, Span, did_you_mean
from optlang.foreign import STATEMENTS, TERNARY
from optlang.scan import Lexeme

VALUES = frozenset(["NAME", "PRIMED", "NUMBER", "STRING"])
ENDS_VALUE = VALUES | {"RPAR", "TRANSPOSE"}
STATEMENT_WORDS = {"hyper": "HYPER", "input": "INPUT", "state": "STATE", "eval": "EVAL", "report": "REPORT", "every": "EVERY",
                   "when": "WHEN", "repeat": "REPEAT", "return": "RETURN"}  # fmt: skip
ITEM_WORDS = {"rule": "RULE", "def": "DEF", "route": "ROUTE", "from": "FROM"}
BRANCH_WORDS = {"when": "WHEN", "otherwise": "OTHERWISE"}
SMALL_WORDS = {"in": "IN", "per": "PER", "from": "FROM", "import": "IMPORT", "use": "USE", "else": "ELSE", "and": "AND",
               "or": "OR", "not": "NOT", "otherwise": "OTHERWISE"}  # fmt: skip
OPERATORS = frozenset(["PLUS", "MINUS", "TIMES", "OVER", "MATMUL", "POWER", "COMPARE", "AND", "OR", "NOT"])
WORDS_OF = {"item": ITEM_WORDS, "statement": STATEMENT_WORDS, "branch": BRANCH_WORDS}


class Advice(NamedTuple):
    """The finding, and how to read on: (first, after, new) lexemes; None where only leaving out helps."""

    diagnostic: Diagnostic
    mend: tuple[int, int, Sequence[Lexeme]] | None = None


@dataclass
class Trouble:
    """A lexeme that does not fit, and what is around it."""

    source: Source
    lexemes: Sequence[Lexeme]
    index: int
    start: int  # index of the first lexeme of the statement
    place: str  # what kind of thing began there: item, statement, branch
    wants: frozenset[str]
    open: Sequence[Lexeme]  # the braces that are open
    unclosed: Lexeme | None = field(init=False)

    def __post_init__(self) -> None:
        opened: list[Lexeme] = []
        for lexeme in self.lexemes[self.start : self.index]:
            if lexeme.type in ("LPAR", "LSQB") and lexeme.partner is None:
                opened.append(lexeme)
            elif lexeme.type in ("RPAR", "RSQB") and lexeme.partner is None and opened:
                opened.pop()  # it was put there by a mend
        self.unclosed = opened[-1] if opened else None

    @property
    def here(self) -> Lexeme:
        return self.lexemes[self.index]

    @property
    def before(self) -> Lexeme:
        return self.lexemes[self.index - 1] if self.index else Lexeme("$START", "", 0, 0)

    @property
    def first(self) -> Lexeme:
        return self.lexemes[self.start]

    def after(self, steps: int = 1) -> Lexeme:
        return self.lexemes[min(self.index + steps, len(self.lexemes) - 1)]

    @property
    def in_statement(self) -> bool:
        """Whether the lexeme belongs to an unfinished statement, and is not one too many behind a complete one."""
        return not ({"RBRACE", "$END"} & self.wants)

    def say(
        self, code: str, message: str, help: str = "", at: Lexeme | Span | None = None, pointer: str = "",
        fix: Fix | None = None, labels: tuple[Label, ...] = (),
    ) -> Diagnostic:  # fmt: skip
        place = self.here if at is None else at
        span = place if isinstance(place, Span) else place.span
        return Diagnostic(code, message, span, pointer, help, labels=labels, fix=fix, source=self.source)

    def put(self, *new: Lexeme) -> tuple[int, int, Sequence[Lexeme]]:
        """A mend that inserts lexemes here."""
        return self.index, self.index, new

    def instead(self, *new: Lexeme) -> tuple[int, int, Sequence[Lexeme]]:
        """A mend that replaces the lexeme."""
        return self.index, self.index + 1, new

    def virtual(self, type_: str, text: str = "") -> Lexeme:
        return Lexeme(type_, text, self.before.end, self.before.end)


def begins_statement(lexemes: Sequence[Lexeme], index: int) -> bool:
    """Whether a statement, branch or top-level form begins here, as far as one can see without the grammar."""
    here = lexemes[index]
    if here.type in STATEMENT_WORDS.values() or here.type in ("RULE", "DEF", "ROUTE", "OTHERWISE", "$END"):
        return True
    following = lexemes[min(index + 1, len(lexemes) - 1)]
    if here.type == "FROM":
        return here.fresh and following.type == "NAME" and lexemes[min(index + 2, len(lexemes) - 1)].type == "IMPORT"
    if here.type == "NAME" and here.fresh and here.depth == 0 and here.text in STATEMENTS:
        return following.type in VALUES | {"LPAR"}
    return here.type in ("NAME", "PRIMED") and following.type == "EQUAL" and here.depth == 0


def advise(trouble: Trouble) -> Advice:
    """The first pattern that knows the trouble."""
    for pattern in PATTERNS:
        if (advice := pattern(trouble)) is not None:
            return advice
    return _unexpected(trouble)


def shown(lexeme: Lexeme) -> str:
    """How a message names a lexeme."""
    if lexeme.type == "$END":
        return "the end of the file"
    text = lexeme.text + "'" * (lexeme.type == "PRIMED") or "this"
    return f"`{text if len(text) <= 30 else text[:30] + '…'}`"


# -------------------------------------------------------------------------------------------------------- brackets


def _unclosed(x: Trouble) -> Advice | None:
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


def _open_brace(x: Trouble) -> Advice | None:
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


def _closes_nothing(x: Trouble) -> Advice | None:
    if x.here.type not in ("RPAR", "RSQB", "RBRACE") or (x.here.partner is not None and (x.open or x.here.type != "RBRACE")):
        return None
    help_ = f"delete it, or open it with `{ {'RPAR': '(', 'RSQB': '[', 'RBRACE': '{'}[x.here.type] }` where it begins"
    return Advice(x.say("S04", f"`{x.here.text}` closes nothing", help_, fix=Fix(x.here.span, "")), x.instead())


def _wrong_bracket(x: Trouble) -> Advice | None:
    """`f(x]`."""
    other = {"RPAR": ("RSQB", "]"), "RSQB": ("RPAR", ")")}.get(x.here.type)
    opened = x.here.partner
    if other is None or opened is None or opened.type[1:] == x.here.type[1:]:
        return None
    found = x.say("S04", f"`{opened.text}` is closed by `{x.here.text}`", f"write `{other[1]}`", fix=Fix(x.here.span, other[1]),
                  labels=(Label(opened.span, "opened here"),))  # fmt: skip
    mended = Lexeme(other[0], other[1], x.here.start, x.here.end, partner=opened)
    return Advice(found, x.instead(mended) if other[0] in x.wants else None)


# ------------------------------------------------------------------------------------------------- names and words


def _keyword_as_name(x: Trouble) -> Advice | None:
    """`state in = 0`, `x = from + 1`. A keyword that begins the next statement is no name."""
    if x.here.text not in SMALL_WORDS and x.here.text not in STATEMENT_WORDS:
        return None
    naming = x.before.type in ("HYPER", "STATE", "INPUT", "REPORT", "RULE", "DEF", "ROUTE", "IMPORT", "COMMA")
    used = x.after().type in OPERATORS | {"RPAR", "COMMA"} or (x.after().type == "EQUAL" and x.here.text != "eval")
    if not ("NAME" in x.wants or x.here.text not in STATEMENT_WORDS) or not (naming or used):
        return None
    if "NAME" not in x.wants and x.after().type != "EQUAL":
        return None
    name = Lexeme("NAME", x.here.text, x.here.start, x.here.end, x.here.fresh, depth=x.here.depth)
    found = x.say("S18", f"`{x.here.text}` is a keyword and cannot be a name", "choose another name")
    return Advice(found, x.instead(name) if "NAME" in x.wants else None)


def _unknown_statement(x: Trouble) -> Advice | None:
    """A name that begins a statement and is followed by neither `=` nor anything else that fits."""
    at = _statement_word(x)
    if at is None:
        return None
    word = x.lexemes[at]
    known = WORDS_OF["item" if not x.open else x.place if x.place != "item" else "statement"]
    if (advice := _foreign_statement(x, at, known)) is not None:
        return advice
    near = did_you_mean(word.text, known)
    if near and x.lexemes[at + 1].type in VALUES | {"LPAR", "EQUAL"}:
        mended = Lexeme(known[near], near, word.start, word.end, word.fresh)
        return Advice(x.say("S17", f"there is no statement `{word.text[:40]}`", f"did you mean `{near}`?", word,
                            fix=Fix(word.span, near)), (at, at + 1, [mended]))  # fmt: skip
    return None


def _statement_word(x: Trouble) -> int | None:
    """The index of the word that seems to begin the broken statement."""
    if x.here.type == "NAME" and not x.in_statement and (x.here.fresh or x.before.type in ("LBRACE", "RBRACE", "$START")):
        return x.index
    if x.first.type == "NAME" and x.index == x.start + 1 and x.here.type not in ("EQUAL", "COMPARE"):
        return x.start
    return None


def _foreign_statement(x: Trouble, at: int, known: dict[str, str]) -> Advice | None:
    word = x.lexemes[at]
    if word.text not in STATEMENTS or x.lexemes[at + 1].type == "EQUAL":
        return None
    meant, help_ = STATEMENTS[word.text]
    found = x.say("S13", f"`{word.text}` is not a statement of this language", help_, word,
                  fix=Fix(word.span, meant) if meant else None)  # fmt: skip
    if meant in known and x.lexemes[at + 1].type in VALUES | {"LPAR"}:
        return Advice(found, (at, at + 1, [Lexeme(known[meant], meant, word.start, word.end, word.fresh)]))
    return Advice(found)


def _side_by_side(x: Trouble) -> Advice | None:
    """`x = beta1 m`: the second name was taken for the beginning of an equation, until no `=` came."""
    behind = x.lexemes[x.start - 1] if x.start else x.before
    if x.index != x.start + 1 or x.first.type not in ("NAME", "PRIMED") or x.first.fresh or behind.type not in ENDS_VALUE:
        return None
    if (advice := _of_word(x, x.first) or _of_word(x, behind)) is not None:
        return advice
    found = x.say("S07", f"an operator is missing between {shown(behind)} and {shown(x.first)}", "a product needs its `*`",
                  behind.span.to(x.first.span), fix=Fix(Span(behind.end, x.first.start), "*"))  # fmt: skip
    return Advice(found)


def _ternary(x: Trouble) -> Advice | None:
    """`a if c else b`, `lambda x: …`, `c ? a : b`, `[… for x in y]`."""
    if x.here.text == "?":
        return Advice(x.say("S13", "there is no `c ? a : b`", "choose with `where(c, a, b)`"))
    return _of_word(x, x.here) or _of_word(x, x.before)


def _of_word(x: Trouble, word: Lexeme) -> Advice | None:
    if word.type != "NAME" or word.text not in TERNARY:
        return None
    if word.text == "lambda":
        return Advice(x.say("S13", "there is no `lambda`", "define the function by name at the top level: `def f(x) = …`", word))
    if word.text == "for":
        return Advice(x.say("S13", "there is no `for` in an expression", "operators work on all elements at once", word))
    if word.text == "is":
        return Advice(x.say("S13", "there is no `is`", "compare with `==`; `isnan(x)` tells NaN", word))
    return Advice(x.say("S13", "there is no `a if c else b`", "choose with `where(c, a, b)`", word))


def _else_if(x: Trouble) -> Advice | None:
    if x.before.type != "ELSE" or x.here.type == "LBRACE":
        return None
    if x.here.text in ("if", "when"):
        return Advice(x.say("S13", f"there is no `else {x.here.text}`", "nest it: `else { when cond { … } }`"))
    return None


# ------------------------------------------------------------------------------------------------------- equations


def _equal_signs(x: Trouble) -> Advice | None:
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
    if x.first.type == "WHEN" or _has(x, "EQUAL"):
        found = x.say("S09", "`=` does not compare", "write `==`", fix=Fix(x.here.span, "=="))
        return Advice(found, x.instead(Lexeme("COMPARE", "==", x.here.start, x.here.end)) if "COMPARE" in x.wants else None)
    return None


def _has(x: Trouble, type_: str) -> bool:
    return any(lexeme.type == type_ for lexeme in x.lexemes[x.start : x.index])


def _missing_value(x: Trouble, at: int) -> Advice:
    """An operator or `=` at the end of a statement. `at` is its index; what follows is read as the next statement."""
    sign = x.lexemes[at]
    nothing = Lexeme("NAME", "", sign.end, sign.end)
    found = x.say("S16", f"a value is missing after `{sign.text}`", "write what is meant, or delete the sign", sign)
    return Advice(found, (at + 1, at + 1, [nothing]))


def _dangling(x: Trouble) -> Advice | None:
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


def _index(x: Trouble) -> Advice | None:
    """`m[t-1]`, `m[0]`, `h[-1]`, and lists."""
    if x.here.type == "LSQB" and "NUMBER" in x.wants:
        return Advice(x.say("S11", "there are no lists", "give every value a name of its own"))
    if x.here.type != "LSQB" or x.before.type not in ("NAME", "PRIMED", "RPAR"):
        return None
    inside = x.source.text[x.here.end : x.here.partner.start if x.here.partner else x.here.end].replace(" ", "")
    if inside in ("t", "t+1"):
        help_ = f"the new value is `{x.before.text}'`"
    elif inside.startswith("t"):
        help_ = f"the value before this step is `{x.before.text}` itself, the new one `{x.before.text}'`"
    else:
        help_ = "values have no elements to pick; reduce them (`mean(x per row)`), or keep a window: `state h[10] = nan`"
    return Advice(x.say("S11", "values cannot be indexed", help_))


def _missing_operator(x: Trouble) -> Advice | None:
    """`beta1 m`, `2 (a + b)`, `(a)(b)`."""
    if x.before.type not in ENDS_VALUE or x.here.type not in VALUES | {"LPAR"} or x.here.fresh or not x.wants & {"TIMES", "COMMA"}:
        return None
    if "STRING" in (x.before.type, x.here.type) or begins_statement(x.lexemes, x.index):
        return None
    span = x.before.span.to(x.here.span)
    if x.here.type == "NAME" and x.after().type == "EQUAL":
        return Advice(x.say("S07", f"a comma is missing before {shown(x.here)}", "write `,` between arguments",
                            fix=Fix(Span(x.before.end, x.before.end), ",")), x.put(x.virtual("COMMA", ",")))  # fmt: skip
    if x.before.depth > 0:
        help_ = "write `*` for a product, or a comma between operands"
    else:
        help_ = "a product needs its `*`"
    found = x.say("S07", f"an operator is missing between {shown(x.before)} and {shown(x.here)}", help_, span,
                  fix=Fix(Span(x.before.end, x.here.start), "*"))  # fmt: skip
    return Advice(found, x.put(x.virtual("TIMES", "*")) if "TIMES" in x.wants else None)


# ------------------------------------------------------------------------------------------------ forms of statements


def _separator(x: Trouble) -> Advice | None:
    """`:` and `,` where no sign is needed."""
    if x.here.text == ":" and x.before.type == "RPAR" and x.first.type == "DEF":
        return Advice(x.say("S14", "a function has no `:`", "write `def f(x) = expr` or `def f(x) { … return expr }`"))
    if x.here.text == ":" and "LBRACE" in x.wants:
        brace = Lexeme("LBRACE", "{", x.here.start, x.here.end)
        found = x.say("S14", "blocks stand in braces, not behind `:`", "write `{ … }`")
        return Advice(found, x.instead() if x.after().type == "LBRACE" else x.instead(brace) if x.first.type == "RULE" else None)
    if x.here.text == ":" and x.first.type in ("HYPER", "STATE", "INPUT"):
        found = x.say("S20", "a kind stands before the name", "write `hyper int k = 10` or `hyper bool nesterov = false`")
        return Advice(found, (x.index, x.index + 2, []) if x.after().type == "NAME" and x.after(2).type == "EQUAL" else None)
    if x.here.type == "COMMA" and not x.in_statement:
        return Advice(x.say("S14", "no `,` is needed between statements", "leave it out", fix=Fix(x.here.span, "")), x.instead())
    return None


def _arrow(x: Trouble) -> Advice | None:
    """`def f(x) -> y`, `=>`."""
    if x.here.type == "MINUS" and x.after().text == ">" and x.first.type == "DEF":
        return Advice(x.say("S14", "a function has no result type", "leave out `->` and what follows it"))
    return None


def _definition(x: Trouble) -> Advice | None:
    """`def f(x) x + 1`."""
    if x.first.type == "DEF" and x.before.type == "RPAR" and "LBRACE" in x.wants and "EQUAL" in x.wants:
        found = x.say("S16", "`=` is missing before the value of the function", "write `def f(x) = expr`",
                      fix=Fix(Span(x.before.end, x.before.end), " ="))  # fmt: skip
        return Advice(found, x.put(x.virtual("EQUAL", "=")) if x.here.type in VALUES | {"LPAR", "MINUS", "NOT"} else None)
    return None


def _hyper(x: Trouble) -> Advice | None:
    """The parts of a hyper in another order or missing."""
    if x.first.type != "HYPER" or (not x.in_statement and x.here.type not in ("IN", "OTHER", "LPAR", "LSQB")):
        return None
    order = 'the order is `hyper lr = 1e-3 in (0, inf) "text"`'
    if x.here.type in ("LPAR", "LSQB") and _has(x, "EQUAL") and not _has(x, "IN"):
        return Advice(x.say("S20", "`in` is missing before the range", order), x.put(x.virtual("IN", "in")))
    if x.here.type == "IN":
        return Advice(x.say("S20", "the range stands between the default and the text", order))
    if _has(x, "IN"):
        return Advice(x.say("S20", "this is not a range", "a range is `in (0, inf)`; `[` and `]` include the bound, `(` and `)` do not"))
    if "EQUAL" in x.wants and not _has(x, "EQUAL"):
        return Advice(x.say("S16", "the setting has no default", order, x.before))
    return None


def _state(x: Trouble) -> Advice | None:
    if x.first.type != "STATE" or _has(x, "EQUAL") or "EQUAL" not in x.wants:
        return None
    if x.before.type == "NAME" and x.here.type == "NAME" and x.index == x.start + 2 and not x.here.fresh:
        help_ = "write `state m = 0`; `state r per row = 0` for its extent"
        found = x.say("S20", f"a state has no kind `{x.before.text}`", help_, x.before)
        return Advice(found, (x.index - 1, x.index, []))
    help_ = "write it: `state m = 0`"
    return Advice(x.say("S16", "the state has no value before step 1", help_, x.before))


def _per(x: Trouble) -> Advice | None:
    """`mean(g) per row`."""
    if x.here.type != "PER" or x.before.type not in ENDS_VALUE:
        return None
    if x.before.type == "RPAR":
        return Advice(x.say("S19", "`per` stands inside the brackets of a reduction", "write `mean(x per row)`"))
    return Advice(x.say("S19", "`per` belongs to a reduction or a state", "write `mean(x per row)` or `state r per row = 0`"))


def _import(x: Trouble) -> Advice | None:
    if x.first.type != "FROM" and x.here.type != "IMPORT":
        return None
    if x.here.type == "TIMES":
        return Advice(x.say("S16", "imports name what they bring", "list the names: `from std import ema, clip_global`"))
    return Advice(x.say("S16", "this is not an import", "write `from std import ema, clip_global`"))


def _route(x: Trouble) -> Advice | None:
    """Branches without `use`, `else` for `otherwise`, equations in a route."""
    unfinished = x.place == "branch" and x.first.type in ("WHEN", "OTHERWISE") and x.in_statement and not _has(x, "USE")
    if unfinished and "NUMBER" not in x.wants and x.here.type in ("LBRACE", "NAME", "OTHERWISE", "WHEN", "RBRACE", "OTHER"):
        return Advice(x.say("S16", "`use` is missing in this branch", "write `when cond use Rule(lr = …)` or `otherwise use Rule()`"))
    if x.here.type == "ELSE" and "OTHERWISE" in x.wants:
        return Advice(x.say("S19", "`else` belongs to a block", "the last branch of a route is `otherwise use Rule()`"))
    if x.here.type == "USE" and x.first.type in ("WHEN", "OTHERWISE"):
        return Advice(x.say("S19", "`use` belongs to a route", "in a rule, a block stands in braces: `when cond { … }`"))
    if x.open and x.index == x.start + 1 and "OTHERWISE" in x.wants:
        return Advice(x.say("S19", "a route has branches only", "write `when cond use Rule()`, `otherwise use Rule()`"))
    return None


def _misplaced(x: Trouble) -> Advice | None:
    """Statements outside of rules, rules inside of rules, branches outside of routes."""
    if x.in_statement:
        return None
    if not x.open and (x.here.type in STATEMENT_WORDS.values() or begins_statement(x.lexemes, x.index)) and x.here.type != "$END":
        return Advice(x.say("S19", f"{shown(x.here)} stands outside of every rule", "statements stand in `rule Name { … }` or in a `def`"))
    if x.here.type == "ELSE":
        return Advice(x.say("S19", "`else` has no block before it", "it follows the `}` of a `when` or `every`"))
    if x.here.type == "OTHERWISE":
        return Advice(x.say("S19", "`otherwise` belongs to a route", "in a rule, write `else { … }`"))
    if x.open and "OTHERWISE" in x.wants and x.here.type != "OTHER":
        return Advice(x.say("S19", "a route has branches only", "write `when cond use Rule()`, `otherwise use Rule()`"))
    return None


def _block(x: Trouble) -> Advice | None:
    """A block without its `{`."""
    if "LBRACE" not in x.wants or x.first.type not in ("RULE", "ROUTE", "WHEN", "EVERY", "REPEAT", "DEF"):
        return None
    if x.first.type in ("RULE", "ROUTE") and x.here.type == "LPAR":
        found = x.say("S01", "a rule has no list of parameters", "its settings are statements: `hyper lr = 1e-3`")
        after = next((k for k in range(x.index, len(x.lexemes)) if x.lexemes[k] is x.here.partner), None)
        return Advice(found, None if after is None else (x.index, after + 1, []))
    if not (x.here.fresh or x.here.type in ("RBRACE", "$END") or begins_statement(x.lexemes, x.index)):
        return None
    found = x.say("S16", f"`{{` is missing after {shown(x.before)}", "blocks stand in braces: `{ … }`", x.before,
                  fix=Fix(Span(x.before.end, x.before.end), " {"))  # fmt: skip
    return Advice(found, x.put(x.virtual("LBRACE", "{")) if x.first.type in ("RULE", "ROUTE") else None)


def _nameless(x: Trouble) -> Advice | None:
    """`rule {`, `hyper = 1`, `state "m"`."""
    naming = {"RULE": "rule", "DEF": "function", "ROUTE": "route", "HYPER": "setting", "STATE": "state", "INPUT": "input",
              "REPORT": "report"}  # fmt: skip
    what = naming.get(x.before.type)
    if what is None or x.wants & {"NUMBER", "EQUAL"} or x.index != x.start + 1:
        return None
    return Advice(x.say("S16", f"the {what} has no name", f"write it behind `{x.before.text}`", x.before))


def _value_alone(x: Trouble) -> Advice | None:
    """`sqrt(x)` or `x + 1` as a statement."""
    if x.first.type not in ("NAME", "PRIMED") or x.index != x.start + 1:
        return None
    if x.here.type in OPERATORS | {"LPAR", "TRANSPOSE", "RBRACE", "COMMA", "STRING", "$END"} or begins_statement(x.lexemes, x.index):
        return Advice(x.say("S16", "this value has no name", "write `name = …`; the result of a function is `return …`", x.first))
    return None


def _texts(x: Trouble) -> Advice | None:
    if x.here.type != "STRING":
        return None
    return Advice(x.say("S01", "a text is not expected here", "texts follow the name of a rule, or end a hyper or an input"))


def _stray(x: Trouble) -> Advice | None:
    """Signs that mean nothing anywhere."""
    if x.here.type != "OTHER":
        return None
    if x.here.text == ".":
        help_ = "functions stand before their operand: `abs(x)`; `x.T` is a transpose"
        return Advice(x.say("S12", "there are no attributes or methods", help_))
    if x.here.text in ":'":
        return Advice(x.say("S14", f"`{x.here.text}` is not expected here", "leave it out"))
    return Advice(x.say("S02", f"`{x.here.text}` means nothing in a rule file", "delete it; comments begin with `#`"))


def _unexpected(x: Trouble) -> Advice:
    """What fits instead, said in words."""
    if "NUMBER" in x.wants:
        wanted = "a value"
    elif x.in_statement:
        signs = {"EQUAL": "`=`", "LBRACE": "`{`", "RPAR": "`)`", "COMMA": "`,`", "LPAR": "`(`", "USE": "`use`", "RSQB": "`]`"}
        wanted = " or ".join([text for name, text in signs.items() if name in x.wants]) or ("a name" if "NAME" in x.wants else "")
    else:
        wanted = {"item": "`rule`, `def`, `route` or `from`", "branch": "`when`, `otherwise` or `}`"}.get(
            "item" if not x.open else x.place, "a statement or `}`")  # fmt: skip
    return Advice(x.say("S01", f"{shown(x.here)} is not expected here", f"expected {wanted}" if wanted else ""))


PATTERNS: tuple[Callable[[Trouble], Advice | None], ...] = (
    _unclosed, _open_brace, _closes_nothing, _else_if, _side_by_side, _unknown_statement, _ternary, _keyword_as_name,
    _separator, _arrow, _hyper, _index, _equal_signs, _dangling, _wrong_bracket, _per, _state, _nameless, _missing_operator,
    _definition, _route, _block, _misplaced, _import, _value_alone, _texts, _stray,
)  # fmt: skip
