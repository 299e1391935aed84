"""For all tests: properties are never timed, as a busy machine is no bug; Triton is the interpreter's.

Triton's own library functions become interpreted or compiled when triton is imported, once a process. The first
test that imports torch's or transformers' parts of it would decide that for the kernel tests, so it is done here.
The variable is taken back, as engine processes must not inherit it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

with pytest.MonkeyPatch.context() as patch:
    patch.setitem(os.environ, "TRITON_INTERPRET", "1")
    import triton.language  # noqa: F401

settings.register_profile("house", deadline=None)
settings.load_profile("house")
