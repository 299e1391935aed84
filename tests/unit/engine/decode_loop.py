"""The real decode loop on a tiny real model: prompts are prefilled into real slots, events are collected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from checkpoints import cached_checkpoint

from dualpath_api import wire
from dualpath_api.keys import block_keys
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.arrivals import LayerArrivals
from dualpath_worker.engine.generation import Generation
from dualpath_worker.engine.layerwise import ChunkWork, LayerwisePrefill
from dualpath_worker.engine.loop_messages import BlockComplete, Event, Fill, Stepped
from dualpath_worker.engine.prefill import first_tokens
from dualpath_worker.metrics import Metrics
from dualpath_worker.models import load_model

BLOCK = 16
SLOTS = 64
PEER = wire.Peer(engine="prefill-0-0", incarnation="1", agent=b"", pool=b"")


class DecodeLoop:
    """A `Generation` with `pages` pages, and what it has said."""

    def __init__(self, pages: int) -> None:
        self.model = load_model(cached_checkpoint("qwen3"), "float32", "cpu")
        self.layout = self.model.layout(BLOCK)
        sizes = {"layers": self.layout.layers, "layer_block_bytes": self.layout.layer_block_bytes}
        self.pool = BlockPool(slots=SLOTS, **sizes)
        self.prefill = LayerwisePrefill(self.model, self.pool, BLOCK)
        self.generation = Generation(self.model, self.pool, self.layout, pages, Metrics())
        self.events: list[Event] = []
        self.blocks: dict[bytes, bytes] = {}  # content of completed blocks when they were announced
        self.hold_pages = False
        self.on_tokens: Callable[[], None] = lambda: None
        self._told = threading.Condition()

    def start(self) -> None:
        """Begin with what is queued."""
        self.generation.start(self._listen)

    def _listen(self, events: Sequence[Event]) -> None:
        with self._told:
            self.events += events
            self._told.notify_all()
        for event in events:
            if isinstance(event, BlockComplete):
                self.blocks[event.key] = b"".join(event.data)
                if not self.hold_pages:
                    self.generation.release_page(event.page)
            elif isinstance(event, Stepped):
                self.on_tokens()

    def wait(self, condition: Callable[[], object]) -> None:
        """Until the events say so."""
        with self._told:
            assert self._told.wait_for(condition, 60), self.events[-5:]

    def of(self, kind: type[Event]) -> list[Event]:
        """All events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def names(self, kind: type[Event]) -> list[str]:
        """Requests that such an event was about."""
        return [event.name[0] for event in self.of(kind)]  # type: ignore[union-attr]

    def computed(self, tokens: Sequence[int]) -> tuple[list[int], torch.Tensor]:
        """The prompt's KV in fresh slots, and the logits of its last token."""
        slots = self.pool.reserve(-(-len(tokens) // BLOCK))
        assert slots is not None
        arrivals = LayerArrivals(self.layout.layers)
        work = ChunkWork(
            tokens=tokens, cached=0, slots=slots, store_from=0, arrivals=arrivals, deadline_s=1.0
        )
        return slots, self.prefill.run([work], lambda layer: None)[0]

    def fill(self, name: str, prompt: Sequence[int], count: int, n: int = 1, **sampling: float) -> Fill:
        """What a prefill engine and the scheduler would hand over."""
        slots, logits = self.computed(prompt)
        assign = wire.Assign(
            request=name,
            attempt=0,
            number=0,
            tokens=tuple(prompt),
            prompt_tokens=len(prompt),
            keys=tuple(block_keys(self.layout.root(), prompt, BLOCK)),
            hit_blocks=0,
            mode=wire.ReadMode.SPLIT,
            choices=tuple(range(n)),
            sampling=wire.Sampling(max_tokens=count, **sampling),
            peer=PEER,
        )
        first = tuple((one.choice, one.token) for one in first_tokens(assign, logits))
        return Fill(assign=assign, slots=tuple(slots), first=first)

    def tokens(self, fill: Fill, choice: int = 0) -> list[int]:
        """What has been generated for a choice so far, the first token included."""
        drawn = [one for event in self.of(Stepped) for one in event.drawn]  # type: ignore[union-attr]
        mine = [one.token for one in drawn if (one.request, one.choice) == (fill.name[0], choice)]
        return [dict(fill.first)[choice], *mine]

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The same without a cache: everything is computed anew for each token."""
        tokens = list(prompt)
        for _ in range(count):
            slots, logits = self.computed(tokens)
            self.pool.free(slots)
            tokens.append(int(logits.argmax()))
        return tokens[len(prompt) :]
