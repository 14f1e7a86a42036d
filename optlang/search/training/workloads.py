"""The built-in tasks: seven small models, each in many copies at once, on data that comes with scikit-learn or Python."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import sqrt

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.nn import functional as F

from optlang.race import builtin
from optlang.race.tasks import Split, split
from optlang.search.batched.layers import batch_norm, block, convolution, cross_entropy, embedding, linear, norm
from optlang.search.training.tasks import Batch, Params, Task, Weight

Weights = dict[str, Weight]


def _dense(name: str, inputs: int, outputs: int) -> Weights:
    """A linear layer, started as torch's."""
    bound = 1 / sqrt(inputs)
    return {f"{name}.weight": Weight((outputs, inputs), bound), f"{name}.bias": Weight((outputs,), bound)}


def _scale(name: str, width: int) -> Weights:
    """A normalisation."""
    return {f"{name}.weight": Weight((width,), 0.0, 1.0), f"{name}.bias": Weight((width,), 0.0)}


def _block(name: str, width: int, inner: int) -> Weights:
    return {
        **_scale(f"{name}.norm1", width), **_dense(f"{name}.qkv", width, 3 * width), **_dense(f"{name}.out", width, width),
        **_scale(f"{name}.norm2", width), **_dense(f"{name}.up", width, inner), **_dense(f"{name}.down", inner, width),
    }  # fmt: skip


class _Workload(Task):
    """With a step size that falls to 0, the loss at the end is steady: otherwise half of it is chance."""

    schedule = "linear"


