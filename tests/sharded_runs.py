"""A run of every rule that several processes take in parts: what starts it, what it goes by, and how two ends of it are compared.

A comparison proves something only where it would fail. So rules whose defaults hardly move in four steps have settings by which they do,
the loss couples all weights, states are compared, too, and `lone` takes the steps of processes that do not speak to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from stepping import shapes_for
from tensors import some
from torch import Tensor

import optlang
from optlang.ir import Routing

STEPS = 4
SHAPES = {"body.weight": (5, 3), "embed.weight": (3, 4), "bias": (1,), "out.weight": (4, 6), "conv": (2, 3, 2)}  # uneven, empty parts, even
BY_COLUMNS = ("out.weight",)  # cut along the second dimension, all others along the first
NETWORK: dict[str, Any] = {  # along the mean gradient over its size
    "first": [[1.0, -1.0, 0, 0] if i == 7 else [0.0] * 4 for i in range(1, 41)], "second": [[1.0, 0, 0, 0], [0, 1, 0, 0], *[[0] * 4] * 3],
    "third": [[1.0, 0], [-1, 0], *[[0, 0]] * 3],
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    **{rule: {"lr": 0.02} for rule in ["lion", "cautiouslion", "cautiousdecaylion", "liondeadzone", "lionhuber"]},
    **{rule: {"lr": 0.02} for rule in ["sophiag", "adopt", "lamb", "mezo", "psgdkron", "adamwsubsetnorm", "scionrows", "scionsign"]},
    **{rule: {"lr": 0.02} for rule in ["sam", "asam", "gam", "lionp", "liontopk", "adamuon", "simplifiedademamix"]},
    **{rule: {"lr": 0.02} for rule in ["adamatan2", "ano", "kourkoutas"]},
    **{rule: {"reps_rel": 0.01} for rule in ["dog", "ldog", "adog", "udog"]},
    **{rule: {"d0": 0.01} for rule in ["prodigy", "dadaptsgd", "dadaptadam"]},
    "schedulefreeradam": {"silent": False}, "ranger21": {"total": 10, "lr": 0.02}, "adamhd": {"lr_lr": 1e-3},
    "sophiah": {"lr": 0.02, "k": 2}, "graftedshampoo": {"start": 2, "period": 2},
    "corefrozen": {"history": 1, "frozen": 0.4}, "adamcm": {"capacity": 2}, "swats": {"tol": 10.0}, "oasismomentum": {"samples": 2},
    "adadagrad": {"first": 1}, "fedhyperg": {"lr": 1e-3, "low": -0.999, "high": 1e9}, "adamp": {"delta": 10.0}, "alig": {"lr": 10.0},
    "saniaadagrad": {"rooted": True}, "saniaadam": {"rooted": True}, "smb": {"lr": 3.0},
    "perparametermlp": NETWORK,
    "mulo": {f"{inner}{name}": x for inner in ("HiddenMLP.PerParameterMLP.", "PerParameterMLP.") for name, x in NETWORK.items()},
}  # fmt: skip
RANK = 2  # of rules that take so many directions of a matrix, most of which would take all of these


def load(rule: str) -> Any:
    return optlang.loads(rule) if "{" in rule else optlang.load(rule)


def settings_of(rule: str) -> dict[str, Any]:
    """Those by which four steps go far, as the constructor takes them."""
    made, more = load(rule).rule, SETTINGS.get(rule, {})
    if isinstance(made, Routing):
        rules: dict[str, dict[str, Any]] = {}
        for name, value in more.items():
            used, _, setting = name.partition(".")
            rules.setdefault(used, {})[setting] = value
        return rules
    return {**{h.name: RANK for h in made.hypers if h.name == "r" and h.baked}, **more}


def made_of(rule: str, params: dict[str, Tensor], **more: Any) -> Any:
    return load(rule)(list(params.items()), **settings_of(rule), **more)


def module_of(rule: str) -> dict[str, Any]:
    """What the generated module of a rule defines."""
    made, given = load(rule).rule, settings_of(rule)
    baked = {} if isinstance(made, Routing) else {h.name: given[h.name] for h in made.hypers if h.baked and h.name in given}
    space: dict[str, Any] = {"__name__": f"module_of_{rule}"}
    exec(compile(optlang.build(rule, baked=baked), space["__name__"], "exec"), space)
    return space


def made_as_module(rule: str) -> Any:
    """The class of the generated module of a rule."""
    return module_of(rule)[load(rule).rule.name]


def start(rule: str = "adamw") -> dict[str, Tensor]:
    """Those of the parameters that a rule takes."""
    taken = shapes_for(load(rule).rule, list(SHAPES.values()))
    return {name: some(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items()) if shape in taken}


def loss_of(params: dict[str, Any], step: int) -> Tensor:
    """A bowl for each parameter with noise of each step, of whole parameters whoever holds them, and one for all of them together."""
    total, sum_ = torch.zeros(()), torch.zeros(())
    for i, p in enumerate(params.values()):
        x = p.full_tensor() if hasattr(p, "full_tensor") else p
        total = total + (x * some(*x.shape, seed=100 + 10 * step + i)).sum() + 0.3 * ((x - 1) ** 2).sum()
        sum_ = sum_ + (x * some(*x.shape, seed=50 + i)).sum()
    return total + 0.01 * sum_**2


def run(optimizer: Any, params: dict[str, Tensor], steps: range, spread: Callable[[Tensor], Tensor], seen: Any = dict) -> None:
    """`spread`: what is there of a whole tensor; `seen`: the weights that the loss is of, given those of this optimizer."""
    for step in steps:

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(seen(params), step)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        for wanted in [i.name for case in optimizer.cases for i in case.program.inputs]:
            optimizer.inputs[wanted] = {p: spread(some(*SHAPES[name], seed=9 + step) ** 2) for name, p in params.items()}
        optimizer.step(closure)


def alone(rule: str, steps: int) -> tuple[Any, dict[str, Tensor]]:
    params = {name: p.requires_grad_() for name, p in start(rule).items()}
    optimizer = made_of(rule, params)
    run(optimizer, params, range(steps), lambda x: x)
    return optimizer, params


# ------------------------------------------------------------------------------------------------------- both ends


def cut_along(shape: Sequence[int]) -> int:
    """The dimension along which the parameter of a shape is cut."""
    return int(tuple(shape) in [SHAPES[name] for name in BY_COLUMNS])


def kept_of(optimizer: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Weights and states as they are here."""
    states = {f"{name}: {key}": x for name, p in params.items() for key, x in optimizer.state[p].items() if key != "step"}
    return {**params, **{name: torch.as_tensor(x) for name, x in states.items()}}


