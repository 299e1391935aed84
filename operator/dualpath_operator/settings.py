"""Settings of the operator process: one YAML file, read once, at start; an unknown key is an error."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, ValidationError

from dualpath_api.errors import SpecError
from dualpath_api.loading import read_yaml
from dualpath_api.spec.base import Rule, Section
from dualpath_api.units import Duration

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class LeaderElectionSettings(Section):
    """Which of several operators acts. Exactly one holds the Lease."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="",
            message="leaseDuration > renewDeadline > 2 x retryPeriod must hold; raise the former ones",
            holds=lambda e: e.lease_duration > e.renew_deadline > 2 * e.retry_period,
        ),
    )

    namespace: str | None = Field(None, description="Namespace of the Lease; default: the operator's own.")
    name: str = Field("dualpath-operator", description="Name of the Lease.")
    lease_duration: Duration = Field(
        15.0, validate_default=True, description="A silent leader is replaced after."
    )
    renew_deadline: Duration = Field(
        10.0, validate_default=True, description="A leader that cannot renew exits after."
    )
    retry_period: Duration = Field(2.0, validate_default=True, description="Time between attempts.")


class WebhookSettings(Section):
    """The admission webhooks; every replica serves them."""

    enabled: bool = Field(False, description="Serve /validate and /default over TLS.")
    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(9443, ge=0, le=65535, description="Port to listen on.")
    certificate_dir: Path = Field(
        Path("/var/run/dualpath/webhook"),
        description="Directory with tls.crt and tls.key, read again on change.",
    )


class HttpSettings(Section):
    """Metrics and probes: /metrics, /healthz, /readyz."""

    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0: any.")


class ImageSettings(Section):
    """Images of clusters whose spec names none."""

    worker: str = Field("dualpath/worker:0.1.0", description="Engines.")
    gateway: str = Field("dualpath/gateway:0.1.0", description="Gateway and scheduler.")
    store: str = Field("dualpath/store:0.1.0", description="Store nodes and masters.")
    etcd: str = Field("etcd:3.6.6", description="etcd of a managed store.")


class LogSettings(Section):
    """The operator's log, on stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level.")
    format: Literal["text", "json"] = Field("text", description="Form of a line.")


class Settings(Section):
    """All settings."""

    namespace: str | None = Field(None, description="The operator's own namespace; default: that of its Pod.")
    watch_namespaces: tuple[Namespace, ...] = Field((), description="Namespaces to serve; none: all.")
    leader_election: LeaderElectionSettings = Field(LeaderElectionSettings(), description="Who acts.")
    webhook: WebhookSettings = Field(WebhookSettings(), description="Admission webhooks.")
    http: HttpSettings = Field(HttpSettings(), description="Metrics and probes.")
    images: ImageSettings = Field(ImageSettings(), description="Images of clusters whose spec names none.")
    log: LogSettings = Field(LogSettings(), description="The log.")
    workers: int = Field(4, ge=1, le=256, description="Clusters that are reconciled at the same time.")
    resync: Duration = Field(
        600.0, validate_default=True, description="Every cluster is looked at this often."
    )
    status_interval: Duration = Field(
        15.0, validate_default=True, description="Gauges of a status are written at most this often."
    )
    gateway_url: str = Field(
        "http://{name}.{namespace}.svc:8000",
        description="How a cluster's control API is reached; {name} and {namespace} are filled in.",
    )

    def own_namespace(self) -> str:
        """Where the operator runs."""
        if self.namespace:
            return self.namespace
        if _SERVICE_ACCOUNT.exists():
            return _SERVICE_ACCOUNT.read_text().strip()
        return "default"

    def lease_namespace(self) -> str:
        """Where the Lease lives."""
        return self.leader_election.namespace or self.own_namespace()


def identity() -> str:
    """This process among the candidates; a container that restarts in its Pod stays the same one."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}_{os.getpid()}"


def read_settings(path: Path | None) -> Settings:
    """The settings of a file; defaults without one. Raises SpecError for whatever is wrong with it."""
    data: Any = {} if path is None else read_yaml(path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SpecError(
            f"{path}: is not a mapping", cause="settings are keys", remedy="see the chart's values"
        )
    try:
        settings = Settings.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        cause = (
            "there is no such key"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        raise SpecError(
            f"{path}: {place} is not acceptable", cause=cause, remedy="see docs/reference/configuration.md"
        ) from None
    _check_template(path, settings.gateway_url)
    return settings


def _check_template(path: Path | None, template: str) -> None:
    try:
        filled = template.format(name="a", namespace="b")
    except (KeyError, ValueError, IndexError, AttributeError):
        filled = ""
    if not filled.startswith(("http://", "https://")):
        raise SpecError(
            f"{path}: gatewayUrl is {template!r}",
            cause="it must be an http URL, and may hold {name} and {namespace} only",
            remedy="for example http://{name}.{namespace}.svc:8000",
        ) from None
