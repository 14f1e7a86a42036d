"""Faults put into steps, caches, checkpoints, searches and races, each counted: `python -m tests.faults --record docs/faults.json`."""
