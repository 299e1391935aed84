"""Who reaches a cluster, and who watches it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from dualpath_api.spec.base import NAME_PATTERN, Rule, Section


class SecuritySpec(Section):
    """Who may connect."""

    network_policy: Literal["Managed", "None"] = Field(
        "Managed",
        description="Managed: engines and store accept the cluster's own Pods only, the gateway all clients.",
    )


class InferencePoolSpec(Section):
    """A Gateway API InferencePool over the gateway's Pods."""

    enabled: bool = Field(False, strict=True, description="Whether to make one.")
    failure_mode: Literal["FailOpen", "FailClose"] = Field(
        "FailClose", description="What its endpoint picker does when it cannot pick."
    )
    endpoint_picker: str | None = Field(
        None, max_length=253, pattern=NAME_PATTERN, description="Service of the endpoint picker extension."
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!self.enabled || has(self.endpointPicker)",
            message="an InferencePool needs endpointPicker; name the picker's Service",
            holds=lambda pool: not pool.enabled or pool.endpoint_picker is not None,
        ),
    )


class ParentRef(Section):
    """A Gateway of the Gateway API."""

    name: str = Field(max_length=253, pattern=NAME_PATTERN, description="Name of the Gateway.")
    namespace: str | None = Field(
        None, max_length=63, pattern=NAME_PATTERN, description="Its namespace; default: the cluster's."
    )


Hostname = Annotated[
    str, StringConstraints(max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]


class HttpRouteSpec(Section):
    """A Gateway API HTTPRoute to the gateway's Service."""

    parent_refs: tuple[ParentRef, ...] = Field(
        min_length=1, max_length=8, description="Gateways that route to it."
    )
    hostnames: tuple[Hostname, ...] = Field((), max_length=16, description="Host names; none: all.")


class IngressSpec(Section):
    """How requests come in from outside."""

    inference_pool: InferencePoolSpec = Field(InferencePoolSpec(), description="An InferencePool.")
    http_route: HttpRouteSpec | None = Field(None, description="An HTTPRoute.")


class ObservabilitySpec(Section):
    """Metrics and logs."""

    pod_monitor: Literal["Auto", "Always", "Never"] = Field(
        "Auto", description="Make a PodMonitor: Auto does where the API server knows the kind."
    )
    log_format: Literal["text", "json"] = Field("json", description="Form of the Pods' logs.")
