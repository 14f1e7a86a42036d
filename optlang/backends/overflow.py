"""Scaled losses inside of a program: gradients are unscaled where they are read, and an overflow leaves everything as it is.

So the device decides, and the host need not wait for what it has found. Both numbers come as hypers that no rule can have.
"""

from __future__ import annotations

from dataclasses import replace

from optlang import ir
from optlang.ir import Hyper, Node, Program

OVERFLOW = "@found_inf"  # whether some gradient is infinite or no number
SCALE = "@grad_scale"  # what gradients are to be divided by


def unscaled_gradient() -> Node:
    """The gradient of the loss itself; after an overflow the one that came."""
    found = ir.mul(ir.G, ir.div(ir.const(1), ir.hyper(SCALE)))
    return ir.branch(ir.hyper(OVERFLOW, "bool"), ir.G, found)


def guarded(program: Program, scaled: bool) -> Program:
    """The program with a step that an overflow undoes, `scaled` for gradients that are not yet unscaled."""
    if scaled:
        table = ir.substitute(program.all_roots(), {ir.G: ir.mul(ir.G, ir.div(ir.const(1), ir.hyper(SCALE)))})
        program = program.replaced(table)
    stop = ir.hyper(OVERFLOW, "bool")
    updates = {s.name: ir.branch(stop, s.node, program.updates[s.name]) for s in program.states}
    more = [Hyper(OVERFLOW, "bool", False), *([Hyper(SCALE, "real", 1.0)] if scaled else [])]
    return replace(program, hypers=(*program.hypers, *more), weights=ir.branch(stop, ir.W, program.weights), updates=updates)
