"""Which fields of an object are ours, in the words of server-side apply. Pure.

Objects are made by a plain create: that takes the API server a fraction of the time of an apply, and tells by
itself whether the name was free. It notes our fields as updated, though, and an apply later removes only what
was applied. So before the first apply the note is rewritten, as `kubectl` does when it goes over to apply
(client-go's csaupgrade).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualpath_operator.model import MANAGER


def was_created(fields: Iterable[Mapping[str, Any]]) -> bool:
    """Whether managedFields still hold the note of our create."""
    return any(_is_note(entry) for entry in fields)


def as_applied(fields: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """ManagedFields with the note of our create turned into one of an apply."""
    entries = [dict(entry) for entry in fields]
    applied = any(e.get("manager") == MANAGER and e.get("operation") == "Apply" for e in entries)
    kept = [entry for entry in entries if not (applied and _is_note(entry))]
    return [entry | {"operation": "Apply"} if _is_note(entry) else entry for entry in kept]


def replica_managers(fields: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Who owns spec.replicas."""
    return frozenset(
        str(entry.get("manager", ""))
        for entry in fields
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
    )


def _is_note(entry: Mapping[str, Any]) -> bool:
    ours = entry.get("manager") == MANAGER and entry.get("operation") == "Update"
    return ours and not entry.get("subresource")
