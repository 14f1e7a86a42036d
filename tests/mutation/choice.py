"""Which tests can notice a change of a line: those that execute it, the cheapest first."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import zip_longest
from pathlib import Path

from coverage import CoverageData

from .contexts import function_of
from .sites import Mutant

FILE, OWN = 3.0, 12.0  # seconds of tests of one file, as measured: of any, and of one with the module's name
WHOLE = 25.0  # and of all together
LONGER = 3
Chosen = list[tuple[str, list[str]]]  # test files with their tests


class Choice:
    """From a run with contexts: `data` of coverage, `times` in seconds of tests and of the reading of their files."""

    def __init__(self, root: Path, data: Path, times: Iterable[Path]) -> None:
        self.root, self.data = root, data
        self.times: dict[str, float] = {}
        for path in times:
            self.times |= json.loads(path.read_text(encoding="utf-8"))
        self.measured = Counter(file_of(test) for test in self.times if "::" in test)
        self.lines = cache(lambda file: self._read().contexts_by_lineno(str(root / file)))

    @property
    def files(self) -> list[str]:
        return [*self.measured]

    def _read(self) -> CoverageData:
        """The data, opened by each process for itself."""
        data = CoverageData(str(self.data))
        data.read()
        return data

    def reaching(self, mutant: Mutant) -> list[str]:
        """The tests that execute the statement; anything of its module, where it runs when that is read; of its folder, unmeasured."""
        lines = self.lines(mutant.file)
        if not lines:
            beside = [path for path in self._read().measured_files() if Path(path).parent == (self.root / mutant.file).parent]
            lines = {0: [""], 1: [test for path in beside for tests in self.lines(path).values() for test in tests]}
        first, last = mutant.statement
        found = {test for line in range(first, last + 1) for test in lines.get(0 if 0 in lines else line, ())}
        if "" in found:
            found = {test for tests in lines.values() for test in tests}
        return [test for test in found if test in self.times]

    def tests(self, mutant: Mutant, more: bool = False) -> Chosen:
        """What to run, in order, of each file some, first of those that are named after the module. `more`: others, and longer."""
        by_file: dict[str, list[str]] = defaultdict(list)
        known = {test for _, tests in self.tests(mutant) for test in tests} if more else set()
        for test in self.reaching(mutant):
            by_file[file_of(test)].append(test)
        share = {file: len(tests) / self.measured[file] for file, tests in by_file.items()}
        own = {file: bool(words(file) & words(mutant.file)) for file in by_file}
        some = {file: self._some(tests, known, (OWN if own[file] else FILE) * (LONGER if more else 1)) for file, tests in by_file.items()}
        costs = {file: self.times.get(file, 1.0) + 0.3 + sum(self.times[test] for test in tests) for file, tests in some.items() if tests}
        chosen: Chosen = []
        left = WHOLE * (LONGER if more else 1)
        for file in sorted(costs, key=lambda file: (not own[file], costs[file] / share[file])):
            if costs[file] <= left or not chosen:
                chosen.append((file, some[file]))
                left -= costs[file]
        return chosen

    def seconds(self, chosen: Chosen) -> float:
        return sum(self.times.get(file, 1.0) + sum(self.times[test] for test in tests) for file, tests in chosen)

    def _some(self, tests: Iterable[str], known: set[str], seconds: float) -> list[str]:
        """Of each function the quickest that are not known, then of each the next, while there is time."""
        by_function: dict[str, list[str]] = defaultdict(list)
        for test in sorted({*tests} - known, key=lambda test: (self.times[test], test)):
            by_function[function_of(test)].append(test)
        some: list[str] = []
        for test in (test for turn in zip_longest(*by_function.values()) for test in turn if test is not None):
            seconds -= self.times[test]
            if some and seconds < 0:
                break
            some.append(test)
        return some


def file_of(test: str) -> str:
    return test.partition("::")[0]


def words(file: str) -> set[str]:
    return {*re.split(r"[/._]", file)} - {"optlang", "py", "tests", "test", "backends"}
