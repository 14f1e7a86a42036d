"""Parameters of more than 2^31 elements: places are counted in 64 bits. Memory that nothing is written into takes no room. 20 seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

import optlang

ELEMENTS = 2**31 + 8
RULE = "rule R { report largest = max(abs(g) per model) report numbers = count(g per model) w' = w - g }"


def untouched(dtype: type = np.float16) -> Tensor:
    return torch.from_numpy(np.zeros(ELEMENTS, dtype))


def test_a_kernel_goes_to_the_last_element() -> None:
    """It reads all gradients and writes all weights, which then take 4 GiB."""
    if psutil.virtual_memory().available < 2 * 2 * ELEMENTS:
        pytest.skip("8 GiB of memory are not free")
    p, gradient = untouched().requires_grad_(), untouched()
    gradient[-1], gradient[2**31 - 1] = -3, 2
    optimizer: Any = optlang.loads(RULE, backend="cpp")([p])
    p.grad = gradient
    optimizer.step()
    assert optimizer.reports == {"largest": 3, "numbers": ELEMENTS}
    assert set(optimizer.backends()[0]) >= {"cpp"}
    assert p[-9:].tolist() == [-2, 0, 0, 0, 0, 0, 0, 0, 3] and p[:2].tolist() == [0, 0]


def test_sparse_gradients_of_a_table_larger_than_memory_need_be(tmp_path: Path) -> None:
    """16 bytes wide, in a file of which only the pages that are stepped exist."""
    p = torch.from_file(str(tmp_path / "table"), shared=True, size=ELEMENTS, dtype=torch.float32).reshape(-1, 4).requires_grad_()
    optimizer: Any = optlang.load("sgd")([p], lr=0.5)
    last = p.shape[0] - 1
    p.grad = torch.sparse_coo_tensor(torch.tensor([[last, 2**29 - 1]]), torch.ones(2, 4), p.shape, check_invariants=True)
    optimizer.step()
    assert p[last].tolist() == [-0.5] * 4 and p[2**29 - 1].tolist() == [-0.5] * 4 and p[2**29 - 2].tolist() == [0] * 4
