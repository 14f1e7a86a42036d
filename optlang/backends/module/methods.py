"""What the class of a rule and that of a route have alike: options, evaluation and back, inputs, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from optlang.backends.module.layout import Lines, bracketed, indented
from optlang.backends.module.spell import quoted
from optlang.ir import Input, Program

TRAINING = "weights_in_training"
STEP = "def step(self, closure: Callable[[], Any] | None = None) -> Any:"
ATTRIBUTE = "self.{0}: dict[str, Any] = {{}}"
EVAL = [
    "def eval(self) -> None:",
    '    """Puts the weights to evaluate with into the model; call `train` before the next step."""',
]
OPTIONS = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}  # in torch's order
CLOSURE = ["loss = None", "if closure is not None:", "    with torch.enable_grad():", "        loss = closure()"]


def option_arguments(draws: bool) -> Lines:
    """The arguments that optimizers of torch have, and the seed of those that draw."""
    kinds = {False: "bool", None: "bool | None"}
    return [f"{name}: {kinds[default]} = {default}" for name, default in OPTIONS.items()] + ["seed: int = 0"] * draws


def option_entries(draws: bool) -> Lines:
    return [f"{quoted(name)}: {name}" for name in [*OPTIONS, *["seed"] * draws]]


def step_lines(body: Lines, differentiable: bool) -> Lines:
    """`step`, which autograd goes through where it is asked to and can."""
    return ["@_with_gradients" if differentiable else "@torch.no_grad()", STEP, *indented(body)]


def train_lines() -> Lines:
    return [
        "@torch.no_grad()",
        "def train(self, mode: bool = True) -> None:",
        '    """Puts the weights that are trained back, exactly; `train(False)` is `eval()`."""',
        "    if not mode:",
        "        self.eval()",
        "        return",
        "    for param, state in self.state.items():",
        f'        if "{TRAINING}" in state:',
        f'            param.copy_(state.pop("{TRAINING}"))',
    ]


def input_lines(name: str, inputs: Sequence[Input]) -> Lines:
    """The methods that read what a training loop supplies."""
    message = f'raise RuntimeError(f"{name} needs optimizer.inputs[{{name!r}}]: set it before each step")'
    lines: Lines = []
    if any(i.type.extent.level not in ("group", "model") for i in inputs):
        lines += [
            "def _input(self, name: str, param: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:",
            '    """A value that the training loop supplies: one for all parameters, or a dictionary by parameter."""',
            "    value = self.inputs.get(name)",
            "    value = value.get(param) if isinstance(value, dict) else value",
            "    if value is None:",
            f"        {message}",
            "    return torch.as_tensor(value, dtype=dtype, device=param.device)",
        ]
    if any(i.type.extent.level in ("group", "model") for i in inputs):
        lines += [""] if lines else []
        lines += [
            "def _shared_input(self, name: str, number: int | None = None) -> torch.Tensor:",
            '    """A value that the training loop supplies; per group it may be a dictionary by the number of the group."""',
            "    value = self.inputs.get(name)",
            "    value = value.get(number) if isinstance(value, dict) else value",
            "    if value is None:",
            f"        {message}",
            "    return torch.as_tensor(value, dtype=torch.float64).cpu()",
        ]
    return lines


def load_lines(name: str, programs: Sequence[Program]) -> Lines:
    kept = sorted({"step", *(s.name for p in programs for s in p.states), *([TRAINING] if any(p.evaluation for p in programs) else [])})
    return [
        "def load_state_dict(self, state_dict: dict[str, Any]) -> None:",
        '    """As in torch, but states keep their type, and those of another rule are refused: ValueError."""',
        *indented(bracketed("kept = {", [quoted(state) for state in kept], "}")),
        '    for saved in state_dict["param_groups"]:',
        '        for key in saved["params"]:',
        '            if other := sorted(set(state_dict["state"].get(key, {})) - kept):',
        f'                raise ValueError(f"these are states of another rule: {name} keeps no {{\', \'.join(other)}}")',
        "    super().load_state_dict(state_dict)",
        '    for group, saved in zip(self.param_groups, state_dict["param_groups"]):',
        '        for param, key in zip(group["params"], saved["params"]):',
        '            for name, value in state_dict["state"].get(key, {}).items():',
        "                if isinstance(value, torch.Tensor):",
        '                    device = "cpu" if name == "step" else param.device',
        "                    self.state[param][name] = value.detach().to(device, copy=True)",
    ]


def attributes(programs: Sequence[Program], form: str) -> Lines:
    """What an optimizer has beside the settings and states of torch."""
    lines = [f"{form.format('inputs')}  # set before each step"] if any(p.inputs for p in programs) else []
    return lines + ([f"{form.format('reports')}  # filled by each step"] if any(p.reports for p in programs) else [])


def set_state_lines(programs: Sequence[Program]) -> Lines:
    """Checkpoints of older optimizers lack options, and copies attributes of ours."""
    lines = attributes(programs, 'self.__dict__.setdefault("{0}", {{}})')
    lines += ["options = {" + ", ".join(f"{quoted(name)}: {default}" for name, default in OPTIONS.items()) + "}",
              "for group in self.param_groups:", "    for option, default in options.items():",
              "        group.setdefault(option, default)"]  # fmt: skip
    return ["def __setstate__(self, state: dict[str, Any]) -> None:", *indented(["super().__setstate__(state)", *lines])]
