"""Found programs as rules that read as if written by hand: the literals that have a role become settings, values get names.

A share of an average is a beta, also where its bias is corrected; what the weights are multiplied with in the update is the weight
decay, and what is added to a divisor is an eps. A literal factor of the whole update goes into the step size.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from optlang import ir
from optlang.compare.trial import refute
from optlang.ir import Bounds, Hyper, Node, Program, State, substitute, walk
from optlang.search.distil.collecting import brackets, polynomial, product, times, total
from optlang.search.distil.listing import measure, unscaled, update
from optlang.search.distil.wording import worded
from optlang.search.programs.moves import Move, replaced
from optlang.types import TypeProblem

LR = ir.hyper("lr")
SHARE = Bounds(0, 1, high_open=True)
POSITIVE = Bounds(0, float("inf"), high_open=True)
EPS = 1e-3  # a literal above it, in a divisor, is no protection
DOCS = {"beta": "share of what was remembered", "correction": "decay of a bias correction",
        "weight_decay": "decoupled decay, times lr", "eps": "added to a divisor"}  # fmt: skip


def absorbed(program: Program, scaled: bool = False) -> Move | None:
    """The program with a constant factor of its update taken into the step size; None where that does not make it shorter."""
    u = update(program)
    terms = polynomial(u, brackets(u))
    lr = frozenset([(LR, -1)])
    inner = {product(monomial, lr): factor for monomial, factor in terms.items()}
    elsewhere = [*program.updates.values(), *(n for m in inner for n, _ in m)]
    if not inner or any(LR in walk([n]) for n in elsewhere):
        return None
    options = [(factor, made) for factor in dict.fromkeys(abs(f) for f in inner.values()) if factor != 1
               and (made := _rescaled(program, factor, ir.mul(LR, total(times(inner, 1 / factor))))) is not None]  # fmt: skip
    options.sort(key=lambda one: measure(one[1], scaled))
    for factor, made in options:
        if measure(made, scaled) < measure(program, scaled) and _agrees(program, made, factor):
            text = (f"with lr / {float(factor):.6g} in place of lr the program before takes the same steps: the factor is common to "
                    "the whole update over exact fractions, lr is read nowhere else; tried in closed loop")  # fmt: skip
            return Move(f"step size takes up the factor {float(factor):.6g}", made, None, text)
    return None


def _rescaled(program: Program, factor: Fraction, new: Node) -> Program | None:
    changed = replaced(program, {update(program): new})
    if changed is None:
        return None
    hypers = tuple(h._replace(default=float(h.default * factor)) if h.name == "lr" else h for h in changed.hypers)
    return replace(changed, hypers=hypers)


def _agrees(before: Program, after: Program, factor: Fraction) -> bool:
    """The program before, with its lr written as lr/factor, against the one after: the same lr means the same steps."""
    table = substitute(before.all_roots(), {LR: ir.div(LR, ir.const(float(factor)))})
    found, _ = refute(replace(before.replaced(table), hypers=after.hypers), after)
    return found is None or found.values[0] != found.values[0]


# -------------------------------------------------------------------------------------------------------------- roles


def named(program: Program, name: str = "", doc: str = "") -> Program:
    """The same program with its literals of known roles as settings, its slots and its update named as is usual."""
    program = _with_usual_slots(program)
    u = unscaled(update(program))
    order = _as_read([u, *program.updates.values()])
    betas = _numbered("beta", [share.value for n in order if (share := _share(n)) is not None and 0 <= share.value < 1])
    bases = [n.args[0].value for n in order if n.op == "pow" and n.args[1] is ir.T and n.args[0].op == "const"]
    corrections = _numbered("correction", [base for base in bases if 0 < base < 1 and base not in betas])
    raised = {**betas, **corrections}
    tiny = _numbered("eps", [e.value for n in order if (e := _epsilon(n)) is not None])
    decaying = {n: decay.value for n in _addends(u) if (decay := _decay(n)) is not None}
    decays = _numbered("weight_decay", list(decaying.values()))
    at_decay = {n: ir.mul(ir.hyper(decays[value]), ir.W) for n, value in decaying.items()}

    def rule(node: Node, old: Node) -> Node:
        share, protection = _share(old), _epsilon(old)
        if share is not None and share.value in betas:
            (_, x), (_, y) = (a.args for a in node.args)
            beta = ir.hyper(betas[share.value])
            return ir.add(ir.mul(beta, y), ir.mul(ir.sub(ir.const(1), beta), x))
        if node.op == "pow" and node.args[1] is ir.T and node.args[0].op == "const" and node.args[0].value in raised:
            return ir.make("pow", (ir.hyper(raised[node.args[0].value]), ir.T))
        if protection is not None:
            return ir.make(node.op, (node.args[0], _swapped(node.args[1], protection, ir.hyper(tiny[protection.value]))))
        return node

    try:
        table = ir.fold(program.all_roots(), lambda old, args: at_decay.get(old) or rule(ir.rebuild(old, args), old))
        made = program.replaced(table)
    except TypeProblem:
        return replace(program, name=name or program.name, doc=doc or program.doc)
    roles = (("beta", betas, SHARE), ("correction", corrections, SHARE), ("weight_decay", decays, POSITIVE), ("eps", tiny, POSITIVE))
    found = [hyper for role, names, bounds in roles for hyper in _hypers(names, bounds, DOCS[role])]
    hypers = (*(_plain(h) for h in program.hypers), *found)
    made = worded(replace(made, name=name or program.name, doc=doc or program.doc, hypers=hypers))
    return replace(made, names=(("u", unscaled(update(made))),))


def _as_read(roots: list[Node]) -> list[Node]:
    """All nodes below the roots, each before its operands, from left to right."""
    found: dict[Node, None] = {}
    stack = roots[::-1]
    while stack:
        node = stack.pop()
        if node not in found:
            found[node] = None
            stack.extend(reversed(node.args))
    return list(found)


def _plain(hyper: Hyper) -> Hyper:
    """With whole bounds written as such."""
    bounds = hyper.bounds
    whole = bounds is not None and bounds.low == int(bounds.low)
    return hyper._replace(bounds=bounds._replace(low=int(bounds.low))) if bounds is not None and whole else hyper


def _numbered(word: str, values: list[float]) -> dict[float, str]:
    """Names for some values in order: `beta`, or `beta1`, `beta2`, … where there are several."""
    apart = list(dict.fromkeys(values))
    return {value: word if len(apart) == 1 else f"{word}{number}" for number, value in enumerate(apart, 1)}


def _hypers(names: dict[float, str], bounds: Bounds, doc: str) -> list[Hyper]:
    return [Hyper(name, "real", float(value), bounds, doc) for value, name in names.items()]


def _share(node: Node) -> Node | None:
    """The literal b of (1 - b)x + by."""
    if node.op != "add" or any(a.op != "mul" for a in node.args):
        return None
    one, b = node.args[0].args[0], node.args[1].args[0]
    return b if b.op == "const" and one.op == "sub" and one.args[0].op == "const" and one.args[0].value == 1 and one.args[1] is b else None


def _epsilon(node: Node) -> Node | None:
    """The literal e of x/(y + e) and x/√(y + e)."""
    if node.op != "div":
        return None
    below = node.args[1].args[0] if node.args[1].op == "sqrt" else node.args[1]
    if below.op != "add":
        return None
    return next((a for a in below.args if a.op == "const" and not isinstance(a.value, bool) and 0 < a.value <= EPS), None)


def _swapped(divisor: Node, old: Node, new: Node) -> Node:
    """A divisor with a setting where its protection is."""
    below = divisor.args[0] if divisor.op == "sqrt" else divisor
    swapped = ir.make("add", [new if a is old else a for a in below.args])
    return ir.make("sqrt", (swapped,)) if divisor.op == "sqrt" else swapped


def _addends(node: Node) -> list[Node]:
    """What a sum adds up, brackets opened."""
    found, stack = [], [node]
    while stack:
        here = stack.pop()
        if here.op == "add":
            stack.extend(here.args)
        elif here.op == "sub":
            stack.append(here.args[0])
        else:
            found.append(here)
    return found


def _decay(node: Node) -> Node | None:
    """The positive literal c of c·w."""
    if node.op != "mul" or ir.W not in node.args:
        return None
    other = node.args[1 - node.args.index(ir.W)]
    return other if other.op == "const" and not isinstance(other.value, bool) and other.value > 0 else None


def _with_usual_slots(program: Program) -> Program:
    """Averages of squares are called v, others m, where that tells them apart."""
    words = ["v" if _of_squares(program, s) else "m" for s in program.states]
    names = {s.name: word if words.count(word) == 1 else s.name for s, word in zip(program.states, words, strict=True)}
    if len(set(names.values())) < len(names):
        return program
    table = substitute(program.all_roots(), {s.node: ir.state(names[s.name], s.type) for s in program.states})
    made = program.replaced(table)
    states = tuple(State(names[s.name], s.type, s.init, s.guard) for s in made.states)
    return replace(made, states=states, updates={names[old]: new for old, new in made.updates.items()})


def _of_squares(program: Program, state: State) -> bool:
    """Whether what enters a slot is even in the gradient."""
    terms = polynomial(program.updates[state.name])
    return any(power % 2 == 0 for monomial in terms for node, power in monomial if ir.G in walk([node]))
