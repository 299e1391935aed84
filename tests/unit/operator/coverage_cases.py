"""Every field of the spec: a value that is not its default, and where that lands. `make docs` makes a page of it."""

from __future__ import annotations

from dataclasses import dataclass

from unit.operator.desired_world import DEVICE_PLUGIN, DRA, HUB, LOCAL, MULTUS, ROLE

from dualpath_operator.names import ROLES

POD = "Pod NAME-*-REV-0 spec"
ENGINE = f"{POD}.containers[engine]"
CONFIG = "ConfigMap NAME-REV data.cluster.json.spec"
GATEWAY_CONFIG = "ConfigMap NAME-gateway data.cluster.json.spec"
GATEWAY = "Deployment NAME-gateway spec.template.spec"
GATEWAY_RESTARTS = "Deployment NAME-gateway spec.template.metadata.annotations.dualpath.io/config-hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change of one field. `lands`: all places that it changes; `proved_by`: tests of what acts on it otherwise."""

    base: dict
    value: object
    lands: tuple[str, ...]
    new_revision: bool
    proved_by: tuple[str, ...] = ()


CASES: dict[str, Case] = {}


def engines(field: str, value: object, *lands: str, base: dict = LOCAL) -> None:
    """A field that engines are made of."""
    CASES[f"spec.{field}"] = Case(base=base, value=value, lands=lands, new_revision=True)


def others(
    field: str, value: object, *lands: str, base: dict = LOCAL, proved_by: tuple[str, ...] = ()
) -> None:
    """A field that touches no running engine."""
    CASES[f"spec.{field}"] = Case(
        base=base, value=value, lands=lands, new_revision=False, proved_by=proved_by
    )


def model_and_images() -> None:
    hub = LOCAL | {"model": HUB}
    with_secret = LOCAL | {"model": {**HUB, "secretRef": {"name": "hf-token"}}}
    uri = (f"{CONFIG}.model.uri", f"{GATEWAY_CONFIG}.model.uri", GATEWAY_RESTARTS)
    fetch = ("initContainers[model].command", "initContainers[model].env[HF_TOKEN]")
    volume = [f"{pod}.volumes[models].{{}}" for pod in (POD, GATEWAY)]
    token = [f"{pod}.{fetch[1]}" for pod in (POD, GATEWAY)]
    engines("model.uri", "file:///models/other", *uri)
    engines("model.revision", "v2", *uri, f"{POD}.{fetch[0]}", f"{GATEWAY}.{fetch[0]}", base=hub)
    others("model.servedName", "other", f"{GATEWAY_CONFIG}.model.servedName", GATEWAY_RESTARTS)
    engines("model.dtype", "float32", f"{CONFIG}.model.dtype")
    engines("model.secretRef.name", "hf-token", *token, base=hub)
    engines(
        "model.secretRef.key",
        "hub",
        *(f"{env}.valueFrom.secretKeyRef.key" for env in token),
        base=with_secret,
    )
    for field, value, kind in (("claimName", "m", "persistentVolumeClaim"), ("hostPath", "/m", "hostPath")):
        places = [place.format(each) for place in volume for each in ("emptyDir", kind)]
        engines(f"model.cache.{field}", value, *places, base=hub)
    engines("image", "worker:2", f"{ENGINE}.image")
    engines(
        "imagePullPolicy",
        "Always",
        f"{ENGINE}.imagePullPolicy",
        f"{GATEWAY}.containers[gateway].imagePullPolicy",
    )
    engines("imagePullSecrets[].name", "pull", f"{POD}.imagePullSecrets", f"{GATEWAY}.imagePullSecrets")
    engines("kv.blockTokens", 32, f"{CONFIG}.kv", "Tuning *.bias")


