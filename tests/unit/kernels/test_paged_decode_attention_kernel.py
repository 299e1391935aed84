"""Paged decode attention: CPU path and Triton kernels against the definition."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpath_kernels import paged_decode_attention
from dualpath_kernels.paged_decode_attention import (
    _decode_triton,
    paged_decode_attention_reference,
)
from dualpath_kernels.paged_decode_cpu import find_runs

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def make(lengths, heads, kv_heads, size, dtype, order="mixed", page=64):
    generator = torch.Generator().manual_seed(sum(lengths) + heads)
    counts = [-(-length // page) for length in lengths]
    pages = sum(counts) + 2
    pool = torch.randn(pages, page, 2, kv_heads, size, generator=generator).to(dtype)
    ids = torch.arange(pages) if order == "consecutive" else torch.randperm(pages, generator=generator)
    if order == "mixed":
        ids[: pages // 2] = ids[: pages // 2].sort().values
    # Entries behind a request's pages must not be read: they point outside of the pool.
    table = torch.full((len(lengths), max([*counts, 1]) + 1), 10**6, dtype=torch.int32)
    place = 0
    for index, count in enumerate(counts):
        table[index, :count] = ids[place : place + count].int()
        place += count
    q = torch.randn(len(lengths), heads, size, generator=generator).to(dtype)
    return q, pool, table, torch.tensor(lengths, dtype=torch.int32), size**-0.5


def check(result, arguments, window, dtype):
    q, pool, table, lengths, scale = arguments
    expected = paged_decode_attention_reference(
        q, pool, table.clamp(max=len(pool) - 1), lengths, scale, window
    )
    torch.testing.assert_close(result, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


SHAPES = [(1, 1, 2), (4, 2, 16), (6, 1, 24), (12, 4, 64), (3, 3, 128)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["consecutive", "mixed", "scattered"])
@pytest.mark.parametrize("window", [None, 1, 70])
def test_cpu_path(dtype, shape, order, window):
    arguments = make([1, 64, 65, 200, 0, 130], *shape, dtype, order)
    check(paged_decode_attention(*arguments, window), arguments, window, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("window", [None, 70])
def test_triton_kernels(dtype, shape, splits, window):
    arguments = make([1, 65, 200, 0], *shape, dtype)
    check(_decode_triton(*arguments, window, splits), arguments, window, dtype)


def test_triton_kernels_with_more_splits_than_pages_and_small_pages():
    arguments = make([5, 40], 4, 2, 16, torch.float32, page=16)
    check(_decode_triton(*arguments, None, 9), arguments, None, torch.float32)


@given(
    pages=st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True),
    data=st.data(),
    page=st.sampled_from([1, 4, 64]),
)
@settings(max_examples=200, deadline=None)
def test_runs_list_every_token_once_in_order(pages, data, page):
    end = data.draw(st.integers(0, len(pages) * page))
    begin = data.draw(st.integers(0, end))
    table = torch.tensor([*pages, 99], dtype=torch.int32).numpy()
    runs = find_runs(table, begin, end, page)
    rows = [row for first, last in runs for row in range(first, last)]
    assert rows == [pages[token // page] * page + token % page for token in range(begin, end)]
    for (_, last), (first, _) in pairwise(runs):
        assert last != first


def test_many_requests_are_split_into_waves(monkeypatch):
    import dualpath_kernels.paged_decode_cpu as module

    monkeypatch.setattr(module, "_WAVE", 1000)
    arguments = make([100, 0, 1, 300, 20, 0], 4, 2, 16, torch.float32)
    check(paged_decode_attention(*arguments), arguments, None, torch.float32)


def test_a_page_table_changed_in_place_is_seen():
    """What is remembered between the layers of a step goes by contents, not by identity."""
    _, _, table, lengths, _ = arguments = make([100, 65], 4, 2, 16, torch.float32)
    paged_decode_attention(*arguments)
    table[0, :2] = table[0, :2].flip(0)
    check(paged_decode_attention(*arguments), arguments, None, torch.float32)
    lengths += 1
    check(paged_decode_attention(*arguments), arguments, None, torch.float32)


def test_no_requests():
    q, pool, table, lengths, scale = make([3], 2, 1, 4, torch.float32)
    assert paged_decode_attention(q[:0], pool, table[:0], lengths[:0], scale).shape == (0, 2, 4)


def test_triton_on_a_cpu_without_the_interpreter_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        paged_decode_attention(*make([3], 2, 1, 4, torch.float32), backend="triton")


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, torch.zeros(2, 3, 4), "pass a multiple"),
        (0, torch.zeros(2, 4), r"pass \[B, Q, D\]"),
        (0, torch.zeros(2, 4, 4).bfloat16(), "convert q"),
        (1, torch.zeros(4, 2, 2, 4), r"pass \[P, T, 2, K, D\]"),
        (1, torch.zeros(4, 64, 2, 2, 8)[..., :4], "strided"),
        (2, torch.zeros(2, 3, dtype=torch.int64), "page_table has dtype"),
        (3, torch.zeros(3, dtype=torch.int32), "lengths has shape"),
    ],
)
def test_wrong_arguments_are_refused(index, value, message):
    arguments = list(make([3, 5], 4, 2, 4, torch.float32))
    arguments[index] = value
    with pytest.raises(ValueError, match=message):
        paged_decode_attention(*arguments)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="positive"):
        paged_decode_attention(*make([3], 2, 1, 4, torch.float32), 0)


def test_the_cpu_path_does_not_import_triton():
    """Start-up of an engine on a CPU should not pay for it."""
    code = (
        "import sys, torch, dualpath_kernels as k; "
        "k.rms_norm(torch.ones(1, 4), torch.ones(4), 1e-6); "
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
