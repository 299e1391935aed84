"""What a user asked of the API server, from its audit log, held against what roles grant: least privilege, proven."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Asked:
    """One kind of call. `resource` has its subresource (`pods/status`); `path` is for calls of no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    code: int = 200


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Right:
    """One verb on one resource (or path) that a role grants; `names` narrows it to objects of these names."""

    verb: str
    group: str = ""
    resource: str = ""
    names: tuple[str, ...] = ()
    path: str = ""
    role: str = ""

    def covers(self, call: Asked) -> bool:
        """Whether the call needs, or may use, this right."""
        if self.path or call.path:
            star = self.path.endswith("*") and call.path.startswith(self.path[:-1])
            return self.verb in (call.verb, "*") and (self.path == call.path or star)
        return (
            self.verb in (call.verb, "*")
            and self.group in (call.group, "*")
            and self.resource in (call.resource, "*")
            and (not self.names or call.name in self.names)
        )


def service_account(namespace: str, name: str) -> str:
    """The user name of a service account in the log."""
    return f"system:serviceaccount:{namespace}:{name}"


def calls(log: Path, user: str, after: int = 0) -> list[Asked]:
    """All calls of a user, in order; `after` is a size of the log (`position`) to begin at."""
    return list(_calls(log, user, after))


def position(log: Path) -> int:
    """Where the log ends now."""
    return log.stat().st_size


def rights(roles: Iterable[Mapping[str, Any]]) -> list[Right]:
    """Every single right of Roles and ClusterRoles, one for each verb and resource."""
    return [
        right
        for role in roles
        if role and role.get("kind") in ("Role", "ClusterRole")
        for rule in role.get("rules") or ()
        for right in _rights_of(rule, str(role["metadata"]["name"]))
    ]


def unused(granted: Iterable[Right], made: Iterable[Asked]) -> list[Right]:
    """Rights that no call used: to be taken away, or a test is missing."""
    distinct = set(made)
    return sorted(right for right in granted if not any(right.covers(call) for call in distinct))


def not_granted(granted: Iterable[Right], made: Iterable[Asked]) -> list[Asked]:
    """Calls that no right covers, and calls that the server has forbidden; what every user may ask is left out."""
    granted = list(granted)
    return sorted(
        call
        for call in set(made)
        if call.code == 403 or not (_for_everyone(call) or any(right.covers(call) for right in granted))
    )


def _calls(log: Path, user: str, after: int) -> Iterator[Asked]:
    with log.open("rb") as lines:
        lines.seek(after)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # still being written
            event = json.loads(line)
            if event["user"]["username"] == user:
                asked = _asked(event)
                yield asked
                if (asked.verb, asked.code) == (
                    "patch",
                    201,
                ):  # an apply that made its object needs both rights
                    yield replace(asked, verb="create")


def _asked(event: Mapping[str, Any]) -> Asked:
    code = int(event.get("responseStatus", {}).get("code", 0))
    target = event.get("objectRef")
    if not target or not target.get("resource"):
        return Asked(verb=event["verb"], path=event["requestURI"].partition("?")[0], code=code)
    sub = target.get("subresource")
    return Asked(
        verb=event["verb"],
        group=target.get("apiGroup", ""),
        resource=target["resource"] + (f"/{sub}" if sub else ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=code,
    )


def _rights_of(rule: Mapping[str, Any], role: str) -> Iterator[Right]:
    names = tuple(rule.get("resourceNames") or ())
    for verb in rule["verbs"]:
        for path in rule.get("nonResourceURLs") or ():
            yield Right(verb=verb, path=path, role=role)
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                yield Right(verb=verb, group=group, resource=resource, names=names, role=role)


def _for_everyone(call: Asked) -> bool:
    """Discovery, version, health and questions about oneself: the built-in roles of every authenticated user."""
    if call.path:
        return call.verb == "get" and call.path.split("/")[1] in (
            "api",
            "apis",
            "version",
            "healthz",
            "livez",
            "readyz",
            "openapi",
        )
    return call.resource.startswith("selfsubject")
