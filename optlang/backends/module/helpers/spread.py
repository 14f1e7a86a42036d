"""Tools that give an optimizer less than its rule needs, and processes that step parts of one model by different rules."""

from __future__ import annotations

from optlang.analysis.needs import DIVIDING

TEXTS = {
    "_check_all_there": '''
def _check_all_there(rule: str, why: str) -> None:
    """Raises ValueError where a tool of torch makes this optimizer of some of a model's parameters: only those who call can tell."""
    tools = {
        DIVIDING
    }
    frame: Any = sys._getframe()
    while frame is not None:
        tool = tools.get(frame.f_globals.get("__name__"))
        if tool and getattr(frame.f_locals.get("self"), "world_size", 0) != 1:
            raise ValueError(f"{rule} cannot step in torch's {tool}: it {why}; make one optimizer for all of them, under "
                             "DistributedDataParallel or FSDP2 (`fully_shard`)")
        frame = None if tool else frame.f_back
'''.replace("DIVIDING", "\n        ".join(f'"{module}":\n            "{words}",' for module, words in DIVIDING.items())),
    "_check_shape": '''
def _check_shape(param: torch.Tensor, rule: str, why: str) -> None:
    """Raises ValueError for numbers of one parameter or several in a row, as FSDP1 makes them."""
    if getattr(param, "_fsdp_flattened", False):
        raise ValueError(f"{rule} cannot step parameters whose shape FullyShardedDataParallel has taken away: it {why}; take FSDP2 "
                         "(`torch.distributed.fsdp.fully_shard`), which keeps shapes, or a rule that goes element by element")
''',
    "_check_rows": '''
def _check_rows(optimizer: Any, rule: str, why: str) -> None:
    """Raises ValueError where somebody has put rows of numbers in the place of parameters, as DeepSpeed's ZeRO does."""
    if torch.compiler.is_compiling():
        return
    now: list[Any] = [p for group in optimizer.param_groups for p in group["params"]]
    given = vars(optimizer).get("_given", now)
    here, there = ({id(p) for p in some} for some in (now, given))
    come, gone = [p for p in now if id(p) not in there], [p for p in given if id(p) not in here]
    if come and all(p.ndim == 1 for p in come) and (len(come) < len(gone) or any(p.ndim > 1 for p in gone)):
        raise ValueError(f"{rule} cannot step the rows of numbers that were put in the place of parameters, as DeepSpeed's ZeRO does: it "
                         f"{why}; take ZeRO's stage 0 or FSDP2 (`torch.distributed.fsdp.fully_shard`), which keep shapes, or a rule that "
                         "goes element by element")
    optimizer._given = now
''',
    "_check_agreement": '''
def _check_agreement(optimizer: Any, groups: list[dict[str, Any]]) -> None:
    """Raises ValueError where processes that hold parts of parameters were told otherwise about rules, settings or parameters."""
    mesh = next((p.device_mesh for group in groups for p in group["params"] if hasattr(p, "device_mesh")), None)
    if mesh is None:
        return
    if any(p.is_complex() for group in groups for p in group["params"]):
        raise ValueError(f"{type(optimizer).__name__} cannot step a parameter, which several processes hold parts of: it is complex")
    said: list[Any] = []
    for group in groups:
        values = {key: value if isinstance(value, tuple) else (value,) for key, value in sorted(group.items())}
        rows = [(key, x if isinstance(x, tuple) else (x,)) for key, some in values.items() for x in some]  # a table has many
        numbers = [(key, float(x)) for key, row in rows for x in row if isinstance(x, (int, float, torch.Tensor))]
        said.append((optimizer._fingerprint(group), len(group["params"]), numbers))
    number = int(sha256(repr(said).encode()).hexdigest()[:15], 16)
    extremes = torch.tensor([number, -number], device=mesh.device_type)
    for processes in mesh.get_all_groups():
        torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX, processes)
    if extremes.tolist() != [number, -number]:
        raise ValueError(f"the processes disagree about rules, settings or parameters; rank {torch.distributed.get_rank()} has {said}: "
                         "give all of them the same")
''',
}  # fmt: skip
