"""Kubeconfig files: how a program reaches the API server, and as whom."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml
from pki import Pair

JsonObject = dict[str, object]


def write(file: Path, server: str, ca: Path, user: JsonObject, namespace: str = "default") -> Path:
    """One cluster, one user, one context, all named after what they are; certificates are embedded."""
    cluster = {"server": server, "certificate-authority-data": _base64(ca)}
    context = {"cluster": "test", "user": "test", "namespace": namespace}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": context}],
        "current-context": "test",
    }
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(body))
    return file


def with_certificate(pair: Pair) -> JsonObject:
    """A user who shows a client certificate."""
    return {"client-certificate-data": _base64(pair.certificate), "client-key-data": _base64(pair.key)}


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
