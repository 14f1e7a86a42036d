"""`python -m tests.fuzz --minutes 5 --seed 1 --backends torch,module,cpp`: random rules until the time is over.

Prints progress; `--record FILE` gets how many programs ran and the smallest text of each find, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from .agree import PLAIN
from .hunt import hunt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", default=",".join(PLAIN), help="strict, safe, fast (simplified), torch, module, cpp, …")
    parser.add_argument("--record", type=Path, default=Path("fuzz.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    record = hunt(asked.minutes * 60, asked.seed, asked.backends.split(","), time.monotonic, print)
    asked.record.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(record["counts"], indent=2))
    return 1 if record["finds"] else 0


raise SystemExit(main())
