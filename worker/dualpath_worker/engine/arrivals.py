"""Layers that have arrived for one attempt: written by the event loop, awaited by the compute threads."""

from __future__ import annotations

import threading


class LayersLostError(Exception):
    """The layers will not come: the peer is gone, too late, or the attempt was aborted."""


class LayerArrivals:
    """A monotone count of arrived layers that a thread can wait on."""

    def __init__(self, arrived: int = 0) -> None:
        self._arrived = arrived
        self._lost: str | None = None
        self._changed = threading.Condition()

    def advance(self, layers: int) -> None:
        """Layers 0..layers-1 are here."""
        with self._changed:
            self._arrived = max(self._arrived, layers)
            self._changed.notify_all()

    def lose(self, reason: str) -> None:
        """Whoever waits for more gets LayersLostError."""
        with self._changed:
            self._lost = self._lost or reason
            self._changed.notify_all()

    def wait(self, layer: int, deadline_s: float) -> None:
        """Block until `layer` is here. Raises LayersLostError."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._arrived > layer or self._lost is not None, deadline_s)
            if self._arrived > layer:
                return
            raise LayersLostError(
                self._lost if done and self._lost else f"layer {layer} overdue after {deadline_s:g} s"
            )
