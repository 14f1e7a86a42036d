"""Settings for all tests."""

import os

from hypothesis import settings

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels run on the CPU

settings.register_profile("optlang", deadline=None)  # examples share two cores with whatever else is running
settings.load_profile("optlang")
