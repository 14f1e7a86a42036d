"""The function of one rule that makes its transformation, with the class of its state."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

from optlang import ir
from optlang.backends.module.layout import documentation, indented, mentions
from optlang.backends.module.loops import Relower
from optlang.backends.optax.stages import Parts, Stage, started, updated
from optlang.ir import Hyper, Program
from optlang.printing.identifiers import Names
from optlang.printing.python_text import literal
from optlang.types import ELEMENT, Type

Lines = list[str]
WEIGHTS = Type("real", ELEMENT)
PARAMS = 'raise ValueError("this rule reads the parameters: call update(updates, state, params)")'


def factory(program: Program, names: Names, relower: Relower | None) -> str:
    """The text of the state's class, of the function that makes the transformation, and of that for `eval` where there is one."""
    parts = Parts(program, relower)
    name, cls = names.fresh(program.name.lower()), names.fresh(f"{program.name}State")
    texts = [_state_class(parts, cls), _factory(parts, program, name, cls)]
    if program.evaluation is not None:
        texts.append(_evaluation(parts, program, f"{name}_eval_params"))
    return "\n\n\n".join("\n".join(lines) for lines in texts) + "\n"


def _state_class(parts: Parts, cls: str) -> Lines:
    about = '    """What is kept between steps: trees like the parameters, and single values."""'
    lines = [f"class {cls}(NamedTuple):", about, "", "    count: jax.Array"]
    lines += [f"    {parts.states[s.name]}: {'optax.Updates' if s in parts.own else 'jax.Array'}" for s in parts.program.states]
    return [*lines, *(f"    {word}: jax.Array  # reported by the last step" for word in parts.reports.values())]


# --------------------------------------------------------------------------------------------------------- settings


def _signature(parts: Parts, program: Program, name: str, first: str = "") -> Lines:
    arguments = [f"{parts.hypers[h.name]}={literal(h.default).text}" for h in program.hypers] + ["seed=0"] * parts.draws
    wrapped = textwrap.wrap(", ".join([*([first, "*"] if first else []), *arguments]), 110)
    if first and not arguments:
        wrapped = [first]
    if sum(map(len, wrapped)) + len(name) < 100:
        return [f"def {name}({' '.join(wrapped)}):"]
    return [f"def {name}(", *indented(wrapped[:-1]), f"    {wrapped[-1]},", "):"]


def _about(parts: Parts, program: Program) -> Lines:
    about = textwrap.wrap(documentation(program.doc or program.name), 110) or [""]
    lines = [f'"""{about[0]}', *about[1:]]
    settings = [f"{parts.hypers[h.name]}: {_words(h)}" for h in program.hypers]
    settings += ["seed: of the random draws, which are JAX's own"] * parts.draws
    if settings:
        lines += ["", *(line for s in settings for line in textwrap.wrap(documentation(s), 110, subsequent_indent="    "))]
    static = [parts.hypers[h.name] for h in program.hypers if h.kind != "real"] + ["seed"] * parts.draws
    schedules = "Schedules: optax.inject_hyperparams" + (f", with {', '.join(static)} among its static_args" if static else "") + "."
    said = [*_differences(parts, program), *([schedules] if program.hypers else [])]
    return [*lines, *(["", *textwrap.wrap(" ".join(said), 110)] if said else []), '"""']


def _words(h: Hyper) -> str:
    return (h.doc or "a setting") + (f", in {h.bounds}" if h.bounds is not None else "")


def _differences(parts: Parts, program: Program) -> Lines:
    """What a caller must know besides the settings."""
    found = []
    if program.uses("loss"):
        found.append("update needs value=..., the loss.")
    if program.inputs:
        found.append(f"update needs {', '.join(f'{word}=...' for word in parts.inputs.values())}.")
    if program.reports:
        found.append("What the rule reports of a step is in its state.")
    return found


