"""What the page is made of: sections, tables, files to save. Whatever comes from a search is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote


def section(title: str, says: str, *content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{says}</p>{''.join(content)}</section>"


def file(rule: str, text: str) -> str:
    """A `.opt` text, and a link that saves it."""
    name = escape(f"{rule}.opt")
    return f'<pre>{escape(text)}</pre><p><a download="{name}" href="data:text/plain;charset=utf-8,{quote(text)}">{name}</a></p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """`words`: how many of the first columns hold words; the others hold numbers."""
    lines = [(tag, row) for tag, some in (("th", [head]), ("td", rows)) for row in some]
    body = "".join(f"<tr>{''.join(_cell(tag, cell, place < words) for place, cell in enumerate(row))}</tr>" for tag, row in lines)
    return f'<div class="wide"><table>{body}</table></div>'


def _cell(tag: str, text: str, is_words: bool) -> str:
    return f"<{tag}{' class=words' if is_words else ''}>{escape(text)}</{tag}>"
