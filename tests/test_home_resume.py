"""Runs that are cut and gone on with, bit by bit: every rule in two of the precisions; `make resume` asks all. 20 seconds."""

from __future__ import annotations

import pytest
from resumption import PRECISIONS, Precision, differences

from optlang import library

TWO = [(name, PRECISIONS[(i + more) % len(PRECISIONS)]) for i, name in enumerate(library.names()) for more in (1, 6)]


@pytest.mark.parametrize(("name", "precision"), TWO, ids=str)
def test_every_rule_goes_on_bit_by_bit(name: str, precision: Precision) -> None:
    assert differences(name, precision) == []
