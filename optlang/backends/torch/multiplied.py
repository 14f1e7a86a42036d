"""Products of matrices as generated torch code calls them: rounded or not, with a sum or alone, whole or by half.

Of a product that is symmetric, as a matrix times its own transpose is, one triangle is computed and mirrored. Each element is the sum
of the same terms, so no number changes by more than rounding does.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRIP, STRIPS = 128, 8  # rows that are computed at once, or a share of all if these are more: that many threads have enough to do
HALVED_FROM = (384, 1 << 18)  # rows of a symmetric product and elements of its first factor; below, strips gain nothing on the CPU


def product(a: Tensor, b: Tensor, symmetric: bool = False) -> Tensor:
    """(batch, m, k) and (batch, k, n); `symmetric`: it is known that the product is. A batch of one is given to torch's product of two
    matrices in 16 bits, which copies less on the CPU; in others the bits are those that the matrix has among several."""
    if a.shape[0] != 1:
        return a @ b
    if symmetric and _is_halved(a):
        return _by_half(a[0], b[0]).unsqueeze(0)
    return (a[0] @ b[0]).unsqueeze(0) if a.itemsize == 2 else a @ b


def added(term: Tensor, a: Tensor, b: Tensor, share: float, factor: float, symmetric: bool = False) -> Tensor:
    """share * term + factor * (a @ b), rounded once. `symmetric`: it is known that both terms are."""
    if a.shape[0] != 1:
        return torch.baddbmm(term, a, b, beta=share, alpha=factor)
    if symmetric and _is_halved(a):
        return _by_half(a[0], b[0], term[0], share, factor).unsqueeze(0)
    return torch.addmm(term[0], a[0], b[0], beta=share, alpha=factor).unsqueeze(0)


def is_traced(x: Tensor) -> bool:
    """Whether others watch what is done, who want torch's plain functions: its compiler, `vmap`, autograd."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x) or x.requires_grad


def _is_halved(a: Tensor) -> bool:
    rows, elements = HALVED_FROM
    return not is_traced(a) and a.device.type == "cpu" and a.shape[-2] >= rows and a.numel() >= elements


def _by_half(a: Tensor, b: Tensor, term: Tensor | None = None, share: float = 1.0, factor: float = 1.0) -> Tensor:
    """Strip by strip, each as far as the diagonal; what is right of it is what is below it. How many threads there are says nothing
    about strips, as bits would depend on it."""
    rows = a.shape[0]
    size = -(-max(STRIP, rows // STRIPS) // STRIP) * STRIP
    found = a.new_empty(rows, rows)
    for low in range(0, rows, size):
        high = min(low + size, rows)
        strip = found[low:high, :high]
        if term is None:
            torch.mm(a[low:high], b[:, :high], out=strip)
        else:
            torch.addmm(term[low:high, :high], a[low:high], b[:, :high], beta=share, alpha=factor, out=strip)
        found[:low, low:high] = strip[:, :low].T
    return found
