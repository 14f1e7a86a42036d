"""The parts of `check`: each takes a `Check` and returns what goes into the JSON. Raises where something is not as it must be."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import optlang
from optlang.bench import models
from optlang.bench.measure import bandwidth

if TYPE_CHECKING:
    from check import Check

Step = Callable[[], Any]
STEPS = 5  # between two looks at the clock
SHAPES = ((3, 4), (5,), (1,), (), (0,), (2, 3, 2, 2), (4, 2075), (70, 200))
FIRST = ("adamw", "lion", "lamb", "adam", "sgd", "momentum", "prodigy", "radam", "adan", "ademamix")
MATRIX = ("adafactor", "muon", "came")  # with rows, columns and tiles of many kinds, which are kernels of their own

MODULES = ("adamw", "lamb", "adafactor", "muon", "prodigy", "soap", "schedulefreeadamw", "muonwithadamw")
DRAWN = "rule Drawn { hyper lr = 0.1 in (0, 1)  state s per model = 0  s' = s + normal(per model)  w' = w - lr*uniform()*g*exp(-s'^2) }"
GRAPHED = ("adamw", DRAWN, "radam", "lamb", "adafactor", "prodigy", "muon", "muonwithadamw", "randomscaledadamw", "psgdkron", "liontopk",
           "trion", "schedulefreeadamw")  # fmt: skip


def sizes(tiny: bool) -> dict[str, models.Shapes]:
    """The shapes of the models that are timed."""
    if tiny:
        return dict.fromkeys(("small", "large", "many"), models.MODELS["tiny"]())
    return {"small": models.gpt2(), "large": models.gpt2(24, 2048), "many": models.MODELS["many"]()}


# ---------------------------------------------------------------------------------------------------------- correctness


def conforms(check: Check, name: str, dtype: torch.dtype = torch.float32, steps: int = 3, backends: Sequence[Any] = ()) -> None:
    """Steps of a rule on the device, each beside the reference from the very same numbers. Raises AssertionError."""
    from stepping import shapes_for
    from torch_pairs import Pair, tensors

    from optlang.backends.auto import BACKEND as AUTO
    from optlang.backends.triton import BACKEND as TRITON

    program = optlang.Rule(name).program
    shapes = shapes_for(program, SHAPES[-3:] if check.is_cpu else SHAPES)
    for backend in backends or ([TRITON] if check.is_cpu else [TRITON, AUTO]):
        given = [x.to(check.device) for x in tensors(shapes, dtype)]
        both = Pair(program, given, executable=backend.compile(program, "safe"))
        both.tolerance *= 30
        for _ in range(steps):
            both.step()


def _each(check: Check, names: Sequence[str], ask: Callable[[str], Any]) -> dict[str, Any]:
    """Which rules are right; all of them that the part has time for are tried before anything is raised."""
    wrong, right = {}, []
    for name in names:
        if not check.is_cpu and (check.left < 30 or check.is_late):
            break
        check.watch(90)
        try:
            ask(name)
            right.append(name)
        except Exception as problem:
            wrong[name] = f"{type(problem).__name__}: {problem}"[:300]
    if wrong:
        raise AssertionError(f"{len(right)} right, wrong: {wrong}")
    return {"right": len(right), "tried": right}


def first_rules(check: Check) -> dict[str, Any]:
    names = FIRST[:2] if check.is_cpu else FIRST
    return _each(check, names, lambda name: [conforms(check, name, dtype) for dtype in (torch.float32, torch.bfloat16)])


def matrix_rules(check: Check) -> dict[str, Any]:
    names = MATRIX[:1] if check.is_cpu else MATRIX
    return _each(check, names, lambda name: [conforms(check, name, dtype) for dtype in (torch.float32, torch.bfloat16)])


def torch_backend(check: Check) -> dict[str, Any]:
    """Single operators for some rules, and what torch's compiler makes of two."""
    from torch_pairs import COMPILED, EAGER

    _each(check, FIRST[:1] if check.is_cpu else (*FIRST, *MATRIX), lambda name: conforms(check, name, backends=[EAGER]))
    return _each(check, ["adamw", "lamb"], lambda name: conforms(check, name, backends=[EAGER if check.is_cpu else COMPILED]))


def modules(check: Check) -> dict[str, Any]:
    """Generated modules, beside the same on the CPU."""
    return _each(check, MODULES[:2] if check.is_cpu else MODULES, lambda name: module(check, name))


