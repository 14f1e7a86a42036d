"""One generated class: constructor, checks, `step`, the update of one parameter, and what the rule needs besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optlang import ir
from optlang.backends.module_body import Body, Path, identifier
from optlang.backends.module_parts import EVALUATING, GRADIENTS, HESSIAN, LOADING, docline
from optlang.ir import Node, Program
from optlang.plan import CALLS, Barrier, Plan, plan
from optlang.types import TENSOR, Extent

PARTIAL = {"sum": "sum", "mean": "sum", "amax": "amax", "amin": "amin"}
VIEWS = frozenset(["w", "g", "state", "input", "transpose", "as_matrix", "as_param"])
BETAS = ("beta1", "beta2")


class ClassText:
    """The text of one program's class; `helpers` are the functions that it calls."""

    def __init__(self, program: Program, baked: Mapping[str, Any]) -> None:
        self.plan: Plan = plan(program)
        self.program = self.plan.program
        self.hypers = {h.name: h for h in program.hypers}
        self.values = {h.name: baked.get(h.name, h.default) for h in program.hypers}
        self.helpers: set[str] = set()
        self.shared = [s for s in self.program.states if s.type.extent.level == "model"]
        self.own = [s for s in self.program.states if s.type.extent.level != "model"]
        self.levels = self.plan.levels(self._everything(), [(None,) * len(self.plan.conditions)])
        nodes = ir.walk(
            [*self._everything(), *(s.init for s in self.program.states), *(a for b in self.plan.barriers.values() for a in b.args)]
        )
        self.draws = any(n.op == "random" for n in nodes)
        self.asks = [b for level in self.levels for b in level if b.op in CALLS]
        self.reads_loss = any(n.op == "loss" for n in nodes)
        self.inputs = {i.name: i for i in self.program.inputs}
        self.whole_model = bool(self.levels or self.shared or self.program.reports or self.reads_loss)

    def _everything(self) -> list[Node]:
        return [self.program.weights, *self.program.updates.values(), *(self.program.reports or {}).values()]

    # ------------------------------------------------------------------------------------------------ pieces

    def whole(self) -> str:
        """The class."""
        methods = [self._constructor(), self._check(), self._step()]
        if self.whole_model:
            methods += [self._part(i, level) for i, level in enumerate(self.levels)] + self._shared_methods() + self._conditions_of_calls()
        methods += [self._update(), self._start(), LOADING, *self._asking(), *self._evaluation()]
        doc = f'    """{docline(self.program.doc or self.program.name)}\n{self._documentation()}    """'
        head = f"class {self.program.name}(torch.optim.Optimizer):\n{doc}"
        return head + "\n\n" + "\n\n".join(_indented(m.strip("\n")) for m in methods)

    def _asking(self) -> list[str]:
        asked = {barrier.op for barrier in self.asks}
        return [text for op, text in (("grad", GRADIENTS), ("hvp", HESSIAN)) if op in asked]

    def _documentation(self) -> str:
        lines = []
        for h in self.program.hypers:
            bounds = f", in {h.bounds}" if h.bounds is not None else ""
            fixed = "; fixed when this was generated" if h.baked else ""
            lines.append(f"    {self._argument(h.name)}: {docline(h.doc) or h.name} ({h.kind}{bounds}{fixed})")
        return "".join(f"\n{line}" for line in lines) + ("\n" if lines else "")

    @staticmethod
    def _argument(name: str) -> str:
        return identifier(name.replace(".", "_"), set())

    @property
    def has_betas(self) -> bool:
        return all(b in self.hypers for b in BETAS)

    def _constructor(self) -> str:
        arguments = [f"{self._argument(h)}={self.values[h]!r}" for h in self.hypers]
        more = ["betas=None"] if self.has_betas else []
        more += ["maximize=False", *(["seed=0"] if self.draws else [])]
        dotted = any("." in h for h in self.hypers)
        head = f"def __init__(self, params, {', '.join([*arguments, '*', *more, *(['**dotted'] if dotted else [])])}):"
        lines = [head]
        settings = [f'"{self._argument(h)}": {self._argument(h)}' for h in self.hypers if not (self.has_betas and h in BETAS)]
        if self.has_betas:
            lines += ["    if betas is not None:", "        beta1, beta2 = betas"]
            settings.append('"betas": (beta1, beta2)')
        settings += ['"maximize": maximize', *(['"seed": seed'] if self.draws else [])]
        lines.append(f"    settings = {{{', '.join(settings)}}}")
        if dotted:
            lines += ["    for name, value in dotted.items():  # `fast.lr` may be given as it is written in the rule",
                      '        if name.replace(".", "_") not in settings:',
                      '            raise TypeError(f"there is no setting {name!r}")',
                      '        settings[name.replace(".", "_")] = value']  # fmt: skip
        if self.inputs:
            lines.append("    self.inputs = {}  # values that the training loop supplies, by name; per parameter in a dict")
        if self.program.reports:
            lines.append("    self.reports = {}")
        return "\n".join([*lines, "    super().__init__(params, settings)"])

    def _check(self) -> str:
        lines = ["def add_param_group(self, param_group):", "    super().add_param_group(param_group)",
                 "    self._check(self.param_groups[-1])", "", "@staticmethod", "def _check(group):"]  # fmt: skip
        body = []
        for name, h in self.hypers.items():
            value = self._read(name)
            if h.baked:
                body += [
                    f"if {value} != {self.values[name]!r}:",
                    f'    raise ValueError("{name} was fixed at {self.values[name]!r} when this was generated")',
                ]
            elif h.bounds is not None:
                low, high = h.bounds.low, h.bounds.high
                closed = not h.bounds.low_open or (name.rpartition(".")[2] == "lr" and low == 0)
                left = "" if low == float("-inf") else f"{low!r} {'<=' if closed else '<'} "
                right = "" if high == float("inf") else f" {'<' if h.bounds.high_open else '<='} {high!r}"
                test = f"{left}{value}{right}" if left or right else f"{value} == {value}"
                body += [f"if not {test}:", f"    raise ValueError(f'{name} is outside {h.bounds}: {{{value}!r}}')"]
        body += [
            'for p in group["params"]:',
            "    if p.is_complex():",
            '        raise ValueError("complex parameters: give torch.view_as_real of them")',
        ]
        return "\n".join([*lines, *(f"    {line}" for line in body)])

    def _read(self, name: str) -> str:
        if self.has_betas and name in BETAS:
            return f'group["betas"][{BETAS.index(name)}]'
        return f'group["{self._argument(name)}"]'

    # -------------------------------------------------------------------------------------------------- step

    def _step(self) -> str:
        lines = ["@torch.no_grad()", "def step(self, closure=None):"]
        if self.asks or self.reads_loss:
            lines += [
                "    if closure is None:",
                f'        raise RuntimeError("{self.program.name} asks the model again: call step(closure)")',
            ]
        lines += ["    loss = None", "    for group in self.param_groups:", "        self._check(group)"]
        if self.asks:
            lines.append("    random = torch.get_rng_state()")
        lines += ["    if closure is not None:", "        with torch.enable_grad():", "            loss = closure()"]
        if self.draws:
            lines.append('    places = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}')
        lines += ['    cells = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]',
                  "    for p, group in cells:", "        self._start(p, group)"]  # fmt: skip
        if not self.whole_model:
            place = ", places[p]" if self.draws else ""
            return "\n".join([*lines, "    for p, group in cells:", f"        self._update(p, group{place})", "    return loss"])
        return "\n".join([*lines, *(f"    {line}" for line in self._phases()), "    return loss"])

    def _phases(self) -> list[str]:
        """Loops over all parameters, each ending with what needs all of them."""
        place = ", places[p]" if self.draws else ""
        lines = [
            "if not cells:",
            "    return loss",
            "known = {}  # values of the whole model",
            "asked = {p: {} for p, _ in cells}  # and of each parameter",
        ]
        if self.reads_loss:
            lines.append('known["loss"] = loss.detach()')
        for number, level in enumerate(self.levels):
            lines.append(f"parts = [self._part_{number}(p, group, {{**known, **asked[p]}}{place}) for p, group in cells]")
            for i, barrier in enumerate(level):
                lines += self._crossing(barrier, i)
        if self.shared:
            lines.append('new = self._model(cells[0][1], known, max(self.state[p]["step"] for p, _ in cells) + 1)')
        if self.program.reports:
            lines.append('self.reports = self._reports(cells[0][1], known, max(self.state[p]["step"] for p, _ in cells) + 1)')
        lines += ["for p, group in cells:", f"    self._update(p, group, {{**known, **asked[p]}}{place})"]
        if self.shared:
            lines += ["for name, value in new.items():", '    self.state["model"][name].copy_(value)']
        return lines

    def _crossing(self, barrier: Barrier, i: int) -> list[str]:
        mark, parts = self._mark(barrier.mark), f"[part[{i}] for part in parts]"
        if barrier.op in CALLS:
            method = "_gradients_at" if barrier.op == "grad" else "_hessian_times"
            lines = [f"if any(self._asks_{self.asks.index(barrier)}(p, group) for p, group in cells):"]
            lines.append(f"    for (p, group), x in zip(cells, self.{method}(closure, random, cells, {parts})):")
            return [*lines, f'        asked[p]["{mark}"] = -x if group["maximize"] else x']
        if barrier.op == "count":
            return [f'known["{mark}"] = torch.tensor(float(sum({_count(barrier)} for p, _ in cells)))']
        if barrier.op == "quantile":
            self.helpers.add("quantile")
            share = self._one(barrier.args[1])
            return [f'known["{mark}"] = quantile(torch.cat([part[{i}].flatten() for part in parts]), torch.tensor({share}), None)']
        gathered = f"torch.stack({parts}).{PARTIAL[barrier.op]}()"
        return [f'known["{mark}"] = {gathered}' + (f" / sum({_count(barrier)} for p, _ in cells)" if barrier.op == "mean" else "")]

    def _one(self, node: Node) -> str:
        group = "cells[0][1]"
        body = Body(
            {node: ()}, {h: self._read(h.value).replace("group", group) for h in ir.walk([node]) if h.op == "hyper"}, {}, self.hypers
        )
        return body.text(node)

    @staticmethod
    def _mark(mark: Node) -> str:
        return str(mark.value).replace("barrier ", "value_")

    def _part(self, number: int, level: Sequence[Barrier]) -> str:
        """What one parameter contributes."""
        roots = [_contribution(b) for b in level]
        body = self._body({r: () for r in roots if r is not None})
        lines = body.lines()
        values = ["None" if r is None else body.text(r) for r in roots]
        for i, barrier in enumerate(level):
            root = roots[i]
            if barrier.op in CALLS and root is not None:
                values[i] = f"torch.as_tensor({values[i]}, dtype=dtype, device=p.device).expand(p.shape)"
            elif root is not None and body.host[root]:
                values[i] = f"torch.tensor({values[i]}, dtype=dtype)"
        return self._method(f"_part_{number}", body, [*lines, f"return {', '.join(values)},"])

    def _conditions_of_calls(self) -> list[str]:
        """When the model must be asked: under the conditions of the blocks in which the answer stands."""
        body = self._update_body()
        methods = []
        for i, barrier in enumerate(self.asks):
            path = body.paths.get(barrier.mark, ())
            text = self._test(path)
            head = ['t = self.state[p]["step"] + 1'] if any(n.op == "t" for c, _ in path for n in ir.walk([c])) else []
            hypers = [f"{self._argument(h)} = {self._read(h)}" for h in self._hypers_in([c for c, _ in path])]
            methods.append(
                "\n".join([f"def _asks_{i}(self, p, group):", *(f"    {line}" for line in [*hypers, *head]), f"    return {text}"])
            )
        return methods

    def _test(self, path: Path) -> str:
        """Whether a parameter is on these sides of these blocks."""
        body = self._body({c: () for c, _ in path}, {})
        body.names = {}
        return " and ".join(body.text(c, 1.5) if side else f"not {body.text(c, 3.5)}" for c, side in path) or "True"

    # ------------------------------------------------------------------------------------------------ bodies

    def _leaves(self, roots: Iterable[Node], model: bool = False) -> dict[Node, str]:
        found: dict[Node, str] = {}
        guarded = {s.name for s in self.own if s.guard is not None}
        shared = {s.name for s in self.shared}
        for node in ir.walk(roots):
            match node.op:
                case "w" | "g" | "t":
                    found[node] = node.op
                case "hyper":
                    found[node] = self._argument(node.value)
                case "loss":
                    found[node] = 'known["loss"]'
                case "state" if node.value in shared:
                    found[node] = f'self.state["model"]["{node.value}"]'
                case "state":
                    found[node] = f'state["{node.value}"]' if node.value in guarded else self._local(node.value)
                case "input" if node in self.plan.barriers:
                    found[node] = f'known["{self._mark(node)}"]'
                case "input":
                    found[node] = f'self._input("{node.value}", p)'
        return found

    def _local(self, state: str) -> str:
        name = state.rpartition(".")[2]
        clashes = {self._argument(h) for h in self.hypers} | {"w", "g", "t", "p", "x"}
        same = [s.name for s in self.own if s.name.rpartition(".")[2] == name]
        return self._argument(state if len(same) > 1 else f"{name}_state" if name in clashes else name)

    def _body(self, roots: Mapping[Node, Path], names: Mapping[Node, str] | None = None) -> Body:
        wishes = {node: name.rpartition(".")[2] for name, node in self.program.names if node.args}
        return Body(roots, self._leaves(roots), {**wishes, **(names or {})}, self.hypers)

    def _update_roots(self) -> tuple[dict[Node, Path], dict[str, tuple[Node, Path]]]:
        """The new values, those of states under a condition inside its block."""
        found: dict[str, tuple[Node, Path]] = {}
        for s in self.own:
            value, path = self.program.updates[s.name], _path(s.guard)
            for condition, side in path:
                if value.op == "branch" and value.args[0] is condition:
                    value = value.args[1] if side else value.args[2]
            found[s.name] = (value, path)
        roots: dict[Node, Path] = {}
        for node, path in [(self.program.weights, ()), *found.values()]:
            roots[node] = path if node not in roots else ()
        return roots, found

    def _update_body(self) -> Body:
        roots, found = self._update_roots()
        wishes = {node: f"{name.rpartition('.')[2]}_new" for name, (node, _) in found.items() if node.args}
        return self._body(roots, wishes)

    def _update(self) -> str:
        body = self._update_body()
        _, found = self._update_roots()
        lines = body.lines()
        kept, writes = [], []
        for s in self.own:
            node, path = found[s.name]
            if node is s.node:
                continue
            text = body.text(node)
            if node.op in VIEWS and not body.host[node]:
                name = identifier("kept", body.used)
                kept.append(f"{name} = {text}.clone()" if not path else f"{name} = {text}.clone() if {self._test(path)} else None")
                text = name
            write = f'state["{s.name}"].{"fill_" if body.host[node] else "copy_"}({text})'
            writes += [write] if not path else [f"if {self._test(path)}:", f"    {write}"]
        weights = body.text(self.program.weights)
        if body.reads(self.program.weights) & {s.node for s in self.own if found[s.name][0] is not s.node}:
            name = identifier("w_new", body.used)  # before the states that it reads are changed
            kept.append(f"{name} = {weights}")
            weights = name
        last = f"p.{'fill_' if body.host[self.program.weights] else 'copy_'}({weights})"
        return self._method("_update", body, [*lines, *kept, *_merged(writes), last, 'state["step"] += 1'], stepping=True)

    def _method(self, name: str, body: Body, lines: list[str], stepping: bool = False) -> str:
        """A method for one parameter: what its statements read is fetched first."""
        self.helpers |= body.helpers | ({"ieee"} if body.calls_ieee else set())
        text = "\n".join(lines)
        used = set(ir.walk(body.roots))
        extra = (", known" if self.whole_model else "") + (", place" if self.draws else "")
        head = [f"def {name}(self, p, group{extra}):"]
        hypers = [h for h in self._hypers_in(body.roots) if self._argument(h) in text]
        head += [f"    {self._argument(h)} = {self._read(h)}" for h in hypers]
        states = [s for s in self.own if s.node in used and s.guard is None]
        if stepping or states or "state[" in text:
            head.append("    state = self.state[p]")
        if ir.T in used:
            head.append('    t = self.state[p]["step"] + 1')
        head.append("    dtype = torch.float64 if p.dtype == torch.float64 else torch.float32")
        if "counter" in text:
            head.append('    counter = torch.tensor([t, group["seed"], place], device=p.device)' if ir.T in used else
                        '    counter = torch.tensor([self.state[p]["step"] + 1, group["seed"], place], device=p.device)')  # fmt: skip
        if ir.W in used or "w.shape" in text or ", w)" in text:
            head.append("    w = p.to(dtype)")
        if ir.G in used:
            head.append('    g = (-p.grad if group["maximize"] else p.grad).to(dtype)')
        head += [f'    {self._local(s.name)} = state["{s.name}"]' for s in states]
        if "dtype" not in "\n".join([*head[len(head) - 3 :], text]) and ir.W not in used and ir.G not in used:
            head = [line for line in head if not line.strip().startswith("dtype =")]
        return "\n".join([*head, *(f"    {line}" for line in lines)])

    def _hypers_in(self, roots: Iterable[Node]) -> list[str]:
        read = {n.value for n in ir.walk(roots) if n.op == "hyper"}
        return [name for name in self.hypers if name in read]

    def _start(self) -> str:
        """Initial values."""
        lines = ["def _start(self, p, group):", "    if p.grad.layout != torch.strided:",
                 '        raise RuntimeError("sparse gradients: use dense ones, as with torch.nn.Embedding(..., sparse=False)")',
                 "    state = self.state[p]", "    if not state:", '        state["step"] = 0']  # fmt: skip
        if any(s.type.extent.level == "array" or s.type.window or s.type.extent.level == "tensor" for s in self.own):
            lines.append("        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32")
        for s in self.own:
            body = self._body({s.init: ()})
            made = _made(s, body)
            needed = [s.init, *([s.guard] if s.guard is not None else [])]
            read = [f"{self._argument(h)} = {self._read(h)}" for h in self._hypers_in(needed)]
            lines += [f"        {line}" for line in read if line not in [x.strip() for x in lines]]
            if s.guard is not None:
                lines += [f"        if {self._test(_path(s.guard))}:", f"            {made}"]
            else:
                lines.append(f"        {made}")
            self.helpers |= {"ieee"} if body.calls_ieee else set()
        if self.shared:
            lines.append('    if "model" not in self.state:')
            lines += [
                "        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32",
                '        self.state["model"] = model = {}',
            ]
            for s in self.shared:
                body = self._body({s.init: ()})
                lines += [f"        {self._argument(h)} = {self._read(h)}" for h in self._hypers_in(body.roots)]
                shape = f"({s.type.window},)" if s.type.window else "()"
                kind = "torch.bool" if s.type.kind == "bool" else "dtype"
                lines.append(f'        model["{s.name}"] = torch.full({shape}, {body.text(s.init)}, dtype={kind}, device=p.device)')
        return "\n".join(_merged(lines))

    def _shared_methods(self) -> list[str]:
        methods = []
        for name, roots in (
            ("_model", {s.name: self.program.updates[s.name] for s in self.shared}),
            ("_reports", dict(self.program.reports or {})),
        ):
            if not roots:
                continue
            body = self._body(dict.fromkeys(roots.values(), ()))
            lines = body.lines()
            read = [f"{self._argument(h)} = {self._read(h)}" for h in self._hypers_in(roots.values())]
            values = [
                f'"{key}": torch.as_tensor({body.text(node)}).detach(){".item()" if name == "_reports" else ""}'
                for key, node in roots.items()
            ]
            self.helpers |= body.helpers | ({"ieee"} if body.calls_ieee else set())
            methods.append(
                "\n".join(
                    [
                        f"def {name}(self, group, known, t):",
                        *(f"    {line}" for line in [*read, *lines]),
                        f"    return {{{', '.join(values)}}}",
                    ]
                )
            )
        if self.inputs:
            methods.append(INPUT)
        return methods

    def _evaluation(self) -> list[str]:
        if self.inputs and not self.whole_model:
            return [INPUT, *self._evaluation_methods()]
        return self._evaluation_methods()

    def _evaluation_methods(self) -> list[str]:
        node = self.program.evaluation
        if node is None:
            return []
        body = self._body({node: ()})
        lines = [*body.lines(), f"return {body.text(node)}"]
        text = self._method("_evaluation_weights", body, lines).replace('"step"] + 1', '"step"]')
        call = "self._evaluation_weights(p, group" + (", {}" if self.whole_model else "") + (", 0" if self.draws else "") + ")"
        return [text, EVALUATING.replace("VALUE", call)]


