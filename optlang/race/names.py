"""The names of the built-in tasks and what each is, for `optlang race` and `optlang search`. Plain text: importing it is quick.

A search trains in many copies at once, tasks of its own that are written for that and small. It knows those of the race, too.
"""

from __future__ import annotations

RACE = {
    "digits": "handwritten digits, an MLP 64-128-128-10",
    "digits-cnn": "handwritten digits, two convolutions and a linear layer (in a search with batch normalisation)",
    "chars": "characters of English prose, a transformer of 2 blocks, width 48",
    "photos": "photo patches, an autoencoder 192-64-16-64-192",
    "tabular": "breast cancer diagnoses, an MLP 30-32-2",
    "tabular-diabetes": "disease progression, an MLP 10-32-1",
}
SEARCH = {  # what each is, and the task of the race on the same data
    "cancer-mlp": ("breast cancer diagnoses, badly scaled, an MLP 30-32-32-2", "tabular"),
    "digits-mlp": ("handwritten digits, an MLP 64-64-10", "digits"),
    "photo-autoencoder": ("photo patches, the model of photos, batches half as large", "photos"),
    "digits-cnn": ("handwritten digits, two convolutions with batch normalisation and a linear layer", "digits-cnn"),
    "chars-mlp": ("characters of English prose, each from the eight before it by an MLP", "chars"),
    "digits-vit": ("handwritten digits, a transformer of 2 blocks, width 32", "digits-cnn"),
    "chars-transformer": ("characters of English prose, a transformer of 2 blocks, width 54", "chars"),
    "planted-momentum": ("a quadratic whose curvatures span three decades", ""),
    "planted-sign": ("a quadratic whose gradients change their scale in every step and have wild noise", ""),
    "planted-normalized": ("the third power of a quadratic", ""),
}


def table() -> str:
    """All of them, for `--help`."""
    own = {name: about for name, (about, _) in SEARCH.items() if name not in RACE}
    return "\n".join([
        "Tasks, all without download; of a race and of a search:",
        *(f"  {name:<18} {about}" for name, about in RACE.items()),
        "of a search alone, as they are small and quick in many copies:",
        *(f"  {name:<18} {about}" for name, about in own.items()),
    ])  # fmt: skip


def of_a_search(name: str) -> str:
    """What to race on instead of a task that only a search knows; empty for another name."""
    if name in RACE or name not in SEARCH:
        return ""
    near = SEARCH[name][1]
    return f"`{name}` is a task of `optlang search` alone{near and f'; `{near}` has the same data'}."
