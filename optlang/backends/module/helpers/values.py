"""Numbers of the host, single values from anywhere, and what is on around a step."""

from __future__ import annotations

TEXTS = {
    "_count": '''
def _count(step: torch.Tensor, on_device: bool = False) -> Any:
    """The number of a step: with `capturable` a tensor, so that the host need not wait for it. A fake tensor, as tools take it that
    estimate memory, has no number, and counts as the first."""
    if on_device:
        return step.double()
    return 1 if isinstance(step, FakeTensor) else int(step)
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
    "_ieee": '''
def _ieee(function: Callable[..., torch.Tensor], *numbers: float) -> float:
    """A torch function of Python numbers: infinite or NaN where Python would raise."""
    return function(*(torch.tensor(float(x), dtype=torch.float64, device="cpu") for x in numbers)).item()
''',
    "_vector": '''
def _vector(values: Iterable[Any]) -> torch.Tensor:
    """Single values from any devices and processes as one float64 vector on the CPU, with one transfer for each device."""
    values = [x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64, device="cpu") for x in values]
    values = [x.full_tensor() if hasattr(x, "full_tensor") else x for x in values]
    result = torch.empty(len(values), dtype=torch.float64, device="cpu")
    for device in {x.device for x in values}:
        places = [i for i, x in enumerate(values) if x.device == device]
        result[places] = torch.stack([values[i].double() for i in places]).cpu()
    return result
''',
    "_alike": '''
def _alike(x: Any, like: torch.Tensor) -> torch.Tensor:
    """A number or a tensor as a tensor of another one's type, on its device."""
    return x.to(like.device, like.dtype) if isinstance(x, torch.Tensor) else like.new_full((), x)
''',
    "_together": '''
def _together(tensors: Iterable[Any]) -> torch.Tensor:
    """All elements of some tensors as one float64 vector on the CPU."""
    return torch.cat([torch.as_tensor(x, dtype=torch.float64, device="cpu").reshape(-1) for x in tensors])
''',
}  # fmt: skip
