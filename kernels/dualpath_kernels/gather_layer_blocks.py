"""Layer Blocks of one layer: from slots of a block buffer to rows, contiguous ones or those of pages."""

from __future__ import annotations

import torch

from dualpath_kernels.dispatch import use_triton
from dualpath_kernels.layer_blocks import Indices, Move, checked_move, pieces, run_copies, run_kernel

Tensor = torch.Tensor


def gather_layer_blocks_reference(move: Move) -> None:
    """The definition, in plain torch."""
    blocks, rows = move.buffer.view(-1), move.rows.view(-1).view(torch.uint8)
    for piece in pieces(move):
        rows[piece.row : piece.row + piece.size] = blocks[piece.block : piece.block + piece.size]


def gather_layer_blocks(
    buffer_SLX: Tensor,
    slots: Indices,
    layer: int,
    rows: Tensor,
    *,
    first: int = 0,
    pages: Indices | None = None,
    backend: str | None = None,
) -> None:
    """Copy blocks slots[i] of `layer` into `rows`, which are changed in place.

    Contiguous: the rows are as many tokens as wanted, from token `first` of the first block on; the last
    block may be used in part. Example: 100 rows of blocks of 64 tokens come from two slots.
    Paged: with `pages`, the rows are the whole pool and block i fills page pages[i].

    Args:
        buffer_SLX: uint8 [slots, layers, block bytes], contiguous.
        slots: slot numbers, one a block.
        layer: which Layer Block of each slot.
        rows: contiguous, any dtype; the first dimension counts tokens.
        first: token of the first block where the rows begin.
        pages: page numbers, one a slot, or None.
        backend: "torch", "triton", or None for the device's own.

    Raises:
        ValueError: numbers out of range, or sizes do not fit each other.
    """
    move = checked_move(buffer_SLX, slots, layer, rows, first, pages)
    if use_triton(rows, backend) and rows.device == buffer_SLX.device:
        run_kernel(move, to_rows=True)
    else:
        run_copies(move, to_rows=True)
