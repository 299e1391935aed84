"""The `prompt` of completions: a text, texts, token ids, or lists of token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from dualpath_gateway.api.limits import MAX_PROMPTS
from dualpath_gateway.errors import bad_request
from dualpath_gateway.keys_of_app import METRICS_KEY, MODEL, POOL, SERVICE
from dualpath_gateway.text.model import TextModel

Prompt = str | list[int]

CHECK_SLICE = 20_000
"""Token ids looked at in one go: about 1 ms."""


def split_prompts(given: Any) -> list[Prompt]:
    """The prompts of one call. Raises ApiError 400 for other shapes, empty ones and too many."""
    if isinstance(given, str):
        prompts: list[Any] = [given]
    elif isinstance(given, list) and given and isinstance(given[0], int):
        prompts = [given]
    elif isinstance(given, list) and given and isinstance(given[0], str | list):
        prompts = given
    elif given is None:
        raise bad_request("prompt: is required", "prompt", "missing_field")
    else:
        shape = "an empty list" if given == [] else f"a {type(given).__name__}"
        raise bad_request(
            f"prompt: must be a string, a list of strings, token ids or lists of token ids, not {shape}",
            "prompt",
            "invalid_value",
        )
    if len(prompts) > MAX_PROMPTS:
        raise bad_request(f"prompt: at most {MAX_PROMPTS} prompts in a call", "prompt", "invalid_value")
    kind = type(prompts[0])
    if any(type(prompt) is not kind for prompt in prompts):
        raise bad_request("prompt: texts and token ids cannot be mixed", "prompt", "invalid_value")
    if any(not prompt for prompt in prompts):
        raise bad_request("prompt: must not be empty", "prompt", "invalid_value")
    return prompts


async def encode_prompt(app: web.Application, prompt: Prompt, context: int) -> list[int]:
    """Token ids; texts get what the tokenizer adds. Raises ApiError 400."""
    if isinstance(prompt, str):
        return await encode_text(app, prompt, context, special=True, param="prompt")
    too_long(len(prompt), context, "prompt")
    await check_ids(prompt, app[MODEL])
    return prompt


async def encode_text(
    app: web.Application, text: str, context: int, *, special: bool, param: str
) -> list[int]:
    """Token ids of a text, long ones in a thread. Raises ApiError 400 for too many and for none."""
    model, service = app[MODEL], app[SERVICE]
    too_long(model.least_tokens(text), context, param, at_least=True)
    since = service.now()
    ids = await app[POOL].run(len(text), lambda: model.encode(text, special=special, most=context))
    app[METRICS_KEY].observe("dualpath_encode_seconds", service.now() - since, {})
    if isinstance(ids, int):
        too_long(ids, context, param)
        return []
    if not ids:
        raise bad_request(f"{param}: gives no tokens", param, "invalid_value")
    return ids


def too_long(tokens: int, context: int, param: str, *, at_least: bool = False) -> None:
    """Raises ApiError 400 for a prompt that leaves no room for an answer."""
    if tokens >= context:
        count = f"at least {tokens}" if at_least else str(tokens)
        raise bad_request(
            f"the prompt has {count} tokens; with at least one token of answer the context of {context} "
            f"tokens holds prompts of at most {context - 1}",
            param,
            "context_length_exceeded",
        )


async def check_ids(ids: Sequence[Any], model: TextModel) -> None:
    """Raises ApiError 400 unless all are token ids of the model; other work goes on in between."""
    for at in range(0, len(ids), CHECK_SLICE):
        part = ids[at : at + CHECK_SLICE]
        if set(map(type, part)) != {int}:
            raise bad_request("prompt: token ids must be integers", "prompt", "invalid_value")
        if min(part) < 0 or max(part) >= model.vocab_size:
            bad = next(token for token in part if not 0 <= token < model.vocab_size)
            raise bad_request(
                f"prompt: token id {bad} is outside the vocabulary of {model.vocab_size}",
                "prompt",
                "invalid_value",
            )
        if len(ids) > CHECK_SLICE:
            await asyncio.sleep(0)