def module(check: Check, name: str) -> None:
    from stepping import shapes_for

    space: dict[str, Any] = {"__name__": "made"}
    exec(compile(optlang.build(name), "made", "exec"), space)
    shapes, found = shapes_for(optlang.Rule(name).program, SHAPES[:-1]), []
    for device in (torch.device("cpu"), check.device):
        params = [torch.nn.Parameter(p.detach().to(device)) for p in models.parameters(shapes, torch.device("cpu"))]
        optimizer = space[optlang.Rule(name).name]([(f"p{i}", p) for i, p in enumerate(params)])
        for step in range(3):
            _give(params, step)
            optimizer.step()
        found.append([p.detach().cpu() for p in params])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def module_kernels(check: Check) -> dict[str, Any]:
    """Kernels that modules carry along, beside the modules' own lines on the device; how long AdamW takes by each, and by torch."""
    from module_kernels import count_kernels, imported

    with tempfile.TemporaryDirectory() as folder:
        for name in ("lion", "powersign", "adamw"):
            made = imported(optlang.build(name, triton=True), Path(folder), anywhere=check.is_cpu)
            by_kernel, cls, found = count_kernels(made), getattr(made, optlang.Rule(name).name), []
            for fused in (None, False):
                params = models.parameters(((3, 40), (1025,), ()), check.device)
                optimizer = cls(params, lr=0.01, fused=fused)
                for step in range(3):
                    _give(params, step)
                    optimizer.step()
                found.append([p.detach() for p in params])
            assert by_kernel == [True] * 9 + [False] * 9, by_kernel
            torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
        makers = {"module, kernel": lambda p: cls(p, lr=1e-4), "module": lambda p: cls(p, lr=1e-4, fused=False)}
        return _race(check, "small", torch.float32, {**makers, "torch fused": ADAMW["torch fused"]})


def _give(params: Sequence[Tensor], step: int) -> None:
    """Gradients of a step, in the memory of the last ones: the same on every device."""
    for i, p in enumerate(params):
        new = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i)).to(p.device, p.dtype)
        p.grad = new if p.grad is None else p.grad.copy_(new)


def long(check: Check) -> dict[str, Any]:
    """A weight of more than 2^31 elements: its last ones are stepped like its first, and nothing else is."""
    size, ends = (3 * 4096 if check.is_cpu else (1 << 31) + 3 * 4096), 4096
    for name in ("adamw", "lion"):
        weight = torch.nn.Parameter(torch.zeros(size, device=check.device, dtype=torch.bfloat16))
        weight.grad = torch.zeros_like(weight)
        given = torch.linspace(-1, 1, ends, device=check.device, dtype=torch.bfloat16)
        weight.grad[:ends], weight.grad[-ends:] = given, given
        optimizer = _ours(name)([weight], lr=0.5)
        optimizer.step()
        optimizer.step()
        first, last = weight.detach()[:ends], weight.detach()[-ends:]
        assert torch.equal(first, last), f"{name}: the ends differ"
        assert bool((first[given != 0] != 0).all()), f"{name}: elements have not moved"
        assert not weight.detach()[ends:-ends].any(), f"{name}: elements in the middle have moved"
        del optimizer, weight
    return {"elements": size}


