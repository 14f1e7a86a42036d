"""The fixed parts of generated modules: small functions, the closure asked again, evaluation weights, routes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence

from optlang import ir, philox
from optlang.backends import torch_ops
from optlang.render import SIGNS

GRADIENTS = '''def _gradients_at(self, closure, random, cells, points):
    """The gradients of this step's batch at other points; weights and gradients are put back whatever happens."""
    kept = [p.clone() for p, _ in cells]
    everything = [p for group in self.param_groups for p in group["params"]]
    gradients = [p.grad for p in everything]
    after = torch.get_rng_state()
    try:
        for (p, _), point in zip(cells, points):
            p.copy_(point)
        for p in everything:
            p.grad = None
        torch.set_rng_state(random)  # the same dropout as the first time
        with torch.enable_grad():
            closure()
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p, _ in cells]
    finally:
        torch.set_rng_state(after)
        for (p, _), value in zip(cells, kept):
            p.copy_(value)
        for p, gradient in zip(everything, gradients):
            p.grad = gradient

'''

HESSIAN = '''def _hessian_times(self, closure, random, cells, vectors):
    """The Hessian of this step's batch times vectors, exactly: the gradients are differentiated again."""
    everything = [p for group in self.param_groups for p in group["params"]]
    gradients = [p.grad for p in everything]
    after = torch.get_rng_state()
    plain = torch.autograd.backward

    def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **more):
        plain(tensors, grad_tensors, True, True, **more)

    try:
        for p in everything:
            p.grad = None
        torch.set_rng_state(random)
        torch.autograd.backward = backward
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings("ignore", message="Using backward\\\\(\\\\) with create_graph=True")
            closure()
            pairs = [(p.grad, v.to(p.grad.dtype)) for (p, _), v in zip(cells, vectors) if p.grad is not None and p.grad.requires_grad]
            if not pairs:
                return [torch.zeros_like(p) for p, _ in cells]
            found = torch.autograd.grad([g for g, _ in pairs], [p for p, _ in cells], [v for _, v in pairs], allow_unused=True)
        return [torch.zeros_like(p) if x is None else x.detach() for (p, _), x in zip(cells, found)]
    finally:
        torch.autograd.backward = plain
        torch.set_rng_state(after)
        for p, gradient in zip(everything, gradients):
            p.grad = gradient
'''

LOADING = '''def load_state_dict(self, state_dict):
    super().load_state_dict(state_dict)  # rounds to the type of the parameter; float32 states of 16-bit parameters stay
    saved = [key for group in state_dict["param_groups"] for key in group["params"]]
    mine = [p for group in self.param_groups for p in group["params"]]
    for key, p in zip(saved, mine):
        for name, value in state_dict["state"].get(key, {}).items():
            self.state[p][name] = value.detach().clone().to(p.device) if torch.is_tensor(value) else value
'''

EVALUATING = '''@torch.no_grad()
def eval(self):
    """Puts the weights to evaluate with into the model; call `train` before the next step."""
    for group in self.param_groups:
        for p in group["params"]:
            state = self.state[p]
            if state and "training" not in state:
                value = VALUE
                state["training"] = p.clone()
                p.copy_(value)

@torch.no_grad()
def train(self, mode=True):
    """Puts the weights that are trained back."""
    if not mode:
        return self.eval()
    for group in self.param_groups:
        for p in group["params"]:
            if "training" in self.state[p]:
                p.copy_(self.state[p].pop("training"))
