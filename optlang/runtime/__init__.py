"""Optimizers around compiled programs.

`factory` makes the classes; `grouped` and `optimizer` are what they do, `evaluating` what those of rules with `eval` do.
`cases` are their programs, `settings` hypers and ranges, `naming` what these are called, `facts` what routes and ranks ask
of a parameter, `parameters` what users hand over, `batch` the closure asked again, `checkpoint` state dicts, `shapes` those
of states, `describing` all of it in words.
"""

from optlang.runtime.factory import make_optimizer

__all__ = ["make_optimizer"]
