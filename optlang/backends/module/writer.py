"""The class of one rule: documentation, settings with their ranges, `step`, checkpoints, weights to evaluate with."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from optlang.analysis.needs import why_all, why_shapes
from optlang.backends.module.checks import number_checks, parameter_checks, setting_checks, table_lines
from optlang.backends.module.constructor import documentation_lines, init_lines
from optlang.backends.module.kernel import kernel_of, why_none
from optlang.backends.module.layout import Lines, indented, wrapped
from optlang.backends.module.leaves import BETAS, Words
from optlang.backends.module.methods import (
    CLOSURE,
    EVAL,
    NOT_STATES_ALONE,
    SHOW,
    TRAINING,
    fingerprint_lines,
    input_lines,
    load_lines,
    saved_lines,
    set_state_lines,
    shapes_lines,
    step_lines,
    train_lines,
    used_states,
)
from optlang.backends.module.phases import Phases
from optlang.backends.module.scene import Loop, Role, Rolled
from optlang.backends.module.spread import all_there, in_surroundings, multiplies, part_checks, refuses_parts, row_checks, shape_checks
from optlang.backends.module.states import first_lines, shapes_body
from optlang.backends.module.update import DTYPE, Update, treats_matrices
from optlang.ir import Node, Program
from optlang.ops import ASKING, CALLS
from optlang.printing.fingerprint import fingerprint_of
from optlang.printing.python_text import literal, quoted

EVAL_OF_ROUTE = ["def _evaluate(self: Any, groups: list[dict[str, Any]]) -> None:", '    """`eval` for groups of another optimizer."""']
BETAS_OF_GROUP = [
    'betas = param_group.get("betas", self.defaults["betas"])',
    'param_group["betas"] = _pair(betas, param_group.pop("beta1", None), param_group.pop("beta2", None))',
]
COMPILED = "set it back to False if it was torch.compile that set it: on a GPU it does, where it compiles what reads `param_groups`"


class Writer:
    """Writes the class. `short` is the program with what is `rolled` up, `counts` the hypers that are the lengths of loops, `loaded`
    the rule as the runtime knows and refuses it."""

    def __init__(
        self, program: Program, short: Program, name: str, rolled: Mapping[Node, Rolled], counts: Collection[str], role: Role,
        loaded: Program | None = None, triton: bool = False,
    ) -> None:
        self.program, self.name, self.role, self.fingerprint = program, name, role, fingerprint_of(loaded) if loaded else ""
        self.needs_all = "" if role != "alone" else why_all(loaded or program, False)
        self.needs_shapes = why_shapes(loaded or program, role != "alone")
        self.takes_parts = not refuses_parts(program, role)
        self.words = Words(program, counts)
        self.counts = counts
        rolled = {mark: _counted(one, self.words) if isinstance(one, Loop) else one for mark, one in rolled.items()}
        self.update: Update = Update(short, self.words, self._needs_matrix(program), rolled)
        if not self.update.is_simple:
            self.update = Phases(short, Words(program, counts), self._needs_matrix(program), rolled, role == "looking around")
            self.words = self.update.words
        self.asks = any(program.uses(op) for op in ASKING)
        self.evaluates = program.evaluation is not None
        self.kernel = kernel_of(self.update, f"_{name}_kernel") if triton and not why_none(self.update) else None
        self.update.on_gpu = self.kernel.step if self.kernel else []

    def exposed(self) -> frozenset[str]:
        """The states that have to exist whatever their guards say, known when the class has been written once."""
        if self.update.guards:
            self.text()
        return frozenset(str(leaf.value) for leaf in self.update.exposed)

    def text(self) -> str:
        methods = [init_lines(self.name, self.program, self.words, self.update.draws)]
        methods += [self._add_param_group(), self._tables(), self._check_group()]
        methods += [self._step() if self.role == "alone" else self._update()]
        methods += [self._eval()] if self.evaluates else []
        methods += [train_lines()] if self.evaluates and self.role == "alone" else []
        methods += [input_lines(self.name, self.program.inputs)] if self.program.inputs else []
        if self.role == "alone":
            methods += [saved_lines(self._fingerprint()), shapes_lines(self._shapes())]
            methods += [load_lines([self.program], self.settings, not self.update.uncapturable), set_state_lines([self.program])]
        else:
            methods += [fingerprint_lines(self._fingerprint()), shapes_lines(self._shapes())]
        about = documentation_lines(self.program, self.words, self.kernel is not None, not self.update.uncapturable)
        blocks = [about, *methods]
        return "\n".join([f"class {self.name}(Optimizer):", "\n\n".join("\n".join(indented(b)) for b in blocks if b)])

    # ------------------------------------------------------------------------------------------------- groups

    def _add_param_group(self) -> Lines:
        agreed = ["    _check_agreement(self, self.param_groups[-1:])"] * (self.role == "alone" and self.takes_parts)
        agreed += indented(self._rows())
        tables = ["    self._as_tables(self.param_groups[-1])"] * bool(self._tables())
        lines = ["super().add_param_group(param_group)", "try:", "    _check_keys(self.param_groups[-1], self.defaults)", *tables,
                 "    _as_scalars(self.param_groups[-1])", "    self._check(self.param_groups[-1])", *agreed, "except Exception:",
                 "    del self.param_groups[-1]", "    raise"]  # fmt: skip
        about = '"""As in torch; a group with settings that the rule does not take is not added."""'
        body = [about, *all_there(self.program.name, self.needs_all), *BETAS_OF_GROUP * self.words.has_betas, *lines]
        return ["def add_param_group(self, param_group: dict[str, Any]) -> None:", *indented(body)]

    def _tables(self) -> Lines:
        return table_lines(self.words)

    def _check_group(self) -> Lines:
        """Every group is checked when it is added, and again before each step: settings may be changed at any time."""
        checks = ['"""Raises ValueError, TypeError or RuntimeError for settings and parameters that the rule does not take."""']
        checks += [f"{self.name}._as_tables(group)"] * bool(self._tables())
        checks += ["_check_options(group)"]
        if self.update.uncapturable:
            checks += ['if group["capturable"]:',
                       f'    raise ValueError("{self.name} of this file cannot be capturable: {self.update.uncapturable}; "',
                       f'                     "{COMPILED}")']  # fmt: skip
        if self.asks:
            message = f"{self.name} cannot be differentiable: it asks the model again, in the middle of the step"
            checks += ['if group["differentiable"]:', f'    raise ValueError("{message}")']
        checks += ['beta1, beta2 = group["betas"]'] * self.words.has_betas
        checks += number_checks(self.words, self.update.draws)
        checks += [line for s in self.words.settings for line in setting_checks(s, self.words)]
        spread = [*shape_checks(self.program.name, self.needs_shapes), *part_checks(self.program, self.role)]
        own = parameter_checks(self.program.name, spread, self.update)
        body = [*checks, 'for param in group["params"]:', *indented(own)]
        return ["@staticmethod", "def _check(group: dict[str, Any]) -> None:", *indented(body)]

    def _fingerprint(self) -> Lines:
        """Where the length of a loop is a setting, the equations of another length are others."""
        given = {h.name: h.default for h in self.program.hypers if h.name in self.counts}
        fixed = [f"{self.words.setting(name)} == {literal(value).text}" for name, value in given.items()]
        known = f"return {quoted(self.fingerprint)}"
        return [f'{known} if {" and ".join(fixed)} else ""'] if fixed else [known]

    def _shapes(self) -> Lines:
        return shapes_body(self.update, used_states(self.program))

    @property
    def settings(self) -> set[str]:
        """The keys of a group of this rule alone."""
        words = {s.word for s in self.words.settings}
        own = {*words.difference(BETAS), "betas"} if self.words.has_betas else words
        return own | ({"seed"} if self.update.draws else set())

    @staticmethod
    def _needs_matrix(program: Program) -> bool:
        """Whether every parameter is treated as a matrix, whatever its facts."""
        return treats_matrices([program.weights, *(program.updates[s.name] for s in program.states if s.guard is None)])

    # --------------------------------------------------------------------------------------------------- step

    def _body(self, groups: str) -> Lines:
        written = self.update.body if isinstance(self.update, Phases) else self.update.one_loop
        return in_surroundings(self.program, self.role, written(first_lines(self.update), groups), groups)

    def _step(self) -> Lines:
        called = CLOSURE
        if self.asks:  # the step may compute with the loss: it is no None to type checkers
            called = ["loss: Any = None", *CLOSURE[1:]]
        checked = [*self._rows(), *self.checked("self.param_groups", "self")]
        body = [*self._before(), *called, *checked, "", *self._body("self.param_groups"), "", "return loss"]
        about = "One update of every parameter that has a gradient."
        return step_lines([f'"""{about}"""', *body], not self.asks, bool(self.update.uncapturable))

    def _rows(self) -> Lines:
        return row_checks(self.program.name, self.needs_shapes) if self.role == "alone" else []

    def checked(self, groups: str, cls: str) -> Lines:
        """Settings may have changed since they were given. With `capturable` they are not looked at: a rate may lie on the device."""
        if self.update.uncapturable:
            return [f"for group in {groups}:", f"    {cls}._check(group)"]
        return [f"for group in {groups}:", '    if not group["capturable"]:  # else the host would wait for the device',
                f"        {cls}._check(group)"]  # fmt: skip

    def _before(self) -> Lines:
        lines: Lines = []
        if self.evaluates:
            lines += [f'if any("{TRAINING}" in state for state in self.state.values()):',
                      '    raise RuntimeError("the model holds the weights to evaluate with; call train() first")']  # fmt: skip
        if self.asks:
            wants = 'any(group["lr"] != 0 for group in self.param_groups)' if self.words.has_rate else NOT_STATES_ALONE
            lines += [f"if closure is None and {wants}:", f'    raise RuntimeError("{self.name} asks the model again: call step(closure)")']
        if any(self.program.uses(op) for op in CALLS):
            lines += ["closure = _as_called_here(closure)"] * multiplies(self.program)
            lines.append("random_state = _random_state()")
        return lines

    def _update(self) -> Lines:
        """For a route: the update of some groups of another optimizer."""
        found, more = "None", ""
        if self.role == "looking around":
            found, more = "Iterator[None]", "; stops once, before anything moves"
        head = wrapped("def _update(self: Any, groups: list[dict[str, Any]], closure: Any = None, loss: Any = None, "
                       f"random_state: Any = None) -> {found}:")  # fmt: skip
        about = f'"""One update of every parameter of some groups that has a gradient{more}."""'
        return [*head, *indented([about, *self._body("groups")])]

    # -------------------------------------------------------------------------------------------- evaluation

    def _eval(self) -> Lines:
        update = Update(self.update.program, Words(self.program, self.counts), self.update.always_matrix, self.update.rolled)
        body = update.evaluation()
        inner = [
            "state = self.state.get(param, {})",
            f'if "step" not in state or "{TRAINING}" in state:',
            "    continue",
            *(["if param.is_complex():", "    param = torch.view_as_real(param)"] if update.complexes else []),
            DTYPE,
            f'state["{TRAINING}"] = param.detach().clone()',
            *body,
        ]
        if not any("dtype" in line for line in body):
            inner = [line for line in inner if not line.startswith("dtype")]
        in_group = [*update.settings(inner), 'for param in group["params"]:', *indented(inner)]
        head, groups, end = (EVAL, "self.param_groups", [SHOW]) if self.role == "alone" else (EVAL_OF_ROUTE, "groups", [])
        return ["@torch.no_grad()", *head, f"    for group in {groups}:", *indented(in_group, 2), *indented(end)]


def _counted(loop: Loop, words: Words) -> Loop:
    """The length of a loop as Python says it: a hyper by its name."""
    count = words.hypers.get(loop.count, loop.count)
    return Loop(loop.first, loop.hole, loop.turn, count, loop.outer)
