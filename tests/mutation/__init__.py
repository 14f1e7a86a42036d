"""Mutants of the compiler: which tests notice a change of a line."""
