"""The kinds that the operator reads and writes, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from dualpath_api.cluster import GROUP, VERSION
from dualpath_operator.model import MANAGED_BY, MANAGER
from dualpath_operator.names import CLUSTER_LABEL, ROLE_LABEL, ROLES


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects. `group` is empty for the core group."""

    group: str
    version: str
    name: str
    plural: str
    watched: bool = True  # Secrets are only read by name
    labels: str = ""  # selector of those that are ours

    @property
    def api_version(self) -> str:
        """As in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def title(self) -> str:
        """group/version/Kind, as in `Surroundings.kinds`."""
        return f"{self.api_version}/{self.name}"

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """URL path of a collection, an object or its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{quote(namespace)}" if namespace else ""
        steps = [self.plural, *([quote(name)] if name else []), *([subresource] if subresource else [])]
        return f"{root}{scope}/{'/'.join(steps)}"


OURS = f"{MANAGED_BY}={MANAGER},{CLUSTER_LABEL}"

CLUSTER = Kind(GROUP, VERSION, "DualPathCluster", "dualpathclusters")
ENGINE_GROUP = Kind(GROUP, VERSION, "DualPathEngineGroup", "dualpathenginegroups", labels=OURS)
POD = Kind("", "v1", "Pod", "pods", labels=f"{OURS},{ROLE_LABEL} in ({', '.join(ROLES)})")
SECRET = Kind("", "v1", "Secret", "secrets", watched=False)
EVENT = Kind("", "v1", "Event", "events", watched=False)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", labels=OURS)
STATEFUL_SET = Kind("apps", "v1", "StatefulSet", "statefulsets", labels=OURS)
CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", labels=OURS)

CHILDREN = (
    ENGINE_GROUP,
    DEPLOYMENT,
    STATEFUL_SET,
    CLAIM,
    SECRET,
    Kind("", "v1", "Service", "services", labels=OURS),
    Kind("", "v1", "ConfigMap", "configmaps", labels=OURS),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", labels=OURS),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", labels=OURS),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", labels=OURS),
)
"""What every API server knows and a cluster may have, beside Pods."""

OPTIONAL = (
    Kind("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates", labels=OURS),
    Kind("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", labels=OURS),
    Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", labels=OURS),
    Kind("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools", labels=OURS),
)
"""What the API server is asked about at start."""

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases", watched=False)

BY_NAME = {kind.name: kind for kind in (CLUSTER, POD, EVENT, LEASE, *CHILDREN, *OPTIONAL)}
