"""The gateway: a Service that clients, engines and the operator know, and one Pod behind it.

It serves engines of all revisions, so a rollout must not restart it: its ConfigMap is its own, and only a
change of what it cannot be told while it runs makes a new Pod.
"""

from __future__ import annotations

from dualpath_operator.desired import commands, config, processes, weights
from dualpath_operator.desired.common import (
    cpu_millis,
    cpu_quantity,
    digest,
    filled,
    memory_shares,
    metadata,
    selector,
)
from dualpath_operator.desired.merge import merge_pod_template
from dualpath_operator.model import Cluster, Object, Surroundings

COMPONENT = "gateway"
STOP_S = 30
"""Requests that run when the gateway stops may take this long."""
CONFIG_HASH = "dualpath.io/config-hash"


def name(cluster: Cluster) -> str:
    """Name of the Deployment and its ConfigMap."""
    return f"{cluster.name}-gateway"


def service(cluster: Cluster) -> Object:
    """The Service NAME."""
    spec = cluster.spec.gateway.service
    head = metadata(cluster, cluster.name, COMPONENT)
    if spec.annotations:
        head["annotations"] = dict(spec.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": head,
        "spec": {
            "type": spec.type,
            "selector": selector(cluster, COMPONENT),
            "ports": [
                {"name": "http", "port": commands.API_PORT, "targetPort": "http", "protocol": "TCP"},
            ],
        },
    }


def config_map(cluster: Cluster) -> Object:
    """What a gateway starts from. It may change under a running one, which read it at its start."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(cluster, name(cluster), COMPONENT),
        "data": {"cluster.json": config.as_text(config.gateway_config(cluster))},
    }


def deployment(cluster: Cluster, around: Surroundings) -> Object:
    """One Pod at most: two schedulers would both hand out the same engines."""
    template = pod_template(cluster, around)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(cluster, name(cluster), COMPONENT),
        "spec": {
            "replicas": 0 if cluster.spec.suspend else 1,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector(cluster, COMPONENT)},
            "template": template,
        },
    }


def pod_template(cluster: Cluster, around: Surroundings) -> Object:
    """The Pod of the Deployment."""
    spec = cluster.spec
    image = spec.gateway.image or around.images.gateway
    init = weights.init_containers(cluster, image, processes.security(), processes.SCRATCH, weights=False)
    restarts = digest(config.gateway_config(cluster)["spec"]["model"], 16)
    pod: Object = {
        "metadata": {
            "labels": metadata(cluster, "", COMPONENT)["labels"],
            "annotations": {CONFIG_HASH: restarts},
        },
        "spec": filled(
            {
                **processes.pod_basics(cluster),
                "terminationGracePeriodSeconds": STOP_S + 15,
                "initContainers": init,
                "containers": [_container(cluster, image)],
                "volumes": [*processes.volumes(cluster, name(cluster)), *weights.volumes(cluster)],
            }
        ),
    }
    return merge_pod_template(pod, spec.gateway.pod_template, where="spec.gateway.podTemplate")


def _container(cluster: Cluster, image: str) -> Object:
    wanted = cluster.spec.gateway
    requests: Object = {}
    limits: Object = {}
    if wanted.cpu is not None:
        requests["cpu"] = cpu_quantity(cpu_millis(wanted.cpu))
    if wanted.memory is not None:
        requests["memory"] = limits["memory"] = memory_shares(wanted.memory, 1)[0]
    return filled(
        {
            "name": "gateway",
            "image": image,
            "imagePullPolicy": cluster.spec.image_pull_policy,
            "command": commands.gateway(cluster),
            "env": processes.env(
                DUALPATH_CONTROL_TOKEN_FILE=commands.TOKEN,
                DUALPATH_GATEWAY_STOP_S=str(STOP_S),
                HOME="/tmp",
            ),
            "ports": [processes.port("http", commands.API_PORT)],
            "resources": filled({"requests": requests, "limits": limits}),
            "securityContext": processes.security(),
            "volumeMounts": [
                processes.CONFIG_MOUNT,
                processes.CONTROL_MOUNT,
                processes.SCRATCH,
                *weights.mounts(cluster),
            ],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            # /readyz waits for engines, and engines reach the gateway through its Service: so not that one
            **processes.probes("http", ready="/healthz"),
        }
    )
