"""Well-typed rules of the whole language, grown from choices (see `chance`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from optlang import ir
from optlang.types import ELEMENT, HOST, Type, broadcasts_to, needs_matrix

from .chance import Choices, Drawn
from .forms import EVERY, REAL, WORDS, Form, fitting, made, typed

ASKING = ("grad", "hvp", "loss_at")
NUMBER = Type("real", HOST)
TRUTH = Type("bool", HOST)
TAMING = ("{}", "{}", "tanh({})", "abs({})", "(0.5 + abs({}))", "clip({}, -2, 2)")
STANDARD = ("clip_global({})", "clip_value({}, 0.7)", "grokfast({}, 0.5)", "autoclip({}, 0.6, 3)", "centralize({})", "agc({})",
            "limit_growth({})", "median_elements({}, 0.5)", "clip_quantile({}, 0.2)", "weights_ema({}, 0.6)", "clip_global_max({}, 0.5)",
            "grokfast_mean({}, 0.5, 3)", "gradient_noise({}, 0.3)", "median_huber({}, 0.5)", "scale_by_agreement({}, w^2)")  # fmt: skip
SCHEDULES = ("cosine({}, lr, 5)", "wsd({}, lr, 1, 2, 2)", "onecycle({}, lr, 4)", "sgdr({}, lr, 2)", "inverse_sqrt({}, lr, 2)")
ALONE = ("clip_global({})", "clip_value({}, 0.7)", "grokfast({}, 0.5)", "centralize({})", "agc({})")
OF_MATRICES = ("orthogonalize({}, 2)",)
LENGTHS = {0: "", 2: "[k]", 3: "[3]"}
BRANCHES = ("rank >= 2 and numel > 5", 'rank >= 2 and not named("p0", "*3")', 'rank >= 2 and dtype == "float64"',
            "rank >= 2 and (cols >= rows or fan_in < 3)", "rank >= 2 and max(numel/fan_out, 2) == 2")  # fmt: skip
CONDITIONS = ("t > 2", "t == 1", "flag", "rank >= 2", "numel > 6", "mod(t, 2) == 0")
LONGEST = 60


@dataclass(frozen=True)
class Value:
    """An expression that stands in brackets or needs none, and its type."""

    text: str
    type: Type


@dataclass
class State:
    name: str
    type: Type


@dataclass
class Names:
    """Names are used once in a text."""

    count: int = 0

    def new(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"


@dataclass
class Scope:
    """One body while it grows: what can be read in it, its lines so far, states that have no new value yet."""

    choose: Choices
    names: Names
    pool: list[Value]
    matrices: bool
    imports: set[str]
    functions: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    waiting: list[State] = field(default_factory=list)
    depth: int = 0
    asks: bool = True  # may call the model
    alone: bool = False  # nothing but what the search's evaluator takes, too
    table: bool = False  # there is one
    windows: tuple[int, ...] = (0, 0, 0, 3)  # lengths of states

    def one(self, options: Sequence[Any]) -> Any:
        return self.choose.one(options)

    def some(self, options: Sequence[Any], most: int) -> list[Any]:
        """One or more, the newer ones more often: they are made of the older."""
        newest = options[: max(4, len(options) // 3)]
        return [self.one(self.one([newest, newest, options])) for _ in range(self.choose.number(1, most))]

    def chance(self, of: int) -> bool:
        """True once in so many times; shrinks to False."""
        return self.choose.number(0, of - 1) == of - 1

    # ------------------------------------------------------------------------------------------------ expressions

    def tamed(self, value: Value) -> str:
        if value.type.kind != "real" or value.type.window:
            return value.text
        return str(self.one(TAMING)).format(value.text)

    def grown(self) -> Value | None:
        """A form with operands that there are."""
        form: Form = self.one(EVERY)
        if (form.matrices and not self.matrices) or (form.name in ASKING and not self.asks) or (self.alone and not form.alone):
            return None
        if form.name == "dense" and not self.table:
            return None
        known = tuple(sorted({value.type for value in self.pool}, key=str))
        if not (combinations := fitting(form, known)):
            return None
        types = self.one(combinations)
        operands = [self.tamed(self.one([v for v in self.pool if v.type == type_])) for type_ in types]
        result = typed(form, types)
        assert result is not None
        return Value(form.template.format(*operands), result)

    def called(self) -> Value | None:
        """A function of the text, of `std`, or a number."""
        elements = [v for v in self.pool if v.type == REAL]
        if self.functions and self.chance(2):
            return Value(str(self.one(self.functions)).format(self.one(elements).text), REAL)
        template = self.one((STANDARD if not self.alone else ALONE) + OF_MATRICES * self.matrices + SCHEDULES)
        self.imports.add(template.split("(")[0])
        if template in SCHEDULES:
            return Value(template.format("t"), NUMBER)
        return Value(template.format(self.one(elements).text), REAL)

    def express(self) -> None:
        value = self.called() if self.chance(12) else self.grown()
        if value is None:
            return
        if len(value.text) > LONGEST or self.chance(2):
            value = self.name(value)
        self.pool.append(value)

    def name(self, value: Value) -> Value:
        name = self.names.new("x")
        self.lines.append(f"{name} = {value.text}")
        return Value(name, value.type)

    def fits(self, type_: Type) -> list[Value]:
        """What can be stored as that, the newest first."""
        return [v for v in reversed(self.pool) if (v.type.kind == "bool") == (type_.kind == "bool") and v.type.window == 0
                and (broadcasts_to(v.type.extent, type_.extent) or (v.type.extent.run and type_.extent == ELEMENT))]  # fmt: skip

    # ------------------------------------------------------------------------------------------------- statements

    def declare(self) -> None:
        words = [word for word, extent in WORDS.items() if (self.matrices or not needs_matrix(extent))
                 and not (self.alone and (word == "group" or extent.run))]  # fmt: skip
        word, name = self.one(words), self.names.new("s")
        window = 0 if self.alone else self.one(self.windows)
        truth = not window and self.chance(6)
        type_ = Type("bool" if truth else "real", WORDS[word], window)
        first = "false" if truth else self.one(["0", "1", "lr", "0.5*beta"] + ["w"] * (word == "element") + ["nan"] * (window > 0))
        self.lines.append(f"state {name}{LENGTHS[window]} per {word} = {first}")
        self.waiting.append(State(name, type_))
        self.pool.append(Value(name, type_))

    def update(self) -> None:
        """A new value for a state that waits for one."""
        if not self.waiting:
            return
        state = self.one(self.waiting)
        self.waiting.remove(state)
        self.lines.append(f"{state.name}' = {self.successor(state)}")
        self.pool.append(Value(f"{state.name}'", state.type))

    def successor(self, state: State) -> str:
        plain = Type(state.type.kind, state.type.extent)
        value: Value = self.one(self.fits(plain) or [Value("false" if plain.kind == "bool" else "0.5", TRUTH)])
        if state.type.window:
            return f"push({state.name}, {value.text})"
        if plain.kind == "bool":
            return value.text
        return str(self.one([f"(beta*{state.name} + (1 - beta)*{value.text})", f"{state.name} + tanh({value.text})", value.text]))

    def condition(self) -> tuple[str, Type]:
        truths = [v for v in self.pool if v.type.kind == "bool" and v.type.extent.level != "array" and not v.type.window]
        if truths and self.chance(2):
            value = self.one(truths)
            return value.text, value.type
        return self.one(CONDITIONS), TRUTH

    def side(self, states: list[State], matrices: bool) -> tuple[Scope, Value]:
        """A block of its own: local equations, some states, a value of elements."""
        inner = Scope(self.choose, self.names, list(self.pool), matrices, self.imports, self.functions, depth=self.depth + 1,
                      asks=self.asks and self.depth == 0, alone=self.alone, table=self.table)  # fmt: skip
        inner.waiting = list(states)
        inner.body(self.choose.number(0, 3))
        while inner.waiting and inner.chance(2):
            inner.update()
        return inner, self.one(inner.fits(REAL))

    def block(self) -> None:
        """`when` or `every`, both sides with a value of one name."""
        if self.depth > 1:
            return
        text, type_ = self.condition()
        head = self.one([f"when {text}", "every 2", "every 3 from 1", "every k from 2"])
        type_ = type_ if head.startswith("when") else TRUTH
        allowed = [s for s in self.waiting if s.type.extent.rank >= type_.extent.rank]
        chosen = [s for s in allowed if self.chance(2)]
        own = self.names.new("o") if self.chance(4) and type_.extent.level == "host" else ""
        (yes, a), (no, b) = self.side(chosen, self.matrices or head == "when rank >= 2"), self.side(chosen, self.matrices)
        name = self.names.new("y")
        extra = [f"state {own} = 0", f"{own}' = 0.5*{own} + {a.text}"] if own else []
        self.lines.append(f"{head} {{ {'  '.join([*extra, *yes.lines, f'{name} = {a.text}'])} }} else {{ "
                          f"{'  '.join([*no.lines, f'{name} = {b.text}'])} }}")  # fmt: skip
        self.pool.append(Value(name, REAL if ELEMENT in (a.type.extent, b.type.extent) else made("branch", (type_, a.type, b.type))))
        for state in chosen:
            if state not in yes.waiting or state not in no.waiting:
                self.waiting.remove(state)
                self.pool.append(Value(f"{state.name}'", state.type))

    def loop(self) -> None:
        name = self.names.new("l")
        start = self.one(self.fits(REAL))
        inner = Scope(self.choose, self.names, [*self.pool, Value(name, REAL)], self.matrices, self.imports, depth=9, asks=False,
                      alone=self.alone, table=self.table)  # fmt: skip
        for _ in range(self.choose.number(1, 3)):
            inner.express()
        end = self.one(inner.fits(REAL))
        count = self.one(["2", "3", "k"])
        body = "  ".join(inner.lines)
        self.lines.append(f"repeat {count} {{ state {name} = {start.text} + 0*w  {body}  {name}' = tanh({end.text}) + 0*w }}")
        self.pool.append(Value(name, REAL))

    def body(self, size: int) -> None:
        for _ in range(size):
            self.one([self.express] * 9 + [self.update, self.block] + [self.loop] * (self.depth == 0))()


LEAVES = [Value("g", REAL), Value("w", REAL), Value("t", ir.T.type), Value("0.5", NUMBER), Value("2", NUMBER), Value("true", TRUTH)]
SETTINGS = [Value("lr", NUMBER), Value("beta", NUMBER), Value("flag", TRUTH), Value("k", Type("int", HOST))]
HYPERS = ["hyper lr = 0.05 in (0, inf)", "hyper beta = 0.9 in [0, 1)", "hyper bool flag = true", "hyper int k = 2 in [1, 5]"]


def leaves() -> list[Value]:
    facts = [Value(name, ir.fact(name).type) for name in ("rank", "numel")]
    return [*LEAVES, *facts, *[Value(name, NUMBER) for name in ("pi", "-1", "0", "1e-3")]]


def of_matrices() -> list[Value]:
    facts = [Value(name, ir.fact(name).type) for name in ("rows", "cols", "fan_in", "fan_out")]
    return [Value("eye(rows)", ir.eye("rows").type), Value("eye(cols, 2)", ir.eye("cols", cols=2).type),
            Value("places(cols)", ir.places("cols").type), Value("places(rows)", ir.places("rows").type), *facts]  # fmt: skip


def _rule(choose: Choices, name: str, names: Names, matrices: bool, imports: set[str], functions: list[str], alone: bool = False) -> str:
    scope = Scope(choose, names, [*leaves(), *SETTINGS], matrices, imports, functions, list(HYPERS), asks=not alone, alone=alone,
                  windows=(0, 0, 0, 3, 2))  # fmt: skip
    if matrices:
        scope.pool += of_matrices()
    if scope.chance(4):
        scope.lines.append("hyper table[3, 2] = 0.5")
        scope.table = True
    if not alone and scope.chance(6):
        scope.lines.append("input c per element")
        scope.pool.append(Value("c", REAL))
    if not alone and scope.chance(12):
        word = scope.one(["tensor", "group", "model"])
        scope.lines.append(f"input n per {word}")
        scope.pool.append(Value("n", Type("real", WORDS[word])))
    if not alone and scope.chance(6):
        scope.pool.append(Value("loss", ir.LOSS.type))
    for _ in range(choose.number(0, 3)):
        scope.declare()
    scope.body(choose.number(1, 9))
    while scope.waiting:
        scope.update()
    parts = [scope.one([value.text, f"tanh({value.text})"]) for value in scope.some(scope.fits(REAL), 3)]
    scope.lines.append(f"w' = w - lr*({' + '.join(parts)})")
    numbers = [v for v in scope.pool if v.type.extent.level in ("host", "model") and v.type.kind == "real" and not v.type.window
               and v.text not in ("lr", "beta")]  # fmt: skip
    if scope.chance(4):
        scope.lines.append(f"report r = {scope.one(numbers).text}")
    if not alone and scope.chance(6):
        scope.lines.append("eval = 0.5*w' + 0.1")
    return f"rule {name} {{\n" + "".join(f"  {line}\n" for line in scope.lines) + "}\n"


def _function(choose: Choices, name: str, names: Names, matrices: bool, imports: set[str], alone: bool) -> str:
    """`def f(x, beta = 0.5)`: a value per element in, one out."""
    pool = [Value("x", REAL), Value("x", REAL), Value("g", REAL), Value("w", REAL), Value("t", ir.T.type), Value("beta", NUMBER)]
    pool += [Value("lr", NUMBER), Value("k", Type("int", HOST)), Value("flag", TRUTH), Value("2", NUMBER)]
    scope = Scope(choose, names, pool, matrices, imports, asks=False, alone=alone)
    if choose.one([False, True]):
        scope.declare()
    scope.body(choose.number(0, 4))
    while scope.waiting:
        scope.update()
    value = scope.one(scope.fits(REAL))
    lines = "".join(f"  {line}\n" for line in scope.lines)
    return f"def {name}(x, beta = 0.5, lr = 0.1, k = 2, flag = true) {{\n{lines}  return x + 0.5*{value.text}\n}}\n"


@dataclass(frozen=True)
class Grown:
    """A text whose rule or route is `name`; `matrices`: all parameters must have rank 2 or more; `alone`: without windows,
    groups, draws, inputs and questions to the model, none of which the search's evaluator takes."""

    text: str
    name: str
    matrices: bool
    alone: bool = False

    def __repr__(self) -> str:
        return f"matrices={self.matrices}\n{self.text}"


