"""What to say about a lexeme that does not fit. The patterns stand in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable

from optlang.front.advice import brackets, equations, forms, words
from optlang.front.advice.forms import NO_DEFAULT, ORDER
from optlang.front.advice.trouble import ENDS_VALUE, ITEM_WORDS, Advice, Trouble, begins_statement, shown

__all__ = ["ENDS_VALUE", "ITEM_WORDS", "NO_DEFAULT", "ORDER", "Advice", "Trouble", "advise", "begins_statement"]


def advise(trouble: Trouble) -> Advice:
    """The first pattern that knows the trouble."""
    for pattern in PATTERNS:
        if (advice := pattern(trouble)) is not None:
            return advice
    return _unexpected(trouble)


def texts(x: Trouble) -> Advice | None:
    if x.here.type != "STRING":
        return None
    return Advice(x.say("S01", "a text is not expected here", "texts follow the name of a rule, or end a hyper or an input"))


def stray(x: Trouble) -> Advice | None:
    """Signs that mean nothing anywhere."""
    if x.here.type != "OTHER":
        return None
    if x.here.text == ".":
        operand = shown(x.before)[1:-1] if x.before.type in ("NAME", "PRIMED") and x.before.text else "x"
        function = x.after().text if x.after().type == "NAME" else "abs"
        help_ = f"functions stand before their operand: `{function}({operand})`; `x.T` is a transpose"
        return Advice(x.say("S12", "there are no attributes or methods", help_))
    if x.here.text == ":" and x.before.type == "NAME" and x.before.fresh:
        help_ = f"a setting is `hyper {x.before.text} = 1e-3`, memory is `state {x.before.text} = 0`; no name is annotated"
        return Advice(x.say("S14", "`:` is not expected here", help_))
    if x.here.text in ":'":
        return Advice(x.say("S14", f"`{x.here.text}` is not expected here", "leave it out"))
    if x.here.text == "\\":
        help_ = "LaTeX is not read: a name is letters, digits and `_`, as in `beta1`, and a function is `sqrt(x)`"
        return Advice(x.say("S02", "`\\` means nothing in a rule file", help_))
    return Advice(x.say("S02", f"`{x.here.text}` means nothing in a rule file", "delete it; comments begin with `#`"))


def _unexpected(x: Trouble) -> Advice:
    """What fits instead, said in words."""
    if "NUMBER" in x.wants:
        wanted = "a value"
    elif x.in_statement:
        signs = {"EQUAL": "`=`", "LBRACE": "`{`", "RPAR": "`)`", "COMMA": "`,`", "LPAR": "`(`", "USE": "`use`", "RSQB": "`]`"}
        wanted = " or ".join([text for name, text in signs.items() if name in x.wants]) or ("a name" if "NAME" in x.wants else "")
    else:
        inside = "`when`, `otherwise` or `}`" if "OTHERWISE" in x.wants else "a statement or `}`"
        wanted = inside if x.open else "`rule`, `def`, `route` or `from`"
    return Advice(x.say("S01", f"{shown(x.here)} is not expected here", f"expected {wanted}" if wanted else ""))


PATTERNS: tuple[Callable[[Trouble], Advice | None], ...] = (
    brackets.unclosed, brackets.open_brace, brackets.closes_nothing, words.else_if, words.side_by_side,
    words.unknown_statement, words.ternary, forms.renamed, words.keyword_as_name, forms.separator, forms.arrow, forms.numbers,
    forms.hyper, equations.index, equations.equal_signs, equations.dangling, brackets.wrong_bracket, forms.per, forms.input_, forms.report,
    forms.state, forms.nameless, equations.missing_operator, forms.definition, forms.route, forms.block, forms.misplaced,
    forms.import_, forms.value_alone, texts, stray,
)  # fmt: skip
