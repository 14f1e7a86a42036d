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
    return out.unflatten(1, x.shape[1:-1]) if x.ndim > 3 else out


def norm(params: Params, name: str, x: Tensor) -> Tensor:
    """Layer normalisation of the last dimension of [runs, examples, places, width]."""
    weight, bias = (params[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return torch.addcmul(bias, F.layer_norm(x, x.shape[-1:]), weight)


def batch_norm(params: Params, name: str, x: Tensor) -> Tensor:
    """[runs, channels, examples, height, width], each channel by the mean and variance of this batch: in evaluation as well."""
    mean = x.mean((2, 3, 4), keepdim=True)
    centred = x - mean
    scale = (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).rsqrt()
    weight, bias = (params[f"{name}.{part}"][:, :, None, None, None] for part in ("weight", "bias"))
    return torch.addcmul(bias, centred, scale * weight)


def convolution(weight: Tensor, x: Tensor, stride: int = 1) -> Tensor:
    """3 x 3, padded: [runs, channels, examples, height, width] by [runs, outputs, channels, 3, 3]."""
    runs, channels, examples, *_ = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    windows = padded.unfold(3, 3, stride).unfold(4, 3, stride)  # [runs, channels, examples, height, width, 3, 3]
    height, width = windows.shape[3:5]
    columns = windows.permute(0, 1, 5, 6, 2, 3, 4).reshape(runs, channels * 9, examples * height * width)
    return torch.bmm(weight.flatten(2), columns).view(runs, -1, examples, height, width)


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
