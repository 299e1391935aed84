"""The decode loop: right tokens in any company, pages that all come back, blocks as they were computed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest
import torch
from decode_loop import BLOCK, DecodeLoop

from dualpath_api.keys import block_keys
from dualpath_worker.engine.loop_messages import BlockComplete, Ended, Entered, Evicted, Stepped, Unfilled

Make = Callable[..., DecodeLoop]


@pytest.fixture
def make() -> Iterator[Make]:
    """Loops that end with the test."""
    made: list[DecodeLoop] = []

    def one(pages: int, start: bool = True) -> DecodeLoop:
        made.append(DecodeLoop(pages))
        if start:
            made[-1].start()
        return made[-1]

    yield one
    for loop in made:
        loop.generation.stop()
        loop.prefill.close()


def prompt(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(f"{length} {seed}")
    return [draw.randint(5, 383) for _ in range(length)]


def all_pages_back(loop: DecodeLoop) -> None:
    """After all commands: the loop ends behind them."""
    loop.generation.stop()
    assert loop.generation.free_pages == loop.generation.pages
    assert loop.generation.used_pages == loop.generation.tokens == 0


def test_tokens_do_not_depend_on_the_batch(make: Make) -> None:
    loop = make(64)
    lengths = (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK)
    fills = [loop.fill(f"r{length}", prompt(length), 20) for length in lengths]
    for fill in fills:
        loop.generation.fill(fill)
    loop.wait(lambda: len(loop.of(Ended)) == len(lengths))
    for fill in fills:
        assert loop.tokens(fill) == loop.greedy(fill.assign.tokens, 20)
    all_pages_back(loop)


@pytest.mark.parametrize("length", [BLOCK - 3, BLOCK, 2 * BLOCK + 5])
def test_choices_share_pages_and_never_write_into_a_shared_one(make: Make, length: int) -> None:
    together = make(64)
    fill = together.fill("n", prompt(length), 30, n=3, temperature=1.0, seed=7)
    together.generation.fill(fill)
    together.wait(lambda: together.of(Ended))
    streams = [together.tokens(fill, choice) for choice in range(3)]
    assert len({tuple(stream) for stream in streams}) == 3
    for choice in range(3):
        alone = make(64)
        alone.generation.fill(
            replace(fill, slots=alone.fill("n", prompt(length), 30).slots, first=(fill.first[choice],))
        )
        alone.wait(lambda loop=alone: loop.of(Ended))
        assert alone.tokens(fill, choice) == streams[choice]
    all_pages_back(together)


def test_a_completed_block_is_what_prefill_would_have_computed(make: Make) -> None:
    loop = make(64)
    loop.hold_pages = True
    fill = loop.fill("r", prompt(BLOCK + 3), 3 * BLOCK)
    loop.generation.fill(fill)
    loop.wait(lambda: loop.of(Ended))
    known = [*fill.assign.tokens, *loop.tokens(fill)][:-1]  # the last token has no KV
    keys = block_keys(loop.layout.root(), known, BLOCK)
    assert list(loop.blocks) == keys[1:]
    assert loop.generation.free_pages == 64 - len(loop.blocks)
    slots, _ = loop.computed(known)
    for key, slot in list(zip(keys, slots, strict=False))[1:]:
        stored = torch.frombuffer(bytearray(loop.blocks[key]), dtype=torch.float32)
        computed = torch.frombuffer(bytearray(loop.pool.slot_view(slot)), dtype=torch.float32)
        torch.testing.assert_close(stored, computed, rtol=1e-4, atol=1e-4)
    for event in loop.of(BlockComplete):
        loop.generation.release_page(event.page)
    all_pages_back(loop)


def test_the_youngest_makes_room_and_the_oldest_is_right(make: Make) -> None:
    loop = make(8)
    fills = [loop.fill(f"r{number}", prompt(BLOCK + 2, number), 5 * BLOCK) for number in range(3)]
    for fill in fills:
        loop.generation.fill(fill)
    loop.wait(lambda: "r0" in loop.names(Ended))
    loop.wait(lambda: len(loop.of(Ended)) + len(loop.of(Evicted)) + len(loop.of(Unfilled)) == 3)
    assert loop.tokens(fills[0]) == loop.greedy(fills[0].assign.tokens, 5 * BLOCK)
    assert loop.names(Evicted)
    assert "r0" not in loop.names(Evicted)
    assert all(event.excuse for event in loop.of(Evicted))
    for fill in fills[1:]:  # what was drawn before is right, too: the request resumes from there
        got = loop.tokens(fill)
        assert got == loop.greedy(fill.assign.tokens, len(got))
    all_pages_back(loop)


def test_an_evicted_request_resumes_with_the_same_tokens(make: Make) -> None:
    loop = make(64)
    whole = loop.fill("whole", prompt(20), 40, temperature=1.0, seed=3)
    loop.generation.fill(whole)
    loop.wait(lambda: loop.of(Ended))
    tokens = loop.tokens(whole)
    known = [*prompt(20), *tokens[:25]]
    resumed = loop.fill("resumed", known, 40, temperature=1.0, seed=3)
    assign = msgspec.structs.replace(resumed.assign, prompt_tokens=20)
    loop.generation.fill(replace(resumed, assign=assign, first=((0, tokens[25]),)))
    loop.wait(lambda: len(loop.of(Ended)) == 2)
    assert loop.tokens(replace(resumed, first=((0, tokens[25]),))) == tokens[25:]
    all_pages_back(loop)


def test_what_can_never_fit_is_said_and_does_not_block_the_rest(make: Make) -> None:
    loop = make(3)
    loop.generation.fill(loop.fill("big", prompt(4 * BLOCK), 4))
    loop.generation.fill(loop.fill("small", prompt(BLOCK), 4))
    loop.wait(lambda: loop.of(Ended))
    (unfilled,) = loop.of(Unfilled)
    assert unfilled.name == ("big", 0)
    assert "needs 5 cache pages, the engine has 3" in unfilled.reason
    all_pages_back(loop)


def test_an_abort_while_waiting_for_pages(make: Make) -> None:
    loop = make(4)
    loop.generation.fill(loop.fill("runs", prompt(2 * BLOCK), 2 * BLOCK - 1))
    loop.generation.fill(loop.fill("waits", prompt(3 * BLOCK - 1), 4))
    loop.generation.abort(("waits", 0))
    loop.wait(lambda: loop.of(Ended) and loop.of(Unfilled))
    assert (loop.names(Entered), loop.names(Unfilled)) == (["runs"], ["waits"])
    assert loop.of(Unfilled)[0].reason is None
    all_pages_back(loop)


@pytest.mark.parametrize("choice", [None, 0, 1])
def test_an_abort_while_running(make: Make, choice: int | None) -> None:
    loop = make(64)
    fill = loop.fill("r", prompt(BLOCK + 1), 100, n=2)
    loop.generation.fill(fill)
    loop.wait(lambda: len(loop.of(Stepped)) > 3)
    loop.generation.abort(fill.name, choice)
    loop.wait(lambda: loop.of(Ended))
    assert loop.names(Ended) == ["r"]
    if choice is not None:
        assert len(loop.tokens(fill, choice)) < 100
        assert loop.tokens(fill, 1 - choice) == loop.greedy(fill.assign.tokens, 100)
    all_pages_back(loop)


def test_all_choices_aborted_before_the_fill(make: Make) -> None:
    loop = make(64)
    fill = loop.fill("r", prompt(BLOCK + 1), 100, n=2)
    loop.generation.fill(replace(fill, first=()))
    loop.wait(lambda: loop.of(Ended))
    assert (loop.names(Entered), loop.names(Ended), loop.of(Stepped)) == (["r"], ["r"], [])
    all_pages_back(loop)


def test_a_failing_step_is_no_excuse_and_spares_who_waits(make: Make) -> None:
    """A token that the model does not have makes the step fail."""
    loop = make(4, start=False)
    poison = loop.fill("poison", prompt(2 * BLOCK), 50)
    loop.generation.fill(replace(poison, first=((0, 10**6),)))
    healthy = loop.fill("healthy", prompt(2 * BLOCK + 1), 8)
    loop.generation.fill(healthy)
    loop.start()
    loop.wait(lambda: loop.of(Ended))
    (evicted,) = loop.of(Evicted)
    assert (evicted.name, evicted.excuse) == (("poison", 0), False)
    assert loop.tokens(healthy) == loop.greedy(healthy.assign.tokens, 8)
    all_pages_back(loop)
