"""What gather_layer_blocks and scatter_layer_blocks share: checks, the walk over blocks, and the copies.

A slot buffer is [slots, layers, block bytes], uint8: one Full Block a slot, one Layer Block a (slot, layer).
Rows are any contiguous tensor whose first dimension counts tokens: a prefill's ring, or the pool of a decode
engine, [P, 64, ...] flattened to [P * 64, ...].

On a CPU each block is one memmove: of all that was measured (128 KiB blocks, one thread, GB/s; a plain copy
of the whole: 11.1) it is nearest to a copy and needs no temporary: memmove 10.5, numpy 11.6 (but it holds
the GIL), index_select 11.7 (gather of whole blocks only), torch copy_ a block 7.9, numpy.take 6.6. memmove
through ctypes releases the GIL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from dualpath_kernels.dispatch import LazyKernel, require

if TYPE_CHECKING:
    import triton.language as tl

Tensor = torch.Tensor
Indices = Sequence[int] | Tensor
_WORDS = 2048  # of 8 bytes, one program's share of a block


class Move(NamedTuple):
    """One checked call: which blocks, where in them, and where in the rows."""

    buffer: Tensor  # [slots, layers, block bytes]
    slots: list[int]
    layer: int
    rows: Tensor
    first: int  # token of the first block where the rows begin
    pages: list[int] | None
    tokens: int  # that move in all
    block_tokens: int
    row_bytes: int


class Piece(NamedTuple):
    """The part of one block that moves, in bytes."""

    block: int  # offset in the buffer
    row: int  # offset in the rows
    size: int


def checked_move(
    buffer_SLX: Tensor, slots: Indices, layer: int, rows: Tensor, first: int, pages: Indices | None
) -> Move:
    """Arguments as plain numbers. Raises ValueError, saying what to pass, when they do not fit each other."""
    require(
        buffer_SLX.dtype == torch.uint8 and buffer_SLX.dim() == 3 and buffer_SLX.is_contiguous(),
        "the slot buffer is not contiguous uint8 [slots, layers, block bytes]; pass the registered pool",
    )
    count, layers, block_bytes = buffer_SLX.shape
    require(0 <= layer < layers, f"layer {layer} does not exist; pass one of 0..{layers - 1}")
    require(rows.is_contiguous(), "the rows are strided; pass contiguous rows")
    row_bytes = rows[:1].numel() * rows.element_size()
    require(row_bytes > 0, "there are no rows; leave the call out")
    require(
        block_bytes % row_bytes == 0,
        f"blocks of {block_bytes} bytes hold no whole number of rows of {row_bytes}; check the KV layout",
    )
    block_tokens = block_bytes // row_bytes
    slots = _indices("slots", slots, count)
    require(0 <= first < block_tokens, f"first is {first}; pass a token of the first block")
    tokens = len(rows)
    if pages is not None:
        require(first == 0, f"first is {first}; whole blocks move between slots and pages, pass 0")
        pages = _indices("pages", pages, len(rows) // block_tokens)
        require(len(pages) == len(slots), f"{len(slots)} slots but {len(pages)} pages; pass one page a slot")
        tokens = len(slots) * block_tokens
    needed = -(-(first + tokens) // block_tokens)
    require(
        needed == len(slots),
        f"{tokens} rows from token {first} on fill {needed} blocks; pass that many slots, not {len(slots)}",
    )
    return Move(buffer_SLX, slots, layer, rows, first, pages, tokens, block_tokens, row_bytes)


def _indices(name: str, numbers: Indices, limit: int) -> list[int]:
    """Python integers in [0, limit): the copies do not look at them again."""
    found: list[int] = numbers.tolist() if isinstance(numbers, Tensor) else list(numbers)
    if found:
        low, high = min(found), max(found)
        require(low >= 0 and high < limit, f"{name} {low}..{high} are outside of 0..{limit - 1}; check them")
    return found


def pieces(move: Move) -> Iterator[Piece]:
    """Walk the blocks of a call."""
    block_bytes = move.buffer.shape[2]
    layers = move.buffer.shape[1]
    row, offset = 0, move.first
    for index, slot in enumerate(move.slots):
        count = min(move.block_tokens - offset, move.tokens - row)
        place = row if move.pages is None else move.pages[index] * move.block_tokens
        block = (slot * layers + move.layer) * block_bytes + offset * move.row_bytes
        yield Piece(block, place * move.row_bytes, count * move.row_bytes)
        row, offset = row + count, 0


def run_copies(move: Move, *, to_rows: bool) -> None:
    """One copy a block: memmove within host memory, else torch's (host to device does not wait)."""
    if move.rows.is_cpu and move.buffer.is_cpu:
        blocks, rows = move.buffer.data_ptr(), move.rows.data_ptr()
        for piece in pieces(move):
            ends = (rows + piece.row, blocks + piece.block)
            ctypes.memmove(*(ends if to_rows else ends[::-1]), piece.size)
        return
    flat_blocks, flat_rows = move.buffer.view(-1), move.rows.view(torch.uint8).view(-1)
    for piece in pieces(move):
        block = flat_blocks[piece.block : piece.block + piece.size]
        row = flat_rows[piece.row : piece.row + piece.size]
        if to_rows:
            row.copy_(block, non_blocking=True)
        else:
            block.copy_(row, non_blocking=True)


def run_kernel(move: Move, *, to_rows: bool) -> None:
    """One Triton launch for all blocks; both tensors on one device."""
    if not move.slots:
        return
    wide = move.row_bytes % 8 == 0
    words = torch.int64 if wide else torch.uint8
    width = 8 if wide else 1
    block_words = move.buffer.shape[2] // width
    device = move.rows.device
    slots = torch.tensor(move.slots, dtype=torch.int64, device=device)
    pages = slots if move.pages is None else torch.tensor(move.pages, dtype=torch.int64, device=device)
    _kernel[(len(move.slots), -(-block_words // _WORDS))](
        move.buffer.view(words),
        move.rows.view(-1).view(words),
        slots,
        pages,
        move.layer,
        move.buffer.shape[1],
        block_words,
        move.first * move.row_bytes // width,
        move.tokens * move.row_bytes // width,
        PAGED=move.pages is not None,
        TO_ROWS=to_rows,
        BLOCK=_WORDS,
    )


@LazyKernel
def _kernel(
    buffer_ptr,
    rows_ptr,
    slots_ptr,
    pages_ptr,
    layer,
    layers,
    block_words,
    first_words,
    total_words,
    PAGED: tl.constexpr,
    TO_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a (block, share of it); word w of block i is row word i * block_words + w - first."""
    index = tl.program_id(0).to(tl.int64)
    words = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    block = (tl.load(slots_ptr + index) * layers + layer) * block_words + words
    row = index * block_words + words - first_words
    mask = (words < block_words) & (row >= 0) & (row < total_words)
    if PAGED:
        row = tl.load(pages_ptr + index) * block_words + words
    if TO_ROWS:
        tl.store(rows_ptr + row, tl.load(buffer_ptr + block, mask=mask), mask=mask)
    else:
        tl.store(buffer_ptr + block, tl.load(rows_ptr + row, mask=mask), mask=mask)
