"""Where the API server is and who we are there: by the kubeconfig, else by the Pod's ServiceAccount."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import kube_config

from dualpath_api.errors import SpecError

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_BROKEN = (
    config.ConfigException,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    yaml.YAMLError,
)
"""What the client makes of kubeconfigs that are none."""


async def configuration_of(context: str | None) -> Configuration:
    """What a client needs, by a context of the kubeconfig or its current one. Raises SpecError."""
    configuration = Configuration()
    arguments: dict[str, Any] = {"client_configuration": configuration}
    with _told():
        # looked for first: the client warns of a missing file, as in every Pod there is none
        if _files():
            await config.load_kube_config(context=context, **arguments)
        elif context is not None or "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise FileNotFoundError(f"there is no kubeconfig at {kube_config.KUBE_CONFIG_DEFAULT_LOCATION}")
        else:
            config.load_incluster_config(**arguments)
    return configuration


def namespace_of(context: str | None) -> str:
    """The namespace of a context, or of the Pod where there is no kubeconfig. Raises SpecError."""
    contexts: dict[str, Mapping[str, Any]] = {}
    current = context
    with _told():
        for path in _files():
            read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            current = current or read.get("current-context")
            for one in read.get("contexts") or ():
                contexts.setdefault(one["name"], one.get("context") or {})
        if not contexts and OWN_NAMESPACE.exists():
            return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
        return str(contexts.get(current or "", {}).get("namespace") or "default")


def _files() -> list[Path]:
    """The kubeconfigs that exist: of KUBECONFIG, else the one of the home."""
    named = kube_config.KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep)
    return [path for name in named if name and (path := Path(name).expanduser()).exists()]


@contextmanager
def _told() -> Iterator[None]:
    """Turn what goes wrong into one message."""
    try:
        yield
    except _BROKEN as error:
        raise SpecError(
            "no Kubernetes cluster is known",
            cause=" ".join(str(error).split()) or type(error).__name__,
            remedy="set KUBECONFIG to a file that `kubectl config get-contexts` can read and choose one of"
            " its contexts, or run in a Pod with a ServiceAccount",
        ) from None