INPUT = """def _input(self, name, p):
    value = self.inputs[name]
    value = value[p] if isinstance(value, dict) else value
    return torch.as_tensor(value, device=p.device)"""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def _contribution(barrier: Barrier) -> Node | None:
    arg = barrier.args[0]
    if barrier.op in CALLS or barrier.op == "quantile":
        return arg
    if barrier.op == "count":
        return None
    return ir.make(PARTIAL[barrier.op], (arg,), TENSOR) if arg.type.extent.level == "array" else arg


def _count(barrier: Barrier) -> str:
    """How many values a parameter contributes."""
    extent = barrier.args[0].type.extent
    if extent.level != "array":
        return "1"
    if (extent.rows, extent.cols) == ("rows", "cols"):
        return "p.numel()"
    divisor = {("rows", 1): "p.shape[-1]", (1, "cols"): "p.shape[-2]", (1, 1): "(p.shape[-1] * p.shape[-2])"}
    return f"p.numel() // {divisor[extent.rows, extent.cols]}"


def _path(guard: Node | None) -> Path:
    """The sides of blocks that a guard says."""
    if guard is None:
        return ()
    if (
        guard.op == "and"
        and len(guard.args) == 2
        and guard.args[0].op in ("and", "not", "branch", "eq", "ge", "gt", "le", "lt", "ne", "hyper")
    ):
        return (*_path(guard.args[0]), *_path(guard.args[1]))
    if guard.op == "not":
        return ((guard.args[0], False),)
    return ((guard, True),)


