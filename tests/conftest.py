"""Settings for all tests."""

import os

from hypothesis import settings

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels run on the CPU

# The same examples in every run, so that whether a change passes depends on it alone; `make properties` and `make fuzz` look further.
# No deadline: examples share two cores with whatever else is running.
settings.register_profile("optlang", deadline=None, derandomize=True)
settings.register_profile("anew", deadline=None, print_blob=True)
settings.load_profile("anew" if os.environ.get("OPTLANG_ANEW") else "optlang")
