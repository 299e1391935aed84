"""What the commands that look at a DualPathCluster in Kubernetes share: who is asked, and as whom.

The kubeconfig decides, as for kubectl. A cluster's gateway is asked through the API server's proxy to its
Service: no port has to be open, and the rights of the person count (get and create on services/proxy, get on
the cluster's Secret with the control token).
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from dualpath_api.errors import SpecError

if TYPE_CHECKING:
    from dualpath_operator.kube import Api, KubeError

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])

TOKEN_HEADER = "X-DualPath-Token"


def kubernetes_options(command: F) -> F:
    """--namespace and --context, like kubectl's."""
    command = click.option(
        "--context", metavar="C", help="Context of the kubeconfig; default: its current one."
    )(command)
    return click.option(
        "--namespace", "-n", metavar="NS", help="Namespace; default: that of the kubeconfig's context."
    )(command)


class Clusters:
    """The DualPathClusters of one namespace, and what belongs to them."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def cluster(self, name: str) -> Json:
        """One DualPathCluster. Raises SpecError where there is none."""
        from dualpath_operator.kinds import CLUSTER

        found = await self.api.get(CLUSTER, self.namespace, name)
        if found is not None:
            return found
        if not await self.api.kinds(CLUSTER.api_version):
            raise SpecError(
                "this Kubernetes does not know DualPathClusters",
                cause=f"it has no kinds of {CLUSTER.api_version}",
                remedy="install the chart dualpath-crds, or give another --context",
            )
        known = [one["metadata"]["name"] for one in await self.api.list(CLUSTER, self.namespace)]
        raise SpecError(
            f"there is no DualPathCluster {name} in namespace {self.namespace}",
            cause=f"it has {', '.join(sorted(known)[:10]) or 'none'}",
            remedy="give another NAME or -n NAMESPACE",
        )

    async def pod(self, cluster: str, name: str) -> Json:
        """An engine Pod of a cluster. Raises SpecError."""
        from dualpath_operator.kinds import POD
        from dualpath_operator.names import CLUSTER_LABEL, ROLE_LABEL

        found = await self.api.get(POD, self.namespace, name)
        labels = {} if found is None else found["metadata"].get("labels", {})
        if found is None or labels.get(CLUSTER_LABEL) != cluster or ROLE_LABEL not in labels:
            raise SpecError(
                f"{name} is no engine Pod of {cluster}",
                cause=f"namespace {self.namespace} has no such Pod with the label {CLUSTER_LABEL}={cluster}",
                remedy=f"kubectl get pods -n {self.namespace} -l {CLUSTER_LABEL}={cluster},{ROLE_LABEL}",
            )
        return found

    async def ask(self, cluster: str, path: str, *, method: str = "GET", body: Any = None) -> Json:
        """One call of a cluster's gateway. Raises SpecError where it does not answer, KubeError otherwise."""
        from dualpath_operator.kube import KubeError

        service = f"/api/v1/namespaces/{quote(self.namespace)}/services/{quote(cluster)}:8000/proxy"
        headers = {TOKEN_HEADER: await self._token(cluster)}
        try:
            return await self.api.request(method, f"{service}{path}", body=body, headers=headers)
        except KubeError as error:
            if error.status in {401, 403} and not error.reason:  # Kubernetes gives a reason
                raise SpecError(
                    f"the gateway of {cluster} does not take the token of the Secret {cluster}-control",
                    cause=" ".join(str(error).split()),
                    remedy="restart the gateway, so that it reads the token anew",
                ) from None
            absent = error.status == 404 and error.reason == "NotFound"  # the Service; Kubernetes says so
            if error.status < 500 and not absent:
                raise
            raise SpecError(
                f"the gateway of {cluster} does not answer",
                cause=" ".join(str(error).split()),
                remedy=f"look at `dualpath status {cluster} -n {self.namespace}`",
            ) from None

    async def _token(self, cluster: str) -> str:
        from dualpath_operator.kinds import SECRET
        from dualpath_operator.names import control_secret

        found = await self.api.get(SECRET, self.namespace, control_secret(cluster))
        return (
            base64.b64decode((found or {}).get("data", {}).get("token", ""))
            .decode("ascii", "replace")
            .strip()
        )


@asynccontextmanager
async def clusters_of(namespace: str | None, context: str | None) -> AsyncIterator[Clusters]:
    """The clusters of a namespace. Whatever Kubernetes refuses becomes one message."""
    from dualpath_operator.connection import namespace_of
    from dualpath_operator.kube import Api, KubeError

    async with await Api.connect(context) as api:
        try:
            yield Clusters(api, namespace or namespace_of(context))
        except KubeError as error:
            raise _refused(api, error) from None


def _refused(api: Api, error: KubeError) -> SpecError:
    cause = " ".join(str(error).split())
    if error.status == 0:
        remedy = "is it running? give another --context"
        return SpecError(
            f"the API server {api.configuration.host} does not answer", cause=cause, remedy=remedy
        )
    if error.status in {401, 403}:
        remedy = "log in anew, or ask for the role dualpath-view or dualpath-edit"
        return SpecError("Kubernetes does not let you do that", cause=cause, remedy=remedy)
    return SpecError("Kubernetes refused", cause=cause, remedy="see the cause")