def role(name: str) -> None:
    pod, config = f"Pod NAME-{name}-REV-0", f"{CONFIG}.{name}"
    resources = f"{pod} spec.containers[engine].resources"
    group, wish = f"DualPathEngineGroup NAME-{name} spec.replicas", f"RolloutPlan wish.{name}"
    gpus = LOCAL | {name: {"resources": {**ROLE["resources"], "gpus": 2}}}
    many, few = (
        {each: {**ROLE, "scaling": {"mode": "Planner", "maxReplicas": most}} for each in ROLES}
        for most in (8, 2)
    )
    others(f"{name}.scaling.mode", "External", group)
    others(f"{name}.scaling.replicas", 3, group, f"{wish}.wanted")
    others(f"{name}.scaling.minReplicas", 7, group, f"{wish}.wanted", base=LOCAL | many)
    others(f"{name}.scaling.maxReplicas", 3, group, f"{wish}.wanted", base=LOCAL | few)
    engines(
        f"{name}.parallelism.data",
        2,
        f"{config}.parallelism",
        f"{pod} spec.containers[engine-1]",
        f"{resources}.requests.memory",
        "NetworkPolicy NAME spec.ingress",
        "PodMonitor NAME spec.podMetricsEndpoints",
    )
    engines(
        f"{name}.parallelism.nodes",
        2,
        f"{config}.parallelism",
        pod,
        f"{pod}-0",
        f"{pod}-1",
        f"Service NAME-{name}",
        "PodDisruptionBudget NAME-engines-1",
        base=LOCAL | {"fabric": MULTUS},
    )
    engines(
        f"{name}.resources.dramBuffer",
        "1Gi",
        f"{config}.resources.dramBuffer",
        f"{resources}.requests.memory",
    )
    engines(f"{name}.resources.kvCache", "1Gi", f"{config}.resources.kvCache", f"{resources}.requests.memory")
    engines(
        f"{name}.resources.gpus",
        2,
        f"{resources}.limits",
        f"{resources}.requests.nvidia.com/gpu",
        f"{resources}.requests.memory",
        f"{pod} metadata.annotations.dualpath.io/gpus",
        f"{wish}.gpus",
    )
    engines(
        f"{name}.resources.gpuResource",
        "amd.com/gpu",
        *(
            f"{resources}.{kind}.{each}.com/gpu"
            for kind in ("limits", "requests")
            for each in ("amd", "nvidia")
        ),
        base=gpus,
    )
    engines(f"{name}.resources.cpu", "4", f"{resources}.requests.cpu")
    engines(f"{name}.resources.memory", "2Gi", f"{resources}.limits", f"{resources}.requests.memory")
    engines(f"{name}.podTemplate.metadata.labels", {"team": "a"}, f"{pod} metadata.labels.team")
    engines(f"{name}.podTemplate.metadata.annotations", {"team": "a"}, f"{pod} metadata.annotations.team")
    engines(f"{name}.podTemplate.spec", {"priorityClassName": "high"}, f"{pod} spec.priorityClassName")


def gateway() -> None:
    container = f"{GATEWAY}.containers[gateway]"
    engines("prefill.batching.computeQuota", "1s", f"{CONFIG}.prefill.batching")
    engines("prefill.batching.maxTokens", 512, f"{CONFIG}.prefill.batching")
    others("gateway.cpu", "2", f"{container}.resources")
    others("gateway.memory", "1Gi", f"{container}.resources")
    others("gateway.image", "gateway:2", f"{container}.image")
    others("gateway.service.type", "NodePort", "Service NAME spec.type")
    others("gateway.service.annotations", {"team": "a"}, "Service NAME metadata.annotations.team")
    template = "Deployment NAME-gateway spec.template"
    others("gateway.podTemplate.metadata.labels", {"team": "a"}, f"{template}.metadata.labels.team")
    others("gateway.podTemplate.metadata.annotations", {"team": "a"}, f"{template}.metadata.annotations.team")
    others("gateway.podTemplate.spec", {"priorityClassName": "high"}, f"{GATEWAY}.priorityClassName")


