"""Whether a live object still is what was applied: every value that we render stands in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = ("name", "containerPort", "port", "mountPath", "uid", "key", "ip", "topologyKey")
"""Fields by which the API server tells the items of a list apart."""


def differences(wanted: Any, live: Any, path: str = "") -> list[str]:
    """Paths at which the live object misses or contradicts what is wanted; values of others are no matter."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return [] if not wanted and live is None else [path]
        return [
            found
            for key, value in wanted.items()
            for found in differences(value, live.get(key), f"{path}.{key}")
        ]
    if isinstance(wanted, str | bytes) or not isinstance(wanted, Sequence):
        return [] if wanted == live else [path]
    if not isinstance(live, Sequence) or isinstance(live, str):
        return [] if not wanted and live is None else [path]
    return _list_differences(wanted, live, path)


def _list_differences(wanted: Sequence[Any], live: Sequence[Any], path: str) -> list[str]:
    """Items are found by name where they have one, else by place."""
    key = next(
        (name for name in _NAMES if wanted and all(isinstance(i, Mapping) and name in i for i in wanted)),
        None,
    )
    if key is None:
        if len(wanted) != len(live):
            return [path]
        pairs = [(str(place), item, live[place]) for place, item in enumerate(wanted)]
    else:
        by_name = {item.get(key): item for item in live if isinstance(item, Mapping)}
        pairs = [(str(item[key]), item, by_name.get(item[key])) for item in wanted]
    return [found for place, item, other in pairs for found in differences(item, other, f"{path}[{place}]")]
