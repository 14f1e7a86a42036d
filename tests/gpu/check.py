"""Everything that only a GPU can tell, by one command: `make gpu-check`, or `python tests/gpu/check.py`.

Parts in the order of their worth; each stands alone, so that the failure of one loses nothing of the others, and the JSON is
written after every one of them. No part is begun that would not be over in time. Exit codes: 0, 1 when a part failed, 2
without a GPU. `--cpu` runs the same parts on tiny tensors in Triton's interpreter, which tests this script.

Needs torch 2.11 with triton 3.6 or newer, and numpy. Where lark is not installed, its wheel may lie in `.gpu`:
`pip download --no-deps -d .gpu lark`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = [ROOT, ROOT / "tests", ROOT / "tests" / "gpu", *sorted((ROOT / ".gpu").glob("*.whl"))]
sys.path[:0] = [str(path) for path in SEARCHED if str(path) not in sys.path]
SPARE = 20.0  # seconds kept for what is running when time is up


@dataclass
class Check:
    """What parts share. `sizes`: shapes of each model; `seconds`: for all parts together."""

    device: Any
    sizes: dict[str, list[tuple[int, ...]]]
    seconds: float
    out: Path | None
    found: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def is_cpu(self) -> bool:
        return bool(self.device.type == "cpu")

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)

    def note(self, name: str, value: Any) -> None:
        """Adds a result, and writes what there is."""
        self.found[name] = value
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")

    def run(self, name: str, part: Callable[[Check], Any], needs: float) -> None:
        """One part, which takes about `needs` seconds."""
        start = time.monotonic()
        if not self.is_cpu and self.left < needs + SPARE:
            self.note(name, {"left out": f"{self.left:.0f} s were left, about {needs:.0f} are needed"})
            return
        try:
            result: Any = part(self)
        except Exception as problem:  # the next part is another matter
            self.failed.append(name)
            result = {"failed": f"{type(problem).__name__}: {problem}"[:2000], "where": traceback.format_exc()[-3000:]}
        self.note(name, {"seconds": round(time.monotonic() - start, 1), "result": result})
        print(f"{name}: {json.dumps(result, default=str)[:1500]}", flush=True)


def what_is_here(device: Any) -> dict[str, Any]:
    import torch
    import triton

    import optlang

    here = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__, "triton": triton.__version__,
            "python": platform.python_version(), "optlang": optlang.__file__}  # fmt: skip
    if device.type == "cuda":
        known = torch.cuda.get_device_properties(device)
        memory = {"memory": known.total_memory, "processors": known.multi_processor_count}
        here |= {"device": known.name, "capability": f"{known.major}.{known.minor}", "cuda": torch.version.cuda} | memory
    return here | ({} if device.type == "cuda" else {"device": f"{platform.machine()} CPU, interpreted"})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="tiny tensors in Triton's interpreter, without a GPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts; default: 8")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these")
    parser.add_argument("--out", type=Path, help="default: tests/bench/results/gpu-DATE.json; with --cpu nowhere")
    return parser.parse_args()


def main() -> int:
    chosen = parsed()
    os.environ["TRITON_INTERPRET"] = "1" if chosen.cpu else "0"  # before Triton is imported
    import torch

    if not chosen.cpu and not (torch.cuda.is_available() and torch.version.cuda):
        print("gpu-check: there is no NVIDIA GPU here, so nothing was checked; `--cpu` tries the script itself", file=sys.stderr)
        return 2
    from parts import PARTS, sizes

    device = torch.device("cpu" if chosen.cpu else "cuda")
    today = datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    out = chosen.out or (None if chosen.cpu else ROOT / "tests" / "bench" / "results" / f"gpu-{today}.json")
    check = Check(device, sizes(chosen.cpu), 60 * chosen.minutes, out)
    check.note("here", what_is_here(device))
    for name, (part, needs) in PARTS.items():
        if not chosen.parts or name in chosen.parts:
            check.run(name, part, needs)
    check.note("failed", check.failed)
    print(f"gpu-check: {len(check.failed)} parts failed{': ' if check.failed else ''}{', '.join(check.failed)}; figures: {out}")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
