"""Numbers of the host, single values from anywhere, and what is on around a step."""

from __future__ import annotations

TEXTS = {
    "_count": '''
def _count(step: torch.Tensor, on_device: bool = False) -> Any:
    """The number of a step: with `capturable` a tensor, so that the host need not wait for it. A fake tensor, as tools take it that
    estimate memory, has no number, but knows how often it was written into."""
    if on_device:
        return step.double()
    return step._version if isinstance(step, FakeTensor) else int(step)
''',
    "_without_autocast": '''
@contextmanager
def _without_autocast() -> Iterator[None]:
    """In here products of matrices are computed in the type of their operands, whatever `torch.autocast` says around the step."""
    with ExitStack() as around:
        for kind in ("cpu", "cuda", "xpu", "mps"):
            if torch.is_autocast_enabled(kind):
                around.enter_context(torch.autocast(kind, enabled=False))
        yield
''',
    "_as_called_here": '''
def _as_called_here(closure: Any) -> Any:
    """The closure, which meets `torch.autocast` as it is now, wherever it is called."""
    casts = {kind: torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda", "xpu", "mps") if torch.is_autocast_enabled(kind)}

    def called() -> Any:
        with ExitStack() as around:
            for kind, dtype in casts.items():
                around.enter_context(torch.autocast(kind, dtype))
            return closure()

    return closure and called
''',
    "_alike": '''
def _alike(x: Any, like: torch.Tensor) -> torch.Tensor:
    """A number or a tensor as a tensor of another one's type, on its device."""
    return x.to(like.device, like.dtype) if isinstance(x, torch.Tensor) else like.new_full((), x)
''',
    "_known": '''
def _while_compiling(function: Callable[..., Any]) -> Any:
    """A function that torch.compile calls while it compiles, and again for other numbers."""
    compiler: Any = torch.compiler  # which says no types
    return compiler.assume_constant_result(function)


@_while_compiling
def _known(function: Callable[..., torch.Tensor], *numbers: Any) -> Any:
    """A torch function of Python's numbers."""
    return function(*(torch.tensor(float(x), dtype=torch.float64, device="cpu") for x in numbers)).item()
''',
    "_ieee": '''
def _ieee(function: Callable[..., torch.Tensor], *numbers: Any) -> Any:
    """A torch function of numbers: infinite or NaN where Python would raise. If one of them is a tensor, so is what it gives."""
    moving = [x for x in numbers if isinstance(x, torch.Tensor)]
    if not moving:
        return _known(function, *numbers)
    like = moving[0].double()
    return function(*(_alike(x, like) for x in numbers))
''',
    "_moving": '''
def _moving(function: Callable[..., torch.Tensor], *numbers: Any) -> Any:
    """`_ieee` of numbers that change from step to step: what is compiled computes with tensors, and is not compiled again."""
    if torch.compiler.is_compiling() and not any(isinstance(x, torch.Tensor) for x in numbers):
        numbers = tuple(torch.tensor(float(x), dtype=torch.float64, device="cpu") for x in numbers)
    return _ieee(function, *numbers)
''',
    "_vector": '''
def _vector(values: Iterable[Any], home: torch.Tensor) -> torch.Tensor:
    """Single values from any devices and processes as one float64 vector at home, with one transfer for each device."""
    values = [x if isinstance(x, torch.Tensor) else home.new_full((), x) for x in values]
    values = [x.full_tensor() if hasattr(x, "full_tensor") else x for x in values]
    for device in {x.device for x in values} - {home.device}:
        places = [i for i, x in enumerate(values) if x.device == device]
        moved = torch.stack([values[i].double() for i in places]).to(home.device)
        for i, x in zip(places, moved.unbind()):
            values[i] = x
    return torch.stack([x.double() for x in values])
''',
    "_where": '''
def _where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes if condition else no`. By a tensor torch chooses, so that the host need not wait for it; but gradients go through what is
    chosen alone."""
    if not isinstance(condition, torch.Tensor) or torch.is_grad_enabled():
        return yes if condition else no
    if not isinstance(yes, torch.Tensor) and not isinstance(no, torch.Tensor):  # else they would be of torch's default type
        yes = torch.full((), yes, dtype=torch.float64, device=condition.device)
    return torch.where(condition, yes, no)
''',
    "_sides": '''
def _sides(condition: Any, *written: torch.Tensor) -> Iterable[Any]:
    """Whether a condition holds, for an `if` that writes into some tensors. By a tensor torch chooses, so that the host need not wait
    for it: then both sides are computed."""
    return _both_sides(condition, *written) if isinstance(condition, torch.Tensor) else (condition,)


def _both_sides(condition: torch.Tensor, *written: torch.Tensor) -> Iterator[bool]:
    """True and False in turn: each side finds the tensors as they were, and what the one that holds has written stays in them."""
    before = [x.clone() for x in written]
    yield True
    held = [x.clone() for x in written]
    for x, old in zip(written, before):
        x.copy_(old)
    yield False
    for x, new in zip(written, held):
        torch.where(condition, new, x, out=x)
''',
    "_holds": '''
def _holds(condition: torch.Tensor) -> bool:
    """What a value of several parameters decides; on the meta device, and with fake tensors, nobody knows, and it counts as true."""
    return condition.is_meta or isinstance(condition, FakeTensor) or bool(condition)
''',
    "_max": '''
def _max(*numbers: Any) -> Any:
    """`max`, of tensors as well."""
    return _ieee(torch.maximum, *numbers) if any(isinstance(x, torch.Tensor) for x in numbers) else max(numbers)
''',
    "_min": '''
def _min(*numbers: Any) -> Any:
    """`min`, of tensors as well."""
    return _ieee(torch.minimum, *numbers) if any(isinstance(x, torch.Tensor) for x in numbers) else min(numbers)
''',
    "_report": '''
def _report(value: Any) -> Any:
    """A value of all parameters as Python's own; one on a device stays there, so that the host need not wait for it, and a compiled
    step reports a tensor."""
    if not isinstance(value, torch.Tensor):
        return value if isinstance(value, bool) else float(value)
    stays = torch.compiler.is_compiling() or isinstance(value, FakeTensor) or value.device.type != "cpu"
    return value.clone() if stays else value.item()
''',
    "_together": '''
def _together(tensors: Iterable[Any], home: torch.Tensor) -> torch.Tensor:
    """All elements of some tensors as one float64 vector at home."""
    return torch.cat([_alike(x, home).reshape(-1) for x in tensors])
''',
}  # fmt: skip
