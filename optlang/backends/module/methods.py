"""What the class of a rule and that of a route have alike: options, evaluation and back, inputs, checkpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence

from optlang import ir
from optlang.backends.module.layout import Lines, indented, packed
from optlang.ir import Input, Node, Program
from optlang.printing.python_text import quoted

TRAINING = "weights_in_training"
STEP = "def step(self, closure: Callable[[], Any] | None = None) -> Any:"
ATTRIBUTE = "self.{0}: dict[str, Any] = {{}}"
EVAL = [
    "def eval(self) -> None:",
    '    """Puts the weights to evaluate with into the model; call `train` before the next step."""',
]
SHOW = '_show(param for group in self.param_groups for param in group["params"])'
OPTIONS = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}  # in torch's order
OF_NUMBERS = re.compile(r"\b(alpha|value)=|\b(full|full_like|new_full)\((?!\(\), \d)|\b_update\(")  # rules of a route may do so
CLOSURE = ["loss = None", "if closure is not None:", "    with torch.enable_grad():", "        loss = closure()"]
NOT_STATES_ALONE = "(self.state or not _wants_states_alone(self))"


def option_arguments(draws: bool) -> Lines:
    """The arguments that optimizers of torch have, and the seed of those that draw."""
    kinds = {False: "bool", None: "bool | None"}
    return [f"{name}: {kinds[default]} = {default}" for name, default in OPTIONS.items()] + ["seed: int = 0"] * draws


def option_entries(draws: bool) -> Lines:
    return [f"{quoted(name)}: {name}" for name in [*OPTIONS, *["seed"] * draws]]


def step_lines(body: Lines, differentiable: bool, uncapturable: bool) -> Lines:
    """`step`, which autograd goes through where it is asked to and can, and torch.compile unless no graph can hold it."""
    apart = ["@_uncompiled"] * uncapturable
    through = "@_with_all_gradients" if any(map(OF_NUMBERS.search, body)) else "@_with_gradients"
    return [*apart, through if differentiable else "@torch.no_grad()", STEP, *indented(body)]


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
        '            weights = torch.view_as_real(param) if param.is_complex() else param',
        f'            weights.copy_(state.pop("{TRAINING}"))',
        f"    {SHOW}",
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
            "def _shared_input(self, name: str, home: torch.Tensor, number: int | None = None) -> torch.Tensor:",
            '    """A value that the training loop supplies; per group it may be a dictionary by the number of the group."""',
            "    value = self.inputs.get(name)",
            "    value = value.get(number) if isinstance(value, dict) else value",
            "    if value is None:",
            f"        {message}",
            "    return torch.as_tensor(value, dtype=torch.float64, device=home.device)",
        ]
    return lines


def saved_lines(fingerprint: Lines) -> Lines:
    """`state_dict`, and the method that tells rules apart in it; `fingerprint` is its body."""
    return [
        "def state_dict(self) -> dict[str, Any]:",
        '    """As in torch; each group says by which equations it is stepped."""',
        "    return _with_fingerprints(super().state_dict(), self._fingerprint)",
        "",
        *fingerprint_lines(fingerprint),
    ]


def fingerprint_lines(body: Lines) -> Lines:
    about = '"""Of the equations that step a group; empty where nobody knows."""'
    return ["@staticmethod", "def _fingerprint(group: dict[str, Any]) -> str:", *indented([about, *body])]


def used_states(program: Program) -> set[str]:
    """What new weights hang on in this step or a later one."""
    found: set[Node] = set()
    roots = [program.weights]
    while roots:
        new = set(ir.walk(roots)) - found
        found |= new
        roots = [program.updates[s.name] for s in program.states if s.node in new]
    return {s.name for s in program.states if s.node in found}


def shapes_lines(body: Lines) -> Lines:
    about = '"""The states of a parameter that has been stepped, and their shapes."""'
    head = "def _shapes(param: torch.Tensor, group: dict[str, Any]) -> dict[str, tuple[int, ...]]:"
    return ["@staticmethod", head, *indented([about, *body])]


def load_lines(programs: Sequence[Program], settings: set[str], capturable: bool) -> Lines:
    """`settings` are the keys of groups that no checkpoint may lack."""
    states = [s for p in programs for s in p.states]
    kept = {"step", *(s.name for s in states), *([TRAINING] if any(p.evaluation for p in programs) else [])}
    on_host = ' and not group["capturable"]' * capturable
    whole = {s.name for s in states if s.type.kind == "int"}
    given = [_names("kept", kept), _names("settings", settings), *[_names("whole", whole)] * bool(whole)]
    call = ["state_dict = _checked(", "    self, state_dict,", *indented(line for lines in given for line in lines), ")"]
    return [
        "def load_state_dict(self, state_dict: dict[str, Any]) -> None:",
        '    """As in torch, but states are in float32 or wider, and what another rule or model saved is refused: ValueError."""',
        *indented(call),
        "    super().load_state_dict(state_dict)",
        '    for group, saved in zip(self.param_groups, state_dict["param_groups"]):',
        '        group.pop("fingerprint", None)',
        '        for param, key in zip(group["params"], saved["params"]):',
        '            for name, value in state_dict["state"].get(key, {}).items():',
        "                if isinstance(value, torch.Tensor):",
        f'                    device = "cpu" if name == "step"{on_host} else param.device',
        "                    self.state[param][name] = value.detach().to(device, copy=True)",
    ]


def _names(argument: str, names: set[str]) -> Lines:
    return packed(f"{argument}={{", [quoted(name) for name in sorted(names)], "},") if names else [f"{argument}=set(),"]


def attributes(programs: Sequence[Program], form: str) -> Lines:
    """What an optimizer has beside the settings and states of torch."""
    lines = [f"{form.format('inputs')}  # set before each step"] if any(p.inputs for p in programs) else []
    return lines + ([f"{form.format('reports')}  # filled by each step"] if any(p.reports for p in programs) else [])


def set_state_lines(programs: Sequence[Program]) -> Lines:
    """Checkpoints of older optimizers lack options, and copies attributes of ours."""
    about = '"""As in torch; what older checkpoints and copies lack is put in."""'
    lines = attributes(programs, 'self.__dict__.setdefault("{0}", {{}})')
    lines += ["options = {" + ", ".join(f"{quoted(name)}: {default}" for name, default in OPTIONS.items()) + "}",
              "for group in self.param_groups:", "    for option, default in options.items():",
              "        group.setdefault(option, default)"]  # fmt: skip
    return ["def __setstate__(self, state: dict[str, Any]) -> None:", *indented([about, "super().__setstate__(state)", *lines])]
