"""Real clusters (`dualpath up`) and the reference (transformers) for the end-to-end tests."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import pytest
import pytest_asyncio
from checkpoints import cached_checkpoint
from openai import AsyncOpenAI, OpenAI
from specs import write_spec
from transformers_side import TransformersSide

from dualpath_cli.embedded import Embedded, embedded


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One prefill and one decode engine on a tiny Qwen3; shared, so a test leaves it as it found it."""
    spec = write_spec(tmp_path_factory.mktemp("shared"), cached_checkpoint("qwen3"))
    with embedded(spec) as running:
        yield running


@pytest.fixture
def openai(cluster: Embedded) -> Iterator[OpenAI]:
    """The official client of the shared cluster."""
    with OpenAI(base_url=cluster.openai, api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest_asyncio.fixture
async def openai_async(cluster: Embedded) -> AsyncIterator[AsyncOpenAI]:
    """The official client of the shared cluster, for many requests at once."""
    async with AsyncOpenAI(base_url=cluster.openai, api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def theirs() -> TransformersSide:
    """The shared cluster's checkpoint in transformers."""
    return TransformersSide(cached_checkpoint("qwen3"))


Reference = Callable[[Path, Sequence[int], int], list[int]]


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Greedy tokens of transformers: reference(checkpoint, prompt, count)."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    one_at_a_time = threading.Lock()  # loading is not thread-safe, and there are two cores

    @lru_cache(maxsize=8)
    def load(checkpoint: Path) -> object:
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    def generate(checkpoint: Path, prompt: Sequence[int], count: int) -> list[int]:
        tokens = torch.tensor([list(prompt)])
        with one_at_a_time:
            output = load(checkpoint).generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                min_new_tokens=count,
                max_new_tokens=count,
                eos_token_id=None,
                pad_token_id=0,
            )
        return output[0, len(prompt) :].tolist()

    return generate
