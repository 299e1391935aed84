"""Where the Pods of a cluster have the model: in the image, in a claim, or fetched by an init container."""

from __future__ import annotations

import re

from dualpath_operator.desired import commands
from dualpath_operator.desired.common import filled
from dualpath_operator.model import Cluster, Object

VOLUME = "models"


def local_path(cluster: Cluster) -> str:
    """The checkpoint's directory as processes in Pods see it."""
    model = cluster.spec.model
    scheme, _, rest = model.uri.partition("://")
    if scheme == "file":
        return rest
    if scheme == "pvc":
        return f"{commands.MODELS}/{rest.partition('/')[2]}".rstrip("/")
    slug = "--".join([rest.replace("/", "--"), *([model.revision] if model.revision else [])])
    return f"{commands.MODELS}/{re.sub(r'[^A-Za-z0-9._-]', '-', slug)}"


def volumes(cluster: Cluster) -> list[Object]:
    """The volume with models; none when the model is in the image."""
    model = cluster.spec.model
    if model.uri.startswith("file://"):
        return []
    if model.uri.startswith("pvc://"):
        claim = model.uri.removeprefix("pvc://").partition("/")[0]
        return [{"name": VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}]
    if model.cache is None:
        return [{"name": VOLUME, "emptyDir": {}}]
    if model.cache.claim_name is not None:
        return [{"name": VOLUME, "persistentVolumeClaim": {"claimName": model.cache.claim_name}}]
    # not DirectoryOrCreate: the kubelet would make it root's, and our user could not write to it
    return [{"name": VOLUME, "hostPath": {"path": model.cache.host_path, "type": "Directory"}}]


def mounts(cluster: Cluster) -> list[Object]:
    """Where processes find that volume. Only the init container writes to it."""
    return [{"name": VOLUME, "mountPath": commands.MODELS, "readOnly": True} for _ in volumes(cluster)]


def init_containers(
    cluster: Cluster, image: str, security: Object, scratch: Object, *, weights: bool
) -> list[Object]:
    """Fetches a hub model before the Pod's containers start. The gateway needs no weights."""
    model = cluster.spec.model
    if not model.uri.startswith("hf://"):
        return []
    env: list[Object] = [{"name": "HOME", "value": "/tmp"}]
    if model.secret_ref is not None:
        key = {"name": model.secret_ref.name, "key": model.secret_ref.key}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}})
    return [
        filled(
            {
                "name": "model",
                "image": image,
                "imagePullPolicy": cluster.spec.image_pull_policy,
                "command": commands.fetch(model.uri, model.revision, local_path(cluster), weights=weights),
                "env": env,
                "securityContext": security,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": VOLUME, "mountPath": commands.MODELS}, scratch],
            }
        )
    ]
