"""Log-probabilities in the two shapes that OpenAI uses."""

from __future__ import annotations

from typing import Any

from dualpath_api.wire import Drawn
from dualpath_gateway.api.answer import Piece
from dualpath_gateway.text.detokenize import Vocabulary

LOWEST = -9999.0
"""What OpenAI writes for a token that could not be drawn; JSON has no infinity."""


def _finite(value: float | None) -> float:
    return LOWEST if value is None else max(LOWEST, value)


def chat_logprobs(piece: Piece, vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    """`choices[].logprobs` of chat: every token with its bytes and the `top` likeliest."""

    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        return {
            "token": vocabulary.name(token),
            "logprob": _finite(logprob),
            "bytes": list(vocabulary.bytes_of(token)),
        }

    def whole(drawn: Drawn) -> dict[str, Any]:
        best = [entry(token, logprob) for token, logprob in drawn.top[:top]]
        return {**entry(drawn.token, drawn.logprob), "top_logprobs": best}

    return {"content": [whole(drawn) for drawn in piece.drawn], "refusal": None}


def completion_logprobs(piece: Piece, vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    """`choices[].logprobs` of completions; the drawn token is always among its alternatives."""
    tops = []
    for drawn in piece.drawn:
        best = {vocabulary.name(token): _finite(logprob) for token, logprob in drawn.top[:top]}
        best.setdefault(vocabulary.name(drawn.token), _finite(drawn.logprob))
        tops.append(best)
    return {
        "tokens": [vocabulary.name(drawn.token) for drawn in piece.drawn],
        "token_logprobs": [_finite(drawn.logprob) for drawn in piece.drawn],
        "top_logprobs": tops if top else None,
        "text_offset": list(piece.offsets),
    }
