"""Text in and out: characters, lexemes, the syntax tree, every error of a file in one run, and the canonical text."""
