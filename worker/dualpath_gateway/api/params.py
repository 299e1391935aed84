"""From what the client asked and the checkpoint's defaults to the sampling parameters of engines."""

from __future__ import annotations

import secrets

from dualpath_api.wire import Sampling
from dualpath_gateway.api.models import ChatRequest, CompletionRequest
from dualpath_gateway.errors import bad_request
from dualpath_gateway.text.model import TextModel

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for completions; chat goes on to the end of the context."""

SMALLEST_TOP_P = 1e-9
"""top_p 0 keeps the best token only."""


def check_room(request: ChatRequest | CompletionRequest, prompt_tokens: int, context: int) -> int:
    """max_tokens of this prompt. Raises ApiError 400 where prompt and answer exceed the context."""
    if prompt_tokens >= context:
        raise bad_request(
            f"the prompt has {prompt_tokens} tokens; with at least one token of answer the context of "
            f"{context} tokens holds prompts of at most {context - 1}",
            param="messages" if isinstance(request, ChatRequest) else "prompt",
            code="context_length_exceeded",
        )
    room = context - prompt_tokens
    field, wanted = "max_tokens", request.max_tokens
    if isinstance(request, ChatRequest):
        if request.max_completion_tokens is not None:
            field, wanted = "max_completion_tokens", request.max_completion_tokens
        elif wanted is None:
            return room
    elif wanted is None:
        return min(COMPLETION_MAX_TOKENS, room)
    assert wanted is not None
    if wanted > room:
        raise bad_request(
            f"the prompt has {prompt_tokens} tokens and {field} is {wanted}, but the context is {context} "
            f"tokens: {field} can be at most {room} with this prompt",
            param=field,
            code="context_length_exceeded",
        )
    return wanted


def check_cache(prompt_tokens: int, max_tokens: int, n: int, pages: int, block: int) -> None:
    """Raises ApiError 400 where n answers cannot be held at once by the smallest decode cache."""
    each = -(-max_tokens // block) + 1
    need = -(-prompt_tokens // block) + n * each
    if n > 1 and need > pages:
        most = max(0, ((pages - -(-prompt_tokens // block)) // n - 1) * block)
        raise bad_request(
            f"n={n} answers of {max_tokens} tokens do not fit into the cache together; with this prompt "
            f"max_tokens can be at most {most}, or ask for fewer answers",
            param="n",
            code="context_length_exceeded",
        )


def sampling_of(
    request: ChatRequest | CompletionRequest, model: TextModel, max_tokens: int, logprobs: int | None
) -> Sampling:
    """Sampling parameters; a random seed where the client gave none. Raises ApiError for ids out of range."""
    defaults = model.defaults
    return Sampling(
        max_tokens=max_tokens,
        seed=secrets.randbits(63) if request.seed is None else request.seed & (2**63 - 1),
        temperature=_or(request.temperature, defaults.temperature),
        top_p=max(SMALLEST_TOP_P, _or(request.top_p, defaults.top_p)),
        top_k=max(0, defaults.top_k if request.top_k is None else request.top_k),
        min_p=_or(request.min_p, defaults.min_p),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_or(request.repetition_penalty, defaults.repetition_penalty),
        logit_bias=_logit_bias(request, model),
        logprobs=logprobs,
        stop_token_ids=() if request.ignore_eos else model.eos_ids,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _logit_bias(request: ChatRequest | CompletionRequest, model: TextModel) -> dict[int, float]:
    bias = {int(key): float(value) for key, value in (request.logit_bias or {}).items()}
    if bias and max(bias) >= model.vocab_size:
        raise bad_request(
            f"logit_bias: token id {max(bias)} is outside the vocabulary of {model.vocab_size}",
            param="logit_bias",
            code="invalid_value",
        )
    return bias
