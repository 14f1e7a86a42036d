"""What settings are called: by keyword, in parameter groups, and where torch's schedulers look for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from keyword import iskeyword
from typing import Any

from optlang.runtime.groups.options import OPTIONS

Group = dict[str, Any]
BETAS = ("beta1", "beta2")
OWN_KEYS = ("params", "param_names", "seed", "rule", *OPTIONS)  # of every group, whatever its rule
OF_SCHEDULERS = frozenset(["initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr", "base_momentum", "max_momentum"])
SCHEDULED = ("lr", "momentum")
CYCLED = ("betas", "momentum")  # schedulers that cycle momentum look for the first of these that `defaults` has, in every group


class Naming:
    """The names of one program's hypers.

    A group keeps a hyper under its name; but as `lr`, `momentum` and `betas`, where schedulers look for them, also those of
    a called rule if no other setting ends like that. Written under another of its names, as `fast.lr` or `beta1`, it wins.
    `as_betas`: beside rules with `betas` in a route, a momentum is kept as `betas` of one number, for schedulers cycle them.
    """

    def __init__(self, names: Iterable[str], as_betas: bool = False) -> None:
        self.names = tuple(names)
        self.by_place = [name for name in self.names if name.isidentifier() and not iskeyword(name)]  # others need `**{…}`
        self.short = self._short_names()
        self.pair = self._pair_of_betas()
        self.as_betas = as_betas and not self.pair
        if self.as_betas:
            self.pair = tuple(name for name in [self.full("momentum")] if name in self.names)
        self._keys = {full: short for short, full in self.short.items() if short in SCHEDULED}
        self._elsewhere = self._other_keys()

    def _short_names(self) -> dict[str, str]:
        """`eps` for `fast.eps`, where no other hyper ends like that."""
        ends: dict[str, list[str]] = {}
        for name in self.names:
            ends.setdefault(name.rpartition(".")[2], []).append(name)
        return {end: names[0] for end, names in ends.items() if len(names) == 1 and names[0] != end}

    def _pair_of_betas(self) -> tuple[str, ...]:
        """The two hypers that a group keeps as `betas`, which belong to one rule."""
        names = tuple(self.full(b) for b in BETAS)
        of_one_rule = len({name.rpartition(".")[0] for name in names}) == 1
        return names if of_one_rule and all(name in self.names for name in names) else ()

    def _other_keys(self) -> dict[str, str]:
        """Keys that mean a hyper which a group keeps elsewhere."""
        written = {name: name for name in self.names} | {s: n for s, n in self.short.items() if s not in OF_SCHEDULERS}
        return {key: name for key, name in written.items() if name in self.pair or key != self._keys.get(name, name)}

    def keys(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Where a group keeps these hypers: under `betas` two of them, elsewhere one."""
        names = list(names)
        found = {self._keys.get(name, name): (name,) for name in names if name not in self.pair}
        return found | ({"betas": self.pair} if self.pair and set(self.pair) <= set(names) else {})

    def as_pair(self, names: Sequence[str]) -> list[str]:
        """Names of settings by place, with `betas` in place of the two."""
        return ["betas" if name == self.pair[0] else name for name in names if name not in self.pair[1:]] if self.pair else [*names]

    def full(self, name: str) -> str:
        """The whole name of a setting that may have been called by its end."""
        return self.short.get(name, name)

    def packed(self, values: Mapping[str, Any]) -> Group:
        """Values by whole names as a group keeps them."""
        group = {self._keys.get(name, name): value for name, value in values.items() if name not in self.pair}
        return group | ({"betas": tuple(values[name] for name in self.pair)} if self.pair or self.as_betas else {})

    def fold(self, group: Group) -> None:
        """Brings what was written under other names to where it is kept."""
        if self.pair and "betas" not in group and all(name in group for name in self.pair):
            group["betas"] = tuple(group[name] for name in self.pair)
        for key in group.keys() & self._elsewhere.keys():
            name = self._elsewhere[key]
            if name not in self.pair:
                group[self._keys.get(name, name)] = group.pop(key)
            elif "betas" in group:
                group["betas"] = tuple(group[key] if n == name else old for n, old in zip(self.pair, group["betas"], strict=True))
                del group[key]

    def unpacked(self, group: Mapping[str, Any], pair: tuple[Any, ...]) -> dict[str, Any]:
        """The values of a group by whole names; `pair` are its betas. Raises KeyError for a key that is not there."""
        betas = dict(zip(self.pair, pair, strict=True))
        return {name: betas[name] if name in betas else group[self._keys.get(name, name)] for name in self.names}


def name_in(group: Group, number: int, place: int) -> str:
    names = group.get("param_names")
    return str(names[place]) if names else f"parameter {place} of group {number}"
