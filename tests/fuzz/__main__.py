"""`python -m tests.fuzz programs texts --minutes 5 --record fuzz.json`: random programs and texts until the time is over.

The record says how many there were, of what, and what was found; another run goes on behind it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from .campaign import Record, run
from .kinds import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", default=["programs", "texts", "cpp"], help=f"of {', '.join(KINDS)}")
    parser.add_argument("--minutes", type=float, default=5, help="for all kinds together")
    parser.add_argument("--record", type=Path, default=Path("fuzz.json"))
    asked = parser.parse_args()
    if wrong := sorted({*asked.kinds} - {*KINDS}):
        parser.error(f"there is no kind {wrong[0]!r}: choose of {', '.join(KINDS)}")
    if "triton" in asked.kinds and os.environ.get("TRITON_INTERPRET") != "1":
        parser.error("kernels of Triton run here with TRITON_INTERPRET=1")
    torch.set_num_threads(1)
    record = Record.read(asked.record)
    found = [run(KINDS[name](), record, asked.minutes / len(asked.kinds), lambda text: print(text, flush=True)) for name in asked.kinds]
    return 1 if any(found) else 0


sys.exit(main())
