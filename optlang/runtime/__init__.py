"""Optimizers around compiled programs.

`factory` makes the classes, `optimizer` is what they do, `cases` their programs, `settings` hypers and ranges, `facts` what
routes and ranks ask of a parameter, `batch` the closure asked again, `checkpoint` state dicts, `shapes` those of states.
"""

from optlang.runtime.factory import make_optimizer

__all__ = ["make_optimizer"]
