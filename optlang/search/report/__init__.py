"""The report of a search: one page of HTML that needs no network, made from its store. See `data` for what it shows."""

from __future__ import annotations

from optlang.search.report.data import ReportData, from_store
from optlang.search.report.page import render
from optlang.search.store.database import Store

__all__ = ["ReportData", "from_store", "page", "render"]


def page(store: Store) -> str:
    """The whole page. A search that has only begun gives a page that says so."""
    return render(from_store(store))
