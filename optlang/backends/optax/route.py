"""A route as `optax.multi_transform`: a label for each parameter, and the transformation of its rule."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optlang.backends.module.layout import documentation
from optlang.backends.module.loops import Relower, of_case
from optlang.backends.module.route import mentions, predicate
from optlang.backends.optax.spell import fact
from optlang.backends.optax.writer import factory
from optlang.ir import Routing
from optlang.printing.identifiers import Names, numbered
from optlang.printing.python_text import quoted

OF_LEAF = {"dtype": "str(w.dtype)", "rank": "w.ndim", "numel": "w.size", **{word: word for word in ("rows", "cols", "fan_in", "fan_out")}}
FITS = "any(fnmatchcase(name, pattern) for pattern in ({},))"
NAMED = "names are the keys of the tree of parameters with dots between, as in `layers.0.kernel`"


def route(routing: Routing, names: Names, baked: Mapping[str, Any], relower: Relower | None) -> str:
    """The text of the transformations of a route's rules, and of the one that sends parameters to them."""
    name = names.fresh(routing.name.lower())
    texts: list[str] = []
    labels: list[str] = []
    functions: list[str] = []
    for place, case in enumerate(routing.cases):
        prefix = f"{case.program.name}."
        own = {key.removeprefix(prefix): value for key, value in baked.items() if key.startswith(prefix)}
        given = {**case.settings, **own}
        shaped = replace(case.program, hypers=tuple(h._replace(default=given.get(h.name, h.default)) for h in case.program.hypers))
        text = factory(shaped, names, of_case(relower, place, prefix))
        functions.append(text.split("\ndef ")[1].partition("(")[0])
        labels.append(numbered(case.program.name, labels))
        texts.append(text.rstrip("\n"))
    return "\n\n\n".join([*texts, "\n".join(_front(routing, name, labels, functions))]) + "\n"


def _front(routing: Routing, name: str, labels: list[str], functions: list[str]) -> list[str]:
    arguments = ", ".join(f"{label}=None" for label in labels)
    rules = [f"        {quoted(label)}: {function}(**({label} or {{}}))," for label, function in zip(labels, functions, strict=True)]
    about = textwrap.wrap(documentation(routing.doc or routing.name), 110)
    said = f"Sends each parameter to {' or '.join(labels)}. Settings are given by rule, as in `{labels[0]}={{...}}`; {NAMED}."
    return [
        f"def {name}({arguments}) -> optax.GradientTransformationExtraArgs:",
        f'    """{about[0]}', *(f"    {line}" for line in ["", *textwrap.wrap(said, 110)]), '    """',
        "    rules = {", *rules, "    }", "",
        "    def label(path, w):", *(f"        {line}" for line in _choice(routing, labels)), "",
        "    return optax.multi_transform(rules, lambda params: jax.tree_util.tree_map_with_path(label, params))",
    ]  # fmt: skip


def _choice(routing: Routing, labels: list[str]) -> list[str]:
    lines = ['"""The rule that takes a parameter."""']
    asks_names = any(mentions(case.condition, "named") for case in routing.cases if case.condition is not None)
    lines += ["name = _path_name(path)"] if asks_names else []
    for word in ("rows", "cols", "fan_in", "fan_out"):
        if any(case.condition is not None and mentions(case.condition, word) for case in routing.cases):
            lines.append(f"{word} = {fact(word).text}")
    for case, label in zip(routing.cases, labels, strict=True):
        if case.condition is None:
            return [*lines, f"return {quoted(label)}"]
        lines += [f"if {predicate(case.condition, OF_LEAF, FITS).text}:", f"    return {quoted(label)}"]
    return [*lines, 'raise ValueError(f"no rule for {_path_name(path)} of shape {w.shape}")']


