"""Machines that try to break the language and the compiler: random rules (`grow`), every way to run them (`agree`), hostile text
(`hostile`). `python -m tests.fuzz --minutes 5` runs them; docs/trust.md tells what has been found."""
