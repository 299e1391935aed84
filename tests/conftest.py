"""For all tests: properties are never timed, as a busy machine is no bug."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
