"""The list of hit blocks that both sides read from: nothing twice, nothing forgotten, always an end."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dualpath_api.wire import ReadMode, Role
from dualpath_policy.reads import ReadList, batch_blocks

P, D = Role.PREFILL, Role.DECODE
SIDES = (P, D)


def test_both_sides_meet_in_the_middle():
    reads = ReadList(5, ReadMode.SPLIT)
    assert reads.take(P, 2) == (0, 1)
    assert reads.take(D, 2) == (4, 3)
    assert reads.take(P, 2) == (2,)
    assert reads.take(D, 2) == ()
    assert not reads.settled
    for block in (0, 1, 2):
        assert reads.done(P, block)
    for block in (3, 4):
        assert reads.done(D, block)
    assert reads.settled
    assert reads.hit == 5
    assert [reads.side_of(b) for b in range(5)] == [P, P, P, D, D]


@pytest.mark.parametrize(("mode", "reader"), [(ReadMode.PREFILL, P), (ReadMode.DECODE, D)])
def test_a_fixed_mode_lets_one_side_read(mode, reader):
    reads = ReadList(3, mode)
    other = D if reader is P else P
    assert reads.offers(other) == 0
    assert reads.take(other, 3) == ()
    assert reads.offers(reader) == 3
    assert sorted(reads.take(reader, 9)) == [0, 1, 2]


def test_bounds_are_places_in_the_list():
    reads = ReadList(10, ReadMode.SPLIT, decode_min=3, decode_max=6)
    assert reads.take(P, 99) == tuple(range(7))
    assert reads.take(D, 99) == (9, 8, 7)
    greedy = ReadList(10, ReadMode.SPLIT, decode_min=3, decode_max=6)
    assert greedy.take(D, 99) == (9, 8, 7, 6, 5, 4)


def test_blocks_behind_a_lost_one_are_not_worth_reading():
    reads = ReadList(10, ReadMode.SPLIT)
    assert reads.take(P, 3) == (0, 1, 2)
    assert reads.take(D, 2) == (9, 8)
    reads.failed(P, 1)
    assert reads.offers(P) == reads.offers(D) == 0
    assert reads.done(P, 0)
    assert reads.settled
    assert reads.hit == 1
    assert reads.held(D) == (9, 8)
    assert not reads.done(P, 1)


def test_a_late_block_goes_to_the_other_side_and_is_lost_when_both_are_late():
    reads = ReadList(2, ReadMode.SPLIT, decode_min=1, decode_max=1)
    assert reads.take(D, 2) == (1,)
    reads.give_back(D, [1])
    assert reads.offers(D) == 0
    assert reads.take(P, 2) == (1, 0)
    reads.give_back(P, [1])
    assert reads.done(P, 0)
    assert reads.settled
    assert reads.hit == 1


def test_a_late_block_of_the_only_reader_is_lost():
    reads = ReadList(2, ReadMode.DECODE)
    reads.take(D, 2)
    reads.give_back(D, [0, 1, 1])
    assert reads.settled
    assert reads.hit == 0


def test_an_answer_after_the_deadline_still_counts_while_nobody_else_reads():
    reads = ReadList(1, ReadMode.SPLIT)
    reads.take(D, 1)
    reads.give_back(D, [0])
    assert reads.done(D, 0)
    assert reads.settled
    assert reads.take(P, 1) == ()


def test_an_answer_after_the_deadline_is_surplus_once_the_other_side_reads():
    reads = ReadList(1, ReadMode.SPLIT)
    reads.take(D, 1)
    reads.give_back(D, [0])
    assert reads.take(P, 1) == (0,)
    assert not reads.done(D, 0)
    reads.failed(D, 0)
    assert reads.done(P, 0)
    assert reads.side_of(0) is P


def test_a_late_failure_says_that_the_block_is_missing():
    reads = ReadList(2, ReadMode.SPLIT)
    assert reads.take(D, 1) == (1,)
    reads.give_back(D, [1])
    reads.failed(D, 1)
    assert reads.take(P, 9) == (0,)


def test_a_side_that_is_gone_leaves_all_to_the_other():
    reads = ReadList(6, ReadMode.SPLIT, decode_min=4)
    assert reads.take(D, 1) == (5,)
    reads.close(D)
    assert reads.take(P, 9) == (5, 0, 1, 2, 3, 4)
    assert not reads.done(D, 5)


def test_when_both_sides_are_gone_the_rest_is_lost():
    reads = ReadList(6, ReadMode.SPLIT, decode_max=2)
    assert reads.take(P, 2) == (0, 1)
    assert reads.done(P, 0)
    reads.close(P)
    assert reads.offers(D) == 5
    reads.close(D)
    assert reads.settled
    assert reads.hit == 1


def test_an_empty_list_is_settled():
    reads = ReadList(0, ReadMode.SPLIT)
    assert reads.settled
    assert reads.hit == 0
    assert reads.side_of(0) is None


@pytest.mark.parametrize("bounds", [(-1, 2), (2, 1), (0, 5)])
def test_impossible_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="decode_min"):
        ReadList(4, ReadMode.SPLIT, *bounds)


@st.composite
def lists(draw):
    blocks = draw(st.integers(0, 12))
    low = draw(st.integers(0, blocks))
    return blocks, draw(st.sampled_from(ReadMode)), low, draw(st.integers(low, blocks))


moves = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "done", "done", "failed", "give_back", "close"]),
        st.sampled_from(SIDES),
        st.integers(0, 11),
    ),
    max_size=60,
)


@given(lists(), moves)
def test_whatever_happens_each_block_has_one_reader_and_the_list_settles(shape, script):
    blocks, mode, low, high = shape
    reads = ReadList(blocks, mode, low, high)
    have: dict[int, Role] = {}
    gave: set[tuple[Role, int]] = set()
    closed = False
    hit_when_settled = None
    for verb, side, number in script:
        held = reads.held(side)
        if verb == "take":
            offers = reads.offers(side)
            taken = reads.take(side, number)
            assert len(taken) == min(number, offers)
            assert len(set(taken)) == len(taken)
            for block in taken:
                assert block not in have, "read twice"
                assert block not in held
                assert block not in reads.held(D if side is P else P), "two readers at once"
                assert (side, block) not in gave, "offered again to the side that gave it back"
                rescued = any(b == block for _, b in gave)
                if mode is ReadMode.SPLIT and not rescued and not closed:
                    assert block < blocks - low if side is P else block >= blocks - high
                if mode is not ReadMode.SPLIT:
                    assert side.value == mode.value
        elif verb == "done":
            if reads.done(side, number):
                have[number] = side
            assert number in have or number not in held
        elif verb == "failed" and held:
            reads.failed(side, held[number % len(held)])
        elif verb == "give_back" and held:
            reads.give_back(side, [held[number % len(held)]])
            gave.add((side, held[number % len(held)]))
        elif verb == "close" and number == 0:
            gave |= {(side, block) for block in held}
            reads.close(side)
            closed = True
        leading = next((i for i in range(blocks) if i not in have), blocks)
        assert reads.hit == leading
        if hit_when_settled is not None:
            assert reads.settled
            assert reads.hit == hit_when_settled, "the hit changed after it was settled"
        elif reads.settled:
            hit_when_settled = reads.hit
    _finish(reads)
    event("hit is whole" if reads.hit == blocks else "hit is cut")
    if not any(verb in {"failed", "give_back", "close"} for verb, _, _ in script):
        assert reads.hit == blocks, "a block was lost silently"


def _finish(reads: ReadList) -> None:
    """Both sides go on reading and answering: this must come to an end with a settled list."""
    for _ in range(4 * reads.blocks + 4):
        for side in SIDES:
            reads.take(side, 3)
            for block in reads.held(side):
                assert reads.done(side, block)
    assert reads.settled
    assert reads.offers(P) == reads.offers(D) == 0
    assert reads.held(P) == reads.held(D) == ()


@given(st.integers(0, 500), st.integers(1, 16))
def test_batches_hand_out_all_and_never_more_than_is_left_or_allowed(blocks, most):
    left, sizes = blocks, []
    while left:
        sizes.append(min(left, batch_blocks(left, most)))
        left -= sizes[-1]
    assert sum(sizes) == blocks
    assert all(1 <= size <= most for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-3:] == [1] * min(3, len(sizes))