def storage() -> None:
    claim = "PersistentVolumeClaim NAME-store"
    node, nodes = "StatefulSet NAME-store spec.template.spec", "StatefulSet NAME-store spec"
    managed = LOCAL | {"storage": {"managed": {"size": "10Gi"}}}
    nvme = LOCAL | {"storage": {"managed": {"size": "10Gi", "medium": "NVMe"}}}
    external = LOCAL | {"storage": {"external": {"endpoints": ["a.infra:2379"]}}}
    others(
        "storage.files.path",
        "/elsewhere",
        proved_by=(
            "tests/unit/operator/test_desired_engine_pods.py"
            "::test_in_kubernetes_a_store_is_where_it_is_mounted_whatever_its_path",
        ),
    )
    engines(
        "storage.files.size",
        "8Gi",
        f"{CONFIG}.storage.files.size",
        f"{claim} spec.resources.requests.storage",
    )
    engines("storage.files.claimName", "mine", f"{POD}.volumes[store].persistentVolumeClaim.claimName", claim)
    others("storage.files.storageClassName", "fast", f"{claim} spec.storageClassName")
    others("storage.managed.replicas", 5, f"{nodes}.replicas", base=managed)
    others("storage.managed.masters", 3, "StatefulSet NAME-master spec.replicas", base=managed)
    others(
        "storage.managed.size",
        "20Gi",
        f"{node}.containers[store].command",
        f"{node}.containers[store].resources.limits.memory",
        f"{node}.containers[store].resources.requests.memory",
        f"{node}.volumes[data].emptyDir.sizeLimit",
        base=managed,
    )
    others(
        "storage.managed.medium",
        "NVMe",
        f"{node}.containers[store].command",
        "StatefulSet NAME-master spec.template.spec.containers[master].command",
        f"{node}.containers[store].resources",
        f"{node}.volumes[data]",
        f"{nodes}.volumeClaimTemplates",
        base=managed,
    )
    engines("storage.managed.copies", 3, f"{CONFIG}.storage.managed.copies", base=managed)
    others("storage.managed.storageClassName", "fast", f"{nodes}.volumeClaimTemplates", base=nvme)
    engines(
        "storage.managed.etcd.endpoints",
        ["etcd.infra:2379"],
        f"{CONFIG}.storage.managed.etcd.endpoints",
        f"{node}.containers[store].command",
        "StatefulSet NAME-master spec.template.spec.containers[master].command",
        "StatefulSet NAME-etcd",
        "Service NAME-etcd",
        "PodDisruptionBudget NAME-etcd",
        base=managed,
    )
    engines(
        "storage.external.endpoints", ["b.infra:2379"], f"{CONFIG}.storage.external.endpoints", base=external
    )
    engines(
        "storage.dramTier.size",
        "3Gi",
        f"{CONFIG}.storage.dramTier.size",
        f"{ENGINE}.resources.requests.memory",
        base=LOCAL | {"storage": LOCAL["storage"] | {"dramTier": {"size": "2Gi"}}},
    )
    engines("storage.domain", "shared", f"{CONFIG}.storage.domain", f"{CONFIG}.storage.files.path")
    others("storage.retention", "Delete", f"{claim} metadata.ownerReferences")


