"""The language page, `grammar/README.md`: every example runs, every table is that of the compiler. (2 s)

`python tests/test_language_page.py` writes the tables anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from optlang import library, ops
from optlang.catalogue import CATALOGUE, FAMILIES
from optlang.errors import Source
from optlang.front import syntax
from optlang.front.format import format_file
from optlang.front.parser import parse, terminals
from optlang.front.unparse import PRECEDENCE, written
from optlang.lower import check
from optlang.macros import MACROS
from optlang.types import EXTENT_OF

PAGE = Path(__file__).parent.parent / "grammar" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(opt[^\n]*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


# ------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("kind, text", EXAMPLES, ids=[f"{k}-{t.split(chr(10))[0][:30]}" for k, t in EXAMPLES])
def test_example(kind: str, text: str) -> None:
    assert kind in ("opt", "opt rule")
    whole = text if kind == "opt" else f"rule Example {{\n{text}}}\n"
    file, found = parse(Source(whole))
    found = found or check(file)
    assert not found, found[0].to_text()
    result = format_file(file)
    if kind == "opt":
        assert result == text
    else:
        assert [line.strip() for line in result.splitlines()[1:-1]] == [line.strip() for line in text.splitlines()]


def test_examples_use_every_statement_and_most_of_the_language() -> None:
    code = " ".join(text for _, text in EXAMPLES)
    keywords = {word for word in terminals() if word.isalpha()}
    missing = {word for word in keywords if not re.search(rf"\b{word}\b", code)}
    assert missing == set()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        if target.startswith("#"):
            titles = [re.sub(r"[^\w -]", "", line[3:].lower()).replace(" ", "-") for line in TEXT.splitlines() if line.startswith("## ")]
            assert target[1:] in titles
        else:
            assert (PAGE.parent / target).exists(), target


# --------------------------------------------------------------------------------------------------------- tables


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n".replace("| --- ", "|---").replace("|--- |", "|---|") for line in lines)


def call(name: str, operands: int, doc: str, names: str = "x") -> tuple[str, str]:
    """`name(x)` and what it means; a row whose text begins with its own call says it itself."""
    shown = re.match(r"`([^`]+)`:? ?(.*)", doc)
    if shown and shown.group(1).startswith(f"{name}("):
        return f"`{shown.group(1)}`", shown.group(2) or "x, not below low and not above high"
    letters = ", ".join(names if operands == 1 else "abcdefghi"[:operands])
    return f"`{name}({letters})`", doc


def maps() -> list[tuple[str, str]]:
    rows = [call(row.name, row.operands, row.doc) for row in ops.ROWS if row.surface and row.role in ("map", "select")]
    macros = [m for m in MACROS.values() if not m.reduces]
    several = {"max": "`max(a, b, …)`", "min": "`min(a, b, …)`"}
    rows += [(several[m.name], m.doc.split(";")[0]) if m.name in several else call(m.name, m.operands[0], m.doc) for m in macros]
    return rows


def reductions() -> list[tuple[str, str]]:
    rows = []
    for name, target in ops.REDUCTIONS.items():
        macro, row = MACROS.get(target), ops.OPS.get(target)
        operands = macro.operands[0] if macro else row.operands if row else 0
        rows.append(call(name, operands, macro.doc if macro else row.doc if row else ""))
    return rows


def operators() -> list[tuple[str, str]]:
    prefixes = {2: ("not", "not"), 6: ("-x", "neg"), 8: (".T", "transpose")}
    levels = {level: [(sign, ops.OPS[name].doc)] for level, (sign, name) in prefixes.items()}
    for row in ops.ROWS:
        if row.infix is not None:
            levels.setdefault(row.infix[1], []).append((row.infix[0], row.doc))
    return [(" ".join(f"`{sign}`" for sign, _ in levels[k]), ", ".join(doc for _, doc in levels[k])) for k in sorted(levels)]


EXTENTS = {
    "element": ("element of the parameter", "10 × 20"), "row": ("row of each trailing matrix", "10 × 1"),
    "col": ("column of each trailing matrix", "1 × 20"),
    "matrix": ("trailing matrix; dimensions before it are a batch", "1 × 1"), "tensor": ("parameter tensor", "one number"),
    "group": ("parameter group of torch, or branch of a route", "one number"),
    "model": ("all parameters given to the optimizer", "one number"),
    "64`, `k": ("so many elements that follow each other, row after row", "4 × 1: 50 of the 200 each"),
}  # fmt: skip


def standard() -> list[tuple[str]]:
    file, _ = parse(library.find("std"))
    rows = []
    for item in file.items:
        assert isinstance(item, syntax.Def)
        names = [p.name if p.default is None else f"{p.name} = {written(p.default)}" for p in item.parameters]
        rows.append((f"`{item.name}({', '.join(names)})`",))
    return rows


def codes() -> list[tuple[str, str]]:
    return [(code, f"{FAMILIES[code[0]]}: {CATALOGUE[code].title}") for code in CATALOGUE]


def rows_of(role: str) -> list[tuple[str, str]]:
    return [call(row.name, row.operands, row.doc) for row in ops.ROWS if row.surface and row.role == role]


def tables() -> dict[str, str]:
    head = ("call", "meaning")
    constants = [("`pi`", "3.14159…"), ("`inf`", "infinity"), ("`nan`", "not a number; in a window: empty")]
    constants += [("`true`, `false`", "truth values")]
    assert {"pi", "inf", "nan"} == set(ops.CONSTANTS)
    return {
        "extents": table(("word", "one value per", "shape for a parameter of 10 × 20"),
                         [(f"`{w}`", *EXTENTS[w]) for w in dict.fromkeys([*EXTENT_OF, *EXTENTS])]),
        "operators": table(("operators", "meaning"), operators()),
        "maps": table(head, maps()),
        "reductions": table(head, reductions()),
        "facts": table(("name", "meaning"), [*constants, *((f"`{name}`", doc) for name, doc in ops.FACTS.items())]),
        "model": table(head, [*rows_of("model"), ("`loss`", ops.OPS["loss"].doc)]),
        "draws": table(head, [(f"`{name}()`", doc) for name, doc in ops.DRAWS.items()]),
        "matrices": table(head, [("`a @ b`", ops.OPS["matmul"].doc), ("`x.T`", ops.OPS["transpose"].doc), *rows_of("matrix"),
                                 ("`eye(rows)`, `eye(cols)`", "identity matrix of that size"), ("`eye(cols, 4)`", "its first 4 columns"),
                                 ("`places(rows)`", "a column of 0, 1, 2, …")]),
        "codes": table(("code", "meaning"), codes()),
        "std": table(("call",), standard()),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(tables()))
def test_table(name: str) -> None:
    found = {key: text for _, key, text, _ in TABLE.findall(TEXT)}
    assert found[name] == tables()[name], "`python tests/test_language_page.py` writes the tables anew"


def test_every_builtin_is_on_the_page() -> None:
    assert {name for name in ops.BUILTINS if f"`{name}(" not in TEXT} == set()
    assert {sign for sign in PRECEDENCE if f"`{sign}`" not in TEXT} == set()
    assert {name for _, name, _, _ in TABLE.findall(TEXT)} == set(tables())


if __name__ == "__main__":
    made = tables()
    PAGE.write_text(TABLE.sub(lambda m: m.group(1) + made[m.group(2)] + m.group(4), TEXT), encoding="utf-8")
