"""Settings for all tests."""

import gc
import os
import random
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels run on the CPU
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's; torch's: `one_thread`

# The same examples in every run, so that whether a change passes depends on it alone; `make properties` and `make fuzz` look further.
# No deadline, and none is told to be slow: examples share two cores with whatever else is running.
BY_THE_CLOCK = [HealthCheck.too_slow]
settings.register_profile("optlang", deadline=None, suppress_health_check=BY_THE_CLOCK, derandomize=True)
settings.register_profile("anew", deadline=None, suppress_health_check=BY_THE_CLOCK, print_blob=True)
settings.load_profile("anew" if os.environ.get("OPTLANG_ANEW") else "optlang")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Python does not search for garbage among tests while they are collected, nor ever after: there are thousands, and all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        one_thread()


def one_thread() -> None:
    """Two workers share two cores: threads would wait for each other, in loops that take the processor. `tensors.threads` asks for more.
    By torch, since with OMP_NUM_THREADS=1 two are no longer safe (docs/trust.md); where nothing has imported it, no test runs."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws without a seed of its own is the same whichever tests were before it in this process."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)  # of all devices it takes half a millisecond


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
