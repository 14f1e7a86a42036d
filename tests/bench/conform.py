"""All rules on all backends in all number types: `make conformance`, or `python tests/bench/conform.py RULE…`.

The worst error of each is kept in `docs/conformance.json` with marks of the rule and of what steps it: a run that was cut short
goes on, and what has changed is measured anew: of a rule that is as it was, the backends with other code alone.
`tests/test_conformance.py` takes a part of it in every run, and holds the file to it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
NUMBERS = ("float64", "float32", "bfloat16")
RESULTS = ROOT / "docs" / "conformance.json"


def measured(rule: str, known: dict[str, Any]) -> dict[str, Any]:
    """The worst error over all rows of a rule, by number type and backend, or the words of what was raised; 1 thread. `known`: an
    entry, of which is kept what is of the same rule and code."""
    import torch
    from conformance import BACKENDS, DTYPES, KERNELS, Stepwise, by_name, error, rows_of, without_module
    from records import CODE, is_fresh, marked, moved

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    rows = rows_of(rule)
    no_module = without_module(rule)
    found: dict[str, Any] = {**marked(rule, CODE["conformance"]), "date": date.today().isoformat(), "rows": len(rows)}
    kept = known if is_fresh(known, rule) and known.get("rows") == len(rows) else {}
    asked = {"reference", *moved(kept, rule, CODE["conformance"])}
    for dtype in DTYPES:
        backends = [name for name in BACKENDS if name != "module" or not no_module]
        found[by_name(dtype)] = {
            name: worst([partial(error, row, name, dtype) for row in rows]) if name in asked else kept[by_name(dtype)][name]
            for name in backends
        }  # fmt: skip
    found["elsewhere"] = {"module": no_module} if no_module else {}
    for backend in KERNELS:
        run = Stepwise(rows[0], backend, torch.float32)
        run.worst(1)
        found["elsewhere"] |= {backend: reasons} if (reasons := run.elsewhere(backend)) else {}
    return found


def worst(measures: list[Any]) -> float | str:
    try:
        return float(f"{max(measure() for measure in measures):.2g}")
    except Exception as problem:  # whatever a backend raises is its result
        return f"{type(problem).__name__}: {problem}"[:200]


def entries() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["rules"] if RESULTS.exists() else {}
    return found


def save(found: dict[str, Any]) -> None:
    from optlang import library

    kept = {rule: found[rule] for rule in library.names() if rule in found}
    count = sum(len(entry[dtype]) for entry in kept.values() for dtype in NUMBERS)
    lines = ",\n".join(f"    {json.dumps(rule)}: {json.dumps(entry)}" for rule, entry in kept.items())
    head = f"  \"machine\": {json.dumps(f'{os.uname().machine}, one thread')},\n  \"counted\": {count},\n"
    RESULTS.write_text(f"{{\n{head}  \"rules\": {{\n{lines}\n  }}\n}}\n", encoding="utf-8")


def main(rules: list[str], workers: int) -> int:
    from records import CODE, stale

    found = entries()
    wanted = rules or stale(found, CODE["conformance"])
    with ProcessPoolExecutor(workers) as pool:
        for rule, entry in zip(wanted, pool.map(measured, wanted, [found.get(rule, {}) for rule in wanted]), strict=True):
            found[rule] = entry
            wrong = [f"{dtype} {name}: {e}" for dtype in NUMBERS for name, e in entry[dtype].items() if isinstance(e, str)]
            print(rule, *(wrong or ["done"]), sep="\n  " if wrong else " ", flush=True)
            save(found)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="default: all that are not those of an entry")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: 2")
    chosen = parser.parse_args()
    raise SystemExit(main(chosen.rules, chosen.workers))
