"""What is known of a program without running it: what it moves, how it scales, what matters, what may be left out.

| module | answers |
|---|---|
| `costs` | what a step moves, stage by stage |
| `degrees` (by `linear_equations`, in words by `units`) | how every value scales with the loss and with the parameter |
| `first_step` | whether the first step is defined, and which signs rounding decides in it |
| `live_states` | which states matter |
| `nonnegative` | which values are never below zero |
| `constant_conditions` | what has nothing to choose among |
| `zero_gradient` | whether a step leaves elements without gradient as they are |
| `accumulation` | whether a gradient may come in parts |
| `needs` | whether a rule can be stepped with some of a model's parameters, or without their shapes |
"""
