"""Ragged causal prefill attention against the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpath_kernels import prefill_attention
from dualpath_kernels.prefill_attention import prefill_attention_reference

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


def make(sizes, heads, kv_heads, size, dtype, gap=3, seed=0):
    """`sizes`: (q_len, kv_len) of each segment; gaps lie between the segments' rows."""
    generator = torch.Generator().manual_seed(seed)
    segments, q_place, kv_place = [], 0, 0
    for q_len, kv_len in sizes:
        segments.append((q_place, q_len, kv_place, kv_len))
        q_place, kv_place = q_place + q_len, kv_place + kv_len + gap
    q = torch.randn(q_place, heads, size, generator=generator).to(dtype)
    rows = torch.randn(kv_place, 2, kv_heads, size, generator=generator).to(dtype)
    return q, rows, segments, size**-0.5


SIZES = [(1, 1), (1, 200), (64, 64), (65, 65), (5, 133), (130, 131), (100, 300)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1, 2), (4, 2, 16), (6, 1, 24), (12, 4, 64), (3, 3, 128)])
@pytest.mark.parametrize("window", [None, 1, 50, 1000])
def test_matches_the_definition(dtype, shape, window):
    arguments = make(SIZES, *shape, dtype)
    result = prefill_attention(*arguments, window)
    expected = prefill_attention_reference(*arguments, window)
    torch.testing.assert_close(result, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("window", [None, 90])
def test_long_contexts_in_several_chunks(monkeypatch, window):
    import sys

    monkeypatch.setattr(sys.modules[prefill_attention.__module__], "_MASK_ELEMENTS", 1 << 14)
    arguments = make([(300, 300), (200, 500)], 4, 2, 16, torch.float32)
    torch.testing.assert_close(
        prefill_attention(*arguments, window), prefill_attention_reference(*arguments, window)
    )


@given(
    sizes=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 90)), min_size=1, max_size=4),
    window=st.one_of(st.none(), st.integers(1, 100)),
)
@settings(max_examples=40, deadline=None)
def test_any_segments(sizes, window):
    arguments = make([(q, q + past) for q, past in sizes], 2, 1, 8, torch.float32)
    torch.testing.assert_close(
        prefill_attention(*arguments, window),
        prefill_attention_reference(*arguments, window),
        atol=3e-6,
        rtol=3e-6,
    )


def test_queries_may_be_a_view_of_a_packed_projection():
    q, rows, segments, scale = make([(70, 90)], 4, 2, 16, torch.float32)
    packed = torch.cat((q, torch.zeros(70, 4, 16)), dim=1)
    expected = prefill_attention(q, rows, segments, scale)
    torch.testing.assert_close(prefill_attention(packed[:, :4], rows, segments, scale), expected)


def test_rows_outside_of_all_segments_are_zero():
    q, rows, _, scale = make([(10, 20)], 2, 1, 8, torch.float32)
    out = prefill_attention(q, rows, [(2, 3, 0, 20)], scale)
    assert not out[:2].any()
    assert not out[5:].any()
    assert out[2:5].any()


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ((0, 11, 0, 20), "within 10 query rows"),
        ((0, 10, 0, 24), "within 23 rows"),
        ((0, 10, 0, 9), "stay within"),
        ((-1, 5, 0, 9), "stay within"),
    ],
)
def test_wrong_segments_are_refused(segment, message):
    q, rows, _, scale = make([(10, 20)], 2, 1, 8, torch.float32)
    with pytest.raises(ValueError, match=message):
        prefill_attention(q, rows, [segment], scale)


def test_wrong_arguments_are_refused():
    q, rows, segments, scale = make([(10, 20)], 2, 1, 8, torch.float32)
    with pytest.raises(ValueError, match="convert q"):
        prefill_attention(q.bfloat16(), rows, segments, scale)
    with pytest.raises(ValueError, match="kv_rows has shape"):
        prefill_attention(q, rows[..., :4], segments, scale)
    with pytest.raises(ValueError, match="positive"):
        prefill_attention(q, rows, segments, scale, 0)
