"""Programs for people: equations in LaTeX, a card in Markdown, a graph for Graphviz, and the graph as a listing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from optlang import ir
from optlang.analysis.constant_conditions import without_constant_conditions
from optlang.ir import Node, Predicate, Program, Routing
from optlang.printing.equations import definitions, large
from optlang.printing.latex import WORDS, Printer, symbol

# ---------------------------------------------------------------------------------------------------------- LaTeX


def equations(program: Program) -> list[str]:
    """One line of LaTeX for each equation, in an order in which they can be computed."""
    lines = [(_symbol(name), node) for name, node in definitions(program)]
    known = signs(program)
    clashing = [node for node in ir.walk(program.roots()) if node.op == "hyper" and node.value in WORDS and node.value not in known]
    names: dict[Node, str] = {node: rf"\mathrm{{{node.value}}}" for node in clashing}
    printer = Printer(names, program.uses("matmul"))
    written = []
    for name, node in lines:
        named = bool(node.args) or node.op == "random"  # a draw has no operands, and is one draw wherever its name stands
        written.append(f"{name} = {printer.define(node) if named and node not in names else printer.text(node)}")
        if named:
            names.setdefault(node, name)
    return written


def signs(program: Program) -> dict[str, str]:
    """The hypers that equations have under another sign than their name, which nothing else has."""
    names = [*(h.name for h in program.hypers), *(s.name for s in program.states), *(name for name, _ in program.names)]
    others = {symbol(name) for name in names if name not in WORDS}
    return {h.name: WORDS[h.name] for h in program.hypers if h.name in WORDS and WORDS[h.name] not in others}


def _symbol(name: str) -> str:
    """A name of an equation; a prime marks what holds after the step."""
    return symbol(name[:-1], "t") if name.endswith("'") else symbol(name)


def latex(what: Program | Routing) -> str:
    """The equations, aligned at their signs; of a route, those of every rule under its condition."""
    if isinstance(what, Routing):
        return "\n\n".join(f"% {_when(case.condition)}\n{latex(case.program)}" for case in what.cases)
    what = without_constant_conditions(what)
    rows = [line.replace(" = ", " &= ", 1) for line in equations(replace(what, evaluation=None))]
    if what.evaluation is not None:
        names = {ir.W: "w_{t}", **{s.node: symbol(s.name, "t") for s in what.states}}
        rows += _parted(what.evaluation, r"w_{\mathrm{eval}}", r"x_{\mathrm{eval},%d}", names)
    body = " \\\\\n".join(rows)
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


def _parted(node: Node, name: str, of_parts: str, names: dict[Node, str]) -> list[str]:
    """A definition in lines, those before the last of parts that are large."""
    rows = []
    for number, part in enumerate((part for part in large(node) if part is not node), 1):
        rows.append(f"{of_parts % number} &= {Printer(names).define(part)}")
        names[part] = of_parts % number
    return [*rows, f"{name} &= {Printer(names).define(node) if node.args else Printer(names).text(node)}"]


def _when(condition: Predicate | None) -> str:
    return "otherwise" if condition is None else f"when {predicate(condition)}"


SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "^"}


def predicate(p: Predicate) -> str:
    """A condition of a route as it is written."""
    match p.op:
        case "const":
            return f'"{p.value}"' if isinstance(p.value, str) else f"{p.value:g}" if not isinstance(p.value, bool) else str(p.value).lower()
        case "fact":
            return str(p.value)
        case "dtype":
            return "dtype"
        case "named":
            return f"named({', '.join(chr(34) + pattern + chr(34) for pattern in p.value)})"
        case "not":
            return f"not {_inner(p.args[0])}"
        case "neg":
            return f"-{_inner(p.args[0])}"
        case "and" | "or":
            return f" {p.op} ".join(_inner(arg) for arg in p.args)
        case "maximum" | "minimum":
            return f"{p.op[:3]}({', '.join(predicate(arg) for arg in p.args)})"
    return f" {SIGNS[p.op]} ".join(_inner(arg) for arg in p.args)


def _inner(p: Predicate) -> str:
    text = predicate(p)
    return f"({text})" if p.op in ("and", "or", "add", "sub", "mul", "div") else text


# ------------------------------------------------------------------------------------------------------- Markdown


def markdown(what: Program | Routing) -> str:
    """A card: source, equations, hypers with range and meaning, states, extra passes over the model."""
    parts = [f"# {what.name}", _escaped(what.doc)]
    if isinstance(what, Program):
        parts += _body(what, {})
    else:
        for case in what.cases:
            head = [f"## {case.program.name}", f"`{_when(case.condition)}`", _escaped(case.program.doc)]
            parts += [*head, *_body(case.program, case.settings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _body(program: Program, given: Mapping[str, float]) -> list[str]:
    """What a card says below its head. `given` are the defaults that a route has for its branch."""
    asks = asked(program)
    note = f"Asks the model for {asks} in a step; `step` needs a closure." if asks else ""
    return [f"$$\n{latex(program)}\n$$", _hypers(program, given), _states(program), note]


def _escaped(text: str) -> str:
    """Text of a rule file as text: no markup of its own."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|$" else c for c in " ".join(text.split()))


