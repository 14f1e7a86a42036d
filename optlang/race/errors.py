"""What can be wrong with a race before its first step."""

from __future__ import annotations


class RaceError(Exception):
    """A race that cannot start: the message says where, what is wrong, and what to do."""

    def __init__(self, where: str, what: str, advice: str) -> None:
        super().__init__(f"{where}: {what}\n  = help: {advice}")
        self.where, self.what, self.advice = where, what, advice

    def __reduce__(self) -> tuple[type[RaceError], tuple[str, str, str]]:
        return RaceError, (self.where, self.what, self.advice)
