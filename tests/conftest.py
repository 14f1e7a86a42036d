"""Settings for all tests."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels run on the CPU

# The same examples in every run, so that whether a change passes depends on it alone; `make properties` and `make fuzz` look further.
# No deadline: examples share two cores with whatever else is running.
settings.register_profile("optlang", deadline=None, derandomize=True)
settings.register_profile("anew", deadline=None, print_blob=True)
settings.load_profile("anew" if os.environ.get("OPTLANG_ANEW") else "optlang")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several, and other processes work beside the test."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def float64() -> Iterator[None]:
    """torch's default type is float64: some references keep scalars in it."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def undefined() -> Iterator[None]:
    """What mathematics leaves undefined is NaN or infinite, and NumPy does not warn of it."""
    import numpy as np

    with np.errstate(all="ignore"):
        yield