def _hypers(program: Program, given: Mapping[str, float]) -> str:
    if not program.hypers:
        return ""
    rows = [f"| `{h.name}` | {given.get(h.name, h.default)} | {h.bounds or ''} | {_escaped(h.doc)} |" for h in program.hypers]
    return "\n".join(["| hyper | default | range | meaning |", "|---|---|---|---|", *rows])


def _states(program: Program) -> str:
    if not program.states:
        return "Keeps nothing between steps."
    shown = [f"`{s.name}` per {s.type.extent}" + (f", the last {s.type.window}" if s.type.window else "") for s in program.states]
    return f"Keeps {'; '.join(shown)}."


def asked(program: Program) -> str:
    """What a step asks of the model besides its gradient, in words; empty for most rules."""
    words = {"grad": ("more gradient", "s"), "hvp": ("Hessian-vector product", "s"), "loss_at": ("more loss", "es")}
    counts = Counter(node.op for node in ir.walk(program.roots()))
    asks = [f"{counts[op]} {one}{more * (counts[op] > 1)}" for op, (one, more) in words.items() if counts[op]]
    return " and ".join(asks or ["its loss"] * (counts["loss"] > 0))


# ------------------------------------------------------------------------------------------- the graph, both ways


def _roots(program: Program) -> list[tuple[str, Node]]:
    found = [(f"{name}'", node) for name, node in program.updates.items()] + [("w'", program.weights)]
    found += [("eval", program.evaluation)] if program.evaluation is not None else []
    return [*found, *((f"report {name}", node) for name, node in (program.reports or {}).items())]


def listing(what: Program | Routing) -> str:
    """Every node once, operands before their users, with its type; then what the program gives."""
    if isinstance(what, Routing):
        return "\n\n".join(f"{_when(case.condition)} use\n{listing(case.program)}" for case in what.cases)
    return _listing(what)


def _listing(program: Program) -> str:
    roots = _roots(program)
    names = {node: name for name, node in program.names}
    number: dict[Node, int] = {}
    lines = [f"program {program.name}"]
    lines += [_hyper(h) for h in program.hypers]
    for node in ir.walk([*(s.init for s in program.states), *(node for _, node in roots)]):
        number[node] = len(number)
        value = "" if node.value is None else f" {node.value}" if not isinstance(node.value, tuple) else f" {node.value[0]}"
        args = "".join(f" %{number[arg]}" for arg in node.args)
        note = f"  # {names[node]}" if node in names else ""
        lines.append(f"  %{number[node]} = {node.op}{value}{args}: {node.type}{note}")
    lines += [f"  state {s.name}: {s.type} = %{number[s.init]}" for s in program.states]
    return "\n".join([*lines, *(f"  {name} = %{number[node]}" for name, node in roots)])


def _hyper(h: ir.Hyper) -> str:
    bounds = f" in {h.bounds}" if h.bounds is not None else ""
    return f"  hyper {h.name}: {h.kind} = {h.default}{bounds}{'  (shapes the program)' if h.baked else ''}"


def graph(what: Program | Routing) -> str:
    """The graph in Graphviz's language: arrows go from operands to users, boxes are what the program gives."""
    programs = [case.program for case in what.cases] if isinstance(what, Routing) else [what]
    lines = [f"digraph {_quoted(what.name)} {{", "  rankdir=BT", '  node [fontname="Helvetica"]']
    for place, program in enumerate(programs):
        number = {node: f"n{place}_{i}" for i, node in enumerate(ir.walk(node for _, node in _roots(program)))}
        for node, mark in number.items():
            label = node.op if node.value is None else f"{node.op} {node.value}" if node.args else f"{_leaf(node)}"
            lines.append(f"  {mark} [label={_quoted(label)}{'' if node.args else ', style=filled, fillcolor=lightgrey'}]")
            lines += [f"  {number[arg]} -> {mark}" for arg in node.args]
        for i, (name, node) in enumerate(_roots(program)):
            shown = f"{program.name}: {name}" if len(programs) > 1 else name
            lines += [f"  r{place}_{i} [shape=box, label={_quoted(shown)}]", f"  {number[node]} -> r{place}_{i}"]
    return "\n".join([*lines, "}"])


def _leaf(node: Node) -> str:
    return str(node.value[0]) if isinstance(node.value, tuple) else str(node.value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
