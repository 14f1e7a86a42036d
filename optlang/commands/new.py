"""`optlang new`."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import suppress
from pathlib import Path

ABOUT = """\
Writes a small rule with comments to start from, to NAME.opt in lower case. Never overwrites a file.

optlang new MyRule                   writes myrule.opt"""
TEMPLATE = """\
# {name}: check with `optlang {file}`, race with `optlang race adamw {file}`.
# w is the parameter, g its gradient, t the step (1 on the first); a prime marks the new value.
rule {name} "what it is and where it comes from" {{
  hyper lr           = 1e-3 in (0, inf) "step size"
  hyper beta         = 0.9  in [0, 1)   "decay of the gradient mean"
  hyper weight_decay = 0    in [0, inf) "decoupled decay, times lr"
  state m = 0
  m' = beta*m + (1 - beta)*g
  u  = m'/(abs(m') + rms(m') + 1e-12)
  w' = w - lr*(u + weight_decay*w)
}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang new`."""
    parser.add_argument("name", metavar="NAME", help="the rule's name, as in MyRule")


def run(arguments: argparse.Namespace) -> int:
    """Writes the file; 2 where it is there already or cannot be written."""
    if not re.fullmatch(r"[^\W\d_]\w*", arguments.name) or not arguments.name[0].isupper():
        print(f"`{arguments.name[:80]}` cannot name a rule: begin with a capital letter, go on with letters and digits", file=sys.stderr)
        return 2
    path = Path(f"{arguments.name.lower()}.opt")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=arguments.name, file=path))
    except FileExistsError:
        print(f"{path} is there already; it was left alone", file=sys.stderr)
        return 2
    except OSError as error:
        with suppress(OSError):  # half of a rule is none
            path.unlink()
        print(f"{path} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"wrote {path}\n  optlang {path}                 check it\n  optlang race adamw {path}      see how it trains")
    return 0
