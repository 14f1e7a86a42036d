"""The forms of statements: what is missing in them, and where they cannot stand."""

from __future__ import annotations

from optlang.errors import Fix, Span
from optlang.front.advice.trouble import ENDS_VALUE, OPERATORS, STATEMENT_WORDS, VALUES, Advice, Trouble, begins_statement, shown
from optlang.front.scan import Lexeme

NO_DEFAULT, ORDER = "the setting has no default", 'the order is `hyper lr = 1e-3 in (0, inf) "text"`'


def separator(x: Trouble) -> Advice | None:
    """`:` and `,` where no sign is needed."""
    if x.here.text == ":" and x.before.type == "RPAR" and x.first.type == "DEF":
        return Advice(x.say("S14", "a function has no `:`", "write `def f(x) = expr` or `def f(x) { … return expr }`"))
    if x.here.text == ":" and "LBRACE" in x.wants:
        brace = Lexeme("LBRACE", "{", x.here.start, x.here.end)
        found = x.say("S14", "blocks stand in braces, not behind `:`", "write `{ … }`")
        return Advice(found, x.instead() if x.after().type == "LBRACE" else x.instead(brace) if x.first.type == "RULE" else None)
    if x.here.text == ":" and x.first.type in ("HYPER", "STATE") and x.after().type in ("NUMBER", "MINUS"):
        equal = Lexeme("EQUAL", "=", x.here.start, x.here.end)
        return Advice(x.say("S09", "`:` is not an assignment of this language", "write `=`", fix=Fix(x.here.span, "=")), x.instead(equal))
    if x.here.text == ":" and x.first.type in ("HYPER", "STATE", "INPUT"):
        found = x.say("S20", *_kind(x))
        return Advice(found, (x.index, x.index + 2, []) if x.after().type == "NAME" and x.after(2).type == "EQUAL" else None)
    if x.here.type == "COMMA" and x.before.text.isdecimal() and x.after().text.isdecimal() and x.before.end + 1 == x.after().start:
        whole, part = x.before.text, x.after().text
        if len(part) == 3:  # it may as well be a thousand
            return Advice(x.say("S06", f"`{whole},{part}`: numbers have no comma", f"write `{whole}.{part}`, or `{whole}{part}`"))
        found = x.say("S06", f"`{whole},{part}`: a decimal sign is a point", f"write `{whole}.{part}`", fix=Fix(x.here.span, "."))
        return Advice(found)
    if x.here.type == "COMMA" and not x.in_statement:
        return Advice(x.say("S14", "no `,` is needed between statements", "leave it out", fix=Fix(x.here.span, "")), x.instead())
    return None


def _kind(x: Trouble) -> tuple[str, str]:
    """`hyper lr: float`, `state m: tensor`: what is wrong, and how it is written."""
    name = x.before.text if x.before.type == "NAME" else "x"
    if x.first.type != "HYPER":
        what, value = ("a state", " = 0") if x.first.type == "STATE" else ("an input", "")
        return f"{what} has no kind", f"write `{x.first.text} {name}{value}`; its extent stands behind the name, as in `{name} per row`"
    if x.after().text in ("int", "bool"):
        return "a kind stands before the name", f"write `hyper {x.after().text} {name} = {10 if x.after().text == 'int' else 'false'}`"
    return "a kind stands before the name", f"leave it out for a real number, `hyper {name} = 1e-3`; others are `hyper int`, `hyper bool`"


