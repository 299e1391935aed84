"""Request bodies of the OpenAI API, as far as this server honours them.

Fields that only concern OpenAI's own service are accepted and ignored (`_Ignored`); fields that ask for
something this server cannot do are accepted only with the value that means "no"; unknown ones are refused.
Extensions: top_k, min_p, repetition_penalty, ignore_eos, return_token_ids, chat_template_kwargs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from dualpath_gateway.api import limits

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(extra="ignore")

    include_usage: StrictBool = False


class _Ignored(BaseModel):
    """Accepted without effect."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None


class _Common(_Ignored):
    """What completions and chat share."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr
    n: Annotated[StrictInt, Field(ge=1, le=limits.MAX_CHOICES)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    stop: StrictStr | list[StrictStr] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=10)] | None = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = None
    ignore_eos: StrictBool = False
    return_token_ids: StrictBool = False

    @field_validator("stop")
    @classmethod
    def _few_short_stops(cls, value: str | list[str] | None) -> list[str]:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > limits.MAX_STOPS:
            raise ValueError(f"at most {limits.MAX_STOPS} stop strings")
        if any(not 0 < len(stop) <= limits.MAX_STOP_CHARS for stop in stops):
            raise ValueError(f"a stop string has 1 to {limits.MAX_STOP_CHARS} characters")
        return stops

    @field_validator("logit_bias")
    @classmethod
    def _ids_as_keys(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value and len(value) > limits.MAX_LOGIT_BIAS:
            raise ValueError(f"at most {limits.MAX_LOGIT_BIAS} entries")
        if value and not all(key.isascii() and key.isdigit() for key in value):
            raise ValueError("keys must be token ids")
        return value

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> _Common:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @property
    def choices(self) -> int:
        """Answers a prompt."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """Stop strings."""
        return list(self.stop or [])

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Common):
    """`POST /v1/completions`."""

    prompt: Any = None  # checked by hand: lists of ids are too long for a validator
    logprobs: Annotated[StrictInt, Field(ge=0, le=limits.MAX_LOGPROBS)] | None = None
    best_of: StrictInt | None = None
    echo: StrictBool | None = None
    suffix: StrictStr | None = None

    @model_validator(mode="after")
    def _supported(self) -> CompletionRequest:
        if self.best_of not in (None, 1, self.choices):
            raise ValueError("best_of: only 1 (or n) is supported")
        if self.echo:
            raise ValueError("echo: is not supported")
        if self.suffix:
            raise ValueError("suffix: is not supported")
        return self


class TextPart(BaseModel):
    """A text part of a message."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: StrictStr


class ChatMessage(BaseModel):
    """One message. Other fields (tool_calls, name, reasoning_content, ...) are passed on to the template."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[StrictStr, Field(min_length=1, max_length=64)]
    content: StrictStr | list[TextPart] | None = None

    def for_template(self) -> dict[str, Any]:
        """As templates expect it: content is one string."""
        fields = self.model_dump(exclude_unset=True)
        if isinstance(self.content, list):
            fields["content"] = "".join(part.text for part in self.content)
        elif self.content is None:
            fields["content"] = ""
        return fields


class ResponseFormat(BaseModel):
    """`response_format`: only plain text."""

    model_config = ConfigDict(extra="allow")

    type: StrictStr

    @field_validator("type")
    @classmethod
    def _only_text(cls, value: str) -> str:
        if value != "text":
            raise ValueError(f"{value!r} is not supported; only 'text' is")
        return value


class ChatRequest(_Common):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=limits.MAX_MESSAGES)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=limits.MAX_LOGPROBS)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=limits.MAX_TOOLS)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Any = None
    verbosity: Any = None
    modalities: list[str] | None = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None

    @model_validator(mode="after")
    def _supported(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs to be true")
        if self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice: only 'none' and 'auto' are supported")
        if self.modalities not in (None, ["text"]):
            raise ValueError("modalities: only text is supported")
        for name in ("functions", "function_call", "audio", "prediction", "web_search_options"):
            if getattr(self, name) not in (None, "none", []):
                raise ValueError(f"{name}: is not supported")
        return self
