"""What pages count of the library and its records, in one place: `python tests/counts.py` writes the counts anew, and
`tests/test_counts.py` holds the pages to them. In a form, N stands for each number, and a blank for any space between words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from pages import ROOT
from records import CODE

from optlang import Rule, ir, library
from optlang.backends.module.capturing import refuses_graphs

NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
TRUST, TORCH, LIMITS = "docs/trust.md", "docs/torch.md", "docs/limits.md"
Figures = Callable[[], Sequence[float]]


@cache
def read(name: str) -> Any:
    return json.loads((ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))


def every() -> int:
    return len(library.names())


def by_torch() -> int:
    """Rules that C++ has no kernels for, or not for all of their programs."""
    return sum(any(one["kernels"] != "yes" for one in rule["programs"].values()) for rule in read("library")["rules"].values())


@cache
def uncapturable() -> list[int]:
    """Rules that ask the model again, and that take bases of matrices."""
    why = []
    for name in library.names():
        made = Rule(name).program
        programs = [case.program for case in made.cases] if isinstance(made, ir.Routing) else [made]
        why.append(next(filter(None, map(refuses_graphs, programs)), ""))
    return [sum(words.startswith(first) for words in why) for first in ("it asks", "torch's functions")]


def told_of_code() -> list[int]:
    records = [read(record) for record in CODE]
    return [sum("code" in row for row in found.get("rules", found).values()) for found in records]


def machine_code() -> list[int]:
    """Of our own kernels: rules, kernels, the most registers, and rules without any."""
    found = read("triton")
    made = [kernel for entry in found.values() for kernel in entry["kernels"]]
    most = max(kernel[name][0] for kernel in made for name in ("sm_80", "sm_90"))
    return [len(found), len(made), most, sum(not entry["kernels"] for entry in found.values())]


def compiled() -> list[int]:
    """Of what torch's compiler writes: rules, functions, kernels, rules without any, and the most registers."""
    found = read("inductor")
    functions = [one for entry in found.values() for one in entry["functions"]]
    bare = sum(not entry["functions"] for entry in found.values())
    return [len(found), len(functions), sum(one["kernels"] for one in functions), bare, max(one["registers"] for one in functions)]


def interpreted() -> list[float]:
    """Of the same in Triton's interpreter: functions and rules in float32 and in bfloat16, functions that agree bit for bit, and how far
    the others are apart."""
    found = [[row.get(kind, {}).get("functions", []) for row in read("inductor-numbers").values()] for kind in ("float32", "bfloat16")]
    apart = [one[-1] for rows in found for functions in rows for one in functions]
    counts = [count for rows in found for count in (sum(map(len, rows)), sum(map(bool, rows)))]
    return [*counts, sum(one == 0 for one in apart), max(apart)]


def loops() -> list[int]:
    ends = [entry["cpp"] for entry in read("loops").values()]
    return [len(ends), sum(x <= 8 for x in ends), sum(x <= 100 for x in ends)]


def accuracy() -> list[int]:
    rows = read("accuracy")["rules"]
    return [len(rows), sum("by torch" in row for row in rows)]


def errors(by: str, how: str) -> list[float]:
    """Mean errors that half, three quarters, nine tenths and all of the rules have at most."""
    rows = [row if by == "rounded" else row["by torch"] for row in read("accuracy")["rules"] if by == "rounded" or "by torch" in row]
    return [float(x) for x in np.quantile([row[f"mean {how}"] for row in rows], [0.5, 0.75, 0.9, 1])]


def refused() -> int:
    """Modules that take no parts of parameters."""
    return sum("refused" in row for row in read("sharded")["modules"]["2"].values())


def own_tests(name: str) -> Any:
    return read(f"torch-suite{name}")


FORMS: dict[tuple[str, str], Figures] = {
    ("CHANGELOG.md", "The library: N rules and routes"): lambda: [every()],
    ("CHANGELOG.md", "`capturable=True` by N rules"): lambda: [every() - sum(uncapturable())],
    ("README.md", "go the torch way (N rules of the library)"): lambda: [by_torch()],
    (LIMITS, "(N of N rules have some)"): lambda: [compiled()[0] - compiled()[3], compiled()[0]],
    (LIMITS, "for the N rules that ask the model again"): lambda: uncapturable()[:1],
    (LIMITS, "and the N that take eigenvectors or orthonormal bases"): lambda: uncapturable()[1:],
    (LIMITS, "is taken by N rules, with `lr` on the device"): lambda: [every() - sum(uncapturable())],
    (LIMITS, "refused for N that ask the model again and N that take eigenvectors or orthonormal bases, as above"): uncapturable,
    (TORCH, "All N rules take the steps of one process on 2 and 4"): lambda: [every()],
    (TORCH, "but for N that refuse parts"): lambda: [refused()],
    (TRUST, "Of generated modules N refuse parts"): lambda: [refused()],
    (TORCH, "All N rules pass torch's own tests of optimizers, N times"): lambda: [every(), own_tests("")["passed"]],
    (TORCH, "modules of N rules pass them as well, N times"): lambda: [own_tests("-modules")["rules"], own_tests("-modules")["passed"]],
    (TRUST, "N rows of triton.json, N of loops.json, N of conformance.json, N of inductor.json and N of inductor-numbers.json"):
        told_of_code,
    (TRUST, "of N rules, N kernels for each, at most N registers, and nothing spills; N of the rules have none"): machine_code,
    (TRUST, "of N rules, N functions with N kernels"): lambda: compiled()[:3],
    (TRUST, "N of these rules, most of which multiply matrices, have no function that is compiled. Nothing is spilled, with at most N "
     "registers"): lambda: compiled()[3:],
    (TRUST, "in float32 N functions of N rules, in bfloat16 N of N; of these N agree bit for bit, and all within N units"): interpreted,
    (TRUST, "of N rules N end within 8 units in the last place, N within 100"): loops,
    (TRUST, "in N of N rules they do"): lambda: [loops()[0] - loops()[2], loops()[0]],
    (TRUST, "of all N rules (those that only routes use included) with each operation rounded to single precision (a model that is asked "
     "again answers in float64), and of N by the torch backend"): accuracy,
    (TRUST, "| rounded, as written | N | N | N | N (OnlineSubspaceDescent)"): lambda: errors("rounded", "written"),
    (TRUST, "| rounded, simplified | N | N | N | N |"): lambda: errors("rounded", "simplified"),
    (TRUST, "| torch, as written | N | N | N | N |"): lambda: errors("torch", "written"),
    (TRUST, "| torch, simplified | N | N | N | N |"): lambda: errors("torch", "simplified"),
    (TRUST, "largest number of each: of N rules and three of the test's own all"): lambda: [every()],
}  # fmt: skip


def written(text: str, form: str, figures: Sequence[float]) -> str:
    """A page with the figures of a form, each with as many places as it had. Raises ValueError where the form is not there once."""
    words = re.escape(re.sub(r"\bN\b", "\0", form)).replace("\0", NUMBER)
    found = list(re.finditer(words.replace(r"\ ", r"\s+"), text))
    if len(found) != 1 or found[0].re.groups != len(figures):
        raise ValueError(f"{len(found)} times in the page, with {len(figures)} figures: {form}")
    for place in reversed(range(len(figures))):
        start, end = found[0].span(place + 1)
        places = len(found[0][place + 1].partition(".")[2])
        text = f"{text[:start]}{figures[place]:,.{places}f}{text[end:]}"
    return text


def main() -> None:
    """Only pages with another count are written."""
    for (page, form), figures in FORMS.items():
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = written(before, form, figures())
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{page}: {form}")


if __name__ == "__main__":
    main()
