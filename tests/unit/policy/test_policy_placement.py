"""The paper's rules for prefill and decode engines."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dualpath_api.wire import Role
from dualpath_policy import (
    EngineLoad,
    Limits,
    Waiting,
    after,
    choose_decode,
    choose_group,
    choose_prefill,
    fair_level,
    place_decode,
    place_prefill,
    spread_over_groups,
)
from dualpath_policy.model import GENERATION_ROOM

LIMITS = Limits(alpha=100, beta=1000)
HEAD = Waiting(request="r", prompt_tokens=50)


def pe(name, **load):
    return EngineLoad(engine=name, group="prefill-0", role=Role.PREFILL, **load)


def de(name, group="decode-0", free_tokens=10**6, **load):
    return EngineLoad(engine=name, group=group, role=Role.DECODE, free_tokens=free_tokens, **load)


def test_a_short_read_queue_beats_few_tokens():
    placement = choose_prefill(HEAD, [pe("a", tok_e=1, read_q=101), pe("b", tok_e=900, read_q=100)], LIMITS)
    assert placement.engine == "b"
    assert placement.reason == "b has least unfinished tokens (900), with a short read queue (100 tokens)"


def test_with_long_queues_everywhere_the_least_tokens_win():
    placement = choose_prefill(HEAD, [pe("a", tok_e=5, read_q=500), pe("b", tok_e=4, read_q=900)], LIMITS)
    assert placement.engine == "b"
    assert "no read queue is short" in placement.reason


def test_overloaded_engines_get_nothing():
    placement = choose_prefill(HEAD, [pe("a", tok_e=1001)], LIMITS)
    assert placement.engine is None
    assert "1000 unfinished tokens" in placement.reason
    assert choose_prefill(HEAD, [pe("a", tok_e=1000)], LIMITS).engine == "a"


def test_unknown_limits_limit_nothing():
    engines = [pe("a", tok_e=10**9, read_q=10**9)]
    limits = Limits.from_rates(storage_tokens_per_s=0, prefill_tokens_per_s=0)
    assert choose_prefill(HEAD, engines, limits).engine == "a"
    known = Limits.from_rates(storage_tokens_per_s=10, prefill_tokens_per_s=20)
    assert (known.alpha, known.beta) == (30, 100)


def test_draining_and_excluded_engines_are_left_out():
    engines = [pe("a", accept_new=False), pe("b"), pe("c", tok_e=9)]
    assert choose_prefill(replace(HEAD, excluded=frozenset({"b"})), engines, LIMITS).engine == "c"
    none_left = choose_prefill(replace(HEAD, excluded=frozenset({"b", "c"})), engines, LIMITS)
    assert none_left.engine is None
    assert "draining" in none_left.reason
    assert choose_prefill(HEAD, [], LIMITS).engine is None


def test_a_full_buffer_makes_the_head_wait_and_those_behind_it_too():
    engines = [pe("a", free_slots=4)]
    queue = [replace(HEAD, request=r, slots=s) for r, s in [("r0", 3), ("r1", 2), ("r2", 1)]]
    placements = place_prefill(queue, engines, LIMITS)
    assert [p.engine for p in placements] == ["a", None]
    assert "2 free buffer slots" in placements[1].reason


def test_prefill_placement_counts_what_it_has_placed():
    queue = [replace(HEAD, request=str(i), prompt_tokens=600) for i in range(5)]
    placements = place_prefill(queue, [pe("a"), pe("b", tok_e=1)], LIMITS)
    assert [p.engine for p in placements] == ["a", "b", "a", "b", None]


def test_a_request_that_all_engines_failed_does_not_block_the_queue():
    queue = [replace(HEAD, request="bad", excluded=frozenset({"a"})), replace(HEAD, request="good")]
    assert [p.engine for p in place_prefill(queue, [pe("a")], LIMITS)] == [None, "a"]


def test_phase_one_takes_the_group_with_the_least_tokens():
    engines = [
        de("a", "g0", tok_e=5),
        de("b", "g0", tok_e=5),
        de("c", "g1", tok_e=9),
        de("d", "g2", accept_new=False),
    ]
    choice = choose_group(HEAD, engines)
    assert choice.group == "g1"
    assert choice.reason == "g1 has the least tokens of its kind (9)"
    assert choose_group(replace(HEAD, excluded=frozenset({"c"})), engines).group == "g0"
    assert choose_group(HEAD, []).group is None


def test_phase_one_drains_the_queue_and_counts():
    queue = [replace(HEAD, request=str(i), prompt_tokens=10) for i in range(4)]
    queue.append(replace(HEAD, request="lost", excluded=frozenset({"a", "b"})))
    choices = spread_over_groups(queue, [de("a", "g0"), de("b", "g1", tok_e=5)])
    assert [c.group for c in choices] == ["g0", "g1", "g0", "g1", None]


def test_below_the_level_the_least_requests_win():
    engines = [de("a", seq_e=3, tok_e=10), de("b", seq_e=1, tok_e=90)]
    placement = choose_decode(HEAD, engines, level=200)
    assert placement.engine == "b"
    assert "least requests (1)" in placement.reason


def test_above_the_level_the_least_tokens_win():
    engines = [de("a", seq_e=3, tok_e=10), de("b", seq_e=1, tok_e=90)]
    placement = choose_decode(HEAD, engines, level=20)
    assert placement.engine == "a"
    assert "none stays below" in placement.reason


def test_the_level_counts_the_longest_prefix_that_fits():
    queue = [replace(HEAD, request=str(i), prompt_tokens=n) for i, n in enumerate((60, 30, 20, 1))]
    engines = [de("a", free_tokens=50, tok_e=10), de("b", free_tokens=50), de("c", accept_new=False)]
    assert fair_level(queue, engines) == 1.05 * (90 + 10) / 2
    assert fair_level(queue, []) == 0.0


def test_the_cache_need_counts_a_first_allowance_for_each_choice():
    assert Waiting(request="r", prompt_tokens=10, max_tokens=5, choices=2).cache_tokens == 20
    assert Waiting(request="r", prompt_tokens=10, max_tokens=10**6).cache_tokens == 10 + GENERATION_ROOM


def test_without_room_the_head_waits():
    queue = [replace(HEAD, request=r, prompt_tokens=n) for r, n in [("a", 80), ("b", 80), ("c", 1)]]
    placements = place_decode(queue, [de("d0", free_tokens=100)])
    assert [p.engine for p in placements] == ["d0", None]
    assert placements[1].reason == "no decode engine has room for 80 tokens and 0 buffer slots"
    assert place_decode([replace(HEAD, excluded=frozenset({"d0"}))], [de("d0")])[0].engine is None


requests = st.lists(
    st.builds(
        Waiting,
        request=st.uuids().map(str),
        prompt_tokens=st.integers(1, 400),
        max_tokens=st.integers(0, 600),
        slots=st.integers(0, 5),
        excluded=st.frozensets(st.sampled_from(["e0", "e1", "e2"]), max_size=2),
    ),
    max_size=12,
)
loads = st.lists(
    st.builds(
        EngineLoad,
        engine=st.sampled_from(["e0", "e1", "e2", "e3"]),
        group=st.just("g"),
        role=st.just(Role.DECODE),
        seq_e=st.integers(0, 5),
        tok_e=st.integers(0, 1500),
        read_q=st.integers(0, 300),
        free_tokens=st.integers(0, 2000),
        free_slots=st.integers(0, 12),
        accept_new=st.booleans(),
    ),
    unique_by=lambda load: load.engine,
    max_size=4,
)


def _replayed(queue, engines, placements):
    """Follow the placements, checking each against the loads of its moment."""
    now = {e.engine: e for e in engines}
    asked = {w.request: w for w in queue}
    assert [p.request for p in placements] == [w.request for w in queue][: len(placements)], "FIFO"
    for placement in placements:
        assert placement.reason
        if placement.engine is not None:
            waiting, load = asked[placement.request], now[placement.engine]
            assert load.accept_new
            assert load.engine not in waiting.excluded
            assert load.free_slots >= waiting.slots
            yield waiting, load, list(now.values())
            now[load.engine] = after(load, waiting)


@given(requests, loads)
def test_prefill_never_overloads_and_prefers_short_queues(queue, engines):
    for waiting, load, now in _replayed(queue, engines, place_prefill(queue, engines, LIMITS)):
        assert load.tok_e <= LIMITS.beta
        rivals = [
            e
            for e in now
            if e.accept_new
            and e.engine not in waiting.excluded
            and e.free_slots >= waiting.slots
            and e.tok_e <= LIMITS.beta
        ]
        short = [e for e in rivals if e.read_q <= LIMITS.alpha]
        assert load in (short or rivals)
        assert load.tok_e == min(e.tok_e for e in short or rivals)


@given(requests, loads)
def test_decode_placements_always_fit_the_cache(queue, engines):
    for waiting, load, _ in _replayed(queue, engines, place_decode(queue, engines)):
        assert load.free_tokens >= waiting.cache_tokens


@given(requests, loads)
def test_equal_input_gives_equal_output(queue, engines):
    assert place_decode(queue, engines) == place_decode(queue, list(reversed(engines)))
    assert place_prefill(queue, engines, LIMITS) == place_prefill(queue, list(reversed(engines)), LIMITS)
