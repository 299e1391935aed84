"""Gather and scatter of Layer Blocks: every backend against the definition, and there and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpath_kernels import gather_layer_blocks, scatter_layer_blocks
from dualpath_kernels.gather_layer_blocks import gather_layer_blocks_reference
from dualpath_kernels.layer_blocks import checked_move
from dualpath_kernels.scatter_layer_blocks import scatter_layer_blocks_reference

BACKENDS = ["torch", "triton"]
TOKENS = 64
# (KV heads, head size, dtype): rows of 32 bytes, of 12 bytes (no multiple of 8), of 2 KB
ROWS = [(1, 4, torch.float32), (3, 1, torch.bfloat16), (4, 64, torch.float32)]
# (first token, number of rows) and the blocks these touch
PLACES = [(0, 64, 1), (0, 1, 1), (0, 200, 4), (50, 14, 1), (50, 15, 2), (63, 1, 1), (63, 130, 4), (1, 63, 1)]


def make(row, tokens, slots=7, layers=3):
    heads, size, dtype = row
    generator = torch.Generator().manual_seed(tokens)
    rows = torch.randn(tokens, 2, heads, size, generator=generator).to(dtype)
    block = TOKENS * 2 * heads * size * rows.element_size()
    buffer = torch.randint(0, 256, (slots, layers, block), dtype=torch.uint8, generator=generator)
    return rows, buffer


def same(left, right):
    return torch.equal(left.view(torch.uint8), right.view(torch.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("first", "count", "blocks"), PLACES)
def test_contiguous_rows(backend, row, first, count, blocks):
    slots = [5, 0, 6, 2][:blocks]
    rows, buffer = make(row, count)
    expected, scattered = rows.clone(), buffer.clone()
    gather_layer_blocks_reference(checked_move(buffer, slots, 1, expected, first, None))
    scatter_layer_blocks_reference(checked_move(scattered, slots, 1, rows, first, None))

    result = buffer.clone()
    scatter_layer_blocks(rows, result, slots, 1, first=first, backend=backend)
    assert torch.equal(result, scattered)
    gather_layer_blocks(buffer, torch.tensor(slots), 1, rows, first=first, backend=backend)
    assert same(rows, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", ROWS)
def test_pages(backend, row):
    slots, pages = [4, 1, 3], [2, 0, 4]
    rows, buffer = make(row, 5 * TOKENS)
    expected, scattered = rows.clone(), buffer.clone()
    gather_layer_blocks_reference(checked_move(buffer, slots, 2, expected, 0, pages))
    scatter_layer_blocks_reference(checked_move(scattered, slots, 2, rows, 0, pages))

    result = buffer.clone()
    scatter_layer_blocks(rows, result, slots, 2, pages=pages, backend=backend)
    assert torch.equal(result, scattered)
    gather_layer_blocks(buffer, slots, 2, rows, pages=torch.tensor(pages), backend=backend)
    assert same(rows, expected)
    assert same(rows[2 * TOKENS : 3 * TOKENS], buffer[4, 2].view(rows.dtype).view(TOKENS, *rows.shape[1:]))


def test_the_definition_by_hand():
    buffer = torch.zeros(2, 2, TOKENS, dtype=torch.uint8)
    rows = torch.arange(1, 11, dtype=torch.uint8)[:, None]
    scatter_layer_blocks(rows, buffer, [1, 0], 1, first=60)
    assert buffer[1, 1, 60:].tolist() == [1, 2, 3, 4]
    assert buffer[0, 1, :7].tolist() == [5, 6, 7, 8, 9, 10, 0]
    assert int(buffer[:, 0].sum()) == 0
    assert int(buffer[1, 1, :60].sum()) == 0


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_there_and_back(data):
    first = data.draw(st.integers(0, TOKENS - 1))
    count = data.draw(st.integers(1, 300))
    blocks = -(-(first + count) // TOKENS)
    slots = data.draw(st.permutations(range(7)))[:blocks]
    rows, buffer = make(ROWS[0], count)
    before = buffer.clone()
    scatter_layer_blocks(rows, buffer, slots, 0, first=first)
    found = torch.zeros_like(rows)
    gather_layer_blocks(buffer, slots, 0, found, first=first)
    assert torch.equal(found, rows)
    assert int((buffer != before).sum()) <= rows.nbytes
    others = [slot for slot in range(7) if slot not in slots]
    assert torch.equal(buffer[others], before[others])
    assert torch.equal(buffer[:, 1:], before[:, 1:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_move_between_no_pages(backend):
    rows, buffer = make(ROWS[0], TOKENS)
    gather_layer_blocks(buffer, [], 0, rows, pages=[], backend=backend)


@pytest.mark.parametrize(
    ("slots", "layer", "first", "pages", "message"),
    [
        ([0, 7], 0, 0, None, "slots 0..7 are outside"),
        ([0, -1], 0, 0, None, "outside"),
        ([0, 1], 3, 0, None, "layer 3 does not exist"),
        ([0], 0, 0, None, "pass that many slots"),
        ([0, 1, 2], 0, 0, None, "pass that many slots"),
        ([0, 1], 0, 64, None, "first is 64"),
        ([0], 0, 1, [0], "pass 0"),
        ([0, 1], 0, 0, [0], "one page a slot"),
        ([0], 0, 0, [1], "pages 1..1 are outside"),
    ],
)
def test_wrong_arguments_are_refused(slots, layer, first, pages, message):
    rows, buffer = make(ROWS[0], 100)
    with pytest.raises(ValueError, match=message):
        gather_layer_blocks(buffer, slots, layer, rows, first=first, pages=pages)
    with pytest.raises(ValueError, match=message):
        scatter_layer_blocks(rows, buffer, slots, layer, first=first, pages=pages)


def test_wrong_tensors_are_refused():
    rows, buffer = make(ROWS[0], 100)
    with pytest.raises(ValueError, match="strided"):
        gather_layer_blocks(buffer, [0], 0, rows[::2])
    with pytest.raises(ValueError, match="registered pool"):
        gather_layer_blocks(buffer[:, :2], [0, 1], 0, rows)
    with pytest.raises(ValueError, match="KV layout"):
        gather_layer_blocks(buffer, [0, 1], 0, torch.zeros(100, 6))
    with pytest.raises(ValueError, match="no rows"):
        gather_layer_blocks(buffer, [], 0, rows[:0])
