"""What checkpoints say of their rule, and names of parameters."""

from __future__ import annotations

TEXTS = {
    "_with_fingerprints": '''
def _with_fingerprints(state_dict: dict[str, Any], fingerprint: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """Writes into a state dict by which equations each group is stepped."""
    for group in state_dict["param_groups"]:
        if mark := fingerprint(group):
            group["fingerprint"] = mark
    return state_dict
''',
    "_checked": '''
def _checked(
    optimizer: Any, state_dict: dict[str, Any], kept: set[str], settings: set[str], whole: Iterable[str] = ()
) -> dict[str, Any]:
    """A state dict with parameters in their order here, by name. Raises ValueError for what another rule saved, or another model,
    before anything changes. `kept` are the states of the rule, those that are `whole` are integers."""
    groups, states = [*(state_dict.get("param_groups") or [None])], state_dict.get("state")
    if not isinstance(states, dict) or not all(isinstance(x, dict) for x in states.values()):
        raise ValueError("this is no state dict of an optimizer: its `state` has no dictionary for each parameter")
    if not all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups):
        raise ValueError("this is no state dict of an optimizer: its `param_groups` are no dictionaries with `params`")
    for number, (group, saved) in enumerate(zip(optimizer.param_groups, groups)):
        if saved.get("rule", group.get("rule")) != group.get("rule"):
            raise ValueError(f"group {number}: saved by rule {saved['rule']}, here it is {group['rule']}")
        here = optimizer._fingerprint({**group, **saved})
        there = saved.get("fingerprint", here)
        if here and there != here:
            raise ValueError(f"group {number}: saved by another rule, whose equations have the fingerprint {there}, not {here}; "
                             "if they mean the same, delete `fingerprint` from the saved group")
        names, others = ([_plain_name(name) for name in side.get("param_names") or []] for side in (group, saved))
        keys = dict(zip(others, saved["params"]))
        if others and sorted(names) == sorted(keys):
            groups[number] = saved = {**saved, "params": [keys[name] for name in names], "param_names": group["param_names"]}
        elif differing := [pair for pair in zip(names, others) if pair[0] != pair[1]]:
            name, other = differing[0]
            raise ValueError(f"{other} was saved where {name} is here; delete `param_names` from the saved groups to load by place")
        for place, (param, key) in enumerate(zip(group["params"], saved["params"])):
            where = group["param_names"][place] if names else f"parameter {place} of group {number}"
            state, numbers = states.get(key, {}), torch.view_as_real(param) if param.is_complex() else param
            shapes = optimizer._shapes(numbers, {**group, **saved})
            for name, value in state.items():
                if name not in kept and "fingerprint" not in saved:  # beside states of this rule tools may keep things of theirs
                    raise ValueError(f"{where}: this is a state of another rule: {type(optimizer).__name__} keeps no {name}")
                if name in shapes and not isinstance(value, (torch.Tensor, int, float)):
                    raise ValueError(f"{where}: {name} is {type(value).__name__}, not a tensor")
                if (shape := tuple(getattr(value, "shape", ()))) != (wanted := tuple(shapes.get(name, shape))):
                    raise ValueError(f"{where}: {name} has shape {shape}, not {wanted}")
                if name == "step" and not isinstance(value, FakeTensor) and not 0 <= float(value) < 2**53:
                    raise ValueError(f"{where}: step is {value}, not a number of updates")
            if not kept.isdisjoint(state) and (missing := sorted(shapes.keys() - state.keys())):
                raise ValueError(f"{where}: its state lacks {', '.join(missing)}; a checkpoint of this rule and model has them")
        alike = {"betas"} if "momentum" in saved else set()  # as older routes kept it
        if missing := sorted(settings & group.keys() - saved.keys() - alike):
            raise ValueError(f"group {number}: the saved group lacks {', '.join(missing)}; write into it what it was trained with")
    wide = kept.difference(whole)
    states = {key: {name: _wide(x) if name in wide else x for name, x in state.items()} for key, state in states.items()}
    return {**state_dict, "state": states, "param_groups": groups}
''',
    "_wide": '''
def _wide(value: Any) -> Any:
    """A state in float32 or wider: some tools save halves, or integers."""
    value = value if isinstance(value, torch.Tensor) else torch.tensor(value, device="cpu")
    return value if value.dtype == torch.bool else value.to(torch.promote_types(value.dtype, torch.float32))
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
