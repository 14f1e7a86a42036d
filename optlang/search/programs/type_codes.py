"""Types of searched programs as small numbers: a search checks thousands of programs a second, so each type rule is asked once."""

from __future__ import annotations

from optlang import ir
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import UPDATE, Argument, Form, Genome
from optlang.types import ELEMENT, HOST, Type, TypeProblem, broadcasts_to

NUMBER = 0  # the code of a constant
MISFIT = -1  # operands that do not fit, or a name that is not there
_TYPE_OF: list[Type] = []
_CODE_OF: dict[Type, int] = {}
_RESULTS: dict[tuple[str | int, ...], int] = {}  # (function, codes of its operands) -> code


def code_of(type_: Type) -> int:
    """The small number that stands for a type in this process."""
    found = _CODE_OF.get(type_)
    if found is None:
        found = _CODE_OF[type_] = len(_TYPE_OF)
        _TYPE_OF.append(type_)
    return found


def type_of(code: int) -> Type:
    """The type of a code."""
    return _TYPE_OF[code]


assert code_of(Type("real", HOST)) == NUMBER


def _result(function: str, args: tuple[Type, ...]) -> Type | None:
    row = FUNCTIONS[function]
    if len(args) != row.operands:
        return None
    try:
        return row.build(*(ir.input_(f"operand {n}", type_) for n, type_ in enumerate(args))).type
    except TypeProblem:
        return None


def result_code(call: tuple[str | int, ...]) -> int:
    """The code of a call (function, codes of its operands), MISFIT where these do not fit."""
    found = _RESULTS.get(call)
    if found is None:
        function, *args = call
        fits = all(isinstance(arg, int) and arg >= 0 for arg in args)
        type_ = _result(str(function), tuple(_TYPE_OF[arg] for arg in args if isinstance(arg, int))) if fits else None
        found = _RESULTS[call] = MISFIT if type_ is None else code_of(type_)
    return found


class Codes(dict[Argument, int]):
    """The codes of names; a constant is a number, and a name that has no value a misfit."""

    def __missing__(self, argument: Argument) -> int:
        return MISFIT if type(argument) is str else NUMBER


_inputs: dict[Form, Codes] = {}


def input_codes(form: Form) -> Codes:
    """The codes of every name that has a value before the first statement."""
    found = _inputs.get(form)
    if found is None:
        found = _inputs[form] = Codes({name: code_of(node.type) for name, node in form.inputs().items()})
    return Codes(found)


def codes(genome: Genome, form: Form) -> Codes | None:
    """The codes of the types of all names at the end of a genome, or None where a statement does not fit or reads what is not there."""
    known = input_codes(form)
    get, results = known.__getitem__, _RESULTS
    for function, target, args, _ in genome:
        call: tuple[str | int, ...] = (function, *map(get, args))
        result = results.get(call)
        if result is None:
            result = result_code(call)
        if result < 0:
            return None
        known[target] = result
    return known if may_end(known[UPDATE]) and all(may_end(known[slot]) for slot in form.slots) else None


_ends: dict[int, bool] = {MISFIT: False}


def may_end(code: int) -> bool:
    """Whether a value of this type can be an update or be kept in a slot: a number for each element."""
    found = _ends.get(code)
    if found is None:
        type_ = _TYPE_OF[code]
        found = _ends[code] = type_.kind != "bool" and not type_.window and broadcasts_to(type_.extent, ELEMENT)
    return found
