"""`optlang build`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from optlang import rules
from optlang.commands.files import read, refused, replace

ABOUT = """\
Writes generated source.

optlang build my.opt --to module -o my_optimizer.py

module  a torch.optim.Optimizer in one readable file that imports torch alone, to keep or to hand on;
        with --triton also a Triton kernel, which steps each parameter on a GPU in one pass over its memory
optax   an optax.GradientTransformation in one readable file of plain JAX, which imports jax and optax alone
torch   the functions that the torch backend gives to torch.compile, to see what will run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang build`."""
    parser.add_argument("file", metavar="FILE", help="a file, a library name, or - for standard input")
    parser.add_argument("--to", required=True, choices=["module", "optax", "torch"])
    parser.add_argument("-o", "--output", metavar="OUT", help="file to write, such as my_optimizer.py; standard output if left out or -")
    parser.add_argument("--triton", action="store_true", help="a module with a kernel, for rules that go element by element")
    parser.add_argument("--rule", help="which rule, where the file has several")


def run(arguments: argparse.Namespace) -> int:
    """Writes the text; 1 where the rule cannot be had in that form."""
    if (arguments.output or "").endswith(".opt"):
        print(f"optlang: {arguments.output} is a name for a rule; what is generated is Python: -o NAME.py", file=sys.stderr)
        return 2
    rule = rules.Rule.from_source(read(arguments.file), arguments.rule)
    try:
        text = rules.generate(rule, arguments.to, triton=arguments.triton)
    except ValueError as refusal:
        return refused(refusal)
    if arguments.output in (None, "-"):
        print(text.rstrip("\n"))
    else:
        replace(Path(arguments.output), text)
        print(f"wrote {arguments.output}: {len(text.splitlines())} lines")
    return 0
