"""Children proposed ahead of their turn, so that workers can look at what they do: else the process that leads is all that makes children.

While a round is proposed nothing is learnt, so that the next proposals are known before their turn comes. They are made in batches; what
the screen has not seen is looked at by workers, while the batch before has its turn. What a search finds is the same: where the round
ends within a batch, the branch goes back to the proposal after the last one that had its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optlang.search.evolution.population import Branch, Proposal
from optlang.search.programs.genome import Genome
from optlang.search.screening.sieve import Screen
from optlang.search.workers.executor import Executor, JobFailed

LEAST = 8  # workers from which on looking is theirs: fewer have enough to do with training
BATCHES = 2  # one that has its turn, one that is looked at
PER_JOB = 32  # children of a batch, for each job of a round: a tenth of what a round makes where 98 % are known
PIECE = 16  # programs at least that a worker looks at at once


@dataclass
class _Batch:
    mark: Any  # of the branch, before the first of them
    proposals: list[Proposal]
    asked: list[tuple[int, list[Genome]]]  # tickets, and what is looked at
    taken: int = 0


class Ahead:
    """The next proposals of a branch, as long as it learns nothing. `size` of a batch."""

    def __init__(self, branch: Branch, screen: Screen, executor: Executor, size: int) -> None:
        self.branch, self.screen, self.executor, self.size = branch, screen, executor, size
        self.batches: deque[_Batch] = deque()

    def propose(self) -> Proposal:
        """What the branch itself would propose."""
        if not self.batches or self.batches[0].taken == len(self.batches[0].proposals):
            self._turn()
        batch = self.batches[0]
        batch.taken += 1
        return batch.proposals[batch.taken - 1]

    def back(self) -> None:
        """The branch is again as if it had proposed only what had its turn."""
        if self.batches:
            first = self.batches[0]
            self.branch.rewind(first.mark)
            for _ in range(first.taken):
                self.branch.propose()
        while self.batches:
            self._looked(self.batches.popleft())
        self.screen.seen.clear()

    def _turn(self) -> None:
        """The next batch has its turn, and one more is on its way."""
        if self.batches:
            self.batches.popleft()
        self.screen.seen.clear()
        while len(self.batches) < BATCHES:
            self.batches.append(self._asked())
        self._looked(self.batches[0])

    def _asked(self) -> _Batch:
        mark = self.branch.mark()
        proposals = [self.branch.propose() for _ in range(self.size)]
        wanted = self.screen.unseen(one.genome for one in proposals)
        pieces = list(_pieces(wanted, max(PIECE, -(-len(wanted) // self.executor.workers))))
        return _Batch(mark, proposals, [(self.executor.submit(self.screen.looks(piece), first=True), piece) for piece in pieces])

    def _looked(self, batch: _Batch) -> None:
        """What workers have seen. Where one has failed, the screen looks itself."""
        for ticket, piece in batch.asked:
            with suppress(JobFailed):
                self.screen.seen.update(zip(piece, self.executor.collect(ticket), strict=True))
        batch.asked.clear()


def _pieces(genomes: list[Genome], size: int) -> Iterator[list[Genome]]:
    yield from (genomes[start : start + size] for start in range(0, len(genomes), size))
