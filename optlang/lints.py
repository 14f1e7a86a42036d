"""What is allowed but hardly ever meant: the findings P01 to P08 of `check --pedantic`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

from optlang.analysis.degrees import TooManyTerms, degrees, equation_of
from optlang.analysis.first_step import First, is_sign
from optlang.analysis.live_states import live_states, outputs
from optlang.errors import Diagnostic, Source, Span
from optlang.ir import Node, Program, fold, on_host, walk

Finding = tuple[str, str, str, str, str]  # code, key of the place, message, pointer, help
GRADIENTS = frozenset(["g", "grad", "hvp", "loss", "loss_at", "input"])


def lints(program: Program, source: Source) -> list[Diagnostic]:
    """Every finding about a rule, at the places that it was lowered from; in the order of their codes."""
    found = [finding for lint in LINTS for finding in lint(program)]
    return [
        Diagnostic(code, message, _span(program, key), pointer, help, "lint", source=source)
        for code, key, message, pointer, help in found
    ]


def _span(program: Program, key: str) -> Span:
    """The place of a name; of one from another rule the place of its call, and where nothing is known that of `w'`."""
    spans = program.spans or {}
    tried = [key, key.rstrip("'"), key + "'", key.split(".")[0], "w'"]
    return next((spans[name] for name in tried if name in spans), Span(0, 0))


def unread_states(program: Program) -> Iterator[Finding]:
    """P01."""
    live = live_states(program)
    for state in program.states:
        if state.name not in live:
            yield ("P01", state.name, f"the state `{state.name}` is never read by anything that matters", "changes no weight",
                   "delete it, or use it in `w'`")  # fmt: skip


def foreign_corrections(program: Program) -> Iterator[Finding]:
    """P02: `1 - beta^t` under an average with another decay, or under the average that the last step left."""
    host = on_host(program.roots())
    averages = {update: name for name, update in program.updates.items()}
    old = {state.node: state.name for state in program.states}
    stepped = set(walk([program.weights, *program.updates.values()]))  # to weights to evaluate with, states are the new ones
    for node in walk(program.roots()):
        beta = _corrected(node.args[1]) if node.op == "div" else None
        mean = _without_numbers(node.args[0], host) if beta is not None else node
        last = old.get(mean) if beta is not None and node in stepped else None
        if last is not None and beta is not None and _decay(program, last, host) is beta:
            yield ("P02", equation_of(program, node), f"`{last}` is the mean of the steps before, its bias correction that of `{last}'`",
                   "divides by the correction of the new mean", f"divide `{last}'` by `1 - {_word(beta)}^t`")  # fmt: skip
        name = averages.get(mean) if beta is not None else None
        decay = _decay(program, name, host) if name is not None else None
        if name is not None and beta is not None and decay is not None and decay is not beta:
            yield ("P02", equation_of(program, node), f"`{name}` decays with {_word(decay)}, its bias correction with {_word(beta)}",
                   "divides by the correction of another average", f"divide `{name}'` by `1 - {_word(decay)}^t`")  # fmt: skip


def _corrected(node: Node) -> Node | None:
    """The beta of `1 - beta^t`."""
    if node.op == "sub" and node.args[0].op == "const" and node.args[0].value == 1:
        power = node.args[1]
        if power.op == "pow" and power.args[1].op == "t":
            return power.args[0]
    return None


def _without_numbers(node: Node, host: dict[Node, bool]) -> Node:
    """An expression without the factors that are known before the step."""
    while node.op in ("mul", "div") and not host[node]:
        left, right = node.args
        if host[right]:
            node = left
        elif host[left] and node.op == "mul":
            node = right
        else:
            break
    return node


def _decay(program: Program, name: str, host: dict[Node, bool]) -> Node | None:
    """The factor of the old value in `decay*m + …`."""
    old = next(s.node for s in program.states if s.name == name)
    for term in _terms(program.updates[name]):
        if term.op == "mul" and old in term.args:
            factor = term.args[0] if term.args[1] is old else term.args[1]
            return factor if host[factor] else None
    return None


def _word(node: Node) -> str:
    return str(node.value) if node.op in ("hyper", "const") else "another number"


def blind_update(program: Program) -> Iterator[Finding]:
    """P03."""
    live = live_states(program)
    roots = [*outputs(program), *(program.updates[name] for name in live)]
    if not any(node.op in GRADIENTS for node in walk(roots)):
        yield ("P03", "w'", "the new weights do not depend on the gradient", "made of `w`, states and settings only",
               "subtract a step along `g`, as in `w' = w - lr*g`")  # fmt: skip


def undefined_start(program: Program) -> Iterator[Finding]:
    """P04."""
    for weight in (0.5, 0.0):
        place = First(program, weight).undefined()
        if place is not None:
            what = "zero over zero" if place.op == "div" else "a number over zero, times zero,"
            by = f", divided by what is made of {_named_in(program, place.args[1])}" if place.op == "div" else ""
            yield ("P04", equation_of(program, place), "this can be 0/0 at the first step", f"{what} where `g` is 0{by}",
                   "add a small number to the denominator, or choose with `where`")  # fmt: skip
            return


def _named_in(program: Program, node: Node) -> str:
    """What an expression reads by name, as the rule has it."""
    names = {new: f"{name}'" for name, new in program.updates.items()} | {named: name for name, named in program.names}
    found: dict[str, None] = {}
    stack = [node]
    while stack:
        here = stack.pop()
        if here in names or here.op in ("state", "input", "hyper", "w", "g", "t"):
            found[names.get(here, str(here.value or here.op))] = None
        else:
            stack.extend(reversed(here.args))
    return " and ".join(f"`{name}`" for name in found)


def unnormalised(program: Program) -> Iterator[Finding]:
    """P05: in a term of the update what depends on the gradient is divided by what does, and the loss does not cancel."""
    host = on_host(program.roots())
    try:
        powers = _loss_degrees(program, host)
    except TooManyTerms:
        return
    learnt = _learnt(program)
    for term in _steps(program.weights, host):
        if term in learnt and powers[term] and any(_half_normalised(n, powers, learnt) for n in walk([term])):
            yield ("P05", equation_of(program, term), "the update divides by a size of the gradient and still scales with the loss",
                   f"scales as loss^{powers[term]}",
                   "divide by something of the same degree, such as `sqrt` of an average of `g^2`")  # fmt: skip
            return


def _half_normalised(node: Node, powers: Mapping[Node, Fraction], learnt: set[Node]) -> bool:
    return node.op == "div" and all(arg in learnt for arg in node.args) and bool(powers[node.args[1]] and powers[node])


def _loss_degrees(program: Program, host: Mapping[Node, bool]) -> dict[Node, Fraction]:
    """Degrees in the loss, as if factors that are known before the step had none."""
    known = degrees(program).nodes

    def power(node: Node, args: tuple[Fraction, ...]) -> Fraction:
        if host[node]:
            return Fraction(0)
        if node.op in ("mul", "div"):
            return args[0] + args[1] if node.op == "mul" else args[0] - args[1]
        pair = known.get(node)
        return Fraction(0) if pair is None else pair[0]

    return fold(program.roots(), power)


def _learnt(program: Program) -> set[Node]:
    """The nodes that depend on the gradient, through states too."""
    order = walk(program.roots())
    states: set[str] = set()
    while True:
        seen: set[Node] = set()
        for node in order:
            if node.op in GRADIENTS or (node.op == "state" and node.value in states) or any(a in seen for a in node.args):
                seen.add(node)
        more = {name for name, update in program.updates.items() if update in seen}
        if more == states:
            return seen
        states = more


def _terms(node: Node) -> Iterator[Node]:
    """The summands of an expression, signs left out; both sides of a choice count."""
    stack, seen = [node], set[Node]()
    while stack:
        here = stack.pop()
        if here in seen:
            continue
        seen.add(here)
        if here.op in ("add", "sub", "neg"):
            stack.extend(reversed(here.args))
        elif here.op in ("branch", "where"):
            stack.extend(reversed(here.args[1:]))
        else:
            yield here


def _steps(weights: Node, host: dict[Node, bool]) -> Iterator[Node]:
    """The summands of the new weights, without the factors that are known before the step."""
    stack, seen = [weights], set[Node]()
    while stack:
        for term in _terms(stack.pop()):
            bare = _without_numbers(term, host)
            if bare in seen or host[bare]:
                continue
            seen.add(bare)
            if bare is not term:
                stack.append(bare)
            else:
                yield bare


def equal_reals(program: Program) -> Iterator[Finding]:
    """P06. Settings, and comparisons with 0 or with whole-valued results, are exact."""
    host = on_host(program.roots())
    for node in walk(program.roots()):
        if node.op in ("eq", "ne") and not host[node] and not any(_is_exact(a) for a in node.args):
            sign = "==" if node.op == "eq" else "!="
            yield ("P06", equation_of(program, node), f"real numbers are compared with `{sign}`", "rounding decides",
                   "compare with a tolerance, as in `abs(a - b) < 1e-6`")  # fmt: skip


def _is_exact(node: Node) -> bool:
    if node.op == "const":
        return bool(node.value in (0, float("inf"), float("-inf")))
    return node.type.kind == "int" or node.op in ("sign", "floor", "ceil", "round", "count")


def unused_hypers(program: Program) -> Iterator[Finding]:
    """P07. Settings that shape the program have done so already; those of called rules are their authors' business."""
    used = {node.value for node in walk(program.all_roots()) if node.op == "hyper"}
    for hyper in program.hypers:
        if hyper.name not in used and not hyper.baked and "." not in hyper.name:
            yield "P07", hyper.name, f"the hyper `{hyper.name}` is never used", "changes nothing", "delete it, or use it"


def rounded_signs(program: Program) -> Iterator[Finding]:
    """P08. What is 0 whatever weights and gradients are, is 0 on paper."""
    found = [node for node in walk([program.weights, *program.updates.values()]) if is_sign(node)]
    for weight, gradient in ((0.3, 0.7), (1.9, -0.2), (-0.6, 1.1)):
        rounded = First(program, weight, gradient).rounded_signs() if found else ()
        found = [node for node in found if node in rounded]
    for place in found[:1]:
        yield ("P08", equation_of(program, place), "in the first step rounding decides this sign", "the difference is 0 on paper",
               "say from where on it counts, as in `where(abs(d) > 1e-6*abs(w), sign(d), 0)`")  # fmt: skip


LINTS: Sequence[Callable[[Program], Iterator[Finding]]] = (
    unread_states, foreign_corrections, blind_update, undefined_start, unnormalised, equal_reals, unused_hypers,
    rounded_signs,
)  # fmt: skip
