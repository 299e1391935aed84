"""Copies through a loopback pair, in a process of its own, as UCX cannot be unloaded. Prints what went wrong."""

from __future__ import annotations

import os

import torch

from dualpath_worker.blocks import BlockPool
from dualpath_worker.transfer import environment
from dualpath_worker.transfer.exit import leave
from dualpath_worker.transfer.local import LocalCopyError, NicCopies

SLOTS, LAYERS, PAGES, SHAPE = 12, 3, 9, (64, 2, 2, 16)


def main() -> None:
    environment.prepare(os.environ)
    caches = [torch.zeros((PAGES, *SHAPE), dtype=torch.bfloat16) for _ in range(LAYERS)]
    pool = BlockPool(slots=SLOTS, layers=LAYERS, layer_block_bytes=caches[0][0].nbytes)
    pool.tensor.random_(0, 256)
    copies = NicCopies(pool, caches, device="lo")
    try:
        NicCopies(pool, caches[:2], device="lo")
    except ValueError:
        print("refused caches of another shape")
    slots, pages = [11, 0, 7, 3], [2, 8, 0, 5]
    copies.fill(slots, pages)
    same = [
        torch.equal(caches[layer][page].view(torch.uint8).flatten(), pool.blocks[slot, layer])
        for slot, page in zip(slots, pages, strict=True)
        for layer in range(LAYERS)
    ]
    others = [cache[page].any().item() for cache in caches for page in range(PAGES) if page not in pages]
    print("filled", all(same), "others untouched", not any(others))
    before = pool.blocks.clone()
    copies.spill([8, 2], [1, 5])
    moved = [torch.equal(pool.blocks[1], before[0]), torch.equal(pool.blocks[5], before[11])]
    kept = [slot for slot in range(SLOTS) if slot not in (1, 5)]
    print("spilt", all(moved), "others untouched", torch.equal(pool.blocks[kept], before[kept]))
    hopeless = NicCopies(pool, caches, device="lo", deadline_s=-1.0)
    for _ in range(2):
        try:
            hopeless.fill(slots, pages)
        except LocalCopyError as error:
            print("overdue", hopeless.overdue, error)
    copies.close()


main()
leave(0)