def _checks(parts: Parts, program: Program) -> Lines:
    """The lines that refuse settings outside their ranges. 0 is a legal step size, as in optax."""
    lines = []
    for h in program.hypers:
        word, b = parts.hypers[h.name], h.bounds
        if b is not None:
            tests = [f"{_bound(b.low)} {'<' if b.low_open and not h.name.endswith('lr') else '<='} {word}"] * math.isfinite(b.low)
            tests += [f"{word} {'<' if b.high_open else '<='} {_bound(b.high)}"] * (b.high_open or math.isfinite(b.high))
            both = " & ".join(f"({test})" for test in tests) if len(tests) > 1 else "".join(tests)
            lines += [f'_within("{word}", {word}, {both}, "{b}")'] * bool(tests)
    return lines


def _bound(value: float) -> str:
    return literal(value).text.replace("math.", "jnp.")


# ------------------------------------------------------------------------------------------------------- the function


def _factory(parts: Parts, program: Program, name: str, cls: str) -> Lines:
    extra = "GradientTransformationExtraArgs" if program.inputs or program.uses("loss") else "GradientTransformation"
    head = _signature(parts, program, name)
    head[-1] = head[-1].removesuffix(":") + f" -> optax.{extra}:"
    functions = [*_init(parts, cls), "", *_update(parts, program, cls), "", f"return optax.{extra}(init, update)"]
    return [*head, *indented([*_about(parts, program), *_checks(parts, program), "", *functions])]


def _init(parts: Parts, cls: str) -> Lines:
    stage = Stage(parts, stored=False)
    own = parts.own
    roots = [started(s, parts.program) for s in own]
    lists = [parts.lists[parts.states[s.name]] for s in own]
    shared = [s.init for s in parts.shared]
    stage.cross([*roots, *shared])
    if own:
        stage.each("start", "The first states of a parameter.", roots, lists, [s.type for s in own])
    values = [(parts.states[s.name], f"tree.unflatten({some})") for s, some in zip(own, lists, strict=True)]
    values += [(parts.states[s.name], _shared(text, s.type)) for s, text in zip(parts.shared, stage.shared_roots(shared), strict=True)]
    values += [(word, "jnp.zeros((), dtype)") for word in parts.reports.values()]
    returned = _returned(cls, [("count", "jnp.zeros((), jnp.int32)"), *_sorted(parts, values)])
    body = [*stage.lines, *returned]
    return ["def init(params):", *indented([*_lists(stage, body), *body])]


def _sorted(parts: Parts, values: list[tuple[str, str]]) -> list[tuple[str, str]]:
    order = [*(parts.states[s.name] for s in parts.program.states), *parts.reports.values()]
    return sorted(values, key=lambda pair: order.index(pair[0]))


def _shared(text: str, type_: Type) -> str:
    dtype = "bool" if type_.kind == "bool" else "dtype"
    return f"jnp.full(({type_.window},), {text}, {dtype})" if type_.window else f"jnp.asarray({text}, {dtype})"


def _lists(stage: Stage, text: Lines, updates: str = "") -> Lines:
    """The lines that take trees apart into the lists that a text needs."""
    parts = stage.parts
    needs_dtype = any(re.search(r"(?<![\w.])dtype\b(?!=)", line) for line in text)
    needed = stage.lists | ({"ws"} if needs_dtype or mentions(text, "ws") else set())
    found = [f"gs = [_wide(g) for g in tree.flatten_up_to({updates})]"] * (bool(updates) and "gs" in needed)
    found += [f"{parts.lists[parts.states[s.name]]} = tree.flatten_up_to(state.{parts.states[s.name]})" for s in parts.own
              if stage.stored and parts.lists[parts.states[s.name]] in needed]  # fmt: skip
    found += [f'{parts.lists[word]} = _given("{word}", {word}, tree, ws)' for word in (parts.inputs[i.name] for i in parts.own_inputs)
              if stage.stored and parts.lists[word] in needed]  # fmt: skip
    found += ["dtype = jnp.result_type(jnp.float32, *ws)"] * needs_dtype
    needs_tree = mentions([*text, *found], "tree")
    if "ws" not in needed:
        return ["tree = jax.tree.structure(params)"] * needs_tree + found
    if not needs_tree:
        return ["ws = [_wide(w) for w in jax.tree.leaves(params)]", *found]
    return ["leaves, tree = jax.tree.flatten(params)", "ws = [_wide(w) for w in leaves]", *found]


