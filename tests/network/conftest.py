"""Networks for the tests. They need root and iproute2; where that is missing they fail and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from networks import layout
from programs import ensure

from dualpath_cli.emulation.network import Network


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """A minimal system has neither ip nor tc."""
    ensure("tc", "iproute2")


@pytest.fixture
def make() -> Iterator[Callable[..., Network]]:
    """Makes networks, which end with the test."""
    with ExitStack() as stack:
        yield lambda *nodes: stack.enter_context(Network(layout(*nodes)))


@pytest.fixture
def net(make: Callable[..., Network]) -> Network:
    """p0, d0 and s0, as in `networks.layout`."""
    return make()
