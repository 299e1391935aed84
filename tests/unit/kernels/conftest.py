"""Kernels run in Triton's interpreter here; a kernel is bound to it at its first launch."""

import pytest


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
