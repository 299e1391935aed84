"""The spec that `dualpath up` serves: a file, a model on the command line, or both."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import SpecError
from dualpath_api.loading import build_cluster, read_yaml


def cluster_for(file: Path | None, model: str | None, overrides: Sequence[str]) -> DualPathCluster:
    """The cluster of FILE and --model; overrides come last. Raises SpecError."""
    if file is None and model is None:
        raise SpecError(
            "nothing to serve",
            cause="neither a FILE nor --model was given",
            remedy="dualpath up FILE.yaml, or dualpath up --model DIR_OR_HF_ID",
        )
    data = read_yaml(file) if file is not None else default_spec()
    source = str(file) if file is not None else "the default spec"
    flags = [] if model is None else [f"spec.model.uri={model_uri(model)!r}"]
    if file is None and model is not None:
        flags.append(f"spec.model.servedName={served_name(model)!r}")
    return build_cluster(data, [*flags, *overrides], source=source)


def default_spec() -> dict[str, Any]:
    """One prefill and one decode engine that share a store in the user's cache directory."""
    role = {"resources": {"dramBuffer": "1Gi", "kvCache": "1Gi"}}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        "apiVersion": "dualpath.io/v1alpha1",
        "kind": "DualPathCluster",
        "metadata": {"name": "local"},
        "spec": {
            "model": {"dtype": "bfloat16" if Path("/dev/nvidia0").exists() else "float32"},
            "prefill": role,
            "decode": dict(role),
            "storage": {"files": {"path": str(cache / "dualpath" / "kv"), "size": "8Gi"}},
        },
    }


def model_uri(model: str) -> str:
    """A directory as file://, else a hub id as hf://; URIs stay as they are."""
    if "://" in model:
        return model
    path = Path(model).expanduser()
    if path.exists():
        return f"file://{path.resolve()}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model, flags=re.ASCII) and not model.startswith("."):
        return f"hf://{model}"
    raise SpecError(
        f"--model {model}: there is no such model",
        cause="it is neither a directory here nor a hub id of the form org/name",
        remedy="give the directory of a Hugging Face checkpoint, or for example Qwen/Qwen3-0.6B",
    )


def served_name(model: str) -> str:
    """The last part of the model's name, in the characters that a served name may have."""
    last = (
        Path(model.rstrip("/")).expanduser().name
        if "://" not in model
        else model.rstrip("/").rsplit("/", 1)[-1]
    )
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", last).strip("-._:") or "model"
