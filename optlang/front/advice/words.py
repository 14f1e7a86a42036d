"""Names and keywords in the wrong place, and words of other languages."""

from __future__ import annotations

from optlang.errors import Diagnostic, Fix, Span, did_you_mean
from optlang.front.advice.trouble import ENDS_VALUE, OPERATORS, SMALL_WORDS, STATEMENT_WORDS, VALUES, WORDS_OF, Advice, Trouble, shown
from optlang.front.foreign import STATEMENTS, TERNARY
from optlang.front.scan import Lexeme


def keyword_as_name(x: Trouble) -> Advice | None:
    """`state in = 0`, `repeat = 2`, `x = from + 1`, `x = 1 - repeat`. A keyword that begins the next statement is no name."""
    if x.here.type == "EQUAL" and x.before is x.first and x.before.type in ("EVERY", "WHEN", "REPEAT", "RETURN"):
        return Advice(_is_keyword(x, x.before), (x.index - 1, x.index, [_as_name(x.before)]))
    if x.here.text not in SMALL_WORDS and x.here.text not in STATEMENT_WORDS:
        return None
    naming = x.before.type in ("HYPER", "STATE", "INPUT", "REPORT", "RULE", "DEF", "ROUTE", "IMPORT", "COMMA")
    used = x.after().type in OPERATORS | {"RPAR", "COMMA"} or (x.after().type == "EQUAL" and x.here.text != "eval")
    used |= x.before.type in OPERATORS and not x.here.fresh and (x.after().fresh or x.after().type == "RBRACE")
    if not ("NAME" in x.wants or x.here.text not in STATEMENT_WORDS) or not (naming or used):
        return None
    if "NAME" not in x.wants and x.after().type != "EQUAL":
        return None
    return Advice(_is_keyword(x, x.here), x.instead(_as_name(x.here)) if "NAME" in x.wants else None)


def _is_keyword(x: Trouble, word: Lexeme) -> Diagnostic:
    return x.say("S18", f"`{word.text}` is a keyword and cannot be a name", "choose another name", word)


def _as_name(word: Lexeme) -> Lexeme:
    return Lexeme("NAME", word.text, word.start, word.end, word.fresh, depth=word.depth)


def unknown_statement(x: Trouble) -> Advice | None:
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
    if "OTHERWISE" in x.wants and meant == "when":
        help_ = "a branch of a route is `when cond use Rule()`"
    found = x.say("S13", f"`{word.text}` is not a statement of this language", help_, word,
                  fix=Fix(word.span, meant) if meant else None)  # fmt: skip
    if meant in known and x.lexemes[at + 1].type in VALUES | {"LPAR"}:
        return Advice(found, (at, at + 1, [Lexeme(known[meant], meant, word.start, word.end, word.fresh)]))
    return Advice(found)


def side_by_side(x: Trouble) -> Advice | None:
    """`x = beta1 m`: the second name was taken for the beginning of an equation, until no `=` came."""
    behind = x.lexemes[x.start - 1] if x.start else x.before
    if x.index != x.start + 1 or x.first.type not in ("NAME", "PRIMED") or x.first.fresh or behind.type not in ENDS_VALUE:
        return None
    if (advice := _of_word(x, x.first) or _of_word(x, behind)) is not None:
        return advice
    found = x.say("S07", f"an operator is missing between {shown(behind)} and {shown(x.first)}", "a product needs its `*`",
                  behind.span.to(x.first.span), fix=Fix(Span(behind.end, x.first.start), "*"))  # fmt: skip
    return Advice(found)


def ternary(x: Trouble) -> Advice | None:
    """`a if c else b`, `lambda x: …`, `c ? a : b`, `[… for x in y]`."""
    if x.here.text == "?":
        return Advice(x.say("S13", "there is no `c ? a : b`", "choose with `where(c, a, b)`"), spoils=True)
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


def else_if(x: Trouble) -> Advice | None:
    if x.before.type != "ELSE" or x.here.type == "LBRACE":
        return None
    if x.here.text in ("if", "when"):
        return Advice(x.say("S13", f"there is no `else {x.here.text}`", "nest it: `else { when cond { … } }`"))
    return None