def _returned(cls: str, values: Sequence[tuple[str, str]]) -> Lines:
    one = f"return {cls}({', '.join(f'{word}={text}' for word, text in values)})"
    return [one] if len(one) < 110 else [f"return {cls}(", *(f"    {word}={text}," for word, text in values), ")"]


def _update(parts: Parts, program: Program, cls: str) -> Lines:
    stage = Stage(parts, stored=True)
    change, how = _change(parts.program.weights)
    roots = [change, *(updated(s, parts.program) for s in parts.own)]
    shared = [*(parts.program.updates[s.name] for s in parts.shared), *(parts.program.reports or {}).values()]
    stage.cross([*roots, *shared])
    new = [stage.names.fresh(f"{parts.lists[parts.states[s.name]]}_new") for s in parts.own]
    types = [WEIGHTS, *(s.type for s in parts.own)]
    stage.each("step", "What is added to a parameter, and its new states.", roots, ["changes", *new], types, how)
    values = [(parts.states[s.name], f"tree.unflatten({word})") for s, word in zip(parts.own, new, strict=True)]
    texts = stage.shared_roots(shared)
    for s, text in zip(parts.shared, texts, strict=False):
        old = f"state.{parts.states[s.name]}"
        values.append((parts.states[s.name], old if text == old else f"jnp.asarray({text}, {old}.dtype)"))
    values += [(word, f"jnp.asarray({text}, dtype)") for word, text in zip(parts.reports.values(), texts[len(parts.shared) :], strict=True)]
    more = "".join(f", {word}=None" for word in [*(["value"] if program.uses("loss") else []), *parts.inputs.values()])
    arguments = f"updates, state, params=None{', *' + more + ', **_' if more else ''}"
    head = ["if params is None:", f"    {PARAMS}"]
    reads_t = mentions([*stage.lines, *(text for _, text in values)], "t")
    head += ["t = 1.0 * (state.count + 1)  # of no precision of its own"] * reads_t
    head += [line for word in (["value"] if program.uses("loss") else []) + [parts.inputs[i.name] for i in parts.shared_inputs]
             for line in (f"if {word} is None:", f'    raise ValueError("update needs {word}=...")')]  # fmt: skip
    returned = _returned(cls, [("count", "state.count + 1"), *_sorted(parts, values)])
    returned = [f"return tree.unflatten(changes), {returned[0].removeprefix('return ')}", *returned[1:]]
    body = [*stage.lines, *returned]
    return [f"def update({arguments}):", *indented([*head, *_lists(stage, body, "updates"), *body])]


def _change(weights: ir.Node) -> tuple[ir.Node, str]:
    """What is added to the weights, and how its text is made."""
    if weights.op == "sub" and weights.args[0] is ir.W:
        return weights.args[1], "minus"
    if weights.op == "add" and ir.W in weights.args:
        return weights.args[1 if weights.args[0] is ir.W else 0], ""
    return weights, "less w"


def _evaluation(parts: Parts, program: Program, name: str) -> Lines:
    stage = Stage(parts, stored=True)
    assert parts.program.evaluation is not None
    stage.cross([parts.program.evaluation])
    stage.each("evaluation", "The weights of a parameter.", [parts.program.evaluation], ["weights"], [WEIGHTS])
    head = _signature(parts, program, name, "state, params")
    reads_t = mentions(stage.lines, "t")
    cast = "return tree.unflatten([x.astype(w.dtype) for x, w in zip(weights, leaves)])"
    lists = _lists(stage, [*stage.lines, cast])
    about = ['"""The weights to evaluate with, of the same settings as the transformation."""', *["t = 1.0 * state.count"] * reads_t]
    return [*head, *indented([*about, *lists, *stage.lines, cast])]
