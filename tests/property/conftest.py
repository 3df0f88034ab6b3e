"""`make fuzz` tries each law on many more inputs than a check does."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=20_000, deadline=None)
