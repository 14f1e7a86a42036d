"""`optlang` and `python -m optlang`. Ctrl-C ends either with one line, also while the modules of the command line are imported."""

import os
import sys
from io import TextIOWrapper


def main() -> int:
    """The command of `sys.argv`; returns its exit code, 130 where it was stopped."""
    try:
        for stream in (sys.stdout, sys.stderr):
            _print_anything(stream)
        from optlang import cli  # noqa: PLC0415 - takes longer than many a command

        return cli.main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _print_anything(stream: object) -> None:
    """No letter ends a command: files and pipes get UTF-8, which rules and modules are in; a terminal shows what it can, other
    letters as `\\u03b2`. So does what is told an encoding by PYTHONIOENCODING."""
    if isinstance(stream, TextIOWrapper):
        told = stream.isatty() or "PYTHONIOENCODING" in os.environ
        stream.reconfigure(encoding=stream.encoding if told else "utf-8", errors="backslashreplace")


if __name__ == "__main__":
    raise SystemExit(main())
