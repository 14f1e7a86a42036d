"""The grammar's LALR machine, driven lexeme by lexeme: it can be asked what fits, and cut back to an earlier place."""

from __future__ import annotations

from typing import Any, Literal

from lark import Lark
from lark.parsers.lalr_analysis import Shift

from optlang.front.scan import Lexeme

Place = Literal["item", "statement", "branch"]
MARKS: tuple[tuple[Place, str], ...] = (("item", "RULE"), ("statement", "HYPER"), ("branch", "OTHERWISE"))


class Machine:
    """Lark's tables and stacks."""

    def __init__(self, grammar: Lark) -> None:
        self.state: Any = grammar.parse_interactive("").parser_state
        self.table: dict[int, dict[str, Any]] = self.state.parse_conf.states
        self.places: dict[int, Place] = _places(self.table)

    def feed(self, lexeme: Lexeme) -> Any:
        """Raises UnexpectedToken. The result is the items at the end, else None."""
        return self.state.feed_token(lexeme, lexeme.type == "$END")

    @property
    def depth(self) -> int:
        return len(self.state.state_stack)

    def cut(self, depth: int) -> None:
        del self.state.state_stack[depth:]
        del self.state.value_stack[depth - 1 :]

    def place(self) -> Place | None:
        """What the last lexeme began, if it began something."""
        return self.places.get(self.state.state_stack[-2])

    def wants(self) -> frozenset[str]:
        """The terminals that fit here. The top row of the table alone would say too much: LALR merges lookaheads."""
        row = self.table[self.state.state_stack[-1]]
        return frozenset(name for name in row if name.isupper() or name == "$END" if self.takes(name))

    def takes(self, terminal: str) -> bool:
        """Whether the terminal would be shifted, after the reductions that it leads to."""
        states = list(self.state.state_stack)
        while (found := self.table[states[-1]].get(terminal)) is not None:
            action, target = found
            if action is Shift:
                return True
            del states[len(states) - len(target.expansion) :]
            states.append(self.table[states[-1]][target.origin.name][1])
            if terminal == "$END" and states[-1] == self.state.parse_conf.end_state:
                return True
        return False


def _places(table: dict[int, dict[str, Any]]) -> dict[int, Place]:
    """The states in which a top-level form, a statement or a branch may begin, known by a keyword that only begins these."""
    return {state: place for state, row in table.items() for place, word in MARKS if row.get(word, (None,))[0] is Shift}
