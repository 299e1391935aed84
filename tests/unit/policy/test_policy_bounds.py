"""The bottleneck-free range and the best share, against the paper's figures and against all other shares."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpath_policy.bounds import BestShare, Link, NodeShape, PdBounds, best_share, pd_bounds

GB = 10**9
PAPER = NodeShape(
    compute_nics=8, compute_nic_bytes_per_s=50 * GB, storage_bytes_per_s=50 * GB, dram_bytes_per_s=500 * GB
)

nodes = st.builds(
    NodeShape,
    compute_nics=st.integers(1, 16),
    compute_nic_bytes_per_s=st.integers(1, 100),
    storage_bytes_per_s=st.integers(1, 400),
    dram_bytes_per_s=st.integers(1, 2000),
)
counts = st.integers(1, 50)
parts = st.fractions(0, 1, max_denominator=20)


def test_the_papers_node_may_have_a_seventh_to_three_and_a_half_prefill_nodes_per_decode_node():
    assert pd_bounds(PAPER) == PdBounds(lower=Fraction(1, 7), upper=Fraction(7, 2))


def test_a_node_whose_storage_is_faster_than_half_its_compute_nics_has_no_such_ratio():
    assert pd_bounds(replace(PAPER, storage_bytes_per_s=200 * GB)) is None
    assert pd_bounds(replace(PAPER, dram_bytes_per_s=150 * GB)) is None


@pytest.mark.parametrize(
    ("prefill", "decode", "kv_part", "rate", "share", "link"),
    [
        (2, 4, 1, 300, Fraction(1, 3), Link.PREFILL_STORAGE),
        (1, 7, 1, 400, Fraction(1, 8), Link.PREFILL_NIC_OUT),
        (7, 2, 1, 450, Fraction(7, 9), Link.DECODE_NIC_OUT),
        (2, 1, Fraction(1, 2), 125, Fraction(3, 5), Link.DECODE_NIC_OUT),
        (1, 10, 1, 400, Fraction(1, 11), Link.PREFILL_NIC_OUT),
        (2, 4, Fraction(1, 4), 200, Fraction(1, 3), Link.PREFILL_NIC_OUT),
        (20, 3, Fraction(1, 8), 100, Fraction(1, 2), Link.DECODE_NIC_IN),
    ],
)
def test_known_clusters_have_the_known_best_share(prefill, decode, kv_part, rate, share, link):
    best = best_share(PAPER, prefill, decode, kv_part=kv_part)
    assert (best.bytes_per_s, best.prefill_share) == (rate * GB, share)
    assert link in best.binding


def test_writes_on_a_shared_storage_nic_move_reads_to_prefill():
    best = best_share(PAPER, 2, 4, decode_writes_bytes_per_s=6 * GB)
    assert best.prefill_share == Fraction(100, 294)
    assert best.decode_permille == 660


def test_a_share_needs_both_roles():
    with pytest.raises(ValueError, match="node of each role"):
        best_share(PAPER, 0, 4)


def test_a_node_needs_links():
    with pytest.raises(ValueError, match="must be positive"):
        replace(PAPER, dram_bytes_per_s=0)


@given(node=nodes, prefill=counts, decode=counts)
def test_the_range_is_where_the_storage_nics_can_all_be_full(node: NodeShape, prefill: int, decode: int):
    bounds = pd_bounds(node)
    inside = bounds is not None and bounds.contains(prefill, decode)
    full = best_share(node, prefill, decode).bytes_per_s == (prefill + decode) * node.storage_bytes_per_s
    assert inside == full


@given(node=nodes, prefill=counts, decode=counts, kv_part=parts, share=parts, writes=st.integers(0, 2000))
def test_no_other_share_reads_more_and_the_best_one_is_possible(
    node: NodeShape, prefill: int, decode: int, kv_part: Fraction, share: Fraction, writes: int
):
    best = best_share(node, prefill, decode, kv_part=kv_part, decode_writes_bytes_per_s=writes)
    limits = limits_of(node, prefill, decode, kv_part, writes)
    assert possible_rate(limits, share) <= best.bytes_per_s
    assert possible_rate(limits, best.prefill_share) == best.bytes_per_s
    assert 0 <= best.prefill_share <= 1
    assert best.binding or best.bytes_per_s == 0


def limits_of(node: NodeShape, prefill: int, decode: int, kv_part: Fraction, writes: int):
    """What each link carries for one byte on the prefill path, one on the decode path, and at most."""
    s, m = node.storage_bytes_per_s, node.dram_bytes_per_s
    c = kv_part * node.compute_nics * node.compute_nic_bytes_per_s
    at_prefill = [(1, 0, s), (2, 0, c), (1, 1, c), (2, 0, m)]
    at_decode = [(0, 1, max(Fraction(0), s - Fraction(writes, decode))), (1, 2, c), (2, 1, c), (2, 3, m)]
    return [(a, b, prefill * most) for a, b, most in at_prefill] + [
        (a, b, decode * most) for a, b, most in at_decode
    ]


def possible_rate(limits, share: Fraction) -> Fraction:
    """The rate at which the first link is full when a fixed share is read on the prefill side."""
    loads = [(a * share + b * (1 - share), most) for a, b, most in limits]
    return min(Fraction(most) / load for load, most in loads if load)


@given(node=nodes, prefill=counts, decode=counts, kv_part=parts)
def test_more_nodes_or_faster_links_never_read_less(node: NodeShape, prefill: int, decode: int, kv_part):
    def rate(node: NodeShape, prefill: int, decode: int, kv_part: Fraction) -> Fraction:
        return best_share(node, prefill, decode, kv_part=kv_part).bytes_per_s

    least = rate(node, prefill, decode, kv_part)
    for larger in (
        rate(node, prefill + 1, decode, kv_part),
        rate(node, prefill, decode + 1, kv_part),
        rate(node, prefill, decode, kv_part + 1),
        rate(replace(node, storage_bytes_per_s=node.storage_bytes_per_s + 1), prefill, decode, kv_part),
        rate(replace(node, dram_bytes_per_s=node.dram_bytes_per_s + 1), prefill, decode, kv_part),
    ):
        assert larger >= least


@given(node=nodes, prefill=counts, decode=counts, kv_part=parts)
def test_among_equally_good_shares_the_storage_nics_are_as_equally_busy_as_can_be(
    node: NodeShape, prefill: int, decode: int, kv_part: Fraction
):
    best: BestShare = best_share(node, prefill, decode, kv_part=kv_part)
    balanced = Fraction(prefill, prefill + decode)
    nearer = (best.prefill_share + balanced) / 2
    limits = limits_of(node, prefill, decode, kv_part, 0)
    assert best.prefill_share == balanced or possible_rate(limits, nearer) < best.bytes_per_s