def numbers(x: Trouble) -> Advice | None:
    """`hyper c = [1, 2]`, `hyper c = (1, 2)`, `hyper c[3] = 0`."""
    if x.first.type != "HYPER" or x.has("IN"):
        return None
    name = x.lexemes[min(x.start + 1, len(x.lexemes) - 1)].text
    given = f"the optimizer is given its numbers: `{name}=[[1.0], [0.5], [0.0]]`"
    if x.here.type == "RSQB" and not x.has("EQUAL") and "COMMA" in x.wants:
        sizes = [Lexeme("COMMA", ",", x.here.start, x.here.start), Lexeme("NUMBER", "1", x.here.start, x.here.start)]
        return Advice(x.say("S20", "a table has rows and columns", f"write `[{x.before.text}, 1]` for one column"), x.put(*sizes))
    begin = next((k for k in range(x.start, x.index + 1) if x.lexemes[k].type == "EQUAL"), x.index) + 1
    opening = x.lexemes[min(begin, len(x.lexemes) - 1)]
    listed = (x.here is opening and opening.type == "LSQB") or (x.here.type == "COMMA" and opening.type == "LPAR")
    after = next((k for k in range(x.index, len(x.lexemes)) if listed and x.lexemes[k] is opening.partner), None)
    if after is None:
        return None
    help_ = f"a setting is one number; a table is `hyper {name}[3, 1] = 0`, and {given}"
    found = x.say("S11", "there are no lists of numbers", help_, opening)
    return Advice(found, (begin, after + 1, [Lexeme("NUMBER", "0", opening.start, opening.start)]))


def arrow(x: Trouble) -> Advice | None:
    """`def f(x) -> y`, `=>`."""
    if x.here.type == "MINUS" and x.after().text == ">" and x.first.type == "DEF":
        return Advice(x.say("S14", "a function has no result type", "leave out `->` and what follows it"))
    return None


def definition(x: Trouble) -> Advice | None:
    """`def f(x) x + 1`, `f(x) = x + 1`."""
    if not x.open and not x.in_statement and x.here.type == "NAME" and x.after().type == "LPAR" and (close := x.after().partner):
        behind = next((y for y in x.lexemes[x.index :] if y.start > close.start), None)
        if behind is not None and behind.type == "EQUAL":
            found = x.say("S16", f"`def` is missing before {shown(x.here)}", "a function is `def f(x) = expr`",
                          fix=Fix(Span(x.here.start, x.here.start), "def "))  # fmt: skip
            return Advice(found, x.put(Lexeme("DEF", "def", x.here.start, x.here.start)))
    if x.first.type == "DEF" and x.before.type == "RPAR" and "LBRACE" in x.wants and "EQUAL" in x.wants:
        found = x.say("S16", "`=` is missing before the value of the function", "write `def f(x) = expr`",
                      fix=Fix(Span(x.before.end, x.before.end), " ="))  # fmt: skip
        return Advice(found, x.put(x.virtual("EQUAL", "=")) if x.here.type in VALUES | {"LPAR", "MINUS", "NOT"} else None)
    return None


def hyper(x: Trouble) -> Advice | None:
    """The parts of a hyper in another order or missing."""
    if x.first.type != "HYPER" or (not x.in_statement and x.here.type not in ("IN", "OTHER", "LPAR", "LSQB")):
        return None
    if x.here.type in ("LPAR", "LSQB") and x.has("EQUAL") and not x.has("IN"):
        return Advice(x.say("S20", "`in` is missing before the range", ORDER), x.put(x.virtual("IN", "in")))
    if x.here.type == "IN":
        return Advice(x.say("S20", "the range stands between the default and the text", ORDER))
    if x.has("IN"):
        return Advice(x.say("S20", "this is not a range", "a range is `in (0, inf)`; `[` and `]` include the bound, `(` and `)` do not"))
    if "EQUAL" in x.wants and not x.has("EQUAL"):
        return Advice(x.say("S16", NO_DEFAULT, ORDER, x.before))
    return None


def input_(x: Trouble) -> Advice | None:
    """`input x = 3`."""
    if x.first.type != "INPUT" or x.here.type != "EQUAL" or x.has("EQUAL"):
        return None
    name = x.lexemes[x.start + 1].text
    help_ = f"the training loop gives it, `optimizer.inputs[\"{name}\"]`; a setting with a default is `hyper {name} = …`"
    return Advice(x.say("S20", "an input has no value here", help_))


