"""The settings of a rule as keyword arguments and entries of parameter groups: which there are, their kinds and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from optlang.errors import did_you_mean
from optlang.ir import Hyper
from optlang.lower.declarations import allows
from optlang.runtime.naming import OF_SCHEDULERS, Group, Naming

KINDS = {"bool": "True or False", "int": "a whole number", "real": "a number"}


class Settings:
    """The hypers of one program. `what` names the rule in messages, `changed` are defaults that a route sets."""

    def __init__(self, what: str, hypers: tuple[Hyper, ...], changed: Mapping[str, Any] | None = None) -> None:
        self.what = what
        self.hypers = {h.name: h for h in hypers}
        self.naming = Naming(self.hypers)
        self.defaults = {h.name: (changed or {}).get(h.name, h.default) for h in hypers}

    # ------------------------------------------------------------------------------------------------ given

    def taken(self, given: Mapping[str, Any], lenient: bool = False) -> Group:
        """Given settings by their whole names, checked. Raises TypeError for an unknown name or kind, ValueError for a range.

        `betas` gives way to `beta1` and `beta2`. `lenient`: keys of schedulers, and those that look like no hyper, are left
        alone, as torch does with extra keys of groups.
        """
        values: Group = {}
        for name in sorted(given, key=lambda name: name != "betas"):
            for full, part in self._meant(name, given[name], lenient).items():
                if name != full and full in given and name != "betas":
                    raise TypeError(f"{self.what}: `{name}` and `{full}` are the same setting, given twice")
                values[full] = self.checked(full, part)
        return values

    def _meant(self, name: str, value: Any, lenient: bool) -> Group:
        if name == "betas" and self.naming.pair:
            return dict(zip(self.naming.pair, self._pair(value), strict=True))
        full = self.naming.full(name)
        if full in self.hypers and not (lenient and full != name and name in OF_SCHEDULERS):
            return {full: value}
        if lenient and name in OF_SCHEDULERS:
            return {}
        near = did_you_mean(name, [*self.hypers, *self.naming.short, *(["betas"] if self.naming.pair else [])])
        if lenient and not near:
            return {}
        advice = f"; did you mean `{near}`?" if near else f"; its settings are {', '.join(self.hypers)}"
        raise TypeError(f"{self.what} has no setting `{name}`{advice if self.hypers else ''}")

    def _pair(self, value: Any, where: str = "") -> tuple[Any, Any]:
        try:
            first, second = value
        except (TypeError, ValueError):
            raise TypeError(f"{self.what}: betas is a pair like (0.9, 0.999), not {value!r}{where}") from None
        return first, second

    # -------------------------------------------------------------------------------------- kinds and ranges

    def checked(self, name: str, value: Any, where: str = "") -> Any:
        """The value itself, of the right kind and inside its range. Tensors of one element stay tensors."""
        number = self._number(name, value, where)
        return number if self.hypers[name].kind == "int" else value

    def _number(self, name: str, value: Any, where: str) -> float | int | bool:
        """A value as a plain number. Raises TypeError for another kind, ValueError outside its range."""
        hyper = self.hypers[name]
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise ValueError(f"{self.what}: Tensor {name} must be 1-element, not of shape {tuple(value.shape)}{where}")
        number: float | int | bool = plain(value)
        if (hyper.kind == "bool") != isinstance(number, bool) or not isinstance(number, bool | int | float):
            raise TypeError(f"{self.what}: {name} must be {KINDS[hyper.kind]}, not {value!r}{where}")
        if hyper.kind == "int":
            number = self._whole(name, number, where)
        outside = hyper.bounds is not None and not allows(hyper.bounds, name.rpartition(".")[2], number)
        if outside or number != number:
            raise ValueError(f"{self.what}: {name} = {number!r} is outside its range {hyper.bounds or 'of numbers'}{where}")
        return number

    def _whole(self, name: str, number: float, where: str) -> int:
        if number != number or number in (float("inf"), float("-inf")) or int(number) != number:
            raise TypeError(f"{self.what}: {name} must be a whole number, not {number!r}{where}")
        return int(number)

    # --------------------------------------------------------------------------------------------- of groups

    def group_defaults(self) -> Group:
        """What a group holds where nothing is given."""
        return self.naming.packed(self.defaults)

    def complete(self, group: Group, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        """Writes into a group its own settings, before those given for all groups, before the defaults."""
        values = {**self.defaults, **given, **self.taken(own, lenient=True)}
        for name in [key for key in group if key == "betas" or self._is_ours(key)]:
            del group[name]
        group.update(self.naming.packed(values))

    def _is_ours(self, key: str) -> bool:
        return key in self.hypers or (self.naming.full(key) in self.hypers and key not in OF_SCHEDULERS)

    def read(self, group: Group, where: str) -> dict[str, float | int | bool]:
        """The hypers of a group as plain numbers, checked: they may have been changed since the last step."""
        pair = self._pair(group.get("betas"), where) if self.naming.pair else ()
        self.naming.fold(group)
        try:
            values = self.naming.unpacked(group, group["betas"] if pair else ())
        except KeyError as key:
            raise ValueError(f"{self.what}: the setting {key} is gone{where}") from None
        return {name: self._number(name, value, where) for name, value in values.items()}


def check_own(what: str, group: Mapping[str, Any]) -> None:
    """The settings that every optimizer has. Raises TypeError."""
    if not isinstance(group["maximize"], bool):
        raise TypeError(f"{what}: maximize must be True or False, not {group['maximize']!r}")
    if isinstance(group.get("seed", 0), bool) or not isinstance(group.get("seed", 0), int):
        raise TypeError(f"{what}: seed must be a whole number, not {group['seed']!r}")


def plain(value: Any) -> Any:
    """A tensor or NumPy number as a Python number; everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().item()
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