def sharded(check: Check) -> dict[str, Any]:
    """FSDP2 in one process, whose parameters are DTensors on the device."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group("gloo" if check.is_cpu else "nccl", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            mesh = init_device_mesh(check.device.type, (1,))
            for name in ("adamw", "lamb", "muonwithadamw"):
                spread, plain = (_net(check) for _ in range(2))
                fully_shard(spread, mesh=mesh)
                for net in (spread, plain):
                    optimizer = _ours(name)(net.named_parameters())
                    for _ in range(3):
                        optimizer.zero_grad()
                        (net(torch.ones(4, 16, device=check.device)) ** 2).mean().backward()
                        optimizer.step()
                for p, q in zip(spread.parameters(), plain.parameters(), strict=True):
                    whole: Any = p
                    torch.testing.assert_close(whole.full_tensor().detach(), q.detach(), rtol=1e-4, atol=1e-5)
        finally:
            distributed.destroy_process_group()
    return {"agrees": True}


def _net(check: Check) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4)).to(check.device)


def library(check: Check) -> dict[str, Any]:
    """All rules that time allows, whatever they are: nothing comes after it."""
    from stepping import is_ambiguous

    from optlang.ir import Program
    from optlang.library import names

    check.until = float("inf")
    made = {name: optlang.Rule(name).program for name in (names() if not check.is_cpu else ["sgd", "signum"])}
    wanted = [n for n, p in made.items() if n not in FIRST + MATRIX and isinstance(p, Program) and not is_ambiguous(p)]
    return _each(check, wanted, lambda name: conforms(check, name))


def formats(check: Check) -> dict[str, Any]:
    """States and weights in fewer bits: what kernels store beside what torch stores, on the device."""
    found = {}
    for state, weights in (("int8", "nearest"), ("fp8", "nearest"), ("int4", "compensated"), ("bf16", "stochastic")):
        runs = [_trained(check, backend, state, weights) for backend in ("triton", "torch")]
        same = [torch.isclose(a.float(), b.float(), rtol=1e-3, atol=1e-4).float().mean().item() for a, b in zip(*runs, strict=True)]
        assert min(same) > 0.98, (state, weights, same)
        found[f"{state}, {weights}"] = min(same)
    return found


def _trained(check: Check, backend: str, state: str, weights: str) -> list[Tensor]:
    dtype = torch.float32 if weights == "nearest" else torch.bfloat16
    params = models.parameters([(64, 80), (5003,), (7,)], torch.device("cpu"), dtype)
    mine = [torch.nn.Parameter(p.detach().to(check.device)) for p in params]
    cls: Any = optlang.load("adamw", backend=backend, state=state, weights=weights)
    optimizer = cls(mine, lr=0.01, eps=1e-3)
    for _ in range(2 if check.is_cpu else 4):
        for p, like in zip(mine, params, strict=True):
            assert like.grad is not None
            p.grad = like.grad.to(check.device)
        optimizer.step()
    return [p.detach().cpu() for p in mine]


def overflow(check: Check) -> dict[str, Any]:
    """A GradScaler whose finding stays on the device: beside torch's fused AdamW."""
    losses = [torch.inf if step == 1 else 1.0 for step in range(4)]
    found = []
    for make in (lambda p: _ours()(p, lr=0.01, fused=True), lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)):
        torch.manual_seed(0)
        net = torch.nn.Linear(8, 4).to(check.device)
        optimizer, scaler = make(net.parameters()), torch.amp.GradScaler(check.device.type, init_scale=2.0**8)
        for factor in losses:
            optimizer.zero_grad()
            x = torch.ones(6, 8, device=check.device)
            scaler.scale((net(x) ** 2).mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append([p.detach().cpu() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    return {"agrees": True}


def _ours(rule: str = "adamw", **options: Any) -> Any:
    return optlang.load(rule, **options)


# --------------------------------------------------------------------------------------------------------------- graphs


def graph(check: Check) -> dict[str, Any]:
    """A step in a CUDA graph: rates written into between replays, numbers as uncaptured, and what it costs."""
    rate = torch.tensor(1e-3, device=check.device, dtype=torch.float64)
    captured, plain = (models.parameters(check.sizes["small"], check.device) for _ in range(2))
    ours, other = _ours()(captured, lr=rate, capturable=True), _ours()(plain, lr=1e-3)
    ours.step()
    other.step()
    if check.is_cpu:
        replay: Step = ours.step
    else:
        held = torch.cuda.CUDAGraph()
        with torch.cuda.graph(held):
            ours.step()
        replay = held.replay
    for k in range(20):
        rate.fill_(1e-3 / (1 + k))
        other.param_groups[0]["lr"] = 1e-3 / (1 + k)
        replay()
        other.step()
    torch.testing.assert_close([p.detach() for p in captured], [p.detach() for p in plain], rtol=1e-5, atol=1e-7)
    assert float(ours.state[captured[0]]["step"]) == 21, ours.state[captured[0]]["step"]
    return _rows(check, {"captured": replay, "plain": other.step}, {})


def rules_in_graphs(check: Check) -> dict[str, Any]:
    """Replays of rules of many kinds."""
    return _each(check, GRAPHED[:2] if check.is_cpu else GRAPHED, lambda name: replayed(name, check.device, "auto"))


def replayed(name: str, device: torch.device, backend: str) -> None:
    """Steps in a graph beside plain ones on the CPU: counts, rates, draws and values of all go on from replay to replay."""
    from stepping import shapes_for

    classes = [_load(name, backend), _load(name, "torch")]
    shapes, settings = shapes_for(classes[0].rule, SHAPES[:-2]), [case.settings.defaults["lr"] for case in classes[0].cases]
    there, here = (models.parameters(shapes, torch.device("cpu")) for _ in range(2))
    there = [torch.nn.Parameter(p.detach().to(device)) for p in there]
    rates = [torch.tensor(rate, dtype=torch.float64).to(device) for rate in settings]
    ours, plain = (cls([(f"p{i}", p) for i, p in enumerate(params)], **more) for cls, params, more in zip(
        classes, (there, here), ({"capturable": True}, {}), strict=True))  # fmt: skip
    cases = [case.label for case in classes[0].cases]
    replay: Step = ours.step
    for step in range(6):
        for optimizer in (ours, plain):
            for group in optimizer.param_groups:
                place = cases.index(group.get("rule", ""))
                if optimizer is ours:
                    rates[place].fill_(settings[place] / (1 + step))
                group["lr"] = rates[place] if optimizer is ours else settings[place] / (1 + step)
        _give(there, step)
        _give(here, step)
        if step == 2 and device.type == "cuda":
            held = torch.cuda.CUDAGraph()
            with torch.cuda.graph(held):
                ours.step()
            replay = held.replay
        replay()
        plain.step()
        torch.testing.assert_close([p.detach().cpu() for p in there], [p.detach() for p in here], rtol=1e-4, atol=1e-5)
    assert {float(ours.state[p]["step"]) for p in there} == {6.0}


def _load(rule: str, backend: str) -> Any:
    return optlang.loads(rule, backend=backend) if " " in rule else optlang.load(rule, backend=backend)


def held_by_graphs(check: Check) -> dict[str, str]:
    """Which factorisations a graph can hold: rules that take others are refused with `capturable`."""
    a = torch.eye(6, device=check.device) * torch.arange(1, 7, device=check.device)
    asked = {"eigh": torch.linalg.eigh, "qr": torch.linalg.qr, "inv_ex": torch.linalg.inv_ex, "cholesky_ex": torch.linalg.cholesky_ex}
    found = {}
    for name, call in {} if check.is_cpu else asked.items():
        call(a)
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call(a)
            graph.replay()
            torch.cuda.synchronize()
            found[name] = "yes"
        except Exception as problem:
            found[name] = f"{type(problem).__name__}: {problem}"[:200]
    return found


def new_gradients(check: Check) -> dict[str, Any]:
    """Forward, backward and step in one graph: the gradients lie in memory of the graph's own."""
    nets = [_net(check) for _ in range(2)]
    ours, other = _ours()(nets[0].parameters(), lr=0.01, capturable=True), _ours()(nets[1].parameters(), lr=0.01)
    x = torch.zeros(8, 16, device=check.device)

    def train(net: torch.nn.Module, optimizer: Any) -> None:
        optimizer.zero_grad()
        (net(x) ** 2).mean().backward()
        optimizer.step()

    stream: Any = torch.cuda.Stream() if not check.is_cpu else None
    with torch.cuda.stream(stream) if stream else warnings.catch_warnings():
        x.fill_(0.5)
        train(nets[0], ours)
    train(nets[1], other)
    if stream:
        torch.cuda.current_stream().wait_stream(stream)
        held = torch.cuda.CUDAGraph()
        ours.zero_grad()
        with torch.cuda.graph(held):
            train(nets[0], ours)
    for k in range(10):
        x.copy_(torch.randn(8, 16, generator=torch.Generator().manual_seed(k)))
        train(nets[0], ours) if check.is_cpu else held.replay()
        train(nets[1], other)
    torch.testing.assert_close(list(nets[0].parameters()), list(nets[1].parameters()), rtol=1e-4, atol=1e-6)
    return {"agrees": True}


def compiled(check: Check) -> dict[str, Any]:
    """`optimizer.step()` inside of a function that is compiled whole, also as a graph of CUDA."""
    from torch._dynamo.utils import counters

    found = {}
    for mode in ("default",) if check.is_cpu else ("default", "reduce-overhead"):
        torch._dynamo.reset()
        counters.clear()
        mine, other = (models.parameters([(64, 32), (32,)], check.device) for _ in range(2))
        ours, plain = _ours()(mine, lr=0.01, capturable=mode != "default"), _ours()(other, lr=0.01)
        options: dict[str, Any] = {"backend": "eager"} if check.is_cpu else {"mode": mode}
        step = torch.compile(lambda ours=ours: ours.step(), fullgraph=True, **options)
        for _ in range(6):
            step()
            plain.step()
        torch.testing.assert_close([p.detach() for p in mine], [p.detach() for p in other], rtol=1e-5, atol=1e-6)
        found[mode] = {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    return found


# ---------------------------------------------------------------------------------------------------------------- speed


def memory(check: Check) -> dict[str, float]:
    """Bytes a second of a copy: what every step is measured against."""
    found = bandwidth(check.device, 1 << (10 if check.is_cpu else 29), 15)
    check.found["bytes/s"] = found.median
    return {"median": found.median, "low": found.low, "high": found.high}


def _moved(weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Bytes that a step must move: weights and states read and written, gradients read."""
    states = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor) and x.numel() > 1]
    return sum(2 * w.nbytes + w.grad.nbytes for w in weights if w.grad is not None) + 2 * sum(x.nbytes for x in states)


def _rows(check: Check, steps: Mapping[str, Step], moved: Mapping[str, int], rounds: int = 7) -> dict[str, Any]:
    """Contestants in turn: milliseconds of the device and microseconds of the host for a step, and the share of a copy's speed."""
    gpu: dict[str, list[float]] = {name: [] for name in steps}
    host: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(1 if check.is_cpu else 3):
            step()
    gc.collect()
    for _ in range(1 if check.is_cpu else rounds):
        for name, step in steps.items():
            device, waiting = _clocked(check, step)
            gpu[name].append(device)
            host[name].append(waiting)
    found: dict[str, Any] = {}
    for name in steps:
        median = statistics.median(gpu[name])
        found[name] = {"ms": 1e3 * median, "low": 1e3 * min(gpu[name]), "high": 1e3 * max(gpu[name]), "host us": 1e6 * min(host[name])}
        if name in moved:
            found[name] |= {"bytes": moved[name], "of copy": moved[name] / median / check.found.get("bytes/s", float("nan"))}
    if "torch fused" in found:
        fused = gpu["torch fused"]
        for name, row in found.items():
            row["to fused"] = statistics.median(a / b for a, b in zip(gpu[name], fused, strict=True))
    return found


def _clocked(check: Check, step: Step) -> tuple[float, float]:
    """Seconds of a step on the device and on the host, over several without waiting."""
    if check.is_cpu:
        start = time.perf_counter()
        step()
        return (time.perf_counter() - start,) * 2
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start = time.perf_counter()
    begin.record()
    for _ in range(STEPS):
        step()
    end.record()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / STEPS, host / STEPS


@contextmanager
def _weights(check: Check, model: str, dtype: torch.dtype) -> Iterator[list[torch.nn.Parameter]]:
    yield models.parameters(check.sizes[model], check.device, dtype)
    gc.collect()
    if not check.is_cpu:
        torch.cuda.empty_cache()


def _race(check: Check, model: str, dtype: torch.dtype, makers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Optimizers on the same weights. One that cannot be made or stepped is left out, with what it said."""
    with _weights(check, model, dtype) as weights:
        steps: dict[str, Step] = {}
        moved: dict[str, int] = {}
        troubles = {}
        for name, make in makers.items():
            try:
                optimizer = make(weights)
                optimizer.step()
                steps[name], moved[name] = optimizer.step, _moved(weights, optimizer)
            except Exception as problem:
                troubles[name] = f"{type(problem).__name__}: {problem}"[:300]
        found = _rows(check, steps, moved)
        return found | ({"troubles": troubles} if troubles else {})


ADAMW: dict[str, Callable[[Any], Any]] = {
    "optlang": lambda p: _ours()(p, lr=1e-4),
    "torch fused": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
    "torch foreach": lambda p: torch.optim.AdamW(p, lr=1e-4, foreach=True),
    "optlang Lion": lambda p: _ours("lion")(p, lr=1e-5),
}
FEWER: dict[str, Callable[[Any], Any]] = {
    f"optlang {state}": lambda p, state=state: _ours(state=state)(p, lr=1e-4) for state in ("bf16", "int8", "fp8", "int4")
}


def large(check: Check) -> dict[str, Any]:
    return _race(check, "large", torch.float32, ADAMW)


def large_bf16(check: Check) -> dict[str, Any]:
    return _race(check, "large", torch.bfloat16, ADAMW | {"optlang bf16": FEWER["optlang bf16"]})


def many(check: Check) -> dict[str, Any]:
    return _race(check, "many", torch.float32, ADAMW)


def small(check: Check) -> dict[str, Any]:
    more = {"optlang LAMB": lambda p: _ours("lamb")(p, lr=1e-4), "optlang torch": lambda p: _ours(backend="torch")(p, lr=1e-4)}
    return _race(check, "small", torch.float32, ADAMW | more)


def small_bf16(check: Check) -> dict[str, Any]:
    return _race(check, "small", torch.bfloat16, ADAMW)


def fewer_bits(check: Check) -> dict[str, Any]:
    return _race(check, "large", torch.float32, {"torch fused": ADAMW["torch fused"], **FEWER})


def peers(check: Check) -> dict[str, Any]:
    """Other packages, where they are installed."""
    makers = {"torch fused": ADAMW["torch fused"], "optlang": ADAMW["optlang"]}
    with suppressed():
        import optimi

        makers["optimi"] = lambda p: optimi.AdamW(p, lr=1e-4)
    with suppressed():
        import heavyball

        makers["HeavyBall"] = lambda p: heavyball.AdamW(p, lr=1e-4)
    return _race(check, "small", torch.float32, makers)


def torch_compiled(check: Check) -> dict[str, Any]:
    """AdamW of torch, compiled whole: what it takes before the first step, and after."""
    with _weights(check, "small", torch.float32) as weights:
        theirs = torch.optim.AdamW(weights, lr=torch.tensor(1e-4), capturable=not check.is_cpu)
        step = torch.compile(theirs.step, backend="eager" if check.is_cpu else "inductor")
        start = time.perf_counter()
        step()
        first = time.perf_counter() - start
        return {"first step (s)": first} | _rows(check, {"torch compiled": step}, {"torch compiled": _moved(weights, theirs)})


@contextmanager
def suppressed() -> Iterator[None]:
    try:
        yield
    except ImportError:
        return


FRESH = """
import sys, time, torch, optlang
from optlang.bench import models
device = torch.device(sys.argv[1])
weights = models.parameters(models.MODELS[sys.argv[2]](), device)
optimizer = optlang.load("adamw", backend=sys.argv[3])(weights, lr=1e-4)
start = time.perf_counter()
optimizer.step()
torch.cuda.synchronize() if device.type == "cuda" else None
print(time.perf_counter() - start)
"""


def first_step(check: Check) -> dict[str, float]:
    """Seconds of the first step in a fresh process, with an empty and with a filled cache of kernels."""
    model, backend = ("tiny", "triton") if check.is_cpu else ("gpt2", "auto")
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", FRESH, str(check.device), model, backend]
        environment = _environment() | dict.fromkeys(("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"), cache)
        told = [subprocess.run(command, env=environment, capture_output=True, text=True, check=False) for _ in range(2)]
    if bad := [one for one in told if one.returncode]:
        raise RuntimeError(bad[0].stderr[-1500:])
    return dict(zip(("cold", "warm"), (float(one.stdout.split()[-1]) for one in told), strict=True))


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def extra_memory(check: Check) -> dict[str, float]:
    """What a step takes at its peak beyond what it keeps, as a share of the weights."""
    if check.is_cpu:
        return {}
    found = {}
    for name in ("adamw", "adafactor", "came"):
        with _weights(check, "small", torch.float32) as weights:
            optimizer = _ours(name)(weights, lr=1e-4)
            optimizer.step()
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            optimizer.step()
            torch.cuda.synchronize()
            found[name] = (torch.cuda.max_memory_allocated() - before) / sum(w.nbytes for w in weights)
            del optimizer
    return found


PARTS: dict[str, tuple[Callable[[Check], Any], float]] = {  # with about how many seconds they take
    "copy": (memory, 2), "first rules": (first_rules, 50), "large": (large, 20), "graph": (graph, 15), "many": (many, 20),
    "large bf16": (large_bf16, 15), "extra memory": (extra_memory, 20), "first step": (first_step, 25),
    "compiled step": (compiled, 40), "new gradients in a graph": (new_gradients, 5), "matrix rules": (matrix_rules, 70),
    "rules in graphs": (rules_in_graphs, 40), "torch backend": (torch_backend, 40), "modules": (modules, 8),
    "module kernels": (module_kernels, 12), "overflow": (overflow, 8),
    "long": (long, 15), "sharded": (sharded, 10), "small": (small, 15), "small bf16": (small_bf16, 8), "formats": (formats, 25),
    "fewer bits": (fewer_bits, 20), "held by graphs": (held_by_graphs, 3), "peers": (peers, 60),
    "torch compiled": (torch_compiled, 110), "library": (library, 30),
}  # fmt: skip
