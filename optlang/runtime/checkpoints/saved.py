"""Optimizers as they are saved, loaded, copied and pickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from optlang.printing.fingerprint import FINGERPRINT, RULES
from optlang.runtime.checkpoints import checkpoint
from optlang.runtime.groups.grouped import Grouped
from optlang.runtime.modes import exactly


class Saved(Grouped):
    """State dicts that say of which rule they are, and are loaded whole or not at all."""

    _origin: ClassVar[tuple[Any, ...] | None] = None

    def _begin(self) -> None:
        """What is not part of a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """As in torch; each group with the fingerprint of its rule, and `rules` with their equations."""
        found = super().state_dict()
        rules = {}
        for group, saved in zip(self.param_groups, found["param_groups"], strict=False):  # hooks may have changed it
            saved[FINGERPRINT], text = self.case_of(group).identity(group)
            rules[saved[FINGERPRINT]] = text
        return {**found, RULES: rules}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As in torch, but whole or not at all: ValueError lists everything that does not fit. States keep their number type.

        Takes those of torch's Adam, AdamW and SGD, of lion-pytorch and of HeavyBall 3 where this is the same rule.
        """
        given: Any = dict(state_dict) if isinstance(state_dict, Mapping) else state_dict
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            given = hook(self, given) or given
        from optlang.runtime.checkpoints import foreign  # noqa: PLC0415 - only who loads pays for it

        if isinstance(given, Mapping) and len(self.cases) == 1 and foreign.is_foreign(given):
            given = foreign.converted(self.cases[0], given)
        with exactly():
            checkpoint.check(self, given)
            self.__setstate__(checkpoint.restored(self, given))
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin()
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_given": self._given}

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._origin is None:
            return super().__reduce__()
        return _again, (type(self),), self.__getstate__()


def _again(cls: type[Saved]) -> Saved:
    return cls.__new__(cls)