'''

IEEE = '''def ieee(function, *numbers):
    """A function of numbers as floating point has it: 1/0 is infinite, the logarithm of -1 is not a number."""
    return function(*(torch.tensor(float(x), dtype=torch.float64) for x in numbers)).item()'''

NEEDS = {"quantile": ["_quantile", "_between"], "window_quantile": ["_between"], "window_mean": ["window_sum", "window_count"]}
PHILOX = ("block", "_high", "words", "sample", "unit")


def docline(text: str) -> str:
    """Text of a rule file inside a docstring: one line, with nothing that ends or changes it."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain.replace("\\", "\\\\").replace('"', "'").replace("{", "(").replace("}", ")")


def helper_texts(names: Sequence[str]) -> list[str]:
    """The functions of these names, with those that they call, as texts without annotations from elsewhere."""
    wanted = list(dict.fromkeys(x for name in names for x in [*NEEDS.get(name, []), name]))
    texts = [IEEE] if "ieee" in wanted else []
    if "draw" in wanted:
        constants = ("MULTIPLIERS", "KEY_STEPS", "ROUNDS", "MASK")
        texts += [_source(getattr(philox, name)) for name in PHILOX]
        texts.append("\n".join(f"{name} = {getattr(philox, name)!r}" for name in constants))
    return texts + [_source(getattr(torch_ops, name)) for name in wanted if name != "ieee"]


def _source(function: object) -> str:
    """The text of one of our own functions, its annotations left out."""
    text = inspect.getsource(function)  # type: ignore[arg-type]
    name = function.__name__  # type: ignore[attr-defined]
    arguments = ", ".join(inspect.signature(function).parameters)  # type: ignore[arg-type]
    body = text[text.index(":\n", text.index(")")) + 2 :]
    lines = [line.split("  # type:")[0].replace("philox.", "").replace("drawn: Tensor =", "drawn =") for line in body.splitlines()]
    return f"def {name}({arguments}):\n" + "\n".join(lines)


def route_text(routing: ir.Routing) -> str:
    """The class that sends parameters to the classes of its rules, and steps them all."""
    names = list(dict.fromkeys(case.program.name for case in routing.cases))
    branches = []
    for i, case in enumerate(routing.cases):
        test = "True" if case.condition is None else _condition(case.condition)
        branches.append(f"        if {test}:\n            return {i}")
    settings = ", ".join(f"({case.program.name}, {dict(case.settings)!r})" for case in routing.cases)
    labels = _labels([case.program.name for case in routing.cases])
    arguments = ", ".join(f"{label}=None" for label in labels)
    given = ", ".join(labels)
    return f'''class {routing.name}(torch.optim.Optimizer):
    """{docline(routing.doc or routing.name)}

    Sends every parameter to {" or ".join(names)}. Settings go by rule: {labels[0]}={{"lr": 0.01}}.
    Give `model.named_parameters()` where names decide.
    """

    RULES = ({settings},)

    def __init__(self, params, *, {arguments}):
        named = [x if isinstance(x, tuple) else ("", x) for x in params]
        parts = [[] for _ in self.RULES]
        for name, p in named:
            parts[self._choose(name, p)].append(p)
        given = [{given}]
        self.optimizers = [
            rule(part, **{{**defaults, **(own or {{}})}})
            for (rule, defaults), part, own in zip(self.RULES, parts, given)
            if part
        ]
        super().__init__([group for o in self.optimizers for group in o.param_groups], {{}})
        self.param_groups = [group for o in self.optimizers for group in o.param_groups]

    @staticmethod
    def _choose(name, p):
{chr(10).join(branches)}
        raise ValueError(f"no rule takes the parameter {{name or tuple(p.shape)}}")

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def state_dict(self):
        return {{"optimizers": [o.state_dict() for o in self.optimizers]}}

    def load_state_dict(self, state_dict):
        for optimizer, part in zip(self.optimizers, state_dict["optimizers"]):
            optimizer.load_state_dict(part)
        self.param_groups = [group for o in self.optimizers for group in o.param_groups]'''


def _labels(names: list[str]) -> list[str]:
    labels: list[str] = []
    for name in names:
        label, number = name, 1
        while label in labels:
            number += 1
            label = f"{name}_{number}"
        labels.append(label)
    return labels


ROUTE_FACTS = {
    "rank": "p.ndim", "numel": "p.numel()", "rows": "(p.shape[-2] if p.ndim >= 2 else math.nan)",
    "cols": "(p.shape[-1] if p.ndim >= 2 else math.nan)", "fan_in": "(p.shape[1:].numel() if p.ndim >= 2 else math.nan)",
    "fan_out": "(p.numel() // p.shape[1] if p.ndim >= 2 else math.nan)",
}  # fmt: skip


def _condition(p: ir.Predicate) -> str:
    """A static condition as Python. Comparisons with what a parameter does not have are false, as those with NaN are."""
    match p.op:
        case "const":
            return json.dumps(p.value) if isinstance(p.value, str) else repr(p.value)
        case "fact":
            return ROUTE_FACTS[p.value]
        case "dtype":
            return 'str(p.dtype).removeprefix("torch.")'
        case "named":
            return f"any(fnmatchcase(name, pattern) for pattern in {list(p.value)!r})"
        case "not" | "neg":
            return f"({'not ' if p.op == 'not' else '-'}{_condition(p.args[0])})"
        case "maximum" | "minimum":
            return f"{p.op[:3]}({', '.join(_condition(arg) for arg in p.args)})"
        case "and" | "or":
            return "(" + f" {p.op} ".join(_condition(arg) for arg in p.args) + ")"
    return f"({_condition(p.args[0])} {SIGNS[p.op]} {_condition(p.args[1])})"
