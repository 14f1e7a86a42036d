"""The command line. `optlang FILE` checks, every other task is a subcommand; what they do is in `commands`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from optlang import __version__, library
from optlang.commands import COMMANDS
from optlang.commands.files import exit_code, is_a_rule_file
from optlang.errors import OptError, did_you_mean
from optlang.resources import folder

ABOUT = """\
Write optimizers as equations, train with them, hand them on as Python.

  optlang new MyRule                        write my first rule to myrule.opt
  optlang myrule.opt                        check it: errors with place and advice
  optlang show myrule.opt --as latex        its equations for a paper
  optlang diff adamw myrule.opt             what differs, side by side
  optlang race adamw lion myrule.opt        train one model with each, side by side
  optlang bench myrule.opt                  time its steps beside other packages
  optlang build myrule.opt --to module -o myrule.py   a module that needs torch alone
  optlang search myrule.opt --minutes 30    evolve it into better ones

In Python:  optlang.load("myrule.opt")(model.parameters(), lr=1e-3)
A file may be `-` (standard input) or a library name (`optlang list`). The language, on one page:
{page}
Exit codes: 0 all is well, 1 something was found, 2 the command or a file could not be used, 130 stopped by Ctrl-C."""

OF_ALL = ("-h", "--help", "--version")  # what is no option of a command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    word = next((x for x in arguments if x == "-" or not x.startswith("-")), "")
    if word and arguments[0] not in OF_ALL:
        if word in COMMANDS:
            arguments.remove(word)
        elif not is_a_rule_file(word):
            return _unknown(word)
        arguments.insert(0, word if word in COMMANDS else "check")  # `optlang FILE`; options may stand before both
    parser = _parser(arguments[0] if arguments else "")
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "run"):
        parser.print_help()
        return 2
    return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    try:
        code = int(chosen.run(chosen))
        sys.stdout.flush()
        return code
    except OptError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:  # `optlang list | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # without a name it is of the output
        what = "what was to be printed cannot be written" if error.filename is None else error.filename
        print(f"optlang: {what}: {error.strerror or error}", file=sys.stderr)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - what is left is not tried again at the end
        return 2


def _parser(wanted: str) -> argparse.ArgumentParser:
    """The parser, with the options of the wanted command alone: the others are only listed."""
    about = ABOUT.format(page=folder("grammar") / "README.md")
    parser = argparse.ArgumentParser("optlang", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"optlang {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == wanted:
            command = import_module(module)
            sub.description = command.ABOUT
            sub.set_defaults(run=command.run)
            command.add_arguments(sub)
    return parser


def _unknown(word: str) -> int:
    near = f"{word}.opt" if os.path.exists(f"{word}.opt") else did_you_mean(word, [*COMMANDS, *library.names()])
    print(f"optlang: `{word[:80]}` is neither a command nor a file{f'; did you mean `{near}`?' if near else ''}", file=sys.stderr)
    print("`optlang --help` lists the commands", file=sys.stderr)
    return 2