def fabric() -> None:
    multus, plugin, dra = (LOCAL | {"fabric": each} for each in (MULTUS, DEVICE_PLUGIN, DRA))
    networks = "Pod NAME-*-REV-0 metadata.annotations.k8s.v1.cni.cncf.io/networks"
    engines(
        "fabric.mode",
        "HostNetwork",
        f"{CONFIG}.fabric",
        f"{POD}.hostNetwork",
        f"{POD}.dnsPolicy",
        f"{POD}.initContainers",
        f"{ENGINE}.command",
        f"{ENGINE}.ports[metrics].containerPort",
        f"{ENGINE}.ports[metrics].hostPort",
    )
    for name, nic in (("compute", "cnic"), ("storage", "snic")):
        field = f"fabric.{name}"
        containers = (ENGINE, f"{POD}.initContainers[fabric]")
        asked = [f"{each}.resources.{kind}" for each in containers for kind in ("limits", "requests")]
        devices = [f"{place}.example.com/{nic}" for place in asked]
        claim = (
            "ResourceClaimTemplate NAME-*-{}-HASH spec.spec.devices.requests[nics].exactly.deviceClassName"
        )
        engines(f"{field}.network", "other", f"{CONFIG}.{field}.network", networks, base=multus)
        new = [f"{place}.example.com/other" for place in asked]
        engines(
            f"{field}.resourceName",
            "example.com/other",
            f"{CONFIG}.{field}.resourceName",
            *devices,
            *new,
            base=plugin,
        )
        engines(
            f"{field}.deviceClass", "other", f"{CONFIG}.{field}.deviceClass", claim.format(name), base=dra
        )
        engines(f"{field}.count", 4, f"{CONFIG}.{field}.count", *devices, base=plugin)
    template = "ResourceClaimTemplate NAME-decode-compute-HASH spec.spec.devices"
    pod = "Pod NAME-decode-REV-0 spec"
    engines(
        "fabric.gpuDeviceClass",
        "gpu.example.com",
        f"{CONFIG}.fabric.gpuDeviceClass",
        *(f"{template}.requests[{kind}]" for kind in ("nics", "gpu-*", "nic-*")),
        f"{template}.constraints",
        f"{pod}.resourceClaims[compute*]",
        *(
            f"{pod}.{container}.resources{what}"
            for container in ("containers[engine]", "initContainers[fabric]")
            for what in (".claims[compute*]", ".limits*", ".requests*")
        ),
        base=dra | {"decode": {"resources": {**ROLE["resources"], "gpus": 8}}},
    )
    engines(
        "fabric.rdma",
        True,
        f"{CONFIG}.fabric.rdma",
        f"{ENGINE}.securityContext.capabilities.add",
        f"{POD}.initContainers[fabric].securityContext.capabilities.add",
        base=multus,
    )
    engines("fabric.preflight", False, f"{CONFIG}.fabric.preflight", f"{POD}.initContainers", base=multus)
    engines(
        "fabric.onMismatch",
        "Degrade",
        f"{CONFIG}.fabric.onMismatch",
        f"{POD}.initContainers[fabric].command",
        base=multus,
    )
    marks = LOCAL | {"fabric": MULTUS | {"trafficClasses": {}}}
    for name in ("kv", "inference"):
        for mark in ("serviceLevel", "dscp"):
            field = f"fabric.trafficClasses.{name}.{mark}"
            engines(field, 7, f"{CONFIG}.fabric.trafficClasses.{name}", base=marks)
    engines("fabric.localCopies", "Nic", f"{CONFIG}.fabric.localCopies", base=multus)
    least = "fabric.leastBandwidthPermille"
    engines(least, 800, f"{CONFIG}.{least}", base=multus)
    nics = LOCAL | {"nics": [{"role": "storage", "match": "eth1"}]}
    engines("nics[].role", "compute", f"{CONFIG}.nics", base=nics)
    engines("nics[].match", "eth2", f"{CONFIG}.nics", base=nics)
    engines("nics[].linkBps", 10**9, f"{CONFIG}.nics", base=nics)


