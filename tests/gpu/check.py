"""Everything that only a GPU can tell, by one command: `make gpu-check`, or `python tests/gpu/check.py`.

Parts in the order of their worth; each stands alone, so that the failure of one loses nothing of the others, and the JSON is
written after every one of them. They run in a process of their own: where one dies, hangs, or leaves the GPU unusable, another
goes on after that part. No part is begun that would not be over in time, and of the rules of a part none after twice its time. Exit
codes: 0, 1 when a part failed, 2 without a GPU.
`--cpu` runs the same parts on tiny tensors in Triton's interpreter, which tests this script.

Needs torch 2.11 with triton 3.6 or newer, and numpy. Where lark is not installed, its wheel may lie in `.gpu`:
`pip download --no-deps -d .gpu lark`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import platform
import subprocess
import sys
import tempfile
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
RUNNING = "running"  # the part that is, in the JSON
NO_GPU, UNUSABLE = 2, 3  # exit codes of a process


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
    until: float = float("inf")  # twice what the part that runs was to take is over

    @property
    def is_cpu(self) -> bool:
        return bool(self.device.type == "cpu")

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)

    @property
    def is_late(self) -> bool:
        """Whether the part that runs has had its time: the next one is worth more than the rest of it."""
        return time.monotonic() > self.until

    def note(self, name: str, value: Any) -> None:
        """Adds a result, and writes what there is."""
        self.found[name] = value
        write(self.out, self.found)

    def run(self, name: str, part: Callable[[Check], Any], needs: float) -> None:
        """One part, which takes about `needs` seconds. Ends the process where it takes far longer or the GPU is of no use after it."""
        start = time.monotonic()
        if not self.is_cpu and self.left < needs + SPARE:
            self.note(name, {"left out": f"{self.left:.0f} s were left, about {needs:.0f} are needed"})
            return
        self.note(RUNNING, name)
        self.until = start + 2 * needs
        self.watch(60 + 3 * needs)
        result = self._tried(name, part)
        faulthandler.cancel_dump_traceback_later()
        self.note(name, {"seconds": round(time.monotonic() - start, 1), "result": result})
        print(f"{name}: {json.dumps(result, default=str)[:1500]}", flush=True)
        if name in self.failed and not self._is_usable():
            os._exit(UNUSABLE)
        del self.found[RUNNING]

    def watch(self, seconds: float) -> None:
        """The process ends, and says where it was, if this is not called again and the part not over within so many seconds."""
        if self.device.type == "cuda":
            faulthandler.dump_traceback_later(max(1, min(seconds, self.left)), exit=True)

    def _tried(self, name: str, part: Callable[[Check], Any]) -> Any:
        try:
            return part(self)
        except Exception as problem:  # the next part is another matter
            self.failed.append(name)
            return {"failed": f"{type(problem).__name__}: {problem}"[:2000], "where": traceback.format_exc()[-3000:]}

    def _is_usable(self) -> bool:
        """After some errors, a process gets nothing from its GPU any more."""
        import torch

        if self.device.type != "cuda":
            return True
        try:
            return bool((torch.ones(8, device=self.device) + 1).sum().item() == 16)
        except RuntimeError:
            return False


def write(out: Path | None, found: dict[str, Any]) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


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
    parser.add_argument("--after", help=argparse.SUPPRESS)  # this process runs the parts after that one, or all of them after ""
    return parser.parse_args()


def main() -> int:
    chosen = parsed()
    if chosen.after is not None:
        return run_parts(chosen)
    today = datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    with tempfile.TemporaryDirectory() as nowhere:
        out = Path(nowhere) / "gpu.json" if chosen.cpu else ROOT / "tests" / "bench" / "results" / f"gpu-{today}.json"
        return supervised(chosen, chosen.out or out)


def supervised(chosen: argparse.Namespace, out: Path) -> int:
    """Parts in a process, and those after one that it did not survive in another."""
    begun, after = time.monotonic(), ""
    options = [*(["--cpu"] if chosen.cpu else []), *(["--parts", *chosen.parts] if chosen.parts else [])]
    while True:
        left = chosen.minutes - (time.monotonic() - begun) / 60
        command = [sys.executable, __file__, "--minutes", f"{left:.3f}", "--out", str(out), "--after", after, *options]
        code = subprocess.run(command, check=False).returncode
        found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        if RUNNING not in found:
            break
        after = found.pop(RUNNING)
        found.setdefault(after, {"result": {"failed": f"its process ended with exit code {code}: it hung, or died"}})
        found["failed"] = sorted({*found.get("failed", []), after})
        write(out, found)
    failed = found.get("failed", [])
    if found:
        print(f"gpu-check: {len(failed)} parts failed{': ' if failed else ''}{', '.join(failed)}; figures: {out}")
    return 1 if failed and code != NO_GPU else code


def run_parts(chosen: argparse.Namespace) -> int:
    """The work of one process."""
    os.environ["TRITON_INTERPRET"] = "1" if chosen.cpu else "0"  # before Triton is imported
    import torch

    if not chosen.cpu and not (torch.cuda.is_available() and torch.version.cuda):
        print("gpu-check: there is no NVIDIA GPU here, so nothing was checked; `--cpu` tries the script itself", file=sys.stderr)
        return NO_GPU
    from parts import PARTS, sizes

    device = torch.device("cpu" if chosen.cpu else "cuda")
    check = Check(device, sizes(chosen.cpu), 60 * chosen.minutes, chosen.out)
    if chosen.after:
        check.found = json.loads(chosen.out.read_text(encoding="utf-8"))
        check.failed = check.found["failed"]
    else:
        check.note("here", what_is_here(device))
        check.note("failed", check.failed)
    if unknown := [name for name in chosen.parts or () if name not in PARTS]:
        sys.exit(f"gpu-check: there is no part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    names = [name for name in PARTS if not chosen.parts or name in chosen.parts]
    for name in names[names.index(chosen.after) + 1 if chosen.after else 0 :]:
        check.run(name, *PARTS[name])
        check.note("failed", check.failed)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
