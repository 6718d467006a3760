"""For all tests: hypothesis sets no time limit, as the first call of a compiled loop takes seconds."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
