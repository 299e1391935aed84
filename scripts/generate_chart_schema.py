"""What the chart dualpath-cluster takes as `spec` is the schema of the definition. `--check` only tells.

The API server drops fields that it does not know, with a warning at best; a chart can refuse them. Nothing is
required here, as the chart's other values are merged with the spec.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dualpath_api.crd import crd_files

FILE = Path(__file__).resolve().parents[1] / "charts" / "dualpath-cluster" / "values.schema.json"
KEPT = (
    "type",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "maxItems",
    "maxProperties",
)
OPEN = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"


def loose(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema: no unknown fields, no required ones, no words."""
    made: dict[str, Any] = {key: schema[key] for key in KEPT if key in schema}
    if schema.get(INT_OR_STRING):
        made["type"] = ["integer", "string"]
    if "properties" in schema:
        made["properties"] = {name: loose(inner) for name, inner in schema["properties"].items()}
        if not schema.get(OPEN):
            made["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = loose(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = loose(schema["items"])
    return made


def wanted() -> str:
    """The text of the chart's schema with the spec of today."""
    definition = yaml.safe_load(crd_files()["dualpathclusters.yaml"])
    (version,) = definition["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema = json.loads(FILE.read_text())
    schema["properties"]["spec"] = {"$ref": "#/definitions/spec"}
    schema["definitions"]["spec"] = loose(spec)
    return json.dumps(schema, indent=1) + "\n"


def stale() -> bool:
    """Whether the file differs from what the definition says."""
    return FILE.read_text() != wanted()


def main(arguments: Sequence[str]) -> int:
    """Write the file, or tell that it is out of date."""
    if "--check" in arguments:
        old = stale()
        sys.stdout.write(f"{FILE.name} of dualpath-cluster is out of date: run `make crds`\n" if old else "")
        return old
    FILE.write_text(wanted())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