def report(x: Trouble) -> Advice | None:
    """`report norm(g per model)`, `report loss`, `report signal mean(g per model)`."""
    if x.first.type != "REPORT" or x.before.type != "NAME" or x.index != x.start + 2 or x.here.type in ("OTHER", "EQUAL"):
        return None
    if x.here.type in VALUES and not x.here.fresh:
        found = x.say("S16", f"`=` is missing after {shown(x.before)}", "write `report name = …`", x.before)
        return Advice(found, x.put(x.virtual("EQUAL", "=")))
    found = x.say("S16", "a report has a name and a value", "write `report name = …`", x.before)
    if x.here.fresh or x.here.type in ("RBRACE", "$END"):  # nothing else is there
        return Advice(found, (x.start, x.index, []))
    place = x.before.start
    return Advice(found, (x.start + 1, x.start + 1, [Lexeme("NAME", "", place, place), Lexeme("EQUAL", "=", place, place)]))


def state(x: Trouble) -> Advice | None:
    if x.first.type != "STATE" or x.has("EQUAL") or "EQUAL" not in x.wants:
        return None
    if x.before.type == "NAME" and x.here.type == "NAME" and x.index == x.start + 2 and not x.here.fresh:
        help_ = "write `state m = 0`; `state r per row = 0` for its extent"
        found = x.say("S20", f"a state has no kind `{x.before.text}`", help_, x.before)
        return Advice(found, (x.index - 1, x.index, []))
    if x.here.type == "COMMA":
        return Advice(x.say("S14", "a state is declared alone", f"write `state {x.before.text} = 0`, and another `state` for the next"))
    help_ = f"write it: `state {x.before.text} = 0`" if x.before.type == "NAME" else "write it: `state m = 0`"
    return Advice(x.say("S16", "the state has no value before step 1", help_, x.before))


def per(x: Trouble) -> Advice | None:
    """`mean(g) per row`."""
    if x.here.type != "PER" or x.before.type not in ENDS_VALUE:
        return None
    if x.before.type == "RPAR":
        return Advice(x.say("S19", "`per` stands inside the brackets of a reduction", "write `mean(x per row)`"))
    return Advice(x.say("S19", "`per` belongs to a reduction or a state", "write `mean(x per row)` or `state r per row = 0`"))


def renamed(x: Trouble) -> Advice | None:
    """`from adamw import AdamW as A`."""
    if x.first.type != "FROM" or x.here.text != "as" or x.before.type != "NAME":
        return None
    found = x.say("S14", "what is imported keeps its name", "leave out `as` and the name behind it")
    return Advice(found, (x.index, x.index + 1 + (x.after().type == "NAME"), []))


def import_(x: Trouble) -> Advice | None:
    if x.first.type != "FROM" and x.here.type != "IMPORT":
        return None
    if x.before.type == "FROM" and x.here.text.isidentifier():
        found = x.say("S18", f"`{x.here.text}` is a keyword and cannot name a file that is imported", "give the file another name")
        return Advice(found, x.instead(Lexeme("NAME", x.here.text, x.here.start, x.here.end)))
    if x.here.type == "TIMES":
        return Advice(x.say("S16", "imports name what they bring", "list the names: `from std import ema, clip_global`"))
    return Advice(x.say("S16", "this is not an import", "write `from std import ema, clip_global`"))


def route(x: Trouble) -> Advice | None:
    """Branches without `use`, `else` for `otherwise`, equations in a route."""
    unfinished = x.place == "branch" and x.first.type in ("WHEN", "OTHERWISE") and x.in_statement and not x.has("USE")
    if unfinished and "NUMBER" not in x.wants and x.here.type in ("LBRACE", "NAME", "OTHERWISE", "WHEN", "RBRACE", "OTHER"):
        return Advice(x.say("S16", "`use` is missing in this branch", "write `when cond use Rule(lr = …)` or `otherwise use Rule()`"))
    if x.has("USE") and x.before.type == "NAME" and x.wants == {"LPAR"}:
        found = x.say("S16", f"`()` is missing after {shown(x.before)}", "a branch calls its rule; settings stand in the brackets",
                      x.before, fix=Fix(Span(x.before.end, x.before.end), "()"))  # fmt: skip
        return Advice(found, x.put(x.virtual("LPAR", "("), x.virtual("RPAR", ")")))
    if x.here.type == "ELSE" and "OTHERWISE" in x.wants:
        return Advice(x.say("S19", "`else` belongs to a block", "the last branch of a route is `otherwise use Rule()`"))
    if x.here.type == "USE" and x.first.type in ("WHEN", "OTHERWISE"):
        return Advice(x.say("S19", "`use` belongs to a route", "in a rule, a block stands in braces: `when cond { … }`"))
    if x.open and x.index == x.start + 1 and "OTHERWISE" in x.wants:
        return Advice(x.say("S19", "a route has branches only", "write `when cond use Rule()`, `otherwise use Rule()`"))
    return None