@st.composite
def texts(draw: Any) -> Grown:
    """As strategy of hypothesis."""
    return grow(Drawn(draw))


def grow(choose: Choices) -> Grown:
    """A rule with functions, calls of rules, and routes."""
    names, imports, functions, items = Names(), set[str](), list[str](), list[str]()
    matrices, alone = choose.one([False, False, True]), choose.one([False, True])
    for _ in range(choose.one([0, 0, 0, 1, 2])):
        name = names.new("f")
        items.append(_function(choose, name, names, matrices, imports, alone))
        functions += [f"{name}({{}})", f"{name}({{}}, 0.3)", f"{name}({{}}, flag = flag, k = 3)"]
    if choose.one([False] * 5 + [True]):
        items.append(_rule(choose, "Inner", names, matrices, imports, list(functions), alone))
        functions += ["Inner(g = {})", "Inner(g = {}, lr = 0.5*0.1)"]
        if "input " in items[-1] or "report r" in items[-1] or "eval =" in items[-1]:
            functions = functions[:-2]
    main = "R"
    items.append(_rule(choose, main, names, matrices, imports, functions, alone))
    if not alone and choose.one([False] * 7 + [True]):
        items.append(_rule(choose, "S", names, True, imports, []))
        items.append(f"route Both {{\n  when {choose.one(BRANCHES)} use S(lr = 0.02)\n  otherwise use R()\n}}\n")
        main = "Both"
    head = [f"from std import {', '.join(sorted(imports))}\n"] if imports else []
    return Grown("\n".join([*head, *items]), main, matrices, alone)
