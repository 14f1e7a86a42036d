"""Where tasks come from, by name, file or class, and the check that one can be raced on."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import math
import traceback
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from optlang.race import names, tasks
from optlang.race.errors import RaceError
from optlang.race.tasks import Part, Problem, Split, split

T = TypeVar("T")
EXAMPLE = "examples/my_task.py in the source tree is a task that works"
OUR_FILES = (__file__, tasks.__file__)  # through which the code of a task is called


def load(name: str | Path | type) -> Problem:
    """The built-in task of that name, the one in a Python file, or a task class itself.

    Raises RaceError where there is none, or none that can be trained."""
    from optlang.race.builtin import TASKS  # scikit-learn takes a second to import

    if isinstance(name, type):
        return prepare(name, name.__name__, name.__name__)
    if str(name) in TASKS:
        return prepare(TASKS[str(name)], str(name), f"task {name}")
    path = Path(name)
    if path.suffix == ".py":
        return prepare(_only_task(_module(path), path), path.stem, str(path))
    near = difflib.get_close_matches(str(name), TASKS, 1)
    advice = names.of_a_search(str(name)) or (f"did you mean `{near[0]}`?" if near else "")
    raise RaceError(
        f"task {name}", "no such task", f"{advice} There are {', '.join(TASKS)}, or a path that ends in .py".lstrip()
    )


def prepare(cls: Callable[[], Any], name: str, where: str) -> Problem:
    """Makes a task, loads its data and checks that it can be trained."""
    task = _calling(cls, f"{where}: making the task")
    data = _calling(task.data, f"{where}: data()")
    parts = data if isinstance(data, Split) else split(*_part(data, f"{where}: data()"))
    for part in (parts.train, parts.validation, parts.test):
        _part(part, f"{where}: data()")
    problem = Problem(
        name,
        (inspect.getdoc(cls) or name).splitlines()[0],
        task,
        parts,
        _positive(task, "steps", 300, where),
        _positive(task, "batch_size", 64, where),
        getattr(task, "threads", None),
        list(getattr(task, "notes", [])),
    )
    with torch.random.fork_rng(devices=[]):
        _check_training(problem, where)
    return problem


class _AsItIs(SourceFileLoader):
    """Reads the text each time: bytecode that Python keeps is told from that of a changed text by its size and second only."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise RaceError(
            str(path), "there is no such file", "give the path of a Python file with a task class; " + EXAMPLE
        )
    name = f"_race_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsItIs(name, str(path)))
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    _calling(partial(spec.loader.exec_module, module), str(path))
    return module


def _only_task(module: ModuleType, path: Path) -> Callable[[], Any]:
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    tasks = [cls for cls in own if all(callable(getattr(cls, n, None)) for n in ("data", "model", "loss"))]
    if len(tasks) == 1:
        return tasks[0]
    if tasks:
        names = ", ".join(cls.__name__ for cls in tasks)
        raise RaceError(str(path), f"several tasks: {names}", "keep one task class per file")
    for cls in own:
        missing = [n for n in ("data", "model", "loss") if not callable(getattr(cls, n, None))]
        if len(missing) < 3:
            what = f"class {cls.__name__} lacks the method {' and '.join(f'`{n}`' for n in missing)}"
            raise RaceError(str(path), what, EXAMPLE)
    raise RaceError(
        str(path), "no task class", f"write a class with the methods data, model and loss; {EXAMPLE}"
    )


def _calling(function: Callable[[], T], where: str) -> T:
    """Runs code of the task; what it raises becomes a RaceError with the line it came from."""
    try:
        return function()
    except RaceError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of a user raises; a script may end itself as it is read
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in OUR_FILES]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        raise RaceError(
            where, f"{type(error).__name__}: {error}{place}", "mend the task and run again"
        ) from error


def _part(data: object, where: str) -> Part:
    if not isinstance(data, tuple) or not data or not all(isinstance(t, Tensor) and t.dim() for t in data):
        raise RaceError(
            where, "is not a tuple of tensors", "return tensors with one entry per example: return x, y"
        )
    lengths = {len(tensor) for tensor in data}
    if len(lengths) > 1:
        raise RaceError(
            where,
            f"tensors of different lengths {sorted(lengths)}",
            "give every tensor one entry per example",
        )
    if min(lengths) < 5:
        raise RaceError(
            where, f"only {min(lengths)} examples", "return at least 5, or a Split with 5 in every part"
        )
    return data


def _positive(task: object, name: str, default: int, where: str) -> int:
    value = getattr(task, name, default)
    if not isinstance(value, int) or value < 1:
        raise RaceError(where, f"`{name}` is {value!r}", "give a whole number above 0")
    return value


def _check_training(problem: Problem, where: str) -> None:
    """Same start twice, and a loss with a gradient."""
    first, again = (_calling(lambda: problem.model(0), f"{where}: model()") for _ in range(2))
    if not isinstance(first, nn.Module):
        raise RaceError(f"{where}: model()", f"returned {type(first).__name__}", "return a torch.nn.Module")
    weights = [p for p in first.parameters() if p.requires_grad]
    if not weights:
        raise RaceError(
            f"{where}: model()", "the model has no parameters to train", "return a model with parameters"
        )
    if not all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)):
        advice = "draw initial weights from torch's generator, which is seeded, and build a new model in every call"
        raise RaceError(f"{where}: model()", "two calls with one seed gave different weights", advice)
    batch = next(problem.batches(0))
    _check_loss(_calling(lambda: problem.loss(first, batch), f"{where}: loss()"), weights, f"{where}: loss()")
    score = _calling(
        lambda: problem.evaluate(first, problem.data.validation), f"{where}: on the validation data"
    )
    if not math.isfinite(score.loss):
        raise RaceError(
            where, "the loss of the validation data is not finite at the start", "look for NaN in the data"
        )


def _check_loss(loss: object, weights: list[nn.Parameter], where: str) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise RaceError(
            where, f"returned {what}", "return a tensor with one number, such as the .mean() over the batch"
        )
    value = loss.item()
    if not math.isfinite(value):
        raise RaceError(
            where, f"is {value} before the first step", "look for NaN in the data, log(0) and 0/0"
        )
    grads = torch.autograd.grad(loss, weights, allow_unused=True) if loss.requires_grad else []
    if not any(g is not None and g.count_nonzero() for g in grads):
        advice = "compute it from the model's output, without .item(), .detach() or rounding"
        raise RaceError(where, "does not depend on the model's parameters", advice)
