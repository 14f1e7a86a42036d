"""`optlang` and `python -m optlang`. Ctrl-C ends either with one line, also while the modules of the command line are imported."""

import sys


def main() -> int:
    """The command of `sys.argv`; returns its exit code, 130 where it was stopped."""
    try:
        from optlang import cli  # noqa: PLC0415 - takes longer than many a command

        return cli.main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
