"""The built-in tasks: real data, no download. They come with scikit-learn or with Python itself."""

from __future__ import annotations

import hashlib
from pydoc_data.topics import topics

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from optlang.race.tasks import Part, Split, split


class _Classification:
    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    def accuracy(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        right: Tensor = model(x).argmax(-1) == y
        return right.float().mean()


def _standardise(x: Tensor, y: Tensor) -> Split:
    """Inputs with mean 0 and variance 1, as measured on the training examples alone."""
    parts = split(x, y)
    mean, deviation = parts.train[0].mean(0), parts.train[0].std(0)
    return Split(*(((x - mean) / deviation, y) for x, y in (parts.train, parts.validation, parts.test)))


class Digits(_Classification):
    """handwritten digits (scikit-learn, 1797 images of 8 x 8), an MLP 64-128-128-10"""

    steps, batch_size, threads = 600, 64, 1  # tensors this small run faster on one thread

    def data(self) -> Split:
        """Training images also shifted by one pixel. On the bare thousand a race is won by whoever overfits last."""
        bunch = load_digits()
        parts = split(torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target))
        images, labels = parts.train
        return Split((_shifted(images), labels.repeat(9)), parts.validation, parts.test)

    def model(self) -> nn.Module:
        hidden = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        return nn.Sequential(*hidden, nn.Linear(128, 10))


def _shifted(images: Tensor) -> Tensor:
    """(n, 64) -> (9 n, 64): every image of 8 x 8 pixels where it was and moved by one to all eight sides."""
    padded = F.pad(images.view(-1, 8, 8), (1, 1, 1, 1))
    return torch.cat([padded[:, y : y + 8, x : x + 8].flatten(1) for y in range(3) for x in range(3)])


class DigitsCNN(Digits):
    """handwritten digits (scikit-learn, 1797 images of 8 x 8), two convolutions and a linear layer"""

    steps = 300

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip


class Tabular(_Classification):
    """breast cancer diagnoses (scikit-learn, 569 rows of 30 numbers), an MLP 30-32-2"""

    steps, batch_size, threads = 200, 32, 1

    def data(self) -> Split:
        bunch = load_breast_cancer()
        return _standardise(torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))


class Diabetes:
    """disease progression (scikit-learn's diabetes, 442 rows of 10 numbers), an MLP 10-32-1"""

    steps, batch_size, threads = 200, 32, 1

    def data(self) -> Split:
        bunch = load_diabetes()
        x, y = (torch.tensor(a, dtype=torch.float32) for a in (bunch.data, bunch.target))
        return _standardise(x, (y - y.mean()) / y.std())

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x).squeeze(-1), y)


class Photos:
    """patches of 8 x 8 pixels of scikit-learn's two sample photographs, an autoencoder 192-64-16-64-192"""

    steps, batch_size, threads = 300, 64, 1

    def data(self) -> Part:
        patches = [_patches(torch.tensor(image)) for image in load_sample_images().images]
        return (torch.cat(patches).float() / 127.5 - 1,)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(192, 64), nn.GELU(), nn.Linear(64, 16),
            nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 192),
        )  # fmt: skip

    def loss(self, model: nn.Module, x: Tensor) -> Tensor:
        return F.mse_loss(model(x), x)


def _patches(image: Tensor) -> Tensor:
    """(height, width, 3) -> (patches, 3 * 8 * 8), without overlap."""
    return image.unfold(0, 8, 8).unfold(1, 8, 8).reshape(-1, 3 * 8 * 8)


# The chapters of Python's language reference that read the same in Python 3.11.2, 3.11.7, 3.12.1 and 3.13.0: one
# text, one hash. Mixed by hand, as the last fifth is held out.
CHAPTERS = """
    calls yield booleans typesmodules exceptions bltin-code-objects import else bitwise id-classes in assert
    operator-summary dynamic-features with break lambda bltin-ellipsis-object unary global slicings integers
    callable-types context-managers del pass if comparisons bltin-null-object continue typesfunctions for return
    bltin-type-objects while
"""
CHAPTERS_SHA256 = "02e8df628014fab7ba0ad9698a77f4ffeebf7b03634f9c94f7b45a04dc26c34c"


class Chars(_Classification):
    """characters of Python's language reference (65 kB of English), a transformer of 2 layers, width 48, context 32"""

    steps, batch_size, threads = 400, 32, 1
    context, width = 32, 48

    def __init__(self) -> None:
        self.text = "\n\n".join(topics.get(name, "") for name in CHAPTERS.split())
        self.letters = {letter: i for i, letter in enumerate(sorted(set(self.text)))}
        known = hashlib.sha256(self.text.encode()).hexdigest() == CHAPTERS_SHA256
        note = "chars: this Python's pydoc_data.topics has another text; do not compare with results of other Pythons"
        self.notes = [] if known else [note]

    def data(self) -> Split:
        """Training windows start at every character, held-out windows do not overlap and stand nowhere in the training text."""
        eighty, ninety, size = int(0.8 * len(self.text)), int(0.9 * len(self.text)), self.context + 1
        train = self._codes(self.text[:eighty]).unfold(0, size, 1)
        parts = []
        for start, end in ((eighty, ninety), (ninety, len(self.text))):
            seen = self.text[:start]
            windows = (self.text[at : at + size] for at in range(start, end - size + 1, self.context))
            parts.append(torch.stack([self._codes(window) for window in windows if window[:-1] not in seen]))
        return Split(*((windows[:, :-1], windows[:, 1:]) for windows in (train, *parts)))

    def _codes(self, text: str) -> Tensor:
        return torch.tensor([self.letters[letter] for letter in text])

    def model(self) -> nn.Module:
        return Transformer(len(self.letters), self.context, self.width)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


class Transformer(nn.Module):
    """Two pre-norm blocks: (batch, context) of letters -> (batch, context, letters) of logits."""

    def __init__(self, letters: int, context: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.place = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.blocks(self.embed(x) + self.place)))
        return out


class Block(nn.Module):
    """Causal attention with 4 heads, then an MLP. Written out, as torch's fused attention has no second derivative."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.attend(self.norm1(x)))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        mixed: Tensor = logits.masked_fill(future, float("-inf")).softmax(-1) @ v
        return mixed.transpose(1, 2).flatten(-2)


TASKS = {
    "digits": Digits,
    "digits-cnn": DigitsCNN,
    "chars": Chars,
    "photos": Photos,
    "tabular": Tabular,
    "tabular-diabetes": Diabetes,
}