def _made(state: ir.State, body: Body) -> str:
    """The statement that makes a state."""
    kind = "torch.bool" if state.type.kind == "bool" else "dtype"
    if state.init is ir.W and not state.type.window:
        return f'state["{state.name}"] = p.detach().to(dtype, copy=True)'
    shape = _shape(state.type.extent)
    shape = (
        f"({state.type.window}, *{shape})"
        if state.type.window and shape != "()"
        else f"({state.type.window},)"
        if state.type.window
        else shape
    )
    text = body.text(state.init).replace("w", "p.to(dtype)") if state.init.op == "w" else body.text(state.init)
    if body.host[state.init]:
        if shape == "p.shape" and text in ("0", "0.0"):
            return f'state["{state.name}"] = torch.zeros_like(p, dtype={kind}, memory_format=torch.contiguous_format)'
        return f'state["{state.name}"] = torch.full({shape}, {text}, dtype={kind}, device=p.device)'
    return f'w = p.to(dtype); state["{state.name}"] = torch.empty({shape}, dtype={kind}, device=p.device).copy_({text})'


def _shape(extent: Extent) -> str:
    if extent.level != "array":
        return "()"
    rows, cols = ("p.shape[-2]" if extent.rows == "rows" else "1"), ("p.shape[-1]" if extent.cols == "cols" else "1")
    return "p.shape" if (extent.rows, extent.cols) == ("rows", "cols") else f"(*p.shape[:-2], {rows}, {cols})"


def _merged(lines: list[str]) -> list[str]:
    """Neighbouring `if`s of one condition become one."""
    found: list[str] = []
    condition = ""
    for line in lines:
        if line == condition:
            continue
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("if "):
            condition = line
        elif condition and indent <= len(condition) - len(condition.lstrip()):
            condition = ""
        found.append(line)
    return found


__all__ = ["ClassText"]
