"""Slots: every transition that exists, every one that does not, and the invariants over random histories."""

import mmap

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dualpath_worker.blocks import BlockPool, SlotState
from dualpath_worker.blocks.pool import SlotError, indices


def pool_of(slots=8, layers=3, layer_block_bytes=40):
    return BlockPool(slots=slots, layers=layers, layer_block_bytes=layer_block_bytes)


def test_reserving_is_all_or_nothing():
    pool = pool_of(slots=4)
    assert pool.reserve(3) == [0, 1, 2]
    assert pool.reserve(2) is None
    assert (pool.used, pool.available, pool.reserve(1)) == (3, 1, [3])


def test_neighbours_are_preferred_over_the_lowest_slot():
    pool = pool_of(slots=8)
    first = pool.reserve(8)
    pool.free([first[0], first[2], first[4], first[5], first[6]])
    assert pool.reserve(3) == [4, 5, 6]
    assert pool.reserve(2) == [0, 2]


def test_the_best_fitting_run_is_taken_so_that_long_runs_survive():
    pool = pool_of(slots=9)
    pool.reserve(9)
    pool.free([0, 1, 2, 3, 6, 7])
    assert pool.reserve(2) == [6, 7]


def test_a_slot_with_several_holds_is_ready_after_the_last_one():
    pool = pool_of()
    slots = pool.reserve(1)
    pool.begin(slots)
    pool.begin(slots)
    pool.end(slots)
    assert pool.state(slots[0]) is SlotState.IN_FLIGHT
    pool.end(slots)
    assert pool.state(slots[0]) is SlotState.READY
    pool.free(slots)
    assert pool.used == 0


def test_a_retired_slot_is_quarantined_until_its_transfer_has_ended():
    pool = pool_of(slots=2)
    slots = pool.reserve(2)
    pool.begin(slots[:1])
    assert pool.retire(slots) == [0]
    assert (pool.used, pool.quarantined, pool.reserve(2)) == (0, 1, None)
    pool.end(slots[:1])
    assert (pool.quarantined, pool.reserve(2)) == (0, [0, 1])


@pytest.mark.parametrize("verb", ["begin", "end", "free", "retire"])
def test_nothing_but_reserve_touches_a_free_slot(verb):
    with pytest.raises(SlotError, match="FREE"):
        getattr(pool_of(), verb)([0])


def test_a_held_slot_cannot_be_freed():
    pool = pool_of()
    slots = pool.reserve(1)
    pool.begin(slots)
    with pytest.raises(SlotError, match="IN_FLIGHT"):
        pool.free(slots)


def test_a_wrong_call_changes_nothing():
    pool = pool_of()
    slots = pool.reserve(2)
    for bad in ([*slots, 5], [slots[0], slots[0]], [99]):
        with pytest.raises(SlotError):
            pool.free(bad)
    assert pool.used == 2


def test_a_generation_names_one_use_of_a_slot():
    pool = pool_of(slots=1)
    before = pool.generation(0)
    pool.free(pool.reserve(1))
    assert pool.generation(0) == before + 1


def test_views_share_memory_with_the_tensor():
    pool = pool_of(slots=4, layers=3, layer_block_bytes=40)
    pool.slot_view(2)[40:80] = b"\x07" * 40
    assert torch.all(pool.layer_view(2, 1) == 7)
    assert int(pool.tensor.sum()) == 7 * 40
    assert pool.tensor.data_ptr() % mmap.PAGESIZE == 0


def test_info_says_where_the_blocks_are():
    pool = pool_of(slots=4, layers=3, layer_block_bytes=40)
    info = pool.info()
    assert (info.base, info.slots, info.layers, info.layer_block_bytes) == (pool.tensor.data_ptr(), 4, 3, 40)
    assert indices([(2, 1), (0, 2)], 3).tolist() == [7, 2]


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="empty pool"):
        pool_of(slots=0)


class SlotMachine(RuleBasedStateMachine):
    """Random histories against a plain model: owner of each slot and its holds."""

    def __init__(self):
        super().__init__()
        self.pool = pool_of(slots=7, layers=1, layer_block_bytes=1)
        self.taken: dict[int, int] = {}  # slot -> holds
        self.given_up: dict[int, int] = {}
        self.freed = [0] * 7

    def _some(self, data, slots):
        return data.draw(st.lists(st.sampled_from(sorted(slots)), unique=True)) if slots else []

    @rule(n=st.integers(0, 8))
    def reserve(self, n):
        free = 7 - len(self.taken) - len(self.given_up)
        got = self.pool.reserve(n)
        assert (got is None) == (n > free)
        for slot in got or []:
            assert slot not in self.taken
            assert slot not in self.given_up
            self.taken[slot] = 0

    @rule(data=st.data())
    def begin(self, data):
        slots = self._some(data, self.taken)
        self.pool.begin(slots)
        for slot in slots:
            self.taken[slot] += 1

    @rule(data=st.data())
    def end(self, data):
        held = [s for s, n in (self.taken | self.given_up).items() if n]
        slots = self._some(data, held)
        self.pool.end(slots)
        for slot in slots:
            owner = self.taken if slot in self.taken else self.given_up
            owner[slot] -= 1
            if owner is self.given_up and owner[slot] == 0:
                del owner[slot]
                self.freed[slot] += 1

    @rule(data=st.data())
    def retire(self, data):
        for slot in self._some(data, self.taken):
            held = self.pool.retire([slot])
            holds = self.taken.pop(slot)
            assert held == ([slot] if holds else [])
            if holds:
                self.given_up[slot] = holds
            else:
                self.freed[slot] += 1

    @rule(data=st.data())
    def free(self, data):
        slots = self._some(data, [s for s, n in self.taken.items() if n == 0])
        self.pool.free(slots)
        for slot in slots:
            del self.taken[slot]
            self.freed[slot] += 1

    @invariant()
    def slots_are_neither_lost_nor_doubled(self):
        pool = self.pool
        assert pool.used + pool.available + pool.quarantined == pool.total == 7
        assert (pool.used, pool.quarantined) == (len(self.taken), len(self.given_up))

    @invariant()
    def each_use_was_freed_exactly_once(self):
        assert [self.pool.generation(s) for s in range(7)] == self.freed

    @invariant()
    def what_is_held_is_not_free(self):
        for slot, holds in (self.taken | self.given_up).items():
            assert self.pool.holds(slot) == holds
            assert self.pool.state(slot) is not SlotState.FREE


TestSlotMachine = SlotMachine.TestCase