class _Classifier(_Workload):
    """`logits` of [runs, examples, …] and the labels' cross-entropy."""

    ceiling = 50.0

    def logits(self, params: Params, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no logits")

    def loss(self, params: Params, batch: Batch) -> Tensor:
        x, y = batch
        return cross_entropy(self.logits(params, x), y)


class CancerMLP(_Classifier):
    """breast cancer diagnoses (569 rows of 30 numbers), an MLP 30-32-32-2 of 2.1K parameters"""

    name, steps, batch_size, at_once = "cancer-mlp", 100, 32, 144

    def weights(self) -> Mapping[str, Weight]:
        return _dense("one", 30, 32) | _dense("two", 32, 32) | _dense("three", 32, 2)

    def parts(self) -> Split:
        """Each number in units of its largest: badly conditioned, as such data are. Standardised, six steps would do."""
        bunch = load_breast_cancer()
        x = torch.tensor(bunch.data, dtype=torch.float32)
        return split(x / x.max(0).values, torch.tensor(bunch.target))

    def logits(self, params: Params, x: Tensor) -> Tensor:
        hidden = torch.relu(linear(params, "two", torch.relu(linear(params, "one", x))))
        return linear(params, "three", hidden)


class DigitsMLP(_Classifier):
    """handwritten digits (1797 images of 8 x 8, also shifted), an MLP 64-64-10 of 4.8K parameters"""

    name = "digits-mlp"

    def weights(self) -> Mapping[str, Weight]:
        return _dense("one", 64, 64) | _dense("two", 64, 10)

    def parts(self) -> Split:
        return builtin.Digits().data()

    def logits(self, params: Params, x: Tensor) -> Tensor:
        return linear(params, "two", torch.relu(linear(params, "one", x)))


class PhotoAutoencoder(_Workload):
    """photo patches of 8 x 8 pixels (8480), an autoencoder 192-64-16-64-192 of 27K parameters"""

    name, batch_size, ceiling = "photo-autoencoder", 32, 50.0

    def weights(self) -> Mapping[str, Weight]:
        return _dense("one", 192, 64) | _dense("two", 64, 16) | _dense("three", 16, 64) | _dense("four", 64, 192)

    def parts(self) -> Split:
        return split(*builtin.Photos().data())

    def loss(self, params: Params, batch: Batch) -> Tensor:
        (x,) = batch
        code = linear(params, "two", F.gelu(linear(params, "one", x)))
        out = linear(params, "four", F.gelu(linear(params, "three", code)))
        return (out - x).square().mean((1, 2))


class DigitsCNN(_Classifier):
    """handwritten digits, two convolutions with batch normalisation and a linear layer, 10K parameters"""

    name = "digits-cnn"
    batch_size, evaluated, at_once = 32, 128, 16

    def weights(self) -> Mapping[str, Weight]:
        return {
            "one.weight": Weight((16, 1, 3, 3), 1 / 3), **_scale("norm1", 16),
            "two.weight": Weight((32, 16, 3, 3), 1 / 12), **_scale("norm2", 32), **_dense("head", 512, 10),
        }  # fmt: skip

    def parts(self) -> Split:
        return builtin.Digits().data()

    def logits(self, params: Params, x: Tensor) -> Tensor:
        runs, examples = x.shape[:2]
        images = x.transpose(0, 1).reshape(examples, runs, 8, 8)
        one = torch.relu(batch_norm(params, "norm1", convolution(params["one.weight"], images)))
        two = torch.relu(batch_norm(params, "norm2", convolution(params["two.weight"], one, stride=2)))
        return linear(params, "head", two.view(examples, runs, -1).transpose(0, 1))


class DigitsViT(_Classifier):
    """handwritten digits in 16 patches of 2 x 2, a transformer of 2 blocks, width 32, 18K parameters"""

    name = "digits-vit"
    batch_size, evaluated, at_once, width = 32, 128, 16, 32

    def weights(self) -> Mapping[str, Weight]:
        return {
            **_dense("embed", 4, self.width), "place": Weight((16, self.width), 0.05),
            **_block("block1", self.width, 2 * self.width), **_block("block2", self.width, 2 * self.width),
            **_scale("norm", self.width), **_dense("head", self.width, 10),
        }  # fmt: skip

    def parts(self) -> Split:
        return builtin.Digits().data()

    def logits(self, params: Params, x: Tensor) -> Tensor:
        patches = x.reshape(*x.shape[:2], 4, 2, 4, 2).transpose(3, 4).reshape(*x.shape[:2], 16, 4)
        out = linear(params, "embed", patches) + params["place"][:, None]
        for name in ("block1", "block2"):
            out = block(params, name, out, 4, causal=False)
        return linear(params, "head", norm(params, "norm", out).mean(2))


class _Chars(_Classifier):
    """Prose of `optlang race`, pinned by its hash: see `optlang.race.builtin`."""

    batch_size, evaluated, at_once = 16, 32, 16

    @cached_property
    def text(self) -> builtin.Chars:
        return builtin.Chars()

    def parts(self) -> Split:
        return self.text.data()


class CharsMLP(_Chars):
    """characters of English prose (65 kB), each from the eight before it by an MLP, 16K parameters"""

    name, steps, before, width = "chars-mlp", 300, 8, 16

    def weights(self) -> Mapping[str, Weight]:
        letters = len(self.text.letters)
        embed = {"embed.weight": Weight((letters, self.width), 1.0)}
        return embed | _dense("one", self.before * self.width, 64) | _dense("two", 64, letters)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Of the letters of a window that have eight before them."""
        x, y = batch
        seen = embedding(params["embed.weight"], x.unfold(2, self.before, 1)).flatten(3)
        logits = linear(params, "two", torch.tanh(linear(params, "one", seen)))
        return cross_entropy(logits, y[:, :, self.before - 1 :])


class CharsTransformer(_Chars):
    """characters of English prose (65 kB), a transformer of 2 blocks, width 54, context 32, 84K parameters"""

    name, steps, width = "chars-transformer", 300, 54

    def weights(self) -> Mapping[str, Weight]:
        letters, width = len(self.text.letters), self.width
        return {
            "embed.weight": Weight((letters, width), 0.5), "place": Weight((self.text.context, width), 0.05),
            **_block("block1", width, 4 * width), **_block("block2", width, 4 * width),
            **_scale("norm", width), **_dense("head", width, letters),
        }  # fmt: skip

    def logits(self, params: Params, x: Tensor) -> Tensor:
        out = embedding(params["embed.weight"], x) + params["place"][:, None]
        for name in ("block1", "block2"):
            out = block(params, name, out, 3, causal=True)
        return linear(params, "head", norm(params, "norm", out))


TASKS: dict[str, type[Task]] = {
    made.name: made for made in (CancerMLP, DigitsMLP, PhotoAutoencoder, DigitsCNN, CharsMLP, DigitsViT, CharsTransformer)
}
