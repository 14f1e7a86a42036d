"""The class of a route: it sorts parameters by their static facts into groups, each updated by the class of its rule."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from optlang.analysis.needs import why_all, why_shapes
from optlang.backends.module.cycling import as_betas, cycled, default_lines, group_lines
from optlang.backends.module.layout import Lines, bracketed, broken, documentation, indented, wrapped
from optlang.backends.module.methods import (
    ATTRIBUTE,
    CLOSURE,
    EVAL,
    NOT_STATES_ALONE,
    SHOW,
    attributes,
    input_lines,
    load_lines,
    option_arguments,
    option_entries,
    saved_lines,
    set_state_lines,
    shapes_lines,
    step_lines,
    train_lines,
)
from optlang.backends.module.spread import WITHOUT_CASTS, all_there, multiplies, row_checks
from optlang.backends.module.writer import Writer
from optlang.ir import Predicate, Routing
from optlang.ops import ASKING
from optlang.printing.precedence import Piece, chained
from optlang.printing.python_text import AND, COMPARE, LEVELS, MINUS, NOT, SUM, literal, quoted

SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*", "div": "/",
         "pow": "**", "and": "and", "or": "or"}  # fmt: skip
FACTS = {
    "dtype": 'str(param.dtype).removeprefix("torch.")',
    "rank": "param.ndim", "numel": "param.numel()", "rows": "rows", "cols": "cols", "fan_in": "fan_in", "fan_out": "fan_out",
}  # fmt: skip
OF_MATRIX = {
    "rows": "param.shape[-2]", "cols": "param.shape[-1]", "fan_in": "math.prod(param.shape[1:])",
    "fan_out": "param.shape[0] * math.prod(param.shape[2:])",
}  # fmt: skip

GET_STATE = ["def __getstate__(self) -> dict[str, Any]:", '    return {**super().__getstate__(), "settings": self.settings}']
WORDS = ("own", "options", "given", "settings", "named", "rules", "chosen", "update", "updates", "rows", "cols", "fan_in",
         "fan_out")  # besides RESERVED, fmt: skip


def front(routing: Routing, name: str, writers: Sequence[Writer]) -> str:
    """The class that sends parameters to the classes of the rules."""
    classes = [w.name for w in writers]
    methods = [_documentation(routing, classes), _init(routing, writers), _add_param_group(routing, writers)]
    programs = [case.program for case in routing.cases]
    inputs = [i for program in programs for i in program.inputs]
    methods += [_rule_of(routing, name, classes), _step(routing, writers)]
    evaluated = [cls for cls, program in zip(classes, programs, strict=True) if program.evaluation is not None]
    methods += [_eval(evaluated), train_lines()] if evaluated else []
    methods += [input_lines(name, inputs)] if inputs else []
    capturable = any(not w.update.uncapturable for w in writers)
    settings = {"betas"}.union(*(w.settings for w in writers))  # where schedulers cycle a momentum
    methods += [saved_lines(_by_rule(classes, "_fingerprint", "group")), shapes_lines(_by_rule(classes, "_shapes", "param, group"))]
    methods += [load_lines(programs, settings, capturable), GET_STATE, set_state_lines(programs)]
    return "\n".join([f"class {name}(Optimizer):", "\n\n".join("\n".join(indented(m)) for m in methods)])


def _documentation(routing: Routing, classes: Sequence[str]) -> Lines:
    about = textwrap.wrap(documentation(routing.doc or routing.name), 110) or [""]
    settings = f"Sends each parameter to {' or '.join(classes)}. Settings are given by rule, as in `{classes[0]}={{...}}`."
    return [f'"""{about[0]}', *about[1:], "", *textwrap.wrap(settings, 110), '"""']


def _init(routing: Routing, writers: Sequence[Writer]) -> Lines:
    classes, draws = [w.name for w in writers], any(w.update.draws for w in writers)
    arguments = ["self", "params: ParamsT", "*", *(f"{cls}: dict[str, Any] | None = None" for cls in classes), *option_arguments(draws)]
    given = [f"{quoted(cls)}: {cls} or {{}}" for cls in classes]
    body = [*attributes([case.program for case in routing.cases], ATTRIBUTE), *bracketed("self.settings = {", given, "}")]
    body += [*bracketed("super().__init__(params, {", option_entries(draws), "})"), *default_lines(writers)]
    return [*wrapped(f"def __init__({', '.join(arguments)}) -> None:"), *indented(body)]


def _add_param_group(routing: Routing, writers: Sequence[Writer]) -> Lines:
    """A group becomes one for each rule that some of its parameters go to; the rule's own class fills in and checks its settings."""
    first = routing.cases[0].program
    head = [
        *all_there(first.name, why_all(first, True)),
        'own = {key: value for key, value in param_group.items() if key not in ("params", "param_names")}',
        'params, names = _flattened(param_group["params"], param_group.get("param_names"))',
        "rules = [self._rule_of(param, name) for param, name in zip(params, names)]",
        "named: list[Any] = list(zip(names, params)) if any(names) else params",
        "before = len(self.param_groups)",
    ]
    left_out = [key for key in (cycled(writers), "seed" * any(w.update.draws for w in writers)) if key]
    taken = f"not in ({', '.join(map(quoted, left_out))})" if len(left_out) > 1 else f"!= {quoted(left_out[0])}" if left_out else ""
    head += [f"options = {{key: value for key, value in self.defaults.items() if key {taken}}}"] if left_out else []
    options = "**options" if left_out else "**self.defaults"
    lines, seed = Lines(), ', "seed": self.defaults["seed"]'
    for case, w in zip(routing.cases, writers, strict=True):
        settings = "".join(f"{quoted(key)}: {literal(value).text}, " for key, value in case.settings.items())
        lines += [
            f"chosen = [param for param, rule in zip(named, rules) if rule == {quoted(w.name)}]",
            "if chosen:",
            f"    settings = {{{settings}{options}{seed * w.update.draws}, **self.settings[{quoted(w.name)}]}}",
            *indented(group_lines(w, writers)),
            f'    super().add_param_group({{**group, "params": chosen, "rule": {quoted(w.name)}}})',
        ]
    lines += ["_check_agreement(self, self.param_groups[before:])"] * any(w.takes_parts for w in writers)
    lines += row_checks(first.name, why_shapes(first, True))
    body = [*head, "try:", *indented(lines), "except Exception:", "    del self.param_groups[before:]", "    raise"]
    return ["def add_param_group(self, param_group: dict[str, Any]) -> None:", *indented(body)]


