"""The settings of a rule as keyword arguments and entries of parameter groups: names, kinds and ranges.

A group keeps every hyper under its name; `beta1` and `beta2` together as `betas`, where torch's schedulers look for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from optlang.errors import did_you_mean
from optlang.ir import Hyper
from optlang.lower.declarations import allows

Group = dict[str, Any]
BETAS = ("beta1", "beta2")
OF_SCHEDULERS = frozenset(["initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr", "base_momentum", "max_momentum"])


class Settings:
    """The hypers of one program. `what` names the rule in messages, `changed` are defaults that a route sets."""

    def __init__(self, what: str, hypers: tuple[Hyper, ...], changed: Mapping[str, Any] | None = None) -> None:
        self.what = what
        self.hypers = {h.name: h for h in hypers}
        self.defaults = {h.name: (changed or {}).get(h.name, h.default) for h in hypers}
        self.has_betas = all(name in self.hypers for name in BETAS)
        self.short = self._short_names()

    def _short_names(self) -> dict[str, str]:
        """`beta1` for `fast.beta1`, where no other hyper ends like that."""
        ends: dict[str, list[str]] = {}
        for name in self.hypers:
            ends.setdefault(name.rpartition(".")[2], []).append(name)
        return {end: names[0] for end, names in ends.items() if len(names) == 1 and names[0] != end}

    def group_defaults(self) -> Group:
        """What a group holds where nothing is given."""
        return self.packed(dict(self.defaults))

    def taken(self, given: Mapping[str, Any], lenient: bool = False) -> Group:
        """Given settings as a group keeps them, checked. Raises TypeError for an unknown name or kind, ValueError for a range.

        `lenient`: keys of schedulers, and those that look like no hyper, are left alone, as torch does with extra keys of groups.
        """
        values: Group = {}
        for name, value in given.items():
            for full, part in self._meant(name, value, lenient).items():
                values[full] = self.checked(full, part)
        return values

    def _meant(self, name: str, value: Any, lenient: bool) -> Group:
        if name == "betas":
            names = [self.short.get(b, b) for b in BETAS]
            if all(n in self.hypers for n in names):
                return dict(zip(names, self._pair(value), strict=True))
        full = self.short.get(name, name)
        if full in self.hypers:
            return {full: value}
        if lenient and name in OF_SCHEDULERS:
            return {}
        near = did_you_mean(name, [*self.hypers, *self.short, *(["betas"] if self.has_betas else [])])
        if lenient and not near:
            return {}
        advice = f"; did you mean `{near}`?" if near else f"; its settings are {', '.join(self.hypers)}"
        raise TypeError(f"{self.what} has no setting `{name}`{advice}")

    def _pair(self, value: Any) -> tuple[Any, Any]:
        try:
            first, second = value
        except (TypeError, ValueError):
            raise TypeError(f"{self.what}: betas is a pair like (0.9, 0.999), not {value!r}") from None
        return first, second

    def checked(self, name: str, value: Any, where: str = "") -> Any:
        """The value itself, of the right kind and inside its range. Tensors of one element stay tensors."""
        hyper = self.hypers[name]
        number = plain(value)
        if (hyper.kind == "bool") != isinstance(number, bool) or not isinstance(number, bool | int | float):
            wanted = {"bool": "True or False", "int": "a whole number", "real": "a number"}[hyper.kind]
            raise TypeError(f"{self.what}: {name} must be {wanted}, not {value!r}{where}")
        if hyper.kind == "int":
            if number != number or number in (float("inf"), float("-inf")) or int(number) != number:
                raise TypeError(f"{self.what}: {name} must be a whole number, not {value!r}{where}")
            number = value = int(number)
        outside = hyper.bounds is not None and not allows(hyper.bounds, name.rpartition(".")[2], number)
        if outside or (hyper.kind == "real" and number != number):
            raise ValueError(f"{self.what}: {name} = {number!r} is outside its range {hyper.bounds or 'of numbers'}{where}")
        return value

    def packed(self, values: Group) -> Group:
        """`beta1` and `beta2` as `betas`."""
        if self.has_betas and all(b in values for b in BETAS):
            values["betas"] = (values.pop("beta1"), values.pop("beta2"))
        return values

    def complete(self, group: Group, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        """Writes into a group its own settings, before those given for all groups, before the defaults."""
        values = {**self.defaults, **given, **self.taken(own, lenient=True)}
        for name in [key for key in group if key == "betas" or self.short.get(key, key) in self.hypers]:
            del group[name]
        group.update(self.packed(values))

    def read(self, group: Group, where: str) -> dict[str, float | int | bool]:
        """The hypers of a group as plain numbers, checked: they may have been changed since the last step."""
        if self.has_betas:
            _fold_betas(group)
        values: dict[str, float | int | bool] = {}
        for name in self.hypers:
            value = group["betas"][BETAS.index(name)] if self.has_betas and name in BETAS else group[name]
            values[name] = plain(self.checked(name, value, where))
        return values


def check_own(what: str, group: Mapping[str, Any]) -> None:
    """The settings that every optimizer has. Raises TypeError."""
    if not isinstance(group["maximize"], bool):
        raise TypeError(f"{what}: maximize must be True or False, not {group['maximize']!r}")
    if isinstance(group.get("seed", 0), bool) or not isinstance(group.get("seed", 0), int):
        raise TypeError(f"{what}: seed must be a whole number, not {group['seed']!r}")


def _fold_betas(group: Group) -> None:
    """`group["beta1"] = 0.5` is meant for `betas`."""
    if any(b in group for b in BETAS):
        group["betas"] = tuple(group.pop(b, group["betas"][i]) for i, b in enumerate(BETAS))


def plain(value: Any) -> Any:
    """A tensor of one element as a Python number; everything else as it is."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return value.item() if hasattr(value, "item") and not isinstance(value, torch.Tensor) and getattr(value, "ndim", 1) == 0 else value
