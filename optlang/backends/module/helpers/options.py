"""Options and settings of a group, as torch takes and checks them."""

from __future__ import annotations

TEXTS = {
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
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept):
            return step(self, closure)

    return stepped
''',
    "_check_options": '''
def _check_options(group: dict[str, Any], with_gradients: str = "") -> None:
    """The options of torch's optimizers, as torch checks them; `with_gradients` is the setting that autograd goes back to."""
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
    for name in group.keys() - {with_gradients} if group["differentiable"] else ():
        values = group[name] if isinstance(group[name], tuple) else (group[name],)
        if any(isinstance(x, torch.Tensor) and x.requires_grad for x in values):
            raise RuntimeError(f"differentiable: steps of this file have no gradient of {name}; detach it")
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
