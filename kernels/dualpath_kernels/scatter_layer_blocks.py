"""Layer Blocks of one layer: from rows, contiguous ones or those of pages, to slots of a block buffer."""

from __future__ import annotations

import torch

from dualpath_kernels.dispatch import use_triton
from dualpath_kernels.layer_blocks import Indices, Move, checked_move, pieces, run_copies, run_kernel

Tensor = torch.Tensor


def scatter_layer_blocks_reference(move: Move) -> None:
    """The definition, in plain torch."""
    blocks, rows = move.buffer.view(-1), move.rows.view(-1).view(torch.uint8)
    for piece in pieces(move):
        blocks[piece.block : piece.block + piece.size] = rows[piece.row : piece.row + piece.size]


def scatter_layer_blocks(
    rows: Tensor,
    buffer_SLX: Tensor,
    slots: Indices,
    layer: int,
    *,
    first: int = 0,
    pages: Indices | None = None,
    backend: str | None = None,
) -> None:
    """Copy `rows` into blocks slots[i] of `layer`, in place; other bytes of the buffer are left alone.

    Contiguous: new rows begin at token `first` of the first block and may end inside the last one. Example:
    30 rows from token 50 on fill the end of one block of 64 tokens and the begin of the next.
    Paged: with `pages`, the rows are the whole pool and page pages[i] goes to block i.

    Args:
        rows: contiguous, any dtype; the first dimension counts tokens.
        buffer_SLX: uint8 [slots, layers, block bytes], contiguous.
        slots: slot numbers, one a block.
        layer: which Layer Block of each slot.
        first: token of the first block where the rows begin.
        pages: page numbers, one a slot, or None.
        backend: "torch", "triton", or None for the device's own.

    Raises:
        ValueError: numbers out of range, or sizes do not fit each other.
    """
    move = checked_move(buffer_SLX, slots, layer, rows, first, pages)
    if use_triton(rows, backend) and rows.device == buffer_SLX.device:
        run_kernel(move, to_rows=False)
    else:
        run_copies(move, to_rows=False)
