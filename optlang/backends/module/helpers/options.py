"""Options and settings of a group, as torch takes and checks them."""

from __future__ import annotations

WITH_GRADIENTS = '''
def NAME(step: Callable[..., Any]) -> Any:
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
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept)MORE:
            return step(self, closure)

    return stepped
'''

TEXTS = {
    "_learned": '''
class _Through(TorchFunctionMode):
    """In here torch takes numbers with gradients also where it wants plain ones, as for `alpha`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__ in ("__float__", "__int__"):  # to be rounded, which has no gradient
            return function(*args)
        learned = [hasattr(x, "original") for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if not any(learned):
            return function(*args, **(kwargs or {}))
        args, kwargs = tree_map(lambda x: getattr(x, "original", x), (args, kwargs or {}))
        for name in ("alpha", "value"):
            if isinstance(kwargs.get(name), torch.Tensor):  # x.add_(y, alpha=a) is x.add_(a * y)
                args = (args[0], kwargs.pop(name) * args[1], *args[2:])
        if function.__name__ in ("full", "full_like", "new_full") and isinstance(args[-1], torch.Tensor):
            return function(*args[:-1], 0, **kwargs).add_(args[-1])
        found = function(*args, **kwargs)
        return _without_gradient(found) if all(learned) else found


def _without_gradient(x: Any) -> Any:
    """A number with a gradient as a plain one, which knows its original."""
    if not isinstance(x, torch.Tensor) or not x.requires_grad:
        return x
    plain: Any = x.detach()
    plain.original = x
    return plain


@contextmanager
def _learned(groups: list[dict[str, Any]]) -> Iterator[None]:
    """In here steps have gradients of settings: torch is shown plain numbers, and computes with their originals."""
    settings = [{name: x for name, x in group.items() if name != "params"} for group in groups]
    if not any(isinstance(x, torch.Tensor) and x.requires_grad for x in tree_leaves(settings)):
        yield
        return
    for group, given in zip(groups, settings):
        group.update(tree_map(_without_gradient, given))
    try:
        with _Through():
            yield
    finally:
        for group, given in zip(groups, settings):
            group.update(given)
''',
    "_with_gradients": WITH_GRADIENTS.replace("NAME", "_with_gradients").replace("MORE", ""),
    "_with_all_gradients": WITH_GRADIENTS.replace("NAME", "_with_all_gradients").replace("MORE", ", _learned(self.param_groups)"),
    "_uncompiled": '''
def _uncompiled(step: Callable[..., Any]) -> Any:
    """A step that torch.compile leaves to Python, for no graph can hold it. Else torch would set `capturable` on a GPU."""
    compiler: Any = torch.compiler  # which says no types
    return compiler.disable(step)
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
    if group["capturable"] and group["differentiable"]:
        raise RuntimeError("`capturable` does not support `differentiable`")
''',
    "_check_keys": '''
def _check_keys(group: dict[str, Any], known: Iterable[str]) -> None:
    """A key that looks like a setting was misspelled; others, and those of schedulers, are left alone, as torch does."""
    others = {"params", "param_names", "rule", "betas", "momentum", "initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr",
              "base_momentum", "max_momentum", "seed"}
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
    "_table": '''
def _table(name: str, value: Any, rows: int, cols: int) -> tuple[tuple[Any, ...], ...]:
    """The rows of a table that is given as a tensor, an array, nested lists, or one number for all."""
    if hasattr(value, "tolist") and not getattr(value, "requires_grad", False):  # else its numbers keep their gradients
        value = value.tolist()
    if isinstance(value, (int, float)):
        value = [[value] * cols] * rows
    try:
        table = tuple(tuple(row) for row in value)
    except TypeError:
        table = ()
    if [len(row) for row in table] != [cols] * rows:
        raise ValueError(f"{name} is a table of {rows} × {cols} numbers: give a tensor, an array, lists in a list, or one number for all")
    if not all(hasattr(x, "__float__") for row in table for x in row):
        raise TypeError(f"{name} is a table of numbers, and holds others")
    return table
''',
    "_with_momentum": '''
def _with_momentum(group: dict[str, Any]) -> dict[str, Any]:
    """A group as a rule with a momentum reads it: where others have `betas`, which schedulers cycle, it is kept as `betas` of one."""
    if "momentum" in group:  # written by its name
        group["betas"] = (group.pop("momentum"),)
    (momentum,) = group["betas"]
    return {**group, "momentum": momentum}
''',
    "_pair": '''
def _pair(betas: Any, beta1: Any, beta2: Any) -> tuple[Any, Any]:
    """Two decays, given together as in torch, or by name."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas is a pair, not {betas!r}")
    return betas[0] if beta1 is None else beta1, betas[1] if beta2 is None else beta2
''',
}  # fmt: skip