def misplaced(x: Trouble) -> Advice | None:
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


def block(x: Trouble) -> Advice | None:
    """A block without its `{`."""
    if "LBRACE" not in x.wants or x.first.type not in ("RULE", "ROUTE", "WHEN", "EVERY", "REPEAT", "DEF"):
        return None
    if x.first.type in ("RULE", "ROUTE") and x.here.type == "LPAR":
        found = x.say("S01", "a rule has no list of parameters", "its settings are statements: `hyper lr = 1e-3`")
        after = next((k for k in range(x.index, len(x.lexemes)) if x.lexemes[k] is x.here.partner), None)
        return Advice(found, None if after is None else (x.index, after + 1, []))
    if x.first.type in ("RULE", "ROUTE") and x.here.type == "MINUS" and x.before.type == "NAME":
        after = next((k for k in range(x.index, len(x.lexemes)) if x.lexemes[k].type in ("LBRACE", "STRING")), x.index)
        found = x.say("S02", "a name has no `-`", "names are made of letters, digits and `_`, as in `MyRule`")
        return Advice(found, (x.index, after, []))
    if x.first.type == "REPEAT" and x.here.type == "IN" and x.index == x.start + 2:
        help_ = f"write `repeat 3 {{ … }}`; where turns are counted, a state in the block does it: `{x.before.text}' = {x.before.text} + 1`"
        return Advice(x.say("S01", "`repeat` counts its turns without a name", help_), (x.index - 1, x.index + 1, []))
    if not (x.here.fresh or x.here.type in ("RBRACE", "$END") or begins_statement(x.lexemes, x.index)):
        return None
    found = x.say("S16", f"`{{` is missing after {shown(x.before)}", "blocks stand in braces: `{ … }`", x.before,
                  fix=Fix(Span(x.before.end, x.before.end), " {"))  # fmt: skip
    return Advice(found, x.put(x.virtual("LBRACE", "{")) if x.first.type in ("RULE", "ROUTE") else None)


def nameless(x: Trouble) -> Advice | None:
    """`rule {`, `hyper = 1`, `state "m"`."""
    naming = {"RULE": "rule", "DEF": "function", "ROUTE": "route", "HYPER": "setting", "STATE": "state", "INPUT": "input",
              "REPORT": "report"}  # fmt: skip
    what = naming.get(x.before.type)
    if what is None or x.wants & {"NUMBER", "EQUAL"} or x.index != x.start + 1:
        return None
    return Advice(x.say("S16", f"the {what} has no name", f"write it behind `{x.before.text}`", x.before))


def value_alone(x: Trouble) -> Advice | None:
    """`sqrt(x)` or `x + 1` as a statement."""
    if x.first.type not in ("NAME", "PRIMED") or x.index != x.start + 1:
        return None
    if x.here.type == "COMMA" and any(y.type == "EQUAL" for y in x.lexemes[x.index : x.index + 8]) and not x.after().fresh:
        return Advice(x.say("S16", "an equation gives one value", "write an equation for each name", x.first))
    if x.here.type in OPERATORS | {"LPAR", "TRANSPOSE", "RBRACE", "COMMA", "STRING", "$END"} or begins_statement(x.lexemes, x.index):
        return Advice(x.say("S16", "this value has no name", "write `name = …`; the result of a function is `return …`", x.first))
    return None