def _rule_of(routing: Routing, name: str, classes: Sequence[str]) -> Lines:
    conditions = [case.condition for case in routing.cases if case.condition is not None]
    lines = ['"""The rule that takes a parameter."""']
    for fact, text in OF_MATRIX.items():
        if any(mentions(p, fact) for p in conditions):  # no comparison with NaN holds
            lines.append(f"{fact} = {text} if param.ndim > 1 else math.nan")
    if any(mentions(p, "named") for p in conditions):
        message = "this route looks at the names of parameters: give it model.named_parameters()"
        lines += ["if not name:", f'    raise ValueError("{message}")']
    for case, cls in zip(routing.cases, classes, strict=True):
        if case.condition is None:
            return ["@staticmethod", "def _rule_of(param: torch.Tensor, name: str) -> str:", *indented([*lines, f"return {quoted(cls)}"])]
        lines += [*broken(f"if {predicate(case.condition).text}:"), f"    return {quoted(cls)}"]
    lines.append(f'raise ValueError(f"{name} has no rule for {{name or tuple(param.shape)}}")')
    return ["@staticmethod", "def _rule_of(param: torch.Tensor, name: str) -> str:", *indented(lines)]


def mentions(p: Predicate, what: str) -> bool:
    """Whether a condition asks for a fact, or has an operator."""
    return what in (p.op, p.value if p.op == "fact" else "") or any(mentions(arg, what) for arg in p.args)


def predicate(p: Predicate, facts: Mapping[str, str] = FACTS, named: str = "_is_named(name, {})") -> Piece:
    """A condition of a route as Python; `facts` says how those of a parameter are written, `named` how its name is looked at."""
    args = [predicate(arg, facts, named) for arg in p.args]
    match p.op:
        case "const":
            return Piece(quoted(p.value)) if isinstance(p.value, str) else literal(p.value)
        case "fact":
            return Piece(facts[p.value])
        case "dtype":
            return Piece(facts["dtype"])
        case "named":
            return Piece(named.format(", ".join(map(quoted, p.value))))
        case "not":
            return Piece(f"not {args[0].inside(NOT)}", NOT)
        case "neg":
            return Piece(f"-{args[0].inside(MINUS)}", MINUS)
        case "maximum" | "minimum":
            return Piece(f"{p.op[:3]}({args[0].text}, {args[1].text})")
    level = LEVELS.get(p.op, COMPARE)
    associates = "none" if level == COMPARE else "right" if p.op == "pow" else "left"
    known = dict.fromkeys(_known(p, facts)) if level == COMPARE else {}
    piece = chained(args[0], SIGNS[p.op], args[1], level, associates=associates)
    return Piece(" and ".join([*known, piece.text]), AND) if known else piece


