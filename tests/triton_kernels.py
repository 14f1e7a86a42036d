"""The Triton kernels of every rule, compiled for sm_80 and sm_90 without a GPU: `python tests/triton_kernels.py docs/triton.json RULE…`.

Of each kernel of a rule's first two steps, in float32: registers, bytes spilled, and reads and writes of 16 bytes, for each architecture,
and the options that it is compiled with, where they are not the usual ones (see `triton.building`).
Rules that the file has as they and their kernels are now are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from compiled_kernels import codes
from marks import SHAPES
from records import CODE, marked, recorded, save, stale
from stepping import two_steps

import optlang
from optlang.backends.triton.kernels import Loaded, TritonFunctions

ARCHITECTURES = (80, 90)


def kernels_of(name: str) -> list[Loaded]:
    """What two steps would launch on a GPU; torch takes the steps."""
    found: list[Loaded] = []
    make = TritonFunctions.made

    def made(self: TritonFunctions, bound: Any, outputs: Any) -> None:
        loaded = make(self, bound, outputs)
        found.extend([loaded] if loaded is not None else [])

    with mock.patch.multiple(TritonFunctions, made=made, fits=lambda self, bound: True):
        cls: Any = optlang.load(name, backend="triton")
        two_steps(cls, SHAPES)
    return found


def lines(name: str) -> Iterator[dict[str, Any]]:
    """Each kernel once."""
    for loaded in kernels_of(name):
        for several in zip(*(codes(loaded, architecture) for architecture in ARCHITECTURES), strict=True):
            told: dict[str, Any] = {f"sm_{a}": [one[key] for key in KEYS] for a, one in zip(ARCHITECTURES, several, strict=True)}
            chosen = {f"sm_{a}": one["options"] for a, one in zip(ARCHITECTURES, several, strict=True) if "options" in one}
            told |= {"options": chosen} if chosen else {}
            yield {"kernel": several[0]["kernel"], **({"tiles": several[0]["tiles"]} if several[0]["tiles"] else {}), **told}


def entry(name: str) -> dict[str, Any]:
    """Of a rule; other options matter only where the first ones did not do."""
    found = list(lines(name))
    tried = any("options" in kernel or any(kernel[f"sm_{a}"][KEYS.index("spilled")] for a in ARCHITECTURES) for kernel in found)
    return {**marked(name, (*CODE["triton"], *(["options"] if tried else []))), "kernels": found}


KEYS = ("registers", "spilled", "wide reads", "wide writes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("rules", nargs="*")
    given = parser.parse_args()
    found, failed = recorded(given.record), 0
    for name in given.rules or stale(found, CODE["triton"]):
        try:
            found[name] = entry(name)
        except Exception:  # the others are still of interest
            traceback.print_exc()
            failed += 1
            continue
        print(name, json.dumps(found[name]["kernels"]), flush=True)
        save(given.record, found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
