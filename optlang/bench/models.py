"""The parameters of models worth timing, as shapes: no model is built and nothing is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

Shapes = list[tuple[int, ...]]


def gpt2(blocks: int = 12, width: int = 768, words: int = 50257) -> Shapes:
    """GPT-2 (small: 148 tensors, 124 million numbers), embeddings first."""
    block: Shapes = [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,), (width,), (width,),
                     (4 * width, width), (4 * width,), (width, 4 * width), (width,)]  # fmt: skip
    return [(words, width), (1024, width), *(block * blocks), (width,), (width,)]


def matrices(width: int) -> Shapes:
    """The four of one layer of GPT-2 of that width."""
    return [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]


def resnet50() -> Shapes:
    """ResNet-50 (arXiv:1512.03385): 161 tensors, 25.6 million numbers."""
    found: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    inside = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            for outputs, inputs, size in ((width, inside, 1), (width, width, 3), (4 * width, width, 1)):
                found += [(outputs, inputs, size, size), (outputs,), (outputs,)]
            if block == 0:
                found += [(4 * width, inside, 1, 1), (4 * width,), (4 * width,)]
            inside = 4 * width
    return [*found, (1000, 2048), (1000,)]


MODELS: Mapping[str, Callable[[], Shapes]] = {
    "gpt2": gpt2,
    "resnet50": resnet50,
    "small": lambda: gpt2(24, 64)[2:],  # 290 tensors of a narrow transformer: what a step costs beyond moving memory
    "many": lambda: [(64, 16)] * 10_000,
    "layer": lambda: matrices(768),
    "narrow": lambda: matrices(256),  # where eigenvectors of rows and columns can be waited for
    "tiny": lambda: [(64, 32), (32,), ()],
}


SAID: Mapping[str, Mapping[int, str]] = {  # tensors that routes know by their names, by their places
    "gpt2": {0: "wte.weight", 1: "wpe.weight"}, "resnet50": {-2: "fc.weight", -1: "fc.bias"},
}  # fmt: skip


def names(model: str) -> list[str]:
    """What the parameters of a model are called, in their order: routes look at names."""
    found = [f"{place}.{'weight' if len(shape) > 1 else 'bias'}" for place, shape in enumerate(MODELS[model]())]
    for place, name in SAID.get(model, {}).items():
        found[place] = name
    return found


def parameters(shapes: Shapes, device: torch.device, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """Weights of such shapes with gradients, the same for everyone who asks."""
    draws = torch.Generator(device).manual_seed(0)
    made = [torch.nn.Parameter(0.02 * torch.randn(shape, device=device, generator=draws, dtype=dtype)) for shape in shapes]
    for one in made:
        one.grad = 0.01 * torch.randn(one.shape, device=device, generator=draws, dtype=dtype)
    return made


def answering(weights: Sequence[torch.nn.Parameter]) -> Callable[[], torch.Tensor]:
    """A closure for rules that ask the model: it costs nothing, and gives the gradients that are there now."""
    gradients = [one.grad for one in weights]

    def closure() -> torch.Tensor:
        for one, gradient in zip(weights, gradients, strict=True):
            one.grad = gradient
        return torch.ones(())

    return closure
