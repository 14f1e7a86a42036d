"""The body of a rule or function: its names are entered, then lowered, and what it keeps and gives is collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optlang import ir, ops
from optlang.errors import Span
from optlang.front import syntax
from optlang.front.foreign import WEIGHTS as MEANT_AS_W
from optlang.lower import declarations
from optlang.lower.blocks import define, guard_of
from optlang.lower.call_graph import instances_of
from optlang.lower.context import IMPLICIT, Value
from optlang.lower.modules import RESERVED
from optlang.lower.names import may_define
from optlang.types import ELEMENT, Extent, Type, broadcasts_to

if TYPE_CHECKING:
    from optlang.lower.frames import Frame

Conditions = tuple[tuple[Value, bool], ...]  # of the blocks around, outermost first; whether it is the `else` side
NEW_WEIGHTS = ("w", True)
MEANT_AS_NEW = frozenset(["w_t", "w_new", "w_next", "wt", "new_w", "next_w", "w_1", "w1"])
WEIGHTS = Type("real", ELEMENT)


def rule(frame: Frame, rule: syntax.Rule, given: dict[str, Value]) -> Value:
    """The new weights. States, reports and evaluation weights go to the context."""
    frame.instances = instances_of(rule.body, frame.module)
    declarations.enter(frame, rule.body, {name: value for name, value in given.items() if name not in IMPLICIT})
    define(frame, rule.body)
    _refuse(frame, rule.body, (syntax.Return,), "a rule")
    finish(frame, *_surroundings(frame))
    weights = _new_weights(frame, rule)
    _note_reports(frame, rule.body)
    _note_evaluation(frame, rule.body, weights)
    return weights


def function(frame: Frame, function: syntax.Def) -> Value:
    """The returned value."""
    _enter_parameters(frame, function)
    frame.instances = instances_of(function.body, frame.module)
    declarations.enter_states(frame, function.body)
    define(frame, function.body)
    _refuse(frame, function.body, (syntax.Hyper, syntax.Input, syntax.Eval, syntax.Report), "a function")
    finish(frame, *_surroundings(frame))
    returns = [s for s in function.body if isinstance(s, syntax.Return)]
    if not returns:
        frame.report("R07", f"the function `{function.name}` returns nothing", function.name_span, "no `return` here",
                     "end it with `return expression`")  # fmt: skip
        return None
    if len(returns) > 1:
        frame.report("N03", f"`{function.name}` returns twice", returns[1].span, "second `return`",
                     "choose with `where(c, a, b)`, or with a name that both sides of a `when` define")  # fmt: skip
    frame.equation = "return"
    return frame.lower(returns[0].value)


def _enter_parameters(frame: Frame, function: syntax.Def) -> None:
    seen: set[str] = set()
    for parameter in function.parameters:
        if parameter.name in RESERVED or parameter.name in ops.BUILTINS:
            frame.report("N04", f"`{parameter.name}` is reserved and cannot name a parameter", parameter.span, "",
                         "choose another name; `w`, `g` and `t` are known in every function")  # fmt: skip
        elif parameter.name in seen:
            frame.report("N03", f"the parameter `{parameter.name}` is there twice", parameter.span)
        seen.add(parameter.name)
        if parameter.name not in frame.given:
            frame.given[parameter.name] = None if parameter.default is None else frame.lower(parameter.default)


def _refuse(frame: Frame, body: Sequence[syntax.Statement], kinds: tuple[type, ...], where: str) -> None:
    for statement in body:
        if isinstance(statement, kinds):
            word = type(statement).__name__.lower()
            help = "`return` belongs in a `def`; a rule gives its new `w'`" if word == "return" else "declare it in the rule and pass it on"
            frame.report("R06", f"`{word}` cannot stand in {where}", statement.span, "", help)


# --------------------------------------------------------------------------------------------------------- states


def _surroundings(frame: Frame) -> tuple[Value, Conditions]:
    """The guard and the conditions of the blocks in which a body is called: its states are theirs."""
    guard: Value = None
    conditions: Conditions = ()
    for choice, home, negated in frame.around:
        guard = guard_of(home, choice, negated, guard)
        conditions = (*conditions, (choice.test(home), negated))
    return guard, conditions


def finish(frame: Frame, guard: Value = None, conditions: Conditions = ()) -> None:
    """Lowers every equation, whether another reads it or not, or it defines nothing, and closes the states."""
    for key in [*frame.in_order(), *frame.blocks]:
        node = frame.value(key, frame.places[key[0]])
        if node is not None and key in frame.equations and frame.source is frame.context.source:
            frame.context.spans.setdefault(frame.prefix + key[0] + "'" * key[1], frame.equations[key].span)
    for equation in frame.refused:
        frame.lower(equation.value)
    for name in frame.states:
        _close(frame, name, guard, conditions)
    for choice in frame.choices:
        for side, negated in ((choice.then, False), (choice.otherwise, True)):
            inside = (*conditions, (choice.test(frame), negated))
            finish(side, guard_of(frame, choice, negated, guard), inside)


def _close(frame: Frame, name: str, guard: Value, conditions: Conditions) -> None:
    state, key, span = frame.states[name], (name, True), frame.declared[name].name_span
    if key not in frame.equations and key not in frame.blocks:
        frame.report("N07", f"the state `{name}` has no equation `{name}' = …`", span, "never given a new value",
                     f"write `{name}' = …`; `{name}' = {name}` keeps it")  # fmt: skip
        return
    given = _shaped_as(frame.value(key, span), state.type)
    init = declarations.initial(frame, name)
    if given is None or init is None or not fits(frame, given, state.type, name, key):
        return
    value = _held(given, state.node, conditions)
    if value is None or not fits(frame, value, state.type, name, key):
        return
    context = frame.context
    if state.name in context.states:
        frame.report("N03", f"the state `{name}` is declared in two blocks", span, "checkpoints know states by their names",
                     "give each a name of its own, as in `v_matrix` and `v_vector`")  # fmt: skip
    context.updates[state.name] = value
    context.states[state.name] = ir.State(state.name, state.type, init, guard)
    context.spans.setdefault(state.name, span)


def _held(value: ir.Node, old: ir.Node, conditions: Conditions) -> Value:
    """A state of a block keeps its value where the block does not hold."""
    for condition, negated in reversed(conditions):
        if condition is None:
            return None
        value = ir.branch(condition, old, value) if negated else ir.branch(condition, value, old)
    return value


def _shaped_as(value: Value, wanted: Type) -> Value:
    """A value per run once for each element where one per element is wanted."""
    return value if value is None or wanted.extent != ELEMENT else ir.spread(value)


def fits(frame: Frame, value: ir.Node, wanted: Type, name: str, key: tuple[str, bool], span: Span | None = None) -> bool:
    """Whether a value may become the new value of a state or of `w`; reports where not, at `span` or at the equation."""
    equation, given = frame.equations.get(key), key[0] + "'" * key[1]
    span = span or (equation.span if equation is not None else frame.places[name])
    if (value.type.kind == "bool") != (wanted.kind == "bool") or value.type.window != wanted.window:
        help_ = "a window becomes one value by a reduction, as in `mean(h)`" if value.type.window and not wanted.window else ""
        help_ = f"the new value enters the window: `push({name}, …)`" if wanted.window and not value.type.window else help_
        frame.report("T01", f"`{given}` is {value.type}, but `{name}` is {wanted}", span, "", help_)
        return False
    if not broadcasts_to(value.type.extent, wanted.extent):
        help = _coarser(value.type.extent, wanted.extent, name)
        frame.report("T02", f"`{given}` is per {value.type.extent}, but `{name}` is per {wanted.extent}", span,
                     "finer than what it is kept in", help if name != "w" else "bring it into the parameter's shape")  # fmt: skip
        return False
    return True


def _coarser(value: Extent, wanted: Extent, name: str) -> str:
    """How a value comes into a state that is too coarse for it, or has other sizes."""
    if "element" not in (value.left, wanted.left) or value.left != wanted.left:
        return f"reduce it, as in `mean(… per {wanted.left})`, or declare `{name}` per {value.left}"
    part = f"`… @ eye({value.cols}, {wanted.cols})` keeps its first `{wanted.cols}` columns, or " if wanted.rows == value.rows else ""
    return f"{part}declare `state {name}[{value.rows}, {value.cols}]`"


# -------------------------------------------------------------------------------------- what a rule gives besides


def _instead(frame: Frame) -> str:
    """Where papers write `w_t` or `w_new` for the new weights, that is said."""
    meant = next((name for name, primed in frame.equations if not primed and name in MEANT_AS_NEW), None)
    return f"`{meant}` is a name like any other: write `w' = …`" if meant else "write `w' = w - lr*g`, or whatever the update is"


def _new_weights(frame: Frame, rule: syntax.Rule) -> Value:
    if NEW_WEIGHTS not in frame.equations and NEW_WEIGHTS not in frame.blocks:
        if frame.poisoned & {"w", *MEANT_AS_W} - {"x"}:  # said where it stands
            return None
        frame.report("R01", f"the rule `{rule.name}` does not say what `w'` is", rule.name_span, "no equation for w'",
                     _instead(frame))  # fmt: skip
        return None
    value = _shaped_as(frame.value(NEW_WEIGHTS, rule.name_span), WEIGHTS)
    return value if value is not None and fits(frame, value, WEIGHTS, "w", NEW_WEIGHTS) else None


def _note_reports(frame: Frame, body: Sequence[syntax.Statement]) -> None:
    for statement in body:
        if not isinstance(statement, syntax.Report) or not may_define(frame, statement.name, statement.name_span):
            continue
        if not statement.name:  # which the parser has said
            continue
        if frame.prefix + statement.name in frame.context.reports:
            frame.report("N03", f"the report `{statement.name}` is defined twice", statement.name_span, "", "give one of them another name")
            continue
        frame.equation = statement.name
        node = frame.lower(statement.value)
        if node is None:
            continue
        if node.type.extent.level not in ("host", "model") or node.type.window:
            frame.report("T02", f"`report {statement.name}` is {node.type}, not one number", statement.value.span, "",
                         "reduce it, as in `mean(… per model)`")  # fmt: skip
            continue
        frame.context.reports[frame.prefix + statement.name] = node


def _note_evaluation(frame: Frame, body: Sequence[syntax.Statement], weights: Value) -> None:
    statements = [s for s in body if isinstance(s, syntax.Eval)]
    for extra in statements[1:]:
        frame.report("N03", "`eval` is defined twice", extra.span, "second `eval`")
    if statements:
        frame.equation = "eval"
        node = _shaped_as(frame.lower(statements[0].value), WEIGHTS)
        if node is not None and weights is not None and fits(frame, node, WEIGHTS, "w", ("eval", False), statements[0].span):
            frame.context.evaluations.append((weights, node, frame.source, statements[0].span))


def evaluation(frame: Frame, weights: ir.Node) -> Value:
    """The weights to evaluate with, over what is stored: the rule's own `eval`, else that of the called rule that gives `w'`."""
    found = [e for e in frame.context.evaluations if e[0] is weights]
    if not found:
        return None
    _, node, source, span = found[-1]
    stored = _over_stored(frame, node, weights)
    if stored is None:
        frame.context.report(source, "R10", "`eval` needs a value that is not stored", span, "not to be had after the step",
                             "use `w'`, new values of states, hypers and constants alone")  # fmt: skip
    return stored


def _over_stored(frame: Frame, node: ir.Node, weights: ir.Node) -> Value:
    states, updates = frame.context.states, frame.context.updates
    known = ir.on_host(updates.values())  # such numbers are to be had as they are
    kept = {value: ir.state(f"new {name}", states[name].type) for name, value in updates.items() if name in states and not known[value]}
    kept[weights] = ir.W
    result = ir.substitute([node], kept)[node]
    new = {leaf: states[leaf.value[4:]].node for leaf in kept.values() if leaf is not ir.W}
    leaves = [n for n in ir.walk([result]) if not n.args]
    if any(n not in new and n is not ir.W and n.op not in ("const", "hyper", "fact", "t", "eye", "places") for n in leaves):
        return None
    if any(n.op in ops.CALLS for n in ir.walk([result])):
        return None
    return ir.substitute([result], new)[result]
