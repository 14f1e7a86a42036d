"""Gradients that are differentiated again: a backward pass that keeps what that needs, and what to do where torch cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ONCE = "the rule needs Hessian-vector products, but the model cannot be differentiated twice"
COMPILED = ". Call the model itself in the closure, not what `torch.compile` made of it"
ATTENTION = ". Compute the loss under `torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)`"
ADVICE = {"donated buffer": COMPILED, "aot_autograd": COMPILED, "scaled_dot_product": ATTENTION}


@contextmanager
def backward_by(other: Callable[..., None]) -> Iterator[None]:
    """`loss.backward()` in here calls another function."""
    plain_backward = torch.autograd.backward
    setattr(torch.autograd, "backward", other)  # noqa: B010 - the place where `Tensor.backward` looks
    try:
        yield
    finally:
        setattr(torch.autograd, "backward", plain_backward)  # noqa: B010


@contextmanager
def keeping_the_graph() -> Iterator[list[Any]]:
    """`loss.backward()` in here keeps what is needed to differentiate the gradients again. Gives a list of the passes so far."""
    plain_backward = torch.autograd.backward
    passes: list[Any] = []

    def backward(tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False, **more: Any) -> None:
        passes.append(None)
        with twice():
            plain_backward(tensors, grad_tensors, True, True, **more)

    with backward_by(backward), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
        yield passes


def refuse_parts(parameters: Sequence[Any]) -> None:
    """Raises RuntimeError for parts of FSDP2: their gradients hang on nothing, and autograd would take them for constants."""
    if any(hasattr(p, "device_mesh") and p.grad is not None and not p.grad.requires_grad for p in parameters):
        raise RuntimeError("the rule needs Hessian-vector products, and the gradient of a parameter that several processes hold parts of "
                           "has no graph: FSDP2's gradients cannot be differentiated again, those of tensor parallel layers and of "
                           "`distribute_tensor` can")  # fmt: skip


def refuse_breaks(gradients: Sequence[Tensor]) -> None:
    """Raises RuntimeError where a function is differentiable once: autograd may pass its mark in the graph by, and products would
    lack terms."""
    waiting = [g.grad_fn for g in gradients]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if node.name() == "torch::autograd::Error":
                raise RuntimeError(f"{ONCE}: a function in it is marked as `once_differentiable`")
            waiting.extend(other for other, _ in node.next_functions)


@contextmanager
def twice() -> Iterator[None]:
    """What torch says of functions that have no second derivative, with what to do."""
    try:
        yield
    except RuntimeError as problem:
        advice = next((text for word, text in ADVICE.items() if word in str(problem)), "")
        raise RuntimeError(f"{ONCE}: {str(problem).rstrip('.')}{advice}") from problem
