"""Which side reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpath_api.cluster import PathMode
from dualpath_api.wire import ReadMode, Role, StorageNic
from dualpath_policy import EngineLoad, ReadList, Tuning, choose_mode, shorter_queue

PREFILL = EngineLoad(engine="prefill-0-0", group="prefill-0", role=Role.PREFILL)
DECODE = EngineLoad(engine="decode-0-0", group="decode-0", role=Role.DECODE)
AUTO = Tuning()


def mode_of(policy, hit=100, prefill=PREFILL, decode=DECODE, **tuning):
    return choose_mode(Tuning(path_policy=policy, **tuning), prefill, decode, hit)


def test_an_idle_decode_engine_takes_the_read():
    choice = shorter_queue(AUTO, replace(PREFILL, read_q=900), replace(DECODE, read_q=100))
    assert choice.side is Role.DECODE
    assert choice.reason == "decode-0-0 has 100 tokens to read, prefill-0-0 has 900"


def test_a_tie_goes_to_prefill():
    assert shorter_queue(AUTO, PREFILL, DECODE).side is Role.PREFILL


def test_the_bias_moves_reads_to_the_decode_side():
    choice = shorter_queue(Tuning(bias_tokens=1), PREFILL, DECODE)
    assert choice.side is Role.DECODE
    assert "1 added to prefill" in choice.reason
    assert shorter_queue(Tuning(bias_tokens=-9), replace(PREFILL, read_q=9), DECODE).side is Role.PREFILL


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        (PathMode.PREFILL_ONLY, ReadMode.PREFILL),
        (PathMode.DECODE_ONLY, ReadMode.DECODE),
        (PathMode.SPLIT, ReadMode.SPLIT),
    ],
)
def test_a_fixed_policy_is_followed(policy, mode):
    choice = mode_of(policy, hit=1)
    assert choice.mode is mode
    assert policy in choice.reason


@pytest.mark.parametrize("policy", PathMode)
def test_a_decode_engine_that_serves_no_reads_reads_nothing(policy):
    assert mode_of(policy, decode=replace(DECODE, serve_reads=False)).mode is ReadMode.PREFILL


@pytest.mark.parametrize("policy", [PathMode.SPLIT, PathMode.AUTO])
def test_a_prefill_engine_that_reads_nothing_leaves_it_to_the_decode_engine(policy):
    assert mode_of(policy, prefill=replace(PREFILL, serve_reads=False)).mode is ReadMode.DECODE


@pytest.mark.parametrize("policy", PathMode)
def test_without_a_hit_nobody_reads(policy):
    assert mode_of(policy, hit=0).reason == "nothing to read"


def test_the_rule_of_the_paper_gives_a_whole_hit_to_the_shorter_queue():
    assert mode_of(PathMode.SHORTER_QUEUE).mode is ReadMode.PREFILL
    choice = mode_of(PathMode.SHORTER_QUEUE, prefill=replace(PREFILL, read_q=1))
    assert choice.mode is ReadMode.DECODE
    assert "the path policy is ShorterQueue" in choice.reason


def test_auto_splits_a_large_hit_and_sends_a_small_one_to_the_shorter_queue():
    assert mode_of(PathMode.AUTO, hit=8).mode is ReadMode.SPLIT
    assert mode_of(PathMode.AUTO, hit=7).mode is ReadMode.PREFILL
    choice = mode_of(PathMode.AUTO, hit=7, prefill=replace(PREFILL, read_q=1))
    assert choice.mode is ReadMode.DECODE
    assert "too few to split" in choice.reason


def test_auto_with_a_share_of_all_or_nothing_does_not_split():
    assert mode_of(PathMode.AUTO, decode_max_permille=0).mode is ReadMode.PREFILL
    assert mode_of(PathMode.AUTO, decode_min_permille=1000).mode is ReadMode.DECODE


def test_share_bounds_become_blocks_and_are_named():
    choice = mode_of(PathMode.SPLIT, hit=10, decode_min_permille=250, decode_max_permille=750)
    assert (choice.decode_min, choice.decode_max) == (2, 8)
    assert "2 to 8" in choice.reason


@pytest.mark.parametrize("bounds", [(-1, 5), (6, 5), (0, 1001)])
def test_impossible_shares_are_refused(bounds):
    with pytest.raises(ValueError, match="permille"):
        Tuning(decode_min_permille=bounds[0], decode_max_permille=bounds[1])


@given(st.integers(1, 500), st.integers(0, 1000), st.integers(0, 1000))
def test_the_bounds_of_a_split_always_make_a_list_of_reads(hit, a, b):
    low, high = sorted((a, b))
    choice = mode_of(PathMode.SPLIT, hit=hit, decode_min_permille=low, decode_max_permille=high)
    reads = ReadList(hit, choice.mode, choice.decode_min, choice.decode_max)
    assert len(reads.take(Role.DECODE, hit)) == choice.decode_max
    assert 1000 * choice.decode_min <= low * hit
    assert 1000 * choice.decode_max >= high * hit


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(-1000, 1000), st.integers(1, 1000))
def test_a_longer_prefill_queue_never_moves_a_read_to_prefill(p, d, bias, more):
    tuning = Tuning(bias_tokens=bias)
    decode = replace(DECODE, read_q=d)
    before = shorter_queue(tuning, replace(PREFILL, read_q=p), decode).side
    later = shorter_queue(tuning, replace(PREFILL, read_q=p + more), decode).side
    assert (before, later) != (Role.DECODE, Role.PREFILL)


def on(load, node, nic):
    return replace(load, node=node, storage_nic=nic)


@pytest.mark.parametrize("side", ["prefill", "decode"])
@pytest.mark.parametrize("policy", [PathMode.AUTO, PathMode.SPLIT])
def test_a_storage_nic_that_is_missing_keeps_reads_on_the_prefill_side(policy, side):
    nics = {"prefill": StorageNic.PRESENT, "decode": StorageNic.PRESENT, side: StorageNic.MISSING}
    choice = mode_of(
        policy, prefill=on(PREFILL, "a", nics["prefill"]), decode=on(DECODE, "a", nics["decode"])
    )
    assert choice.mode is ReadMode.PREFILL
    assert choice.reason == f"{side}-0-0 has no storage NIC that spec.nics names"


def test_without_rules_auto_does_not_guess_two_nics_on_two_nodes():
    apart = on(PREFILL, "a", StorageNic.UNNAMED), on(DECODE, "b", StorageNic.UNNAMED)
    choice = mode_of(PathMode.AUTO, prefill=apart[0], decode=apart[1])
    assert choice.mode is ReadMode.PREFILL
    assert "spec.nics names no storage NIC" in choice.reason
    together = on(PREFILL, "", StorageNic.UNNAMED), on(DECODE, "", StorageNic.UNNAMED)
    assert mode_of(PathMode.AUTO, prefill=together[0], decode=together[1]).mode is ReadMode.SPLIT
    for policy, mode in ((PathMode.SPLIT, ReadMode.SPLIT), (PathMode.DECODE_ONLY, ReadMode.DECODE)):
        assert mode_of(policy, prefill=apart[0], decode=apart[1]).mode is mode
