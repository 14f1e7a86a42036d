"""`optlang bench`: its options, and what it does with them. Importing this is quick; measuring imports torch."""

from __future__ import annotations

import argparse
import sys

from optlang.backends import NAMES as BACKENDS
from optlang.resources import without

ABOUT = """\
Times the step of rules on the parameters of a model, with our backends and with the optimizers of the same name in installed
packages, and compares it with the floor: what moving the rule's memory once takes. On the CPU that is a kernel that reads and
writes the same arrays and computes nothing, on CUDA as many bytes at the measured speed of a copy. Rules that must go over their
memory several times (LAMB, Adafactor) have a second floor on the CPU, which goes over it as often.

  optlang bench adamw                               GPT-2 small: optlang, torch fused and foreach, optimi, …
  optlang bench my.opt --model small many           where a step costs more than its memory
  optlang bench adamw --states fp32 bf16 int8       what states in fewer bits cost or save
  optlang bench lion --backends cpp torch --peers none --quick

All that step one rule take turns, step by step, in one process. First steps and memory are measured in fresh processes with caches
of their own. The table goes to the terminal, all figures (JSON) and a plot (PNG) to --out. Exit codes: 0, 1 when a contestant
failed, 2 when nothing could start."""
NAMES = ("gpt2", "resnet50", "small", "many", "layer", "narrow", "tiny")  # a test compares them with `models.MODELS`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang bench`."""
    parser.add_argument("rules", nargs="+", metavar="RULE", help="a library name, FILE.opt or FILE.opt:Rule")
    parser.add_argument("--model", nargs="+", default=["gpt2"], choices=NAMES, metavar="MODEL", help=f"{', '.join(NAMES)}; default: gpt2")
    parser.add_argument("--backends", nargs="+", default=["auto"], choices=BACKENDS, metavar="BACKEND",
                        help=f"of ours: {', '.join(BACKENDS)}; default: auto")  # fmt: skip
    parser.add_argument("--states", nargs="+", default=["fp32"], choices=["fp32", "bf16", "fp8", "int8", "int4"], metavar="FORMAT",
                        help="how our states are stored: fp32, bf16, fp8, int8, int4; default: fp32")  # fmt: skip
    parser.add_argument("--products", nargs="+", default=["fp32"], choices=["fp32", "bf16"], metavar="FORMAT",
                        help="what our products of matrices are rounded to: fp32, bf16; default: fp32")  # fmt: skip
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the parameters; default: float32")
    parser.add_argument("--device", default="", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--steps", type=int, default=15, metavar="N", help="steps of every contestant; default: 15")
    parser.add_argument("--peers", default="quick", choices=["none", "quick", "all"],
                        help="other packages: none, quick, or all, with those that compile for minutes; default: quick")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="no fresh processes: leave out first steps and memory")
    parser.add_argument("--busy", action="store_true",
                        help="the machine is used by others, too: steps on one thread, in processor time")  # fmt: skip
    parser.add_argument("--out", default="bench-results", metavar="FOLDER", help="for JSON and PNG; default: bench-results")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints. Raises OptError for a rule that is wrong."""
    if lacks := without("race", "rich", "matplotlib"):
        print(f"optlang bench: {lacks}", file=sys.stderr)
        return 2
    from optlang.bench.session import measured  # noqa: PLC0415 - torch is only imported when it is needed

    try:
        return measured(arguments)
    except (ValueError, OSError, RuntimeError) as problem:
        print(f"optlang bench: {problem}", file=sys.stderr)
        return 2
