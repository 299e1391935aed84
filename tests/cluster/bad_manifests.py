"""Manifests that users get wrong, sixty and more: the change of a good spec, who says so, and words of what they are told.

`SERVER`: the definition refuses it. `WEBHOOK`: the webhook refuses it; without webhooks the operator says the same in
the condition Stalled, reason InvalidSpec. Others are the reasons of Stalled: it is acceptable as such, and what comes
of it is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

SERVER, WEBHOOK = "server", "InvalidSpec"
POD, APPLY, CLASH = "PodRefused", "ApplyRefused", "NameClash"


class Manifest(NamedTuple):
    """One row."""

    name: str
    change: str
    by: str
    says: tuple[str, ...]

    def spec(self, good: dict[str, Any]) -> dict[str, Any]:
        """The bad spec; null removes a key."""
        return _merged(good, yaml.safe_load(self.change))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {key: value for key, value in both.items() if value is not None}


ROWS: tuple[tuple[str, str, str, str], ...] = (
    # what is missing, of another type, or unknown
    ("no-model", "model: null", SERVER, "spec.model: Required value"),
    ("no-storage", "storage: null", SERVER, "spec.storage: Required value"),
    ("no-decode", "decode: null", SERVER, "spec.decode: Required value"),
    ("no-size", "storage: {files: {size: null, path: /kv}}", SERVER, "spec.storage.files.size: Required value"),
    ("no-kv-cache", "prefill: {resources: {kvCache: null}}", SERVER, "spec.prefill.resources.kvCache: Required"),
    ("unknown-key", "prefill: {replica: 3}", SERVER, 'unknown field "spec.prefill.replica"'),
    ("unknown-section", "pathpolicy: {mode: Split}", SERVER, 'unknown field "spec.pathpolicy"'),
    ("quoted-number", "kv: {blockTokens: '64'}", SERVER, "spec.kv.blockTokens | must be of type integer"),
    ("number-for-text", "model: {servedName: 3}", SERVER, "spec.model.servedName | must be of type string"),
    ("text-for-section", "prefill: {scaling: Static}", SERVER, "spec.prefill.scaling | must be of type object"),
    ("list-for-section", "fabric: [DRA]", SERVER, "spec.fabric | must be of type object"),
    ("text-for-list", "nics: eth0", SERVER, "spec.nics | must be of type array"),
    ("text-for-switch", "suspend: 'no'", SERVER, "spec.suspend | must be of type boolean"),
    # values that do not exist
    ("lower-case-mode", "pathPolicy: {mode: split}", SERVER, 'spec.pathPolicy.mode | supported values | "Split"'),
    ("wrong-block", "kv: {blockTokens: 48}", SERVER, "spec.kv.blockTokens | supported values | \"64\""),
    ("wrong-dtype", "model: {dtype: fp16}", SERVER, 'spec.model.dtype | supported values | "bfloat16"'),
    ("wrong-fabric", "fabric: {mode: SRIOV}", SERVER, 'spec.fabric.mode | supported values | "Multus"'),
    ("wrong-service", "gateway: {service: {type: Ingress}}", SERVER, 'spec.gateway.service.type | "LoadBalancer"'),
    ("wrong-role", "nics: [{role: gpu, match: eth0}]", SERVER, 'spec.nics[0].role | supported values | "storage"'),
    # sizes, times and numbers
    ("wrong-unit", "storage: {files: {size: 4GB}}", SERVER, "spec.storage.files.size | should match | Gi"),
    ("too-small", "storage: {files: {size: 4}}", SERVER, "spec.storage.files.size | it must be at least 1Mi"),
    ("no-unit", "drain: {deadline: '600'}", SERVER, "spec.drain.deadline | should match | ms|s|m|h"),
    ("days", "drain: {deadline: 2d}", SERVER, "spec.drain.deadline | should match"),
    ("too-long", "drain: {deadline: 25h}", SERVER, "spec.drain.deadline | it must be at most 24h"),
    ("no-time", "prefill: {batching: {computeQuota: 0s}}", SERVER, "computeQuota | it must be more than 0s"),
    ("too-many", "decode: {scaling: {replicas: 65}}", SERVER, "spec.decode.scaling.replicas | less than or equal to 64"),
    ("negative", "decode: {scaling: {replicas: -1}}", SERVER, "spec.decode.scaling.replicas | greater than or equal to 0"),
    ("permille", "pathPolicy: {decodeShare: {maxPermille: 1200}}", SERVER, "maxPermille | less than or equal to 1000"),
    ("percent-cpu", "decode: {resources: {cpu: 50%}}", SERVER, "spec.decode.resources.cpu | should match"),
    # rules between fields
    ("a-path", "model: {uri: /models/qwen}", SERVER, "spec.model | model.uri is none of file:///absolute/path | write one"),
    ("dots", "model: {uri: 'file:///models/../etc'}", SERVER, "spec.model | without '.' or '..'"),
    ("revision", "model: {revision: main}", SERVER, "spec.model | revision is for hf:// models | remove revision"),
    ("two-stores", "storage: {external: {endpoints: ['a:1']}}", SERVER, "spec.storage | exactly one of | keep one"),
    ("planner-alone", "decode: {scaling: {mode: Planner, maxReplicas: 4}}", SERVER, "mode Planner sizes | set it for both"),
    ("no-decoders", "decode: {scaling: {replicas: 0}}", SERVER, "prefill and decode serve together | set both replicas"),
    ("uneven-gpus", "decode: {resources: {gpus: 3}, parallelism: {data: 2}}", SERVER, "spec.decode | resources.gpus is no multiple"),
    ("nodes", "decode: {parallelism: {nodes: 2}}", SERVER, "need a compute network | set fabric.mode"),
    ("rdma", "fabric: {rdma: true}", SERVER, "spec.fabric | rdma needs NICs | set mode to"),
    ("half-a-fabric", "fabric: {mode: DRA, compute: {deviceClass: a}}", SERVER, "mode DRA needs deviceClass in both | add it"),
    ("no-surge", "rollout: {maxSurge: 0}", SERVER, "spec.rollout | nothing could ever be replaced | raise one"),
    ("no-picker", "ingress: {inferencePool: {enabled: true}}", SERVER, "needs endpointPicker | name the picker's Service"),
    ("twice", "imagePullSecrets: [{name: a}, {name: a}]", SERVER, "spec.imagePullSecrets[1] | Duplicate value"),
    # podTemplates
    ("own-command", "decode: {podTemplate: {spec: {containers: [{name: engine, command: [sh]}]}}}", WEBHOOK,
     "spec.decode.podTemplate.spec.containers[engine].command | remedy: remove it"),
    ("own-network", "decode: {podTemplate: {spec: {hostNetwork: true}}}", WEBHOOK,
     "spec.decode.podTemplate.spec.hostNetwork | set spec.fabric.mode: HostNetwork"),
    ("own-gate", "prefill: {podTemplate: {spec: {readinessGates: []}}}", WEBHOOK,
     "spec.prefill.podTemplate.spec.readinessGates | remedy: remove it"),
    ("own-label", "decode: {podTemplate: {metadata: {labels: {dualpath.io/role: x}}}}", WEBHOOK,
     "metadata.labels[dualpath.io/role] | use another key"),
    ("own-env", "decode: {podTemplate: {spec: {containers: [{name: engine, env: [{name: DUALPATH_REVISION}]}]}}}", WEBHOOK,
     "containers[engine].env[DUALPATH_REVISION] | remedy: remove it"),
    ("pod-typo", "decode: {podTemplate: {spec: {toleration: []}}}", WEBHOOK,
     "spec.decode.podTemplate.spec.toleration is not known | did you mean tolerations?"),
    ("no-image", "gateway: {podTemplate: {spec: {containers: [{name: proxy}]}}}", WEBHOOK,
     "spec.gateway.podTemplate.spec.containers[proxy] has no image | give it an image"),
    ("no-list", "decode: {podTemplate: {spec: {volumes: {name: a}}}}", WEBHOOK,
     "spec.decode.podTemplate.spec.volumes is not a list | start each item with '- '"),
    ("no-rank", "decode: {podTemplate: {spec: {containers: [{name: engine-3}]}}}", WEBHOOK,
     "containers[engine-3] does not exist | remedy: use"),
    ("our-volume", "decode: {podTemplate: {spec: {volumes: [{name: config}]}}}", WEBHOOK,
     "volumes[config] is the operator's | use another name"),
    # what only comes out when the objects are made
    ("privileged", "decode: {podTemplate: {spec: {containers: [{name: engine, securityContext: {privileged: true, allowPrivilegeEscalation: true}}]}}}", POD,
     'violates PodSecurity | container "engine" must not set securityContext.privileged=true'),
    ("host-path", "model: {uri: 'hf://a/b', cache: {hostPath: /models}}", POD, 'violates PodSecurity | volume "models"'),
    ("host-network", "fabric: {mode: HostNetwork}", POD, "violates PodSecurity | hostNetwork=true"),
    ("no-priority", "decode: {podTemplate: {spec: {priorityClassName: none}}}", POD, "no PriorityClass with name none"),
    ("toleration", "decode: {podTemplate: {spec: {tolerations: [{key: a, operator: Maybe}]}}}", POD,
     "spec.tolerations | Unsupported value | Exists"),
    ("engine-typo", "decode: {podTemplate: {spec: {containers: [{name: engine, envs: [{name: A}]}]}}}", POD,
     'Pod | unknown field "spec.containers[0].envs"'),
    ("gateway-typo", "gateway: {podTemplate: {spec: {affinity: {nodeAfinity: {}}}}}", APPLY,
     'Deployment gateway-typo-gateway | unknown field "spec.template.spec.affinity.nodeAfinity"'),
    ("selector", "gateway: {podTemplate: {spec: {nodeSelector: {a: b c}}}}", APPLY,
     "Deployment selector-gateway | nodeSelector | a valid label must"),
    ("annotation", "gateway: {service: {annotations: {a b: c}}}", APPLY, "Service annotation | metadata.annotations | must consist of"),
    ("clash", "suspend: false", CLASH, "Service clash belongs to somebody else | remove it, or rename the cluster"),
)  # fmt: skip
MANIFESTS = tuple(Manifest(name, change, by, tuple(says.split(" | "))) for name, change, by, says in ROWS)
