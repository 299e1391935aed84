"""What kwok does with nodes, pods and volumes: the fake kubelet's rules, and how a test bends them.

A pod's annotation `test.dualpath.io/behaviour` says what its containers do; it may change while the pod lives:

- `ready` (or no annotation): they run and pass their probes,
- `unready`: they run and fail their readiness probe,
- `crash`: they end with code 1 again and again,
- `pending`: they are never started,
- `evict`: the pod fails, as one that the kubelet evicts.

An image whose tag is `missing` cannot be pulled. A pod of a Job succeeds. A pod that is being deleted goes at once,
or after `test.dualpath.io/terminate-after` (such as `3s`), or never while `test.dualpath.io/hold` is set.
Readiness gates are others' to set: Ready follows them as in a kubelet. `plain_config` is for benchmarks: its pods know
no behaviour, and it sets their gates.
"""

from __future__ import annotations

import yaml

NODE_LABEL = "test.dualpath.io/kubelet"
NODE_VALUE = "kwok"
BEHAVIOUR = "test.dualpath.io/behaviour"
HOLD = "test.dualpath.io/hold"
TERMINATE_AFTER = "test.dualpath.io/terminate-after"

# One jq program names what there is to do with a pod; each stage answers to one name. "none" has no stage.
POD_TODO = """
def holds($type): any(.status.conditions[]?; .type == $type and .status == "True");
(.metadata.annotations["test.dualpath.io/behaviour"] // "ready") as $behaviour
| any(.metadata.ownerReferences[]?; .kind == "Job") as $job
| (([.spec.readinessGates[]?.conditionType] - [.status.conditions[]? | select(.status == "True") | .type]) == []) as $gates
| ($behaviour == "ready") as $containers
| if .metadata.deletionTimestamp then (if .metadata.annotations["test.dualpath.io/hold"] then "none" else "delete" end)
  elif .status.phase == "Failed" or .status.phase == "Succeeded" or $behaviour == "pending" then "none"
  elif any(.spec.containers[]; .image | endswith(":missing")) then
    (if (.status.containerStatuses | length) > 0 then "none" else "missing" end)
  elif $behaviour == "evict" then "evict"
  elif $job then "succeed"
  elif .status.phase != "Running" or holds("ContainersReady") != $containers
    or holds("Ready") != ($containers and $gates) then "run"
  elif $behaviour == "crash" and any(.status.containerStatuses[]; .state.running) then "run"
  else "none" end
"""

PLAIN_TODO = """
if .metadata.deletionTimestamp then "delete" elif .status.phase == "Pending" then "run" else "none" end
"""

POD_RUNS = """
{{ $now := Now }}
{{ $behaviour := or (index (or .metadata.annotations dict) "test.dualpath.io/behaviour") "ready" }}
{{ $containers := eq $behaviour "ready" }}
{{ $ready := $containers }}
{{ $set := dict }}
{{ range .status.conditions }}{{ if eq .status "True" }}{{ $_ := set $set .type true }}{{ end }}{{ end }}
{{ range .spec.readinessGates }}{{ if not (or SET_GATES (hasKey $set .conditionType)) }}{{ $ready = false }}{{ end }}{{ end }}
phase: Running
startTime: {{ or .status.startTime $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ or .status.podIP (PodIPWith .spec.nodeName (or .spec.hostNetwork false) (or .metadata.uid "") (or .metadata.name "") (or .metadata.namespace "")) | Quote }}
conditions:
- {type: PodReadyToStartContainers, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- type: ContainersReady
  status: {{ if $containers }}"True"{{ else }}"False"{{ end }}
  reason: {{ if $containers }}""{{ else }}ContainersNotReady{{ end }}
  lastTransitionTime: {{ $now | Quote }}
- type: Ready
  status: {{ if $ready }}"True"{{ else }}"False"{{ end }}
  reason: {{ if $ready }}""{{ else if $containers }}ReadinessGatesNotReady{{ else }}ContainersNotReady{{ end }}
  lastTransitionTime: {{ $now | Quote }}
{{ if SET_GATES }}{{ range .spec.readinessGates }}
- {type: {{ .conditionType | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ printf "kwok/%s" .image | Quote }}
  containerID: {{ printf "kwok://%s" .name | Quote }}
  ready: {{ $containers }}
  started: {{ ne $behaviour "crash" }}
  {{ if eq $behaviour "crash" }}
  restartCount: 5
  state: {waiting: {reason: CrashLoopBackOff, message: back-off restarting failed container}}
  lastState: {terminated: {exitCode: 1, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
  {{ else }}
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{ end }}
{{ end }}
{{ if .spec.initContainers }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ printf "kwok/%s" .image | Quote }}
  containerID: {{ printf "kwok://%s" .name | Quote }}
  ready: true
  restartCount: 0
  {{ if eq (or .restartPolicy "") "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{ else }}
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
  {{ end }}
{{ end }}
{{ end }}
"""

