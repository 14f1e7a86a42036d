"""Counts on pages are those of the library and its records: `python tests/counts.py` writes what has changed."""

from __future__ import annotations

import counts
import pytest
from pages import ROOT


@pytest.mark.parametrize(("page", "form"), counts.FORMS, ids=lambda text: text[:60])
def test_a_count_is_what_is_there(page: str, form: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert counts.written(text, form, counts.FORMS[page, form]()) == text, "`python tests/counts.py` writes it anew"


def test_a_wrong_count_is_seen_and_mended() -> None:
    text = "of 1,000 rules\n2.5 take all,\n7 none"
    assert counts.written(text, "of N rules N take all", [1234, 2.54]) == "of 1,234 rules\n2.5 take all,\n7 none"
    assert counts.written(text, "N none", [8]) == "of 1,000 rules\n2.5 take all,\n8 none"


@pytest.mark.parametrize(("form", "figures"), [("N some", [1]), ("N none", [1, 2]), ("N", [1])])
def test_a_form_that_is_not_there_once_is_refused(form: str, figures: list[float]) -> None:
    with pytest.raises(ValueError, match="times in the page"):
        counts.written("7 none of 8", form, figures)
