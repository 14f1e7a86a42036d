"""Settings for all tests."""

from hypothesis import settings

settings.register_profile("optlang", deadline=None)  # examples share two cores with whatever else is running
settings.load_profile("optlang")
