"""What the end-to-end tests need of a client: completions of token ids, metrics, conditions to wait for."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dualpath_cli.embedded import Embedded

BLOCK = 64
FIRST_TEXT_ID, LAST_TEXT_ID = 5, 383


@dataclass(frozen=True, slots=True)
class Answer:
    """One non-streamed completion."""

    tokens: list[int]
    cached: int
    id: str
    body: dict[str, Any]


def call(url: str, body: object | None = None, method: str | None = None, timeout: float = 120) -> Any:
    """JSON in, JSON out. Raises urllib.error.HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def complete(cluster: Embedded, prompt: Sequence[int], count: int = 16, **fields: Any) -> Answer:
    """Greedy completion of `count` tokens."""
    body = {
        "model": "tiny",
        "prompt": list(prompt),
        "max_tokens": count,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        **fields,
    }
    answer = call(f"{cluster.openai}/completions", body)
    return Answer(
        tokens=answer["choices"][0]["token_ids"],
        cached=answer["usage"]["prompt_tokens_details"]["cached_tokens"],
        id=answer["id"],
        body=answer,
    )


def tune(cluster: Embedded, **fields: Any) -> None:
    """Change the path policy for requests to come."""
    call(cluster.url("/control/v1/tuning"), fields, method="PUT")


def fresh(count: int, seed: object) -> list[int]:
    """Random token ids that no other seed gives."""
    draw = random.Random(repr(seed))
    return [draw.randint(FIRST_TEXT_ID, LAST_TEXT_ID) for _ in range(count)]


def metric(cluster: Embedded, process: str, name: str, **labels: str) -> float:
    """The sum of a series of one process; 0.0 if it has none."""
    with urllib.request.urlopen(cluster.metrics[process], timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
    )


def read_bytes(cluster: Embedded) -> dict[str, float]:
    """Bytes read from storage so far, by side."""
    return {
        side: sum(
            metric(cluster, name, "dualpath_path_read_bytes_total", path=side)
            for name in cluster.metrics
            if name.startswith(side)
        )
        for side in ("prefill", "decode")
    }


def blocks_used(cluster: Embedded) -> float:
    """Blocks and pages that live requests hold, or that are quarantined, in all engines."""
    return sum(
        metric(cluster, name, f"dualpath_kv_blocks_{state}")
        for name in cluster.metrics
        if name != "gateway"
        for state in ("used", "quarantined")
    )


def wait_for(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """Poll until the condition holds; fails with what was awaited."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)


def wait_ready(cluster: Embedded, timeout: float = 90.0) -> None:
    """Until the gateway says that it can serve."""

    def ready() -> bool:
        try:
            call(cluster.url("/readyz"), timeout=5)
        except (urllib.error.URLError, OSError):
            return False
        return True

    wait_for(ready, "the gateway is ready", timeout)


def whole(cluster: Embedded) -> bool:
    """All four engines are registered and take requests."""
    try:
        report = call(cluster.url("/control/v1/report"))
    except (urllib.error.URLError, OSError):
        return False
    return sum(engine["acceptNew"] for engine in report["engines"]) == 4
