"""Routes: which rule a parameter goes to, why, and what looks like a mistake there."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor

from optlang import ir
from optlang.printing import as_printed, columns
from optlang.runtime.facts import facts_of

MOST_SHOWN = 4  # patterns of names in a reason
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # what torch puts into names


class Known(NamedTuple):
    """What the conditions of a route may ask about a parameter. `name` is empty where none was given."""

    facts: Mapping[str, int]
    name: str
    dtype: str


def known_of(parameter: Tensor, name: str) -> Known:
    return Known(facts_of(parameter), name, str(parameter.dtype).removeprefix("torch."))


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "pow": operator.pow,
    "neg": operator.neg, "maximum": max, "minimum": min,
}  # fmt: skip


def holds(predicate: ir.Predicate, known: Known) -> Any:
    """The value of a condition. A comparison with a fact that the parameter does not have is false.

    Raises ValueError where names are asked for and were not given.
    """
    match predicate.op:
        case "const":
            return predicate.value
        case "fact":
            return known.facts.get(predicate.value)
        case "dtype":
            return known.dtype
        case "named":
            return _is_named(predicate.value, known)
        case "and":
            return all(holds(arg, known) for arg in predicate.args)
        case "or":
            return any(holds(arg, known) for arg in predicate.args)
        case "not":
            return not holds(predicate.args[0], known)
    values = [holds(arg, known) for arg in predicate.args]
    if predicate.op in COMPARE:
        return None not in values and COMPARE[predicate.op](*values)
    if None in values:
        return None
    try:
        return ARITHMETIC[predicate.op](*values)
    except (ArithmeticError, ValueError):
        return None


def _is_named(patterns: tuple[str, ...], known: Known) -> bool:
    if not known.name:
        raise ValueError("this route looks at the names of parameters: give the optimizer `model.named_parameters()`, not `parameters()`")
    return any(fnmatchcase(plain_name(known.name), pattern) for pattern in patterns)


def plain_name(name: str) -> str:
    """The name of a parameter in the model itself."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix("module.")  # of DistributedDataParallel


# ------------------------------------------------------------------------------------------------------- reasons


def why(predicate: ir.Predicate, known: Known) -> list[str]:
    """The facts that make a condition what it is for a parameter, whether it holds or not."""
    match predicate.op:
        case "and" | "or":
            decisive = [arg for arg in predicate.args if bool(holds(arg, known)) is (predicate.op == "or")]
            return [text for arg in decisive[:1] or predicate.args for text in why(arg, known)]
        case "named":
            fitting = [pattern for pattern in predicate.value if fnmatchcase(plain_name(known.name), pattern)]
            if fitting:
                return [f'the name fits "{fitting[0]}"']
            patterns = ", ".join(f'"{p}"' for p in predicate.value[:MOST_SHOWN])
            more = len(predicate.value) - MOST_SHOWN
            return [f"the name fits none of {patterns}" + (f" and {more} more patterns" if more > 0 else "")]
        case "dtype":
            return [f"dtype is {known.dtype}"]
        case "fact":
            found = known.facts.get(predicate.value)
            return [f"it has no {predicate.value}" if found is None else f"{predicate.value} is {found}"]
    return [text for arg in predicate.args for text in why(arg, known)]


class Assigned(NamedTuple):
    """One parameter with the rule that steps it."""

    parameter: str
    shape: tuple[int, ...]
    rule: str
    reason: str


class Routes(list[Assigned]):
    """Who got what and why; printed, a table."""

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        return table(Assigned._fields, self)


class Stepped(NamedTuple):
    """One parameter with the backend that steps it."""

    parameter: str
    shape: tuple[int, ...]
    backend: str
    reason: str


class Backends(list[Stepped]):
    """What is stepped by what and why; printed, a table."""

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        return table(Stepped._fields, self)


def table(head: tuple[str, ...], found: Sequence[Assigned] | Sequence[Stepped]) -> str:
    """A row for each parameter."""
    return "\n".join(columns([head, *((x[0], "×".join(map(str, x[1])) or "()", x[2], x[3]) for x in found)]))


def reason_for(conditions: Sequence[ir.Predicate | None], known: Known) -> str:
    """Why a parameter goes to the last of some branches: its condition holds, or none of those before does."""
    *before, own = conditions
    decisive = [own] if own is not None else before
    found = [text for condition in decisive if condition is not None for text in why(condition, known)]
    return ", ".join(dict.fromkeys(found)) or "every parameter does"


# ------------------------------------------------------------------------------------------------------ mistakes

# texts, which are compiled where the first name is looked at
EMBEDDING = r"(^|_)(un)?(embed(ding)?s?|emb|wte|wpe|wpos)(_|\d*$)"
HEAD = r"^((lm|cls|mlm|class\w*|output|prediction)_)?head$|^(classifier|readout)$"
LAST = r"^((\w+_)?(outputs|logits|prediction|relationship)|score)$"  # Hugging Face's, right before `weight`
BIAS = r"(^|_)bias(es)?(_|$)"  # of experts, of relative positions
WHOLE = ("output", "fc")  # heads where nothing is around them: torchvision's ResNet, Llama
TALL, MANY = 8, 256  # a table of words has many more rows than columns


def looks_like(name: str, shape: tuple[int, ...]) -> str:
    """What a matrix that is no linear map between activations seems to be, by its name or shape; empty where nothing says so."""
    parts = plain_name(name).lower().split(".") if " " not in name else []
    module = parts[-2] if len(parts) > 1 else ""
    if any(re.search(EMBEDDING, part) for part in parts) or module == "shared":  # T5's words
        return "an embedding by its name"
    if any(re.search(HEAD, part) for part in parts) or re.search(LAST, module) or (len(parts) == 2 and module in WHOLE):
        return "a head by its name"
    if any(re.search(BIAS, part) for part in parts[-2:]):
        return "biases by its name"
    if parts[-1:] == ["a_log"]:
        return "the rates of a state space by its name"
    is_adapter = any(part.startswith("lora") for part in parts)
    if len(shape) == 2 and shape[0] >= max(MANY, TALL * shape[1]) and not is_adapter:
        return f"an embedding or a head, tied or not, by its shape {shape[0]}×{shape[1]}"
    return ""
