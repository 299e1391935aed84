"""The clusters of the end-to-end tests, as files."""

from __future__ import annotations

from pathlib import Path

CLUSTER = """\
apiVersion: dualpath.io/v1alpha1
kind: DualPathCluster
metadata: {{name: test}}
spec:
  model: {{uri: "file://{model}", servedName: tiny, dtype: float32}}
  prefill: {{resources: {{dramBuffer: 64Mi, kvCache: 1Mi}}}}
  decode: {{resources: {{dramBuffer: 64Mi, kvCache: 64Mi}}}}
  storage: {{files: {{path: "{store}", size: 1Gi}}}}
"""


def write_spec(directory: Path, model: Path) -> Path:
    """A 1P1D cluster on `model` with its store beside the file."""
    spec = directory / "cluster.yaml"
    spec.write_text(CLUSTER.format(model=model, store=directory / "kv"))
    return spec
