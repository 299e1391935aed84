"""The objects of a cluster without what differs from run to run: equal listings mean the same outcome."""

from __future__ import annotations

import json
import re
from typing import Any

from kube_api import Object
from stories import CLUSTERS, Site

from dualpath_operator.kinds import CHILDREN, CLUSTER, POD

KINDS = (CLUSTER, POD, *CHILDREN)
"""Every kind that the operator writes and an API server knows by itself."""

_VOLATILE = frozenset(
    {
        "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "lastTransitionTime",
        "observedGeneration", "clusterIP", "clusterIPs", "nodeName", "volumeName", "progressTime", "ip",
        "dualpath.io/intent-hash", "lastTuneTime", "finalizers", "deployment.kubernetes.io/revision",
    }
)  # fmt: skip
_STATUS_OF = frozenset({"DualPathCluster", "DualPathEngineGroup"})


def normalised(site: Site) -> dict[str, Object]:
    """`Kind/name` to the object; names of the namespace, and revisions, are the same in all runs."""
    found: dict[str, Object] = {}
    for kind in KINDS:
        group = f".{kind.group}" if kind.group else ""
        for body in site.kube.all(f"{kind.plural}{group}", site.namespace):
            if kind is POD and "dualpath.io/role" not in body["metadata"].get("labels", {}):
                continue  # the Deployment's, which is compared itself
            if body["metadata"]["name"] not in ("kube-root-ca.crt", "default", "operator"):
                found[f"{kind.name}/{body['metadata']['name']}"] = _plain(kind.name, body)
    text = json.dumps(found, sort_keys=True).replace(site.namespace, "NAMESPACE")
    for number, revision in enumerate(_revisions(site, text)):
        text = text.replace(revision, f"REVISION{number}")
    answer: dict[str, Object] = json.loads(text)
    return answer


def _revisions(site: Site, text: str) -> list[str]:
    body = site.kube.find(CLUSTERS, site.cluster, site.namespace) or {}
    now = body.get("status", {}).get("revision", {}).get("updated")
    others = sorted(set(re.findall(r'"dualpath.io/revision": "([0-9a-f]{8})"', text)) - {now})
    return [*([now] if now else []), *others]


def _plain(kind: str, body: Object) -> Object:
    kept = {key: _without(value) for key, value in body.items() if key != "status"}
    if kind == "Secret":
        kept["data"] = sorted(body["data"])
    if kind in _STATUS_OF:
        kept["status"] = _without(body.get("status", {}))
    if kind == "Pod":
        conditions = body.get("status", {}).get("conditions", ())
        kept["conditions"] = sorted((c["type"], c["status"]) for c in conditions)
    return kept


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in _VOLATILE}
    return [_without(inner) for inner in value] if isinstance(value, list) else value
