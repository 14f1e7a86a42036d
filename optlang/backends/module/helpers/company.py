"""Values of several parameters, and parameters that several processes hold parts of."""

from __future__ import annotations

TEXTS = {
    "_agreed": '''
def _agreed(cells: list[Any], name: str) -> Any:
    """A setting that a value of several groups needs: it must be the same in all of them."""
    first, *others = (cell.group[name] for cell in cells)
    stays = isinstance(first, torch.Tensor) and cells[0].group["capturable"]  # the host would wait for it
    if not stays and any(other != first for other in others):  # also of tensors, and pairs of them
        raise RuntimeError(f"{name} is used in a value of all parameters; give it the same value in all parameter groups")
    return first
''',
    "_share": '''
def _share(
    cells: list[Any], name: str, home: torch.Tensor, first: Callable[[], Any], size: tuple[int, ...] = (), dtype: Any = torch.float64,
) -> None:
    """Gives some parameters the state that they share: the one that there is, or its first value."""
    found = [cell.state[name] for cell in cells if name in cell.state]
    shared = found[0].to(home.device) if found else torch.empty(size, dtype=dtype, device=home.device).fill_(first())
    for cell in cells:
        cell.state[name] = shared
''',
    "_show": '''
def _show(params: Iterable[torch.Tensor]) -> None:
    """Lets models see what was written into parameters: FSDP2 keeps what it gathered for a pass until one backward."""
    if any(hasattr(p, "device_mesh") for p in params):
        from torch.distributed import _composable_state, fsdp

        for module in list(getattr(_composable_state, "_module_state_mapping", ())):
            if isinstance(module, fsdp.FSDPModule):
                module.reshard()
''',
    "_mean_loss": '''
def _mean_loss(loss: Any, params: Iterable[torch.Tensor], home: torch.Tensor) -> torch.Tensor:
    """The loss as one number; where processes hold parts of parameters, the mean of theirs."""
    value = torch.as_tensor(loss, device=getattr(loss, "device", "cpu")).detach().double().reshape(())
    meshes = [p.device_mesh for p in params if hasattr(p, "device_mesh")]
    if meshes:
        from torch.distributed.tensor import DTensor, Partial

        mesh = max(meshes, key=lambda mesh: mesh.size())
        share = value.to(mesh.device_type) / mesh.size()
        value = DTensor.from_local(share, mesh, [Partial()] * mesh.ndim).full_tensor()
    return value.to(home.device)
''',
    "_chosen": '''
def _chosen(param: Any, condition: torch.Tensor, yes: Any, no: Any) -> torch.Tensor:
    """`torch.where` by one number for all elements of a parameter, in the parts that processes hold of it: torch may gather few."""
    found: Any = torch.where(condition, yes, no)
    placed: torch.Tensor = found.redistribute(param.device_mesh, param.placements) if hasattr(param, "device_mesh") else found
    return placed
''',
    "_whole_parameters": '''
@contextmanager
def _whole_parameters(optimizer: Any, groups: list[dict[str, Any]]) -> Iterator[None]:
    """In here parameters that several processes hold parts of are whole; of their states each process keeps all."""
    parts = [(group, i, p) for group in groups for i, p in enumerate(group["params"]) if hasattr(p, "device_mesh")]
    if parts and torch.is_grad_enabled():
        raise RuntimeError("differentiable: parts of parameters on several processes are gathered without gradients")
    for group, i, part in parts:
        whole = group["params"][i] = part.full_tensor()
        whole.grad = None if part.grad is None else part.grad.full_tensor()
        if part in optimizer.state:
            optimizer.state[whole] = optimizer.state.pop(part)
    try:
        yield
        if parts:
            from torch.distributed.tensor import distribute_tensor
        for group, i, part in parts:
            part.copy_(distribute_tensor(group["params"][i], part.device_mesh, part.placements, src_data_rank=None))
    finally:
        for group, i, part in parts:
            whole, group["params"][i] = group["params"][i], part
            if whole in optimizer.state:
                optimizer.state[part] = optimizer.state.pop(whole)
''',
    "_Cell": '''
class _Cell:
    """What is known of a parameter, or of a group, within a step. torch.compile does not look into a SimpleNamespace."""

    def __init__(self, **known: Any) -> None:
        for name, value in known.items():
            setattr(self, name, value)
''',
    "_teams": '''
def _teams(cells: list[Any]) -> list[Any]:
    """The cells of each parameter group together."""
    teams: list[Any] = []
    for cell in cells:
        if not teams or teams[-1].group is not cell.group:
            teams.append(_Cell(group=cell.group, number=cell.number, cells=[]))
        teams[-1].cells.append(cell)
        cell.team = teams[-1]
    return teams
''',
    "_home": '''
def _home(cells: list[Any]) -> torch.Tensor:
    """An empty tensor where values of several parameters are: on the host; with `capturable`, or without numbers, on their device."""
    devices = {cell.param.device for cell in cells}
    stays = len(devices) == 1 and all(cell.group["capturable"] or cell.param.is_meta for cell in cells)
    return torch.empty((), dtype=torch.float64, device=devices.pop() if stays else "cpu")
''',
    "_latest": '''
def _latest(cells: list[Any]) -> Any:
    """The number of the step of those that have taken most; with `capturable` a tensor."""
    counts = [cell.t for cell in cells]
    if len({getattr(t, "device", None) for t in counts}) == 1 and isinstance(counts[0], torch.Tensor):
        return torch.stack(counts).amax()
    return max(int(t) for t in counts)
''',
    "_store": '''
def _store(states: dict[Any, Any], groups: list[dict[str, Any]], cells: list[Any], values: dict[str, Any]) -> None:
    """New values of several parameters go into the tensors that these share, where graphs find them; those without a gradient
    get them, too."""
    kept = {name: cells[0].state[name] for name in values}
    found = [x.clone() if isinstance(x, torch.Tensor) else torch.full_like(kept[name], x) for name, x in values.items()]
    for old, x in zip(kept.values(), found):
        old.copy_(x)
    for param in (p for group in groups for p in group["params"] if p in states):
        states[param].update(kept)
''',
    "_others": '''
def _others(optimizer: Optimizer, groups: list[dict[str, Any]]) -> list[Any]:
    """The parameters of other rules that have a gradient, for values of all parameters."""
    cells: list[Any] = []
    place = -1
    for number, group in enumerate(optimizer.param_groups):
        for param in group["params"]:
            place += 1
            if param.grad is None or any(group["params"] is own["params"] for own in groups):
                continue
            t = _count(optimizer.state.get(param, {}).get("step", torch.zeros((), device="cpu")), group["capturable"]) + 1
            param = _as_real(param) if param.is_complex() else param
            dtype = torch.promote_types(param.dtype, torch.float32)
            cells.append(_Cell(
                param=param, group=group, number=number, place=place, dtype=dtype,
                t=t,
                g=(-param.grad if group["maximize"] else param.grad).to(dtype),
            ))
    return cells
''',
}  # fmt: skip
