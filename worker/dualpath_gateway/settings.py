"""Settings of the gateway process: DUALPATH_GATEWAY_* variables, read once, at start. Times in seconds."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dualpath_api.errors import SpecError
from dualpath_api.token import control_token
from dualpath_gateway.scheduler.model import Patience

PREFIX = "DUALPATH_GATEWAY_"


class Settings(BaseModel):
    """What can be set, with defaults. A variable DUALPATH_GATEWAY_<NAME> sets a field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat_s: float = Field(2.0, gt=0, description="An engine silent for three of these is lost.")
    keepalive_s: float = Field(15.0, gt=0, description="A stream without tokens gets a comment this often.")
    stop_s: float = Field(30.0, ge=0, description="What runs may take this long when the process is stopped.")
    max_body_bytes: int = Field(16 << 20, gt=0, description="Larger bodies are refused with 413.")
    template_s: float = Field(5.0, gt=0, description="A chat template that takes longer is stopped.")
    pool_threads: int = Field(2, ge=1, description="Threads for long texts.")
    queue_limit: int = Field(1024, ge=1, description="Requests that may wait; then 429.")
    request_s: float = Field(600.0, gt=0, description="A request without a new token for so long fails.")
    match_s: float = Field(
        2.0, gt=0, description="An engine may take this long to tell what is stored; then another is asked."
    )
    pending_s: float = Field(5.0, gt=0, description="Wait for blocks that are still being written.")
    assign_s: float = Field(10.0, gt=0, description="An engine may take this long to accept.")
    read_s: float = Field(120.0, gt=0, description="Reading the hit may take this long.")
    prefill_s: float = Field(600.0, gt=0, description="Computing the prompt may take this long.")
    fill_s: float = Field(120.0, gt=0, description="Waiting for room in the decode cache may take this long.")
    token_s: float = Field(120.0, gt=0, description="One decode step may take this long.")
    control_token: str | None = Field(None, description="Bearer token of control paths and engines.")

    def patience(self) -> Patience:
        """The scheduler's part of these settings."""
        return Patience(
            match=self.match_s,
            pending=self.pending_s,
            assign=self.assign_s,
            read=self.read_s,
            prefill=self.prefill_s,
            fill=self.fill_s,
            token=self.token_s,
            request=self.request_s,
            queue_limit=self.queue_limit,
        )


def read_settings(env: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises SpecError for an unknown name or a bad value."""
    given: dict[str, str] = {}
    for name, value in env.items():
        if name.startswith(PREFIX):
            given[name.removeprefix(PREFIX).lower()] = value
    known = Settings.model_fields.keys() - {"control_token"}
    if unknown := sorted(given.keys() - known):
        raise SpecError(
            f"unknown variable {PREFIX}{unknown[0].upper()}",
            cause="no such setting",
            remedy=f"use one of {', '.join(sorted(PREFIX + name.upper() for name in known))}",
        )
    if token := control_token(env):
        given["control_token"] = token
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise SpecError(
            f"{name}={first['input']!r}: {first['msg']}",
            cause="not a value of that setting",
            remedy="see docs/reference/configuration.md",
        ) from None
