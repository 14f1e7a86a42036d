"""The command line: its options. `optlang FILE` checks, every other task is a subcommand; what they do is in `commands`."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Sequence

from optlang import __version__, commands, files, show_forms
from optlang.errors import OptError
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] not in COMMANDS and (arguments[0] == "-" or not arguments[0].startswith("-")):
        if not files.is_a_rule_file(arguments[0]):
            return commands.unknown_command(arguments[0], list(COMMANDS))
        arguments.insert(0, "check")  # `optlang FILE`
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
        return 2 if {d.code for d in error.diagnostics} & {"U01", "U02", "L02"} else 1
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
    for name, (about, add) in COMMANDS.items():
        text = inspect.cleandoc(add.__doc__ or about)
        sub = subparsers.add_parser(name, help=about, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == wanted:
            add(sub)
    return parser


def _check(parser: argparse.ArgumentParser) -> None:
    """Checks rule files and prints every finding with its place and what to do.

    optlang check my.opt                 one file
    optlang check library                every .opt file below a folder
    cat my.opt | optlang check -         standard input
    optlang check my.opt --json          for an editor"""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, a library name, or - for standard input")
    parser.add_argument("--pedantic", action="store_true", help="also point at what is legal but looks like a mistake")
    parser.add_argument("--json", action="store_true", help="findings as a JSON list")
    parser.set_defaults(run=commands.check)


def _format(parser: argparse.ArgumentParser) -> None:
    """Rewrites rule files in the one canonical style; comments are kept.

    optlang fmt my.opt                   in place
    optlang fmt --check library          say which files would change, and change none
    cat my.opt | optlang fmt -           to standard output"""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, or - for standard input")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where something would change")
    parser.add_argument("--diff", action="store_true", help="change nothing; print what would")
    parser.set_defaults(run=commands.format_files)


def _explain(parser: argparse.ArgumentParser) -> None:
    """Explains a code such as N02: what it means, an example, and the example put right. Without a code, lists them all.

    optlang explain N02"""
    parser.add_argument("code", nargs="?", metavar="CODE", help="as printed in brackets after `error`")
    parser.set_defaults(run=commands.explain)


def _show(parser: argparse.ArgumentParser) -> None:
    """Prints a rule in another form.

    optlang show lion --as latex

    text      the file in canonical style        latex     the equations, for a paper
    markdown  a card with equations and hypers   ir        the graph that is compiled, node by node
    plan      stages, bytes, operations, scaling graph     Graphviz: optlang show lion --as graph | dot -Tsvg
    cost      memory that a step keeps and moves, for each format of state, with passes, launches and operations"""
    parser.add_argument("file", metavar="FILE", help="a file, a library name, or - for standard input")
    parser.add_argument("--as", dest="form", default="text", choices=["text", *show_forms.FORMS], help="default: text")
    parser.add_argument("--rule", help="which rule, where the file has several")
    parser.add_argument("--math", default="safe", choices=["safe", "strict", "fast"], help="for --as plan and cost; default: safe")
    parser.set_defaults(run=commands.show)


def _diff(parser: argparse.ArgumentParser) -> None:
    """Shows how the second rule differs from the first: in words, and with their equations side by side.

    optlang diff adamw adabelief           two rules of the library
    optlang diff adam my.opt               a file beside one
    optlang diff my.opt:Fast my.opt:Slow   two rules of one file

    What states, settings and equations are called does not count: they are paired by what they do. Exit codes: 0 both take
    the same steps, 1 they differ or it could not be decided, 2 a file or a name could not be used."""
    parser.add_argument("a", metavar="A", help="FILE.opt, FILE.opt:Rule, a library name, or - for standard input")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--json", action="store_true", help="changes and equations as JSON")
    parser.set_defaults(run=commands.diff)


def _build(parser: argparse.ArgumentParser) -> None:
    """Writes generated source.

    optlang build my.opt --to module -o my_optimizer.py

    module  a torch.optim.Optimizer in one readable file that imports torch alone, to keep or to hand on
    optax   an optax.GradientTransformation in one readable file of plain JAX, which imports jax and optax alone
    torch   the functions that the torch backend gives to torch.compile, to see what will run"""
    parser.add_argument("file", metavar="FILE", help="a file, a library name, or - for standard input")
    parser.add_argument("--to", required=True, choices=["module", "optax", "torch"])
    parser.add_argument("-o", "--output", metavar="OUT", help="file to write, such as my_optimizer.py; standard output if left out")
    parser.add_argument("--rule", help="which rule, where the file has several")
    parser.set_defaults(run=commands.build)


def _list(parser: argparse.ArgumentParser) -> None:
    """Lists the library: family, name, settings and source of every rule.

    optlang list                         all of it
    optlang list matrix 2024             lines with both words"""
    parser.add_argument("words", nargs="*", metavar="WORD", help="only rules whose line contains all of these words")
    parser.set_defaults(run=commands.list_rules)


def _new(parser: argparse.ArgumentParser) -> None:
    """Writes a small rule with comments to start from, to NAME.opt in lower case. Never overwrites a file.

    optlang new MyRule                   writes myrule.opt"""
    parser.add_argument("name", metavar="NAME", help="the rule's name, as in MyRule")
    parser.set_defaults(run=commands.new)


def _race(parser: argparse.ArgumentParser) -> None:
    from optlang.race import command  # noqa: PLC0415 - only `race` pays for it

    parser.description = command.ABOUT
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _bench(parser: argparse.ArgumentParser) -> None:
    from optlang.bench import command  # noqa: PLC0415 - only `bench` pays for it

    parser.description = command.ABOUT
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _search(parser: argparse.ArgumentParser) -> None:
    from optlang.search import command  # noqa: PLC0415 - only `search` pays for it

    parser.description = command.ABOUT
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


COMMANDS = {
    "check": ("find mistakes in rule files (what `optlang FILE` does)", _check),
    "fmt": ("format rule files", _format),
    "explain": ("explain the code of a finding", _explain),
    "show": ("print a rule as text, latex, markdown, ir, plan, cost or graph", _show),
    "diff": ("show what differs between two rules", _diff),
    "build": ("generate a Python module for torch or optax, or the torch backend's code", _build),
    "list": ("list the library", _list),
    "new": ("start a rule", _new),
    "race": ("train one model with several rules, side by side", _race),
    "bench": ("time the steps of rules against other packages and the memory floor", _bench),
    "search": ("evolve new rules from old ones", _search),
}
