"""Layers of many models at once: the first dimension of weights and activations counts the runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Params = dict[str, Tensor]


def linear(params: Params, name: str, x: Tensor) -> Tensor:
    """[runs, …, inputs] -> [runs, …, outputs], by weights [runs, outputs, inputs] and biases [runs, outputs]."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    out = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, -2), weight.mT)
    return out.reshape(*x.shape[:-1], out.shape[-1]) if x.ndim > 3 else out


def norm(params: Params, name: str, x: Tensor) -> Tensor:
    """Layer normalisation of the last dimension of [runs, examples, places, width]."""
    weight, bias = (params[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return torch.addcmul(bias, F.layer_norm(x, x.shape[-1:]), weight)


def convolution(weight: Tensor, x: Tensor, stride: int = 1) -> Tensor:
    """3 x 3, padded: [examples, runs * channels, height, width] by [runs, outputs, channels, 3, 3], one group for each run."""
    return F.conv2d(x, weight.flatten(0, 1), stride=stride, padding=1, groups=len(weight))


def batch_norm(params: Params, name: str, x: Tensor) -> Tensor:
    """[examples, runs * channels, height, width], each channel by its mean and variance in this batch: in evaluation as well."""
    weight, bias = (params[f"{name}.{part}"].flatten() for part in ("weight", "bias"))
    return F.batch_norm(x, None, None, weight, bias, training=True)


def embedding(weight: Tensor, index: Tensor) -> Tensor:
    """[runs, letters, width] at [runs, …] -> [runs, …, width]."""
    runs, letters = weight.shape[:2]
    first = letters * torch.arange(runs).view(-1, *(1,) * (index.ndim - 1))
    return F.embedding(index + first, weight.flatten(0, 1))


def attention(params: Params, name: str, x: Tensor, heads: int, causal: bool) -> Tensor:
    """Of [runs, examples, places, width] to itself."""
    runs, examples, places, width = x.shape
    joined = linear(params, f"{name}.qkv", x).view(runs * examples, places, 3, heads, width // heads)
    q, k, v = joined.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return linear(params, f"{name}.out", mixed.transpose(1, 2).reshape(runs, examples, places, width))


def block(params: Params, name: str, x: Tensor, heads: int, causal: bool) -> Tensor:
    """One pre-norm block of a transformer."""
    x = x + attention(params, name, norm(params, f"{name}.norm1", x), heads, causal)
    inner = F.gelu(linear(params, f"{name}.up", norm(params, f"{name}.norm2", x)))
    return x + linear(params, f"{name}.down", inner)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the examples of each run: [runs, …, classes] and [runs, …] -> [runs]."""
    each = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
    return each.view(target.shape[0], -1).mean(1)