IMAGE_MISSING = """
{{ $now := Now }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
conditions:
- {type: ContainersReady, status: "False", reason: ContainersNotReady, lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "False", reason: ContainersNotReady, lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  restartCount: 0
  state: {waiting: {reason: ImagePullBackOff, message: {{ printf "Back-off pulling image %s" .image | Quote }}}}
{{ end }}
"""

ENDED = """
{{ $now := Now }}
phase: PHASE
reason: REASON
conditions:
- {type: ContainersReady, status: "False", reason: PodPHASE, lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "False", reason: PodPHASE, lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  restartCount: 0
  state: {terminated: {exitCode: CODE, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
{{ end }}
"""

NODE_READY = """
{{ $now := Now }}
addresses:
- {type: InternalIP, address: {{ or (index (or .metadata.annotations dict) "test.dualpath.io/address") "10.0.0.1" | Quote }}}
- {type: Hostname, address: {{ .metadata.name | Quote }}}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
nodeInfo:
  architecture: amd64
  operatingSystem: linux
  bootID: ""
  containerRuntimeVersion: kwok
  kernelVersion: kwok
  kubeProxyVersion: kwok
  kubeletVersion: v1.34.4
  machineID: ""
  osImage: ""
  systemUUID: ""
"""

NODE_NOT_READY = '[.status.conditions[]? | select(.type == "Ready" and .status == "True")] == []'
CONFIGURATION = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    "metadata": {"name": "kwok"},
    "options": {"podPlayStageParallelism": 16, "nodePlayStageParallelism": 4, "nodeLeaseParallelism": 4},
}


def plain_config() -> str:
    """Pods run, readiness gates included, and go when they are deleted: nothing else, and cheaply."""
    stages = [
        _stage("Node", NODE_NOT_READY, "true", _status(NODE_READY)),
        _stage("Pod", PLAIN_TODO, "run", _status(POD_RUNS.replace("SET_GATES", "true"))),
        _stage("Pod", PLAIN_TODO, "delete", {"delete": True}),
    ]
    return yaml.safe_dump_all([CONFIGURATION, *stages])


def config() -> str:
    """The whole configuration of kwok as YAML."""
    todo = POD_TODO
    stages = [
        _stage("Node", NODE_NOT_READY, "true", _status(NODE_READY)),
        _stage("Pod", todo, "run", _status(POD_RUNS.replace("SET_GATES", "false"))),
        _stage("Pod", todo, "missing", _status(IMAGE_MISSING)),
        _stage("Pod", todo, "evict", _status(_ended("Failed", "Evicted", 137))),
        _stage("Pod", todo, "succeed", _status(_ended("Succeeded", '""', 0))),
        _stage("Pod", todo, "delete", {"delete": True}),
        _stage("PersistentVolume", ".status.phase", "Released", _freed()),
    ]
    stages[5]["spec"]["delay"] = {  # type: ignore[index]
        "durationMilliseconds": 0,
        "durationFrom": {"expressionFrom": f'.metadata.annotations["{TERMINATE_AFTER}"]'},
    }
    return yaml.safe_dump_all([CONFIGURATION, *stages])


def _stage(kind: str, query: str, answer: str, then: dict[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"{kind.lower()}-{answer.lower()}"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": [{"key": query, "operator": "In", "values": [answer]}]},
            "next": then,
        },
    }


def _status(template: str) -> dict[str, object]:
    return {"patches": [{"subresource": "status", "root": "status", "template": template}]}


def _freed() -> dict[str, object]:
    return {"patches": [{"root": "spec", "template": "claimRef: null", "type": "merge"}]}


def _ended(phase: str, reason: str, code: int) -> str:
    return ENDED.replace("PHASE", phase).replace("REASON", reason).replace("CODE", str(code))
