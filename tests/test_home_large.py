"""Parameters of more than 2^31 elements: places are counted in 64 bits. Memory that nothing is written into takes no room. 6 seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import optlang
from optlang.backends.torch import TorchExecutable

ELEMENTS = 2**31 + 8
RULE = "rule R { report largest = max(abs(g) per model) report numbers = count(g per model) w' = w - g }"


def untouched(dtype: type = np.float16) -> Tensor:
    return torch.from_numpy(np.zeros(ELEMENTS, dtype))


@pytest.mark.parametrize("backend", ["cpp"])
def test_a_kernel_goes_to_the_last_element(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads all gradients; the weights are not written, for that would take their memory."""
    p, gradient = untouched().requires_grad_(), untouched()
    gradient[-1], gradient[2**31 - 1] = -3, 2
    optimizer: Any = optlang.loads(RULE, backend=backend)([p])
    p.grad = gradient
    executable = optimizer.cases[0].executable({})[1]
    assert isinstance(executable, TorchExecutable)
    monkeypatch.setattr(executable._functions, "run_all", lambda calls, compiled: None)
    optimizer.step()
    assert optimizer.reports == {"largest": 3, "numbers": ELEMENTS}


def test_sparse_gradients_of_a_table_larger_than_memory_need_be(tmp_path: Path) -> None:
    """16 bytes wide, in a file of which only the pages that are stepped exist."""
    p = torch.from_file(str(tmp_path / "table"), shared=True, size=ELEMENTS, dtype=torch.float32).reshape(-1, 4).requires_grad_()
    optimizer: Any = optlang.load("sgd")([p], lr=0.5)
    last = p.shape[0] - 1
    p.grad = torch.sparse_coo_tensor(torch.tensor([[last, 2**29 - 1]]), torch.ones(2, 4), p.shape, check_invariants=True)
    optimizer.step()
    assert p[last].tolist() == [-0.5] * 4 and p[2**29 - 1].tolist() == [-0.5] * 4 and p[2**29 - 2].tolist() == [0] * 4
