"""Charts rendered by the real helm, and what is looked for in what they make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kube_tools
import yaml
from kube_api import Object

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
CRDS, OPERATOR, CLUSTER = (CHARTS / f"dualpath-{name}" for name in ("crds", "operator", "cluster"))
SCENARIOS = sorted(CHARTS.glob("*/ci/*-values.yaml"))

# The version that helm takes for granted without a cluster; its own build says 1.20.
KUBERNETES = "1.34.4"
MONITORING = (
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)
CLUSTER_WIDE = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    }
)


def helm_template(
    chart: Path,
    values: Mapping[str, Any] | Path | None = None,
    *,
    release: str = "r",
    namespace: str = "ns",
    apis: Iterable[str] = (),
    check: bool = True,
) -> str:
    """What `helm template` says: the objects, or the refusal where `check` is off."""
    given = values.read_text() if isinstance(values, Path) else json.dumps(values or {})
    known = [flag for api in apis for flag in ("--api-versions", api)]
    return kube_tools.run(
        "helm", "template", release, chart, "--namespace", namespace, "--kube-version", KUBERNETES,
        "--values", "-", *known, stdin=given, check=check,
    )  # fmt: skip


def render(chart: Path, values: Mapping[str, Any] | Path | None = None, **options: Any) -> list[Object]:
    """The objects that a chart makes of values."""
    return [body for body in yaml.safe_load_all(helm_template(chart, values, **options)) if body]


def refusal(chart: Path, values: Mapping[str, Any], **options: Any) -> str:
    """What a chart says to values that it does not take."""
    said = helm_template(chart, values, check=False, **options)
    assert said.startswith(("Error: ", "engine.go")), f"taken: {values}\n{said[:2000]}"
    return said


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """The objects of one kind."""
    return [body for body in objects if body["kind"] == kind]


def only(objects: Iterable[Object], kind: str, *, suffix: str = "") -> Object:
    """The one object of a kind, or of those the one whose name ends so."""
    (found,) = [body for body in of_kind(objects, kind) if body["metadata"]["name"].endswith(suffix)]
    return found


def hooks(objects: Iterable[Object]) -> list[Object]:
    """The objects that belong to a hook, not to the release."""
    return [body for body in objects if "helm.sh/hook" in body["metadata"].get("annotations", {})]


def installed(objects: Iterable[Object]) -> list[Object]:
    """The objects of the release itself."""
    wanted = list(objects)
    return [body for body in wanted if body not in hooks(wanted)]


def pod_specs(objects: Iterable[Object]) -> Iterator[Object]:
    """The Pods that Deployments and Jobs make."""
    for body in objects:
        if body["kind"] in ("Deployment", "Job"):
            yield body["spec"]["template"]["spec"]


def granted(rules: Iterable[Object]) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of RBAC rules."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }


def settings_file(objects: Iterable[Object]) -> str:
    """The operator's settings as the chart writes them."""
    (text,) = [
        body["data"]["operator.yaml"]
        for body in of_kind(objects, "ConfigMap")
        if "operator.yaml" in body["data"]
    ]
    return str(text)
