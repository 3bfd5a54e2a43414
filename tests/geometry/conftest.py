"""Property tests: the same examples in every run, and no deadline, since other work may share the processor."""

from hypothesis import settings

settings.register_profile("unposed", deadline=None, derandomize=True)
settings.load_profile("unposed")