def stored(optimizer: Any, params: dict[str, Any], everywhere: Callable[[list[str]], list[str]] = sorted) -> dict[str, Tensor]:
    """Weights and states in the end, whole; of those that are `everywhere`."""
    here = kept_of(optimizer, params)
    found = {name: here[name] for name in everywhere(list(here))}
    return {name: (x.full_tensor() if hasattr(x, "full_tensor") else x).detach() for name, x in found.items()}


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over what is allowed; infinite where a side is no number."""
    if not (found.isfinite().all() and wanted.isfinite().all()):
        return float("inf")
    apart = (found - wanted).abs() / (1e-6 + 1e-5 * wanted.abs())
    return float(apart.max()) if apart.numel() else 0.0


def off_of_state(found: Tensor, wanted: Tensor) -> float:
    """That of a state: allowed is a part of its largest number, so that small ones count, and it may say by NaN that it holds nothing."""
    if found.shape != wanted.shape or not torch.equal(found.isnan(), wanted.isnan()):
        return float("inf")
    a, b = (x.double().nan_to_num(0.0) for x in (found, wanted))
    gap, most = (float(x.abs().max()) if x.numel() else 0.0 for x in (a - b, b))
    return gap / (1e-4 * most) if gap else 0.0


def farthest(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Of weights, and of states where there are such."""
    weights = max(off(found[name], x) for name, x in wanted.items() if ":" not in name)
    states = [off_of_state(found[name], x) if name in found else float("inf") for name, x in wanted.items() if ":" in name]
    return {"off": weights, **({"states": max(states)} if states else {})}


def lone(rule: str, world: int, wanted: dict[str, Tensor]) -> float:
    """How far processes would be from one that step the parts that are theirs by what these tell; infinite where they cannot."""
    whole = start(rule)

    def of(rank: int) -> Callable[[Tensor], Tensor]:
        def part(x: Tensor) -> Tensor:
            cut = x.chunk(world, cut_along(x.shape))
            return cut[rank] if rank < len(cut) else cut[0].narrow(cut_along(x.shape), 0, 0)

        return part

    parts = [{name: of(rank)(p).clone().requires_grad_() for name, p in whole.items()} for rank in range(world)]
    try:
        optimizers = [made_of(rule, part) for part in parts]
        for step in range(STEPS):
            before = [{name: p.detach().clone() for name, p in part.items()} for part in parts]
            for rank, (optimizer, part) in enumerate(zip(optimizers, parts, strict=True)):
                run(optimizer, part, range(step, step + 1), of(rank), lambda mine, rank=rank, before=before: joined(
                    [mine if other == rank else old for other, old in enumerate(before)]))  # fmt: skip
    except (ValueError, RuntimeError, IndexError):  # matrices without rows
        return float("inf")
    found = joined([{name: p.detach() for name, p in part.items()} for part in parts])
    kept = [entry for optimizer, part in zip(optimizers, parts, strict=True) for entry in stored(optimizer, part).items()]
    if any(name not in wanted for name, _ in kept):  # parts are higher than wide, say
        return float("inf")
    states = [off_of_state(x, wanted[name]) for name, x in kept if ":" in name and x.shape == wanted[name].shape]
    return max([off(found[name], x) for name, x in wanted.items() if ":" not in name] + states)


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    whole = {}
    for name in parts[0]:
        whole[name] = torch.cat([part[name] for part in parts], cut_along(SHAPES[name]))
    return whole
