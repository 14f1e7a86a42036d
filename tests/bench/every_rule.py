"""First steps and memory of every rule that the cpp backend has kernels for: `python tests/bench/every_rule.py --json out.json`.

Seconds of the processor, those of the compiler included, beyond torch and what it imports for its own optimizers: each rule starts
anew in a process that has these and nothing of ours, once with an empty cache and, the best of three, with what the first one left.
None is forked: a fork copies each page of memory that it writes into. Our modules come as Python keeps them, compiled, whatever
PYTHONDONTWRITEBYTECODE says; what torch's have left is searched for garbage beforehand. `later`: what a third step takes, for a first
one does that as well. `again`: the first step of another optimizer of the rule, in the same process on weights of the same shapes: what
a first step computes, most of it the model where the rule asks for much in this step alone, and nothing that is loaded or found out once.
Memory: what a later step of C++ asks torch and Python for at its peak and gives back, in percent of the parameters: what is held at once,
not what the system gives, for what earlier steps have given back may still be there. The model's own counts where a rule asks it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[2]
SMALL = [*[(700, 700)] * 4, (700,), (64, 16, 3, 3), ()]
LARGE = [(8000, 512), *[(1536, 512), (1536,), (512, 512), (512,), (2048, 512), (512, 2048)] * 2]


def apart(action: Callable[[], Any]) -> Any:
    """What an action answers in a child of this process, which stays as it is."""
    read, write = os.pipe()
    if not (child := os.fork()):
        found: Any = None
        try:
            found = action()
        except BaseException as problem:  # the child must end here, whatever happens
            found = {"failed": f"{type(problem).__name__}: {problem}".splitlines()[0]}
        finally:
            os.write(write, json.dumps(found).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def afresh(name: str) -> Any:
    """The first step of a rule in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--alone", name], capture_output=True, text=True)
    return json.loads(done.stdout) if not done.returncode else {"failed": (done.stderr.strip() or str(done.returncode)).splitlines()[-1]}


def seconds() -> float:
    """Of this process and of those that it has waited for; `os.times` would count them in hundredths."""
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + waited.ru_utime + waited.ru_stime


def weights(shapes: list[Any]) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(0.02 * torch.randn(shape)) for shape in shapes]
    for one in made:
        one.grad = 0.01 * torch.randn(one.shape)
    return made


def stepping(optimizer: Any, given: list[torch.nn.Parameter]) -> Callable[[], Any]:
    """What takes a step: with inputs, and with a model behind it where a rule asks for more gradients or for the loss."""
    optimizer.inputs.update(dict.fromkeys(optimizer.reads_inputs, 1.0))
    if not optimizer.asks_again:
        return lambda: optimizer.step()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(((p - 0.01) ** 2).sum() for p in given)
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return lambda: optimizer.step(closure)


def first_step(name: str) -> dict[str, Any]:
    given = weights(SMALL)
    start = seconds()
    import optlang

    cls: Any = optlang.load(name, backend="cpp")
    loaded = seconds()
    optimizer = of_all(cls, given)
    step = stepping(optimizer, given)
    step()
    parts = {"load": loaded - start, "first": seconds() - loaded}
    step()
    stepped = seconds()
    step()
    parts["later"] = seconds() - stepped
    others = weights(SMALL)
    begun = seconds()
    stepping(of_all(cls, others), others)()
    parts["again"] = seconds() - begun
    return {name: round(found, 3) for name, found in parts.items()} | {"by": by(optimizer)}


def by(optimizer: Any) -> str:
    """Whose kernels step all parameters."""
    executables = [case.executable(case.settings.defaults)[1] for case in optimizer.cases]
    kernels = [kernel for one in executables for kernel in one._functions._kernels.values()]
    return "torch" if None in kernels or not kernels else "cpp"


def extra(name: str) -> float:
    given = weights(LARGE)
    optimizer = made(name, given)
    step = stepping(optimizer, given)
    for _ in range(3):
        step()
    return round(100 * held(step) / sum(w.nbytes for w in given), 2)


def held(action: Callable[[], Any]) -> int:
    """The most bytes that an action takes and gives back: of Python, NumPy's included, and of tensors."""
    tracemalloc.start()
    action()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as watched:
        action()
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    found = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = list(accumulate((event.nbytes() for event in sorted(found, key=lambda event: event.start_ns())), initial=0))
    return most + max(taken) - taken[-1]  # gradients that were there before are not seen to go where new ones come


def made(name: str, given: list[torch.nn.Parameter]) -> Any:
    import optlang

    return of_all(optlang.load(name, backend="cpp"), given)


def of_all(cls: Any, given: list[torch.nn.Parameter]) -> Any:
    """With names, which some routes ask for; rules for matrices take the matrices."""
    try:
        return cls([(f"layers.{n}.weight", p) for n, p in enumerate(given)])
    except ValueError:
        return cls([p for p in given if p.ndim == 2])


def of(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        cold, *others = (afresh(name) for _ in range(4))
        warm = min(others, key=lambda one: one.get("load", 0) + one.get("first", 0))
        by_torch = cold.get("by") == "torch"  # in its own time, with copies of whole matrices
        return {"cold": cold, "warm": warm, "extra %": None if by_torch else apart(lambda: extra(name))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", help="default: the library")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--alone", metavar="RULE", help=argparse.SUPPRESS)  # in a process that has only just started
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.SGD(weights([()]))  # imports torch's compiler
    sys.dont_write_bytecode = False
    gc.collect()  # else the first few objects that we make set it off, and what torch's modules have left takes 6 ms
    if chosen.alone:
        print(json.dumps(first_step(chosen.alone)))
        return
    of("adamw")  # compiles our modules
    names = chosen.rules or sorted(path.stem for path in (ROOT / "library").rglob("*.opt") if path.stem != "std")
    found = {}
    for name in names:
        found[name] = of(name)
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    about = {"date": date.today().isoformat(), "torch": torch.__version__, "clock": "processor, compiler included"}
    text = json.dumps(about | {"rules": found}, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
