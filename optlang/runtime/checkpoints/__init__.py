"""State dicts: saved, loaded, and those of other optimizers."""