def around_the_engines() -> None:
    pool = LOCAL | {"ingress": {"inferencePool": {"enabled": True, "endpointPicker": "picker"}}}
    route = LOCAL | {"ingress": {"httpRoute": {"parentRefs": [{"name": "gw"}]}}}
    affinity, rack = f"{POD}.affinity.podAffinity", LOCAL | {"placement": {"topologyKey": "rack"}}
    others(
        "drain.deadline",
        "60s",
        f"{POD}.terminationGracePeriodSeconds",
        f"{ENGINE}.lifecycle.preStop.exec.command",
    )
    others("disruption.maxUnavailable", 2, "PodDisruptionBudget NAME-engines spec.maxUnavailable")
    engines("placement.topologyKey", "rack", affinity)
    engines(
        "placement.mode",
        "Required",
        f"{affinity}.preferredDuringSchedulingIgnoredDuringExecution",
        f"{affinity}.requiredDuringSchedulingIgnoredDuringExecution",
        base=rack,
    )
    others("security.networkPolicy", "None", "NetworkPolicy NAME")
    named = LOCAL | {"ingress": {"inferencePool": {"endpointPicker": "picker"}}}
    others("ingress.inferencePool.enabled", True, "InferencePool NAME", base=named)
    picker = "InferencePool NAME spec.endpointPickerRef"
    others("ingress.inferencePool.failureMode", "FailOpen", f"{picker}.failureMode", base=pool)
    others("ingress.inferencePool.endpointPicker", "other", f"{picker}.name", base=pool)
    parents = "HTTPRoute NAME spec.parentRefs"
    others("ingress.httpRoute.parentRefs[].name", "o", f"{parents}[gw]", f"{parents}[o]", base=route)
    others("ingress.httpRoute.parentRefs[].namespace", "other", f"{parents}[gw].namespace", base=route)
    others("ingress.httpRoute.hostnames", ["a.example"], "HTTPRoute NAME spec.hostnames", base=route)
    others("observability.podMonitor", "Never", "PodMonitor NAME")
    logs = f"{GATEWAY}.containers[gateway].command"
    engines("observability.logFormat", "text", f"{ENGINE}.command", logs)
    engines("restart.id", "again")
    others(
        "suspend",
        True,
        "Deployment NAME-gateway spec.replicas",
        "DualPathEngineGroup NAME-* spec.replicas",
        "RolloutPlan wish.*.wanted",
        "Status overdueAfterHours.3",
    )


def what_the_operator_acts_on() -> None:
    others("gpuBudget", 64, "RolloutPlan wish.gpu_budget")
    others("rollout.strategy", "Recreate", "RolloutPlan wish.strategy")
    others("rollout.maxSurge", 2, "RolloutPlan wish.*.max_surge")
    others("rollout.maxUnavailable", 2, "RolloutPlan wish.*.max_unavailable")
    others("rollout.progressDeadline", "4h", "Status overdueAfterHours.3")
    others("paused", True, "RolloutPlan wish.paused", "Status overdueAfterHours.3")
    shape = {
        "computeNics": 8,
        "computeNicBytes": 50 * 10**9,
        "storageBytes": 50 * 10**9,
        "dramBytes": 500 * 10**9,
    }
    for field, value in (("computeNics", 4), ("computeNicBytes", 40 * 10**9), ("storageBytes", 60 * 10**9)):
        others(f"hardware.{field}", value, "Status balance.*", base=LOCAL | {"hardware": shape})
    others(
        "hardware.dramBytes", 400 * 10**9, "Status balance.upper_permille", base=LOCAL | {"hardware": shape}
    )


def what_the_operator_tunes() -> None:
    every = "Tuning *"
    others("pathPolicy.mode", "PrefillOnly", f"{GATEWAY_CONFIG}.pathPolicy.mode", every)
    share, retune = "pathPolicy.decodeShare", "pathPolicy.retune"
    others(f"{share}.initialPermille", 300, "Tuning atFirst.*")
    others(f"{share}.minPermille", 100, "Tuning wayDown.*")
    others(f"{share}.maxPermille", 900, "Tuning wayUp.*")
    others(f"{retune}.enabled", False, every)
    others(f"{retune}.interval", "30s", "Tuning enginesNew.*")
    others(f"{retune}.maxStepPermille", 10, "Tuning prefillHot.*")
    others(f"{retune}.deadbandPermille", 100, "Tuning prefillWarm.*")
    others(f"{retune}.staleAfter", "120s", "Tuning reportOld.*")


model_and_images()
role("prefill")
role("decode")
gateway()
storage()
fabric()
around_the_engines()
what_the_operator_acts_on()
what_the_operator_tunes()
