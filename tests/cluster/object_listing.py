"""A listing of all objects of all kinds: what "leaves nothing" is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kube_api import ApiError, Kube, Object
from waiting import until

# The control plane's own, and what Kubernetes itself keeps for a while: no part of anybody's installation.
PASSING = frozenset({"events", "events.events.k8s.io", "leases.coordination.k8s.io"})

Key = tuple[str, str, str]  # resource, namespace, name


def listing(kube: Kube, *, namespaces: Iterable[str] | None = None, but: Iterable[str] = PASSING) -> set[Key]:
    """Every object of every kind that can be listed; `namespaces` leaves only these and cluster-wide objects.

    Objects of namespaces that are being deleted are left out: another test's, on their way.
    """
    going = {
        body["metadata"]["name"]
        for body in kube.all("namespaces")
        if body["metadata"].get("deletionTimestamp")
    }
    only = None if namespaces is None else {*namespaces, ""}
    return {
        (resource.name, namespace, body["metadata"]["name"])
        for resource in kube.resources()
        if "list" in resource.verbs and resource.name not in set(but)
        for body in _all(kube, resource.name)
        if (namespace := body["metadata"].get("namespace", "")) not in going
        and (only is None or namespace in only)
        and (resource.name, body["metadata"]["name"]) not in {("namespaces", name) for name in going}
    }


def leaves_nothing(
    kube: Kube, before: set[Key], within: float = 120.0, *, namespaces: Iterable[str] | None = None
) -> None:
    """Wait until the listing is what it was before; the message of a failure names what is left, or missing."""
    chosen = None if namespaces is None else list(namespaces)

    def same() -> bool:
        now = listing(kube, namespaces=chosen)
        assert now == before, f"left: {sorted(now - before)}; missing: {sorted(before - now)}"
        return True

    until(same, within, what="the same objects as before")


def names(kube: Kube, resource: str, namespace: str, keep: Callable[[Object], bool] = bool) -> list[str]:
    """The names of a kind's objects in a namespace, sorted."""
    return sorted(body["metadata"]["name"] for body in kube.all(resource, namespace) if keep(body))


def _all(kube: Kube, resource: str) -> list[Object]:
    try:
        return kube.all(resource)
    except (ApiError, LookupError) as error:  # its definition has just gone
        if isinstance(error, LookupError) or error.code in (404, 405):
            return []
        raise