def _known(p: Predicate, facts: Mapping[str, str]) -> Iterator[str]:
    """What has to hold for the operands of a comparison to be numbers; no comparison holds of others, but Python's `!=` would."""
    if p.op in ("ne", "maximum", "minimum") and any(mentions(p, fact) for fact in OF_MATRIX):
        yield f"{facts['rank']} > 1"
    for arg in p.args:
        yield from _known(arg, facts)
    if p.op == "div" and (p.args[1].op != "const" or p.args[1].value == 0):
        yield f"{predicate(p.args[1], facts).inside(SUM)} != 0"


def _updates(writers: Sequence[Writer], more: str) -> Lines:
    """The steps of the rules in their order; those that look around have done so by then."""
    calls = {w.name: f"{w.name}._update(self, self._groups({quoted(w.name)}){more})" for w in writers}
    waiting = [w.name for w in writers if w.role == "looking around"]
    if not waiting:
        return list(calls.values())
    lines = [*bracketed("updates = {", [f"{quoted(cls)}: {calls[cls]}" for cls in waiting], "}"),
             "for update in updates.values():",
             "    next(update, None)  # what they need of all parameters and of the model, before anything moves"]  # fmt: skip
    return [*lines, *(f"next(updates[{quoted(cls)}], None)" if cls in waiting else call for cls, call in calls.items())]


def _by_rule(classes: Sequence[str], method: str, given: str) -> Lines:
    """The body of a method that the rule of a group has."""
    own = [f"{quoted(cls)}: {cls}.{method}" for cls in classes]
    return [*bracketed("of_rules = {", own, "}"), f'return of_rules[group["rule"]]({given})']


def _eval(evaluated: Sequence[str]) -> Lines:
    calls = [f"{cls}._evaluate(self, self._groups({quoted(cls)}))" for cls in evaluated]
    return ["@torch.no_grad()", *EVAL, *indented([*calls, SHOW])]


def _step(routing: Routing, writers: Sequence[Writer]) -> Lines:
    asks = any(case.program.uses(op) for case in routing.cases for op in ASKING)
    cast = any(multiplies(case.program) for case in routing.cases)
    lines = ['"""One update of every parameter that has a gradient, by its rule."""']
    if any(case.program.evaluation is not None for case in routing.cases):
        lines += ['if any("weights_in_training" in state for state in self.state.values()):',
                  '    raise RuntimeError("the model holds the weights to evaluate with; call train() first")']  # fmt: skip
    if asks:
        sized = all(w.words.has_rate for w in writers if w.asks)
        wants = 'any(group.get("lr") != 0 for group in self.param_groups)' if sized else NOT_STATES_ALONE
        lines += [f"if closure is None and {wants}:", '    raise RuntimeError("this route asks the model again: call step(closure)")',
                  *["closure = _as_called_here(closure)"] * cast, "random_state = _random_state()"]  # fmt: skip
    first = routing.cases[0].program
    lines += [*CLOSURE, *row_checks(first.name, why_shapes(first, True))]
    for w in writers:
        lines += w.checked(f"self._groups({quoted(w.name)})", w.name)
    updates = _updates(writers, ", closure, loss, random_state" if asks else "")
    lines += ["", *([f"with {WITHOUT_CASTS}:", *indented(updates)] if cast else updates)]
    apart = any(w.update.uncapturable for w in writers)
    return [*_groups(as_betas(writers)), "", *step_lines([*lines, "", "return loss"], not asks, apart)]


def _groups(with_momentum: Sequence[str]) -> Lines:
    found = ['    """Those whose parameters a rule takes."""', '    return [group for group in self.param_groups if group["rule"] == rule]']
    if with_momentum:
        found[1] = found[1].replace("return", "found =")
        asked = " or ".join(f"rule == {quoted(cls)}" for cls in with_momentum)
        found += [f"    return [_with_momentum(group) for group in found] if {asked} else found"]
    return ["def _groups(self, rule: str) -> list[dict[str, Any]]:", *found]
