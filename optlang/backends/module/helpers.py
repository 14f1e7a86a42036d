"""Functions that a generated module carries along where its rule needs them, as text. Each needs torch alone."""

from __future__ import annotations

import re

HELPERS: dict[str, str] = {
    "_with_gradients": '''
def _with_gradients(step: Callable[..., Any]) -> Any:
    """A step that autograd goes through with `differentiable`, and else does not record. It is written in place, so autograd
    keeps copies of what it needs again."""

    @functools.wraps(step)
    def stepped(self: Any, closure: Callable[[], Any] | None = None) -> Any:
        if not any(group["differentiable"] for group in self.param_groups):
            with torch.no_grad():
                return step(self, closure)
        params = [p for group in self.param_groups for p in group["params"]]
        if any(p.is_leaf and p.requires_grad and p.grad is not None for p in params):
            raise RuntimeError("differentiable: autograd cannot go through a leaf in place; give clones of parameters")
        settings = [x for group in self.param_groups for value in group.values() for x in (value if type(value) is tuple else [value])]
        if any(isinstance(x, torch.Tensor) and x.requires_grad for x in settings):
            raise RuntimeError("differentiable: steps of this file have gradients of weights and states, not of settings")
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept):
            return step(self, closure)

    return stepped
''',
    "_check_options": '''
def _check_options(group: dict[str, Any]) -> None:
    """The options of torch's optimizers, as torch checks them."""
    for name in ("maximize", "capturable", "differentiable"):
        if not isinstance(group[name], bool):
            raise TypeError(f"{name} must be True or False, not {group[name]!r}")
    for name in ("foreach", "fused"):
        if group[name] is not None and not isinstance(group[name], bool):
            raise TypeError(f"{name} must be True, False or None, not {group[name]!r}")
    if group["fused"] and group["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if group["fused"] and group["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
''',
    "_check_keys": '''
def _check_keys(group: dict[str, Any], known: Iterable[str]) -> None:
    """A key that looks like a setting was misspelled; others, and those of schedulers, are left alone, as torch does."""
    others = {"params", "param_names", "rule", "betas", "momentum", "initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr",
              "base_momentum", "max_momentum"}
    for key in group.keys() - others - {*known}:
        if close := get_close_matches(str(key).lower(), known, n=1):
            raise TypeError(f"there is no setting {key!r}; did you mean {close[0]!r}?")
''',
    "_as_scalars": '''
def _as_scalars(group: dict[str, Any]) -> None:
    """Settings may be tensors of one element. Without dimensions they go where numbers do; they share memory with what was given."""
    for name, value in group.items():
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, torch.Tensor) and x.numel() != 1:
                raise ValueError(f"Tensor {name} must be 1-element")
        if isinstance(value, tuple):
            group[name] = tuple(x.reshape(()) if isinstance(x, torch.Tensor) else x for x in value)
        elif isinstance(value, torch.Tensor):
            group[name] = value.reshape(())
''',
    "_pair": '''
def _pair(betas: Any, beta1: Any, beta2: Any) -> tuple[Any, Any]:
    """Two decays, given together as in torch, or by name."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas is a pair, not {betas!r}")
    return betas[0] if beta1 is None else beta1, betas[1] if beta2 is None else beta2
''',
    "_sign": '''
def _sign(state_dict: dict[str, Any], fingerprint: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """Writes into a state dict by which equations each group is stepped."""
    for group in state_dict["param_groups"]:
        if mark := fingerprint(group):
            group["fingerprint"] = mark
    return state_dict
''',
    "_check_saved": '''
def _check_saved(optimizer: Any, state_dict: dict[str, Any], kept: set[str], of_elements: set[str]) -> None:
    """Raises ValueError for what another rule saved, or another model, before anything changes. `kept` are the states of the
    rule, and those `of_elements` have the shape of their parameter."""
    for number, (group, saved) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"])):
        if saved.get("rule", group.get("rule")) != group.get("rule"):
            raise ValueError(f"group {number}: saved by rule {saved['rule']}, here it is {group['rule']}")
        here = optimizer._fingerprint({**group, **saved})
        there = saved.get("fingerprint", here)
        if here and there != here:
            raise ValueError(f"group {number}: saved by another rule, whose equations have the fingerprint {there}, not {here}; if they "
                             "mean the same, delete `fingerprint` from the saved group")
        names, others = group.get("param_names") or [], saved.get("param_names") or []
        for name, other in zip(names, others):
            if _plain_name(name) != _plain_name(other):
                raise ValueError(f"{other} was saved where {name} is here; delete `param_names` from the saved groups to load by place")
        for place, (param, key) in enumerate(zip(group["params"], saved["params"])):
            where = names[place] if names else f"parameter {place} of group {number}"
            for name, value in state_dict["state"].get(key, {}).items():
                if name not in kept:
                    raise ValueError(f"{where}: this is a state of another rule: {type(optimizer).__name__} keeps no {name}")
                shape = tuple(getattr(value, "shape", ()))
                if name in of_elements and shape != tuple(param.shape):
                    raise ValueError(f"{where}: {name} has shape {shape}, not {tuple(param.shape)}")
''',
    "_plain_name": '''
def _plain_name(name: str) -> str:
    """Without what torch's wrappers put before the names of parameters."""
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    return name.removeprefix("module.")
''',
    "_is_named": '''
def _is_named(name: str, *patterns: str) -> bool:
    """Whether the name of a parameter in the model itself fits one of some patterns."""
    return any(fnmatchcase(_plain_name(name), pattern) for pattern in patterns)
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
    "_together": '''
def _together(tensors: Iterable[Any]) -> torch.Tensor:
    """All elements of some tensors as one float64 vector on the CPU."""
    return torch.cat([torch.as_tensor(x, dtype=torch.float64, device="cpu").reshape(-1) for x in tensors])
''',
    "_between": '''
def _between(ordered: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The element at a place of the last dimension; between two elements, linear interpolation."""
    place = place.expand(ordered.shape[:-1])
    low, high = (ordered.gather(-1, f(place).long().unsqueeze(-1)).squeeze(-1) for f in (torch.floor, torch.ceil))
    return torch.where(low == high, low, low + (high - low) * (place - place.floor()))
''',
    "_quantile": '''
def _quantile(x: torch.Tensor, q: Any, dim: tuple[int, ...] | None = None) -> torch.Tensor:
    """The quantile q of all elements, or over dimensions that are kept with size 1; NaN if any element is."""
    rows, shape = x.reshape(-1), list[int]()
    if dim is not None:
        shape = [1 if d - x.ndim in dim else size for d, size in enumerate(x.shape)]
        kept = [d for d in range(x.ndim) if d - x.ndim not in dim]
        rows = x.permute(*kept, *dim).flatten(len(kept))
    q = torch.as_tensor(q, dtype=x.dtype, device=x.device)
    ordered = rows.sort(-1).values  # NaNs go last
    undefined = ordered[..., -1].isnan() | ~((q >= 0) & (q <= 1))
    place = q.clamp(0, 1).nan_to_num() * (rows.shape[-1] - 1)
    return torch.where(undefined, torch.nan, _between(ordered, place)).reshape(shape)
''',
    "_run_length": '''
@functools.cache
def _run_length(numel: int, most: int) -> int:
    """The largest divisor of a number of elements that is not above another number."""
    return next(n for n in range(min(most, max(numel, 1)), 0, -1) if numel % n == 0)
''',
    "_runs": '''
def _runs(x: torch.Tensor, most: int) -> torch.Tensor:
    """Elements in their order in memory as rows of equal length, the longest of at most so many."""
    length = _run_length(x.numel(), most)
    return x.reshape(x.numel() // length, length)
''',
    "_spread": '''
def _spread(x: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """A value for each of `_runs` as one for each element."""
    if x.ndim == 0:  # the same for all
        return x.expand(param.shape)
    return x.expand(len(x), param.numel() // max(len(x), 1)).reshape(param.shape)
''',
    "_window_sum": '''
def _window_sum(window: torch.Tensor) -> torch.Tensor:
    """Sum of the remembered values; NaN marks a place that is still empty."""
    return window.nansum(0)
''',
    "_window_count": '''
def _window_count(window: torch.Tensor) -> torch.Tensor:
    """How many values are remembered; NaN marks a place that is still empty."""
    return (~window.isnan()).sum(0).to(window.dtype)
''',
    "_window_mean": '''
def _window_mean(window: torch.Tensor) -> torch.Tensor:
    """Mean of the remembered values; NaN marks a place that is still empty."""
    return window.nansum(0) / (~window.isnan()).sum(0)
''',
    "_window_amax": '''
def _window_amax(window: torch.Tensor) -> torch.Tensor:
    """The largest remembered value; NaN marks a place that is still empty."""
    empty = window.isnan()
    return torch.where(empty.all(0), torch.nan, torch.where(empty, -torch.inf, window).amax(0))
''',
    "_window_amin": '''
def _window_amin(window: torch.Tensor) -> torch.Tensor:
    """The smallest remembered value; NaN marks a place that is still empty."""
    empty = window.isnan()
    return torch.where(empty.all(0), torch.nan, torch.where(empty, torch.inf, window).amin(0))
''',
    "_window_quantile": '''
def _window_quantile(window: torch.Tensor, q: Any) -> torch.Tensor:
    """The quantile q of the remembered values; NaN marks a place that is still empty."""
    filled = (~window.isnan()).sum(0)
    q = torch.as_tensor(q, dtype=window.dtype, device=window.device)
    undefined = (filled == 0) | ~((q >= 0) & (q <= 1))
    place = q.clamp(0, 1).nan_to_num() * (filled - 1).clamp(min=0)
    ordered = window.sort(0).values.movedim(0, -1)  # NaNs go last
    return torch.where(undefined, torch.nan, _between(ordered, place.to(window.dtype)))
''',
    "_push": '''
def _push(window: torch.Tensor, x: Any) -> torch.Tensor:
    """The window without its oldest value and with x as its newest."""
    x = torch.as_tensor(x, dtype=window.dtype, device=window.device)
    return torch.cat([window[1:], x.expand(window.shape[1:]).unsqueeze(0)])
''',
    "_philox": '''
def _philox(index: Any, t: int, site: int, seed: int, stream: int) -> tuple[Any, Any]:
    """Random words of 32 bits that depend on their counter alone: Philox4x32-10 (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    words: tuple[Any, Any, Any, Any] = index & mask, (index >> 32) & mask, t & mask, site
    a, b, c, d = words
    key0, key1 = seed & mask, stream & mask
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = ((second >> 32) & mask) ^ b ^ key0, second & mask, ((first >> 32) & mask) ^ d ^ key1, first & mask
        key0, key1 = (key0 + 0x9E3779B9) & mask, (key1 + 0xBB67AE85) & mask
    return a, b
''',
    "_draw": '''
def _draw(
    distribution: str, site: int, shape: tuple[int, ...], like: torch.Tensor, *, t: int, seed: int, stream: int,
) -> torch.Tensor:
    """Draws that depend on the place in the rule, the step, the seed and the parameter alone, so that a resumed run draws the same."""
    index = torch.arange(math.prod(shape), device=like.device)
    a, b = _philox(index, t, site, seed, stream)
    drawn: torch.Tensor
    if distribution == "rademacher":
        drawn = (1 - 2 * (a >> 31)).double()
    else:
        u, v = (((x >> 8).double() + 0.5) * 2.0**-24 for x in (a, b))
        if distribution == "exponential":
            u = -torch.log(u)
        elif distribution == "normal":
            u = torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)
        drawn = u
    return drawn.to(like.dtype).reshape(shape)
''',
    "_eigenvectors": '''
def _eigenvectors(a: torch.Tensor) -> torch.Tensor:
    """Of a symmetric matrix: a column each, that of the largest eigenvalue first, its largest element positive; NaN if any is."""
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    v = torch.linalg.eigh(torch.where(finite, a, 0.0)).eigenvectors.flip(-1)
    largest = v.gather(-2, v.abs().argmax(-2, keepdim=True))
    return torch.where(finite, torch.where(largest < 0, -v, v), torch.nan)
''',
    "_orthonormal": '''
def _orthonormal(a: torch.Tensor) -> torch.Tensor:
    """Q of a = QR, where R has a positive diagonal; NaN if a is anywhere, or has fewer rows than columns."""
    if a.shape[-2] < a.shape[-1]:
        return torch.full_like(a, torch.nan)
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    q, r = torch.linalg.qr(torch.where(finite, a, 0.0))
    negative = (r.diagonal(dim1=-2, dim2=-1) < 0).unsqueeze(-2)
    return torch.where(finite, torch.where(negative, -q, q), torch.nan)
''',
    "_descending": '''
def _descending(x: torch.Tensor) -> torch.Tensor:
    """The permutation of columns that puts one value per column in descending order: x @ P."""
    order = torch.where(x.isnan(), torch.inf, x).argsort(dim=-1, descending=True, stable=True)
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[order.squeeze(-2)].mT
''',
    "_inverse": '''
def _inverse(a: torch.Tensor) -> torch.Tensor:
    """The inverse of a square matrix; NaN where it has none."""
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    found, info = torch.linalg.inv_ex(torch.where(finite, a, 0.0))
    return torch.where(finite & (info == 0)[..., None, None], found, torch.nan)
''',
    "_agreed": '''
def _agreed(groups: list[dict[str, Any]], name: str) -> Any:
    """A setting that a value of several groups needs: it must be the same in all of them."""
    first, *others = (group[name] for group in groups)
    if any(other != first for other in others):  # also of tensors, and pairs of them
        raise RuntimeError(f"{name} is used in a value of all parameters; give it the same value in all parameter groups")
    return first
''',
    "_random_state": '''
def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The state of torch's random numbers, on the CPU and on the GPUs in use."""
    in_use: Callable[[], bool] = torch.cuda.is_initialized
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and in_use() else []
    return torch.get_rng_state(), on_gpus


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
''',
    "_same_batch": '''
@contextmanager
def _same_batch(optimizer: Optimizer, random_state: Any) -> Iterator[None]:
    """In here the closure meets the random numbers of its first call; the gradients of all parameters are put back at the end."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    gradients, after = [p.grad for p in params], _random_state()
    for p in params:
        p.grad = None
    _set_random_state(random_state)
    try:
        yield
    finally:
        _set_random_state(after)
        for p, gradient in zip(params, gradients):
            p.grad = gradient
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
    "_gradients": '''
def _gradients(
    optimizer: Optimizer, closure: Callable[[], Any], params: list[torch.Tensor], points: Iterable[Any], random_state: Any,
) -> list[torch.Tensor]:
    """The gradients of this step's batch at other points; the weights are put back whatever happens."""
    weights = [p.detach().clone() for p in params]
    with _same_batch(optimizer, random_state):
        try:
            for p, point in zip(params, points):
                p.copy_(torch.as_tensor(point, dtype=p.dtype, device=p.device))
            with torch.enable_grad():
                closure()
            return [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in params]
        finally:
            for p, weight in zip(params, weights):
                p.copy_(weight)
''',
    "_loss_at": '''
def _loss_at(
    optimizer: Optimizer, closure: Callable[[], Any], params: list[torch.Tensor], points: Iterable[Any], random_state: Any,
) -> torch.Tensor:
    """The loss of this step's batch at other points, without a backward pass; the weights are put back whatever happens."""
    weights, backward = [p.detach().clone() for p in params], torch.autograd.backward
    torch.autograd.backward = lambda *args, **more: None
    with _same_batch(optimizer, random_state):
        try:
            for p, point in zip(params, points):
                p.copy_(torch.as_tensor(point, dtype=p.dtype, device=p.device))
            return _mean_loss(closure(), params)
        finally:
            vars(torch.autograd)["backward"] = backward
            for p, weight in zip(params, weights):
                p.copy_(weight)
''',
    "_mean_loss": '''
def _mean_loss(loss: Any, params: Iterable[torch.Tensor]) -> torch.Tensor:
    """The loss as one number; where processes hold parts of parameters, the mean of theirs."""
    value = torch.as_tensor(loss, device=getattr(loss, "device", "cpu")).detach().double().reshape(())
    meshes = [p.device_mesh for p in params if hasattr(p, "device_mesh")]
    if meshes:
        from torch.distributed.tensor import DTensor, Partial

        mesh = max(meshes, key=lambda mesh: mesh.size())
        share = value.to(mesh.device_type) / mesh.size()
        value = DTensor.from_local(share, mesh, [Partial()] * mesh.ndim).full_tensor()
    return value.cpu()
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
    "_hessian_products": '''
@contextmanager
def _differentiable_backward() -> Iterator[None]:
    """In here `loss.backward()` keeps what is needed to differentiate the gradients again."""
    plain = torch.autograd.backward

    def backward(tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False, **more: Any) -> None:
        plain(tensors, grad_tensors, True, True, **more)

    vars(torch.autograd)["backward"] = backward
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Using backward\\(\\) with create_graph=True")
            yield
    finally:
        vars(torch.autograd)["backward"] = plain


def _hessian_products(
    optimizer: Optimizer, closure: Callable[[], Any], params: list[torch.Tensor], vectors: Iterable[Any], random_state: Any,
) -> list[torch.Tensor]:
    """The Hessian of this step's batch times vectors, by differentiating the gradients."""
    vectors = [torch.as_tensor(v, dtype=p.dtype, device=p.device).expand_as(p) for p, v in zip(params, vectors)]
    with _same_batch(optimizer, random_state), _differentiable_backward(), torch.enable_grad():
        closure()
        pairs = [(p.grad, v) for p, v in zip(params, vectors) if p.grad is not None and p.grad.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in params]
        outputs, directions = zip(*pairs)
        products = torch.autograd.grad(outputs, params, directions, allow_unused=True)
    return [torch.zeros_like(p) if x is None else x.detach() for p, x in zip(params, products)]
''',
    "_teams": '''
def _teams(cells: list[Any]) -> list[Any]:
    """The cells of each parameter group together."""
    teams: list[Any] = []
    for cell in cells:
        if not teams or teams[-1].group is not cell.group:
            teams.append(SimpleNamespace(group=cell.group, number=cell.number, cells=[]))
        teams[-1].cells.append(cell)
        cell.team = teams[-1]
    return teams
''',
    "_others": '''
def _others(optimizer: Optimizer, groups: list[dict[str, Any]]) -> list[Any]:
    """The parameters of other rules that have a gradient, for values of all parameters."""
    cells, place = [], -1
    for number, group in enumerate(optimizer.param_groups):
        for param in group["params"]:
            place += 1
            if param.grad is None or any(group is own for own in groups):
                continue
            dtype = torch.promote_types(param.dtype, torch.float32)
            cells.append(SimpleNamespace(
                param=param, group=group, number=number, place=place, dtype=dtype,
                t=int(optimizer.state.get(param, {}).get("step", 0)) + 1,
                g=(-param.grad if group["maximize"] else param.grad).to(dtype),
            ))
    return cells
''',
    "_flattened": '''
def _flattened(params: Any, names: list[str] | None) -> tuple[list[torch.Tensor], list[str]]:
    """Parameters and their names, from tensors or from pairs of name and tensor."""
    params = [params] if isinstance(params, torch.Tensor) else list(params)
    pairs = [isinstance(p, tuple) for p in params]
    if any(pairs) and not all(pairs):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    if any(pairs):
        return [p for _, p in params], [name for name, _ in params]
    return params, names or [""] * len(params)
''',
}  # fmt: skip

NAMED = {"collections.abc": ("Callable", "Iterable", "Iterator"), "contextlib": ("contextmanager",),
         "difflib": ("get_close_matches",), "fnmatch": ("fnmatchcase",),
         "types": ("SimpleNamespace",), "typing": ("Any",)}  # fmt: skip
NEEDS = re.compile(r"(?<![\w.])_[a-z]\w*")


def used_by(text: str) -> list[str]:
    """The helpers that a text calls, and those that they call, each after those that it needs."""
    found: list[str] = []
    waiting = _called(text)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            waiting.extend(other for other in _called(HELPERS[name]) if other != name)
    if "_same_batch" in found:
        found.append("_random_state")
    return [name for name in HELPERS if name in found]


def _called(text: str) -> list[str]:
    words = set(NEEDS.findall(text))
    words |= {"_random_state"} if "_set_random_state" in words else set()
    return [name for name in HELPERS if name in words]


def imports_for(text: str) -> list[str]:
    """The lines of the standard library that a module of this text imports."""
    lines = [f"import {name}" for name in ("functools", "math", "warnings") if re.search(rf"(?<![\w.]){name}\.", text)]
    for module, words in NAMED.items():
        used = [word for word in words if re.search(rf"(?<![\w.]){word}\b", text)]
        lines += [f"from {module} import {', '.join(used)}"] * bool(used)
    return lines
