"""The CustomResourceDefinitions, made from the models. `make crds` writes them; nobody edits them."""

from __future__ import annotations

from typing import Any

import yaml

from dualpath_api.cluster import GROUP, MAX_NAME, VERSION, ClusterSpec
from dualpath_api.schema import Schema, section_schema
from dualpath_api.status import ClusterStatus, GroupSpec, GroupStatus

NOTICE = "# Made from the models in crds/dualpath_api by `make crds`: change them there.\n"

_NAME_RULE = {
    "rule": (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
        f" && size(self.metadata.name) <= {MAX_NAME}"
    ),
    "message": (
        f"the name must be at most {MAX_NAME} lower-case letters, digits and '-', and start with a letter; "
        "it becomes part of host names"
    ),
}


def cluster_crd() -> dict[str, Any]:
    """The definition of DualPathCluster."""
    schema = _root("A DualPath serving system.", ClusterSpec, ClusterStatus)
    schema["x-kubernetes-validations"] = [_NAME_RULE]
    columns = [
        _column(
            "Ready", ".status.conditions[?(@.type=='Ready')].status", "Whether it serves as the spec says."
        ),
        _column("Reason", ".status.conditions[?(@.type=='Ready')].reason", "Why."),
        _column("P", ".status.roles.prefill.summary", "Prefill groups, ready/desired."),
        _column("D", ".status.roles.decode.summary", "Decode groups, ready/desired."),
        _column(
            "DecodeShare",
            ".status.paths.decodeSharePermille.target",
            "The decode side's share of reads, in thousandths.",
            "integer",
        ),
        _column("StorageNIC-P95", ".status.nics.storageP95", "Busier side's storage NICs."),
        _column("Revision", ".status.revision.updated", "Revision of the engines."),
        _column("Age", ".metadata.creationTimestamp", "Age.", "date"),
        _column(
            "Hit", ".status.paths.kvHitPermille", "Prompt tokens from storage, in thousandths.", "integer", 1
        ),
        _column("URL", ".status.endpoints[?(@.name=='openai')].url", "OpenAI API.", priority=1),
    ]
    names = {
        "kind": "DualPathCluster",
        "listKind": "DualPathClusterList",
        "plural": "dualpathclusters",
        "singular": "dualpathcluster",
        "shortNames": ["dpc"],
        "categories": ["all", "dualpath"],
    }
    return _definition(names, schema, columns, {"status": {}})


def group_crd() -> dict[str, Any]:
    """The definition of DualPathEngineGroup."""
    schema = _root(
        "One engine role of a DualPathCluster. Made by the operator; only /scale is for others.",
        GroupSpec,
        GroupStatus,
    )
    columns = [
        _column("Cluster", ".spec.cluster", "The cluster that it belongs to."),
        _column("Role", ".spec.role", "The engines' role."),
        _column("Desired", ".spec.replicas", "Groups wanted.", "integer"),
        _column("Replicas", ".status.replicas", "Groups that exist.", "integer"),
        _column("Ready", ".status.readyReplicas", "Groups that are ready.", "integer"),
        _column("Age", ".metadata.creationTimestamp", "Age.", "date"),
    ]
    names = {
        "kind": "DualPathEngineGroup",
        "listKind": "DualPathEngineGroupList",
        "plural": "dualpathenginegroups",
        "singular": "dualpathenginegroup",
        "shortNames": ["dpeg"],
        "categories": ["dualpath"],
    }
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return _definition(names, schema, columns, {"status": {}, "scale": scale})


def crd_files() -> dict[str, str]:
    """File name to text of all definitions."""
    return {
        f"{crd['spec']['names']['plural']}.yaml": NOTICE + yaml.safe_dump(crd, sort_keys=False, width=110)
        for crd in (cluster_crd(), group_crd())
    }


def _root(description: str, spec: type[Any], status: type[Any]) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this format."},
            "kind": {"type": "string", "description": "Kind of this object."},
            "metadata": {"type": "object"},
            "spec": section_schema(spec) | {"description": "What is wanted."},
            "status": section_schema(status) | {"description": "What the operator tells."},
        },
    }


def _column(name: str, path: str, description: str, kind: str = "string", priority: int = 0) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def _definition(
    names: dict[str, Any], schema: Schema, columns: list[Schema], subresources: Schema
) -> dict[str, Any]:
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": subresources,
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }
