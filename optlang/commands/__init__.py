"""The commands, a module each: `ABOUT` is its help, `add_arguments` its options, and `run` what it does, which returns the exit code.

Only the module of the command that is asked for is imported.
"""

COMMANDS = {
    "check": ("optlang.commands.check", "find mistakes in rule files (what `optlang FILE` does)"),
    "fmt": ("optlang.commands.fmt", "format rule files"),
    "explain": ("optlang.commands.explain", "explain the code of a finding"),
    "show": ("optlang.commands.show", "print a rule as text, latex, markdown, ir, plan, cost or graph"),
    "diff": ("optlang.commands.diff", "show what differs between two rules"),
    "build": ("optlang.commands.build", "generate a Python module for torch or optax, or the torch backend's code"),
    "list": ("optlang.commands.list", "list the library"),
    "new": ("optlang.commands.new", "start a rule"),
    "race": ("optlang.race.command", "train one model with several rules, side by side"),
    "bench": ("optlang.bench.command", "time the steps of rules against other packages and the memory floor"),
    "search": ("optlang.search.command", "evolve new rules from old ones"),
}
