"""What a backend is: the few names that the runtime and every backend share. No torch here.

An *executable* steps all parameters of an optimizer once. It gets a `Step` and writes the new weights, states and reports
in place, only after everything has been computed: a failure leaves the step undone, never half done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from optlang.ir import Program

if TYPE_CHECKING:
    from optlang.backends.formats import Storage
    from optlang.backends.repeated.numbers import Numbers

Array = Any  # numpy.ndarray for the reference interpreter, torch.Tensor elsewhere
Math = Literal["safe", "strict", "fast"]


class StepError(Exception):
    """A step that cannot be taken; nothing has been written. The message names the parameter or hyper and says what to do."""


class Spread(Protocol):
    """How a part of a parameter goes with those that other processes hold."""

    shape: tuple[int, ...]  # of the whole parameter
    offset: int | None  # the place of the part's first element there; None where its elements do not follow each other

    @property
    def key(self) -> Any:
        """The same for parts whose values can be reduced together."""

    def reduced(self, op: str, values: Array) -> Array:
        """One value for each of what the processes computed for their parts; all of them must ask."""


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Cell:
    """One parameter in one step. Shapes of states: element = the parameter's, row (…, rows, 1), col (…, 1, cols),
    matrix (…, 1, 1), tensor (); a window adds a leading dimension, oldest first. States are float32, or float64 where the
    parameter is; bool and int64 where they are of that kind."""

    weights: Array
    gradient: Array
    state: MutableMapping[str, Array]
    hypers: Mapping[str, float | int | bool]  # of its group, by the program's names
    t: int  # the number of this update, from 1; of an optimizer on a device a tensor there, and hypers may be, too
    facts: Mapping[str, int]  # rank, rows, cols, numel, fan_in, fan_out (those that exist for its rank)
    index: int  # place among the optimizer's parameters: the key of its random stream
    group: int
    name: str = ""  # for messages
    inputs: Mapping[str, Array] = field(default_factory=dict)  # `input`s of extent tensor and below
    spread: Spread | None = None  # of a part: what goes through all processes that hold one


Write = Callable[[], Mapping[str, Any] | None]  # writes what was computed, and gives what the rule reports


class Batch(Protocol):
    """This step's batch, of which the model may be asked again. `cells` are weights of some; there is one of `points` for each, other
    weights, or they are what moves the model there."""

    def mean_loss(self) -> Any:
        """The loss, as one number, the mean of those of all processes."""

    def at(self, cells: Sequence[Array], points: list[Array] | Moving, answer: Callable[[Any], Any]) -> Any:
        """What this answers while their gradients are those at other points. It is given what keeps these for as long as it lives."""

    def gradients(self, cells: Sequence[Array], points: list[Array] | Moving) -> list[Array]:
        """Those at other points."""

    def losses(self, cells: Sequence[Array], some: Iterable[list[Array] | Moving]) -> list[Any]:
        """Those at some points one by one, each as `mean_loss`."""

    def hessian(self, cells: Sequence[Array], vectors: Sequence[Array]) -> list[Array]:
        """Its products with vectors."""

    def one_graph(self) -> AbstractContextManager[Any]:
        """In here products alone are asked for, and the model once for all of them."""


class Moving(Protocol):
    """Moves the weights of some cells by itself."""

    def at(self, ask: Callable[[], Any]) -> Any:
        """What is answered while they are at other points; they are put back whatever happens."""


class Given(NamedTuple):
    """What a step is given beside settings."""

    batch: Batch | None = None
    inputs: Mapping[str, Any] = MappingProxyType({})


NOTHING_GIVEN = Given()


class Repeat(Protocol):
    """A step to be taken again, of the same cells. `lacks`: that is why the last one was not `ready`, and another may teach it."""

    lacks: bool

    @property
    def looks(self) -> bool:
        """Whether it is not `ready` as long as a cell has no gradient."""

    @property
    def numbers(self) -> Sequence[Numbers]:
        """What is to be made before it is `ready`."""

    def ready(self, hypers: Sequence[Mapping[str, Any]], counts: Array | int, seed: int, given: Given = NOTHING_GIVEN) -> Write | None:
        """What writes it, from the hypers of each group and the number of each cell's update, one where all have the same; None where
        memory has changed, or blocks are decided in a way that it lacks."""

    def learn(self, other: Repeat) -> None:
        """From a step of the same cells that was decided in a way that it lacked."""


@dataclass(slots=True, eq=False, repr=False)
class Step:
    """One step of all parameters that have a gradient.

    `model` and `groups` hold the states per model and per group, as 0-d arrays. `grad(points)` returns the gradients of
    this step's batch at other weights, one per cell; `hvp(vectors)` the Hessian at the stored weights times the vectors,
    and `loss_at(points)` one number; all of these may empty the list. In `one_graph()` products alone are asked for, several of them.
    `beside` are parameters of the other rules of a route: values per model are of them too, and nothing else is.
    """

    cells: Sequence[Cell]
    model: MutableMapping[str, Array]
    groups: Mapping[int, MutableMapping[str, Array]]
    seed: int = 0
    loss: Array | None = None
    grad: Callable[[list[Array]], list[Array]] | None = None
    hvp: Callable[[list[Array]], list[Array]] | None = None
    loss_at: Callable[[list[Array]], Array] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)  # `input`s per model or group; per group also as {group: value}
    reports: dict[str, Any] = field(default_factory=dict)
    beside: Sequence[Cell] = ()
    left: Sequence[Cell] = ()  # what was not stepped because memory ended: these are as they were
    comes_again: bool = False  # another one like it is expected
    passes: bool = False  # `t` decides the next one otherwise, and none was decided like this before: nothing is to be kept for it
    again: Repeat | None = None  # what takes that, found by `begin` where little has to be looked at
    one_graph: Callable[[], AbstractContextManager[Any]] = nullcontext

    def asked(self, op: str) -> Callable[[list[Array]], Any] | None:
        """What answers a `grad`, `hvp` or `loss_at`, if anything does."""
        return {"grad": self.grad, "hvp": self.hvp, "loss_at": self.loss_at}[op]


class Way(NamedTuple):
    """How a parameter is stepped: the backend, and why that one."""

    backend: str
    reason: str


NOT_YET = Way("none yet", "it has not been stepped")


class Executable(Protocol):
    """A compiled program."""

    def prepare(self, step: Step) -> None:
        """Creates the states that cells, groups or the model do not have yet, from their `init`; others are left alone."""

    def begin(self, step: Step) -> Callable[[], None]:
        """Computes all of a step that can fail. What it returns writes the new values, in place, and does not fail."""

    def step(self, step: Step) -> None:
        """One update of every cell, in place: `begin`, and the writing at once."""

    def way(self, index: int) -> Way:
        """How the parameter at a place among the optimizer's was stepped the last time."""

    def evaluation(self, step: Step) -> list[Array]:
        """`eval = …` for every cell, from the stored weights and states."""


class Backend(Protocol):
    """One file of this folder."""

    def refuses(self, program: Program) -> str:
        """Why the backend cannot run the program, or an empty string."""

    def compile(self, program: Program, math: Math, storage: Storage = ...) -> Executable:
        """`storage` says in which formats states and weights are kept; the reference keeps float64 alone."""
