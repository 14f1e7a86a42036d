"""The documentation of the class of a rule, and how it is called."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from optlang.backends.module.layout import Lines, bracketed, documentation, indented, wrapped
from optlang.backends.module.leaves import BETAS, Setting, Words
from optlang.backends.module.methods import ATTRIBUTE, attributes, option_arguments, option_entries
from optlang.ir import Program
from optlang.ops import ASKING
from optlang.printing.python_text import literal, quoted

KINDS = {"bool": "bool", "int": "int", "real": "float"}
OPTIONS_DOC = "Options are torch's; `foreach` and `fused` change nothing."
WITH_KERNEL = "On a GPU a Triton kernel steps, unless `fused` is False. `foreach` changes nothing."
IN_GRAPHS = "With `capturable`, `lr` may be a tensor on the device; other settings stay as they are captured."
THROUGH = "With `differentiable`, give clones of parameters."
TENSOR_LR = ["if isinstance(lr, torch.Tensor) and lr.numel() != 1:", '    raise ValueError("Tensor lr must be 1-element")']


def documentation_lines(program: Program, words: Words, kernel: bool, capturable: bool) -> Lines:
    """What the rule is, its settings, its options, and what it asks of those who train with it."""
    about = textwrap.wrap(documentation(program.doc or program.name), 110) or [program.name]
    lines = [f'"""{about[0]}', *about[1:]]
    if program.hypers:
        lines.append("")
    for s in words.settings:
        h, table = s.hypers[0], "a table of {} × {} numbers".format(*s.size) if s.size else ""
        said = ", ".join(part for part in (documentation(h.doc), table, f"in {h.bounds}" if h.bounds else "") if part)
        lines += textwrap.wrap(f"{s.word}: {said}".rstrip(": "), 110, subsequent_indent="    ")
    options, asks = WITH_KERNEL if kernel else OPTIONS_DOC, any(program.uses(op) for op in ASKING)
    lines += ["", options if asks else f"{options} {THROUGH}"]
    lines += [IN_GRAPHS] if capturable else []
    if program.inputs:
        lines.append("")
        lines += [f'inputs["{documentation(i.name)}"]: {documentation(i.doc)} (set before each step)' for i in program.inputs]
    if asks:
        lines += ["", "`step` needs a closure that zeroes the gradients, computes the loss, calls backward and returns the loss."]
        if program.uses("loss") or program.uses("loss_at"):
            lines += ["Under DistributedDataParallel it is to return the mean of the losses of all processes."]
    return ['"""' + lines[0][3:] + '"""'] if len(lines) == 1 else [*lines, '"""']


def init_lines(name: str, program: Program, words: Words, draws: bool) -> Lines:
    """`__init__`, with the settings in the order of the rule."""
    of_rule, full = [s.word for s in words.settings], _full_names(words)
    arguments = ["self", "params: ParamsT", *_given(words), "*"]
    arguments += [f"{word}: float | None = None" for word in BETAS if words.has_betas]
    arguments += [*option_arguments(draws), *["**full_names: Any"] * bool(full)]
    line = f"def __init__({', '.join(arguments)}) -> None:"
    body = ["beta1, beta2 = _pair(betas, beta1, beta2)"] if words.has_betas else []
    body += TENSOR_LR if "lr" in of_rule else []  # torch looks at it before it looks at parameters
    entries = [f"{quoted(w)}: {w}" for w in of_rule if not words.has_betas or full or w not in BETAS]
    entries += ['"betas": (beta1, beta2)'] if words.has_betas and not full else []
    body += bracketed("defaults: dict[str, Any] = {", [*entries, *option_entries(draws)], "}")
    body += _taking_full_names(name, words, full) if full else []
    return [*wrapped(line), *indented([*body, *attributes([program], ATTRIBUTE), "super().__init__(params, defaults)"])]


def _given(words: Words) -> Lines:
    """The settings in the order of the rule, two betas as one pair where the first stands, as in torch."""
    given = {s.word: f"{_kind(s)} = {_default(s)}" for s in words.settings}
    if words.has_betas:
        first, second = (_default(s) for s in words.settings if s.word in BETAS)
        pair = f"betas: tuple[float, float] = ({first}, {second})"
        return [pair if word == BETAS[0] else f"{word}: {about}" for word, about in given.items() if word != BETAS[1]]
    return [f"{word}: {about}" for word, about in given.items()]


def _full_names(words: Words) -> dict[str, str]:
    """The hypers of called rules, which the rule's own text calls `fast.beta1`."""
    return {s.name: s.word for s in words.settings if s.name != s.word}


def _taking_full_names(cls: str, words: Words, full: Mapping[str, str]) -> Lines:
    lines = bracketed("known = {", [f"{quoted(name)}: {quoted(word)}" for name, word in full.items()], "}")
    lines += ['for name, value in full_names.items():  # as in **{' + quoted(next(iter(full))) + ": …}",
              "    if name not in known:", f'        raise TypeError(f"{cls} has no setting {{name!r}}")',
              "    defaults[known[name]] = value"]  # fmt: skip
    return lines + (['defaults["betas"] = (defaults.pop("beta1"), defaults.pop("beta2"))'] if words.has_betas else [])


def _kind(setting: Setting) -> str:
    """The step size may be a tensor, which schedulers write into; a table is given in many ways."""
    if setting.size is not None:
        return "Any"
    h = setting.hypers[0]
    return "float | torch.Tensor" if h.name.rpartition(".")[2] == "lr" and h.kind == "real" else KINDS[h.kind]


def _default(setting: Setting) -> str:
    """The default; of a table one number for all, or, where a call has given other ones, its rows."""
    numbers = [literal(h.default).text for h in setting.hypers]
    if len(set(numbers)) == 1:
        return numbers[0]
    assert setting.size is not None
    _, cols = setting.size
    rows = [numbers[start : start + cols] for start in range(0, len(numbers), cols)]
    return f"[{', '.join(f'[{chr(44).join(row)}]' for row in rows)}]"
