"""Checks of settings and parameters, which a generated class makes when a group is added and before each step."""

from __future__ import annotations

import math

from optlang.backends.module.elements import complex_checks, sparse_checks
from optlang.backends.module.layout import Lines, indented, wrapped
from optlang.backends.module.leaves import BETAS, Setting, Words
from optlang.backends.module.update import Update
from optlang.ir import Hyper
from optlang.printing.python_text import literal, quoted


def parameter_checks(name: str, parts: Lines, update: Update) -> Lines:
    """What a rule does not take, the check of `parts` of parameters, and what no rule for matrices takes."""
    lines = [*complex_checks(name, update.mixes, update.complexes), *sparse_checks(name, *update.sparse, update.words)]
    message = f"{name} takes matrices, not a parameter of shape {{tuple(param.shape)}}"
    return [*lines, *parts, *["if param.ndim < 2:", f'    raise ValueError(f"{message}")'] * update.always_matrix]


def number_checks(words: Words, draws: bool) -> Lines:
    """Python takes True for 1, and so for a rate."""
    plain = [s for s in words.settings if s.size is None and s.hypers[0].kind != "bool"]
    names = [quoted(s.word) for s in plain] + ['"seed"'] * draws
    if not names:
        return []
    value = "numbers[name]" if words.has_betas else "group[name]"
    return [*['numbers = {**group, "beta1": beta1, "beta2": beta2}'] * words.has_betas,
            *wrapped(f"for name in ({', '.join(names)}{',' * (len(names) == 1)}):"), f"    if isinstance({value}, bool):",
            f'        raise TypeError(f"{{name}} must be a number, not {{{value}}}")']  # fmt: skip


def table_lines(words: Words) -> Lines:
    """The method that brings tables to one form, which `add_param_group` calls before all else, and `_check` for what was written later."""
    tables = [(s.word, s.size) for s in words.settings if s.size is not None]
    keys = [(word, f"group[{quoted(word)}]", size) for word, size in tables]
    lines = [f"{key} = _table({quoted(word)}, {key}, rows={rows}, cols={cols})" for word, key, (rows, cols) in keys]
    about = '"""Keeps tables as rows of numbers, whatever they are given as."""'
    return ["@staticmethod", "def _as_tables(group: dict[str, Any]) -> None:", *indented([about, *lines])] if tables else []


def setting_checks(setting: Setting, words: Words) -> Lines:
    """Kind and range of a setting; of one that has shaped the program its value."""
    h, word = setting.hypers[0], setting.word
    if setting.size is not None:
        inside = f"all({_range(h, 'x')} for row in group[{quoted(word)}] for x in row)" if h.bounds is not None else ""
        return [f"if not {inside}:", f'    raise ValueError("{word} is outside {h.bounds}")'] if inside else []
    value = word if words.has_betas and word in BETAS else f"group[{quoted(word)}]"
    shown = "{" + value.replace('"', "'") + "!r}"
    lines: Lines = []
    if h.kind == "bool":
        lines += [f"if not isinstance({value}, bool):", f'    raise TypeError(f"{word} must be True or False, not {shown}")']
    if h.kind == "int":
        lines += [f"if {value} != int({value}):", f'    raise ValueError(f"{word} must be a whole number, not {shown}")']
    if h.bounds is not None and h.kind != "bool":
        lines += [f"if not {_range(h, value)}:", f'    raise ValueError(f"{word} is outside {h.bounds}: {shown}")']
    if h.name in words.fixed:
        fixed = literal(h.default).text
        lines += [f"if {value} != {fixed}:", f'    raise ValueError("{word} was fixed at {fixed} when this was generated")']
    return lines


def _range(h: Hyper, value: str) -> str:
    assert h.bounds is not None
    b = h.bounds
    low_open = b.low_open and not (h.name.rpartition(".")[2] == "lr" and b.low == 0)
    low = literal(b.low).text if math.isfinite(b.low) else "-math.inf"
    high = literal(b.high).text if math.isfinite(b.high) else "math.inf"
    return f"{low} {'<' if low_open else '<='} {value} {'<' if b.high_open else '<='} {high}"
