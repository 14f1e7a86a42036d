"""The settings of a rule as keyword arguments and entries of parameter groups: which there are, their kinds and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, compress
from operator import is_, is_not
from typing import Any

import torch

from optlang import library
from optlang.errors import did_you_mean
from optlang.ir import Bounds, Hyper
from optlang.runtime.groups.naming import CYCLED, OF_SCHEDULERS, Group, Naming
from optlang.runtime.groups.options import OPTIONS
from optlang.runtime.groups.table_settings import Tables

NO_SETTINGS = ("params", "param_names")
OF_LOADING = ("backend", "math", "state", "weights", "products")
Range = tuple[str, float, float]  # a hyper, and the least and the largest number that it may be
TOO_LARGE = 1 << 1000  # for a number with a point
KINDS = {"bool": "True or False", "int": "a whole number", "real": "a number"}


class Settings:
    """The hypers of one program. `what` names the rule in messages, `changed` are defaults that a route sets."""

    def __init__(
        self, what: str, hypers: tuple[Hyper, ...], changed: Mapping[str, Any] | None = None, as_betas: bool = False
    ) -> None:
        self.what = what
        self.hypers = {h.name: h for h in hypers}
        self.naming = Naming(self.hypers, as_betas)
        self.defaults = {h.name: (changed or {}).get(h.name, h.default) for h in hypers}
        self.tables = Tables(what, hypers)
        ends = {h.name: (h.name, *_ends(h.bounds)) for h in hypers if h.kind == "real" and not h.baked}
        kept = {key: tuple(map(ends.__getitem__, names)) for key, names in self.naming.keys(ends).items()}
        self.pair = kept.pop("betas", ())  # with what else a group keeps of real hypers that shape nothing: see `Range`
        self.plain = {key: one for key, (one,) in kept.items()}

    # ------------------------------------------------------------------------------------------------ given

    def taken(self, given: Mapping[str, Any], lenient: bool = False) -> Group:
        """Given settings by their whole names, checked. Raises TypeError for an unknown name or kind, ValueError for a range.

        `betas` may stand beside `beta1` and `beta2` that are the same. `lenient`: keys of schedulers, and those that look
        like no hyper, are left alone, as torch does with extra keys of groups.
        """
        values: Group = {}
        for name in sorted(given, key=lambda name: name != "betas"):
            for full, part in self._meant(name, given[name], lenient).items():
                if name != full and full in given and name != "betas":
                    raise TypeError(f"{self.what}: `{name}` and `{full}` are the same setting, given twice")
                checked = self.checked(full, part)
                if full in values and plain(values[full]) != plain(checked):
                    raise ValueError(f"{self.what}: `betas` gives {full} = {values[full]!r}, `{name}` gives {checked!r}; leave one out")
                values[full] = checked
        return values

    def _meant(self, name: Any, value: Any, lenient: bool) -> Group:
        if not isinstance(name, str):
            return {}  # what a tool keeps in a group
        if (table := self.tables.named(name)) is not None:
            return self.tables.cells(table, value)
        if name == "betas" and self.naming.pair and (lenient or not self.naming.as_betas):
            return self._betas(value, lenient)
        full = self.naming.full(name)
        if full in self.hypers and not (lenient and full != name and name in OF_SCHEDULERS):
            return {full: value}
        if lenient and name in (*OF_SCHEDULERS, *CYCLED):
            return {}
        short = [name for name in self.naming.short if name.isidentifier()]
        near = did_you_mean(name, [*self.names(), *short, *self.tables.short, *self._called_betas(), *OPTIONS])
        if lenient and not near:
            return {}
        advice = f"; did you mean `{near}`?" if near else f"; its settings are {', '.join(self.names())}{_elsewhere(name)}"
        raise TypeError(f"{self.what} has no setting `{name}`{advice if self.hypers else ''}")

    def names(self) -> list[str]:
        """All settings, tables by their own names."""
        return list(dict.fromkeys(h.table or h.name for h in self.hypers.values()))

    def _called_betas(self) -> list[str]:
        return ["betas"] if self.naming.pair and not self.naming.as_betas else []

    def _betas(self, value: Any, lenient: bool) -> Group:
        """What `betas` sets. Those of another rule of a route are left alone."""
        if lenient and self.naming.as_betas and len(value) != len(self.naming.pair):
            return {}
        return dict(zip(self.naming.pair, self._pair(value), strict=True))

    def _pair(self, value: Any, where: str = "") -> tuple[Any, ...]:
        try:
            found = tuple(value)
        except TypeError:
            found = ()
        if len(found) != len(self.naming.pair):
            wanted = "a pair like (0.9, 0.999)" if len(self.naming.pair) == 2 else f"({self.naming.pair[0]},)"
            raise TypeError(f"{self.what}: betas is {wanted}, not {value!r}{where}")
        return found

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
        if isinstance(value, torch.Tensor) and value.is_meta:
            raise ValueError(f"{self.what}: Tensor {name} is on the meta device, where there are no numbers{where}")
        number: float | int | bool = plain(value)
        if (hyper.kind == "bool") != isinstance(number, bool) or not isinstance(number, bool | int | float):
            raise TypeError(f"{self.what}: {name} must be {KINDS[hyper.kind]}, not {value!r}{where}")
        if hyper.kind == "int":
            number = self._whole(name, number, where)
        if too_large := isinstance(number, int) and abs(number) >= TOO_LARGE:
            number = math.inf if number > 0 else -math.inf
        outside = too_large or (hyper.bounds is not None and not hyper.bounds.allows(name.rpartition(".")[2], number))
        if outside or number != number:
            raise ValueError(f"{self.what}: {name} = {number!r} is outside its range {hyper.bounds or 'of numbers'}{where}")
        return number

    def _whole(self, name: str, number: float, where: str) -> int:
        if number != number or number in (math.inf, -math.inf) or int(number) != number:
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
        known = key in self.hypers or self.tables.named(key) is not None
        return known or (self.naming.full(key) in self.hypers and key not in OF_SCHEDULERS)

    def raw(self, group: Group) -> dict[str, Any]:
        """The hypers of a group that has been read, as they are: tensors may have gradients."""
        return self.naming.unpacked(group, tuple(group.get("betas", ())))

    def read(self, group: Group, where: str, on_device: bool = False) -> dict[str, Any]:
        """The hypers of a group as plain numbers, checked: they may have been changed since the last step.

        `on_device`: real ones that are tensors stay so, and nobody waits to look at them.
        """
        if self.naming.pair and "betas" in group:
            self._pair(group["betas"], where)
        self.tables.fold(group)
        self.naming.fold(group)
        pair = self._pair(group.get("betas"), where) if self.naming.pair else ()
        try:
            values = self.naming.unpacked(group, pair)
        except KeyError as key:
            raise ValueError(f"{self.what}: the setting {key} is gone{where}") from None
        return {
            name: self._unread(name, value, where) if on_device and self._stays(name, value) else self._number(name, value, where)
            for name, value in values.items()
        }

    def _stays(self, name: str, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and self.hypers[name].kind == "real"

    def _unread(self, name: str, value: torch.Tensor, where: str) -> torch.Tensor:
        if value.numel() != 1:
            raise ValueError(f"{self.what}: Tensor {name} must be 1-element, not of shape {tuple(value.shape)}{where}")
        return value


class Written:
    """Settings that groups were found to have; these are the same as long as the groups hold the same objects. `of`: those of each."""

    def __init__(self, groups: Sequence[Group], settings: list[dict[str, Any]], of: Sequence[Settings]) -> None:
        self.settings, self._of = settings, of
        self._kept = [(list(group), list(group.values())) for group in groups]
        self._is_fixed = all(key in NO_SETTINGS or _is_fixed(value) for group in groups for key, value in group.items())

    def read(self, groups: Sequence[Group]) -> list[dict[str, Any]] | None:
        """The same object where nothing is new; None where more is new than plain numbers. Raises as `Settings.read`."""
        if not self._is_fixed or len(groups) != len(self._kept):
            return None
        for number, (group, (keys, values)) in enumerate(zip(groups, self._kept, strict=True)):
            if len(group) != len(keys) or not all(map(is_, group, keys)):
                return None
            if not all(map(is_, group.values(), values)) and not self._renewed(number, group):
                return None
        return self.settings

    def _renewed(self, number: int, group: Group) -> bool:
        """Whether all new values of a group could be taken by themselves."""
        of, (keys, values), now = self._of[number], self._kept[number], list(group.values())
        is_new = list(map(is_not, now, values))
        new = dict(zip(compress(keys, is_new), compress(now, is_new), strict=True))
        pair, betas = (of.pair, new.pop("betas")) if "betas" in new else ((), ())
        if not of.plain.keys() >= new.keys() or type(betas) is not tuple or len(betas) != len(pair):
            return False
        found = self.settings[number].copy()
        for (name, low, high), x in chain(zip(pair, betas, strict=True), zip(map(of.plain.__getitem__, new), new.values(), strict=True)):
            if type(x) is not float:
                return False
            found[name] = x if low <= x <= high else of.checked(name, x, f" (group {number})")
        values[:] = now
        self.settings = self.settings.copy()
        self.settings[number] = found
        return True


def _ends(bounds: Bounds | None) -> tuple[float, float]:
    """The least and the largest number of a range."""
    if bounds is None:
        return -math.inf, math.inf
    low = math.nextafter(bounds.low, math.inf) if bounds.low_open else bounds.low
    return low, math.nextafter(bounds.high, -math.inf) if bounds.high_open else bounds.high


def _is_fixed(value: Any) -> bool:
    """Whether it can be another only by being another object."""
    return all(map(_is_fixed, value)) if type(value) is tuple else value is None or type(value) in (bool, int, float, str)


def plain(value: Any) -> Any:
    """A tensor or NumPy number as a Python number; everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().item()
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _elsewhere(name: str) -> str:
    """Where a setting of torch's optimizers, or of the loading of a rule, is to be had."""
    if name in OF_LOADING:
        return f"; `{name}` is said where a rule is loaded: `optlang.load(…, {name}=…)`"
    return f'; `{name}` is a rule of its own: `optlang.load("{name}")`' if name in library.names() else ""
