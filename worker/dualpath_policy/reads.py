"""Late binding of one request's hit blocks: both sides pull from one list until it is empty.

The prefill side takes from the front, the decode side from the back, so no estimate of either's speed is
needed. Bounds are places in the list: the decode side leaves the first `blocks - decode_max` alone, the
prefill side the last `decode_min`. Only the leading run of blocks that are there is a hit, so a block behind
a lost one is not worth reading and is not granted any more. A block that one side gave back (too slow) is
offered to the other side, whatever the bounds say: a share is a wish, a hit is work saved.

No I/O and no clock: the owner (the prefill engine) reads, counts deadlines, and tells the list what happened.
"""

from __future__ import annotations

from collections.abc import Iterable

from dualpath_api.wire import ReadMode, Role

_OTHER = {Role.PREFILL: Role.DECODE, Role.DECODE: Role.PREFILL}


def first_grant(blocks: int, mode: ReadMode, decode_min: int, decode_max: int | None, most: int) -> int:
    """How many blocks, from the back, the decode side may read before it has asked: both sides know it.

    So a decode engine starts with its assignment instead of a message later, and a split is one even when
    reading is faster than asking. At most half of what is split, and `most`.
    """
    if mode is ReadMode.PREFILL:
        return 0
    if mode is ReadMode.DECODE:
        return min(blocks, most)
    high = blocks if decode_max is None else decode_max
    return min(max(decode_min, -(-blocks // 2)), high, most)


def batch_blocks(offered: int, most: int) -> int:
    """How many of the blocks that a side could take now to hand out at once: `most`, fewer towards the end.

    Each side has two batches in hand. With equal batches one side would end up to a whole batch before the
    other (guided self-scheduling: Polychronopoulos and Kuck, 1987).
    """
    return max(1, min(most, -(-offered // 4)))


class ReadList:
    """Which hit blocks of one request are waiting, being read, read, or lost. Blocks are 0 .. blocks - 1."""

    def __init__(
        self, blocks: int, mode: ReadMode, decode_min: int = 0, decode_max: int | None = None
    ) -> None:
        high = blocks if decode_max is None else decode_max
        if not 0 <= decode_min <= high <= blocks:
            raise ValueError(
                f"bounds must be 0 <= decode_min <= decode_max <= {blocks}, got {decode_min}, {high}"
            )
        if mode is not ReadMode.SPLIT:
            decode_min = high = blocks if mode is ReadMode.DECODE else 0
        self.blocks = blocks
        self._front = 0  # [front, back) waits, untouched; before it prefill took, behind it decode
        self._back = blocks
        self._prefill_end = blocks - decode_min
        self._decode_start = blocks - high
        self._open = {
            Role.PREFILL: mode is not ReadMode.DECODE,
            Role.DECODE: mode is not ReadMode.PREFILL,
        }
        self._offered: dict[Role, set[int]] = {
            Role.PREFILL: set(),
            Role.DECODE: set(),
        }  # given back by the other
        self._gave_back: dict[Role, set[int]] = {Role.PREFILL: set(), Role.DECODE: set()}
        self._taken: dict[int, Role] = {}
        self._done: dict[int, Role] = {}
        self._first_lost = blocks
        self._hit = 0

    def offers(self, side: Role) -> int:
        """Blocks that `side` could take now. Can rise again after 0, when the other side gives some back."""
        return len(self._offered[side]) + max(0, self._untouched(side))

    def take(self, side: Role, count: int) -> tuple[int, ...]:
        """Up to `count` blocks for `side` to read, none that the other side holds; empty: nothing now."""
        offered = sorted(self._offered[side])[: max(0, count)]
        self._offered[side] -= set(offered)
        fresh = max(0, min(count - len(offered), self._untouched(side)))
        if side is Role.PREFILL:
            new = range(self._front, self._front + fresh)
            self._front += fresh
        else:
            new = range(self._back - 1, self._back - 1 - fresh, -1)
            self._back -= fresh
        blocks = (*offered, *new)
        self._taken.update(dict.fromkeys(blocks, side))
        return blocks

    def done(self, side: Role, block: int) -> bool:
        """`side` has read the block. False: this copy is surplus (came too late), free its slot."""
        holder = self._taken.get(block)
        late = self._open[side] and block in self._offered[_OTHER[side]]
        if holder is not side and not late:
            return False
        self._taken.pop(block, None)
        self._offered[_OTHER[side]].discard(block)
        self._done[block] = side
        while self._hit in self._done:
            self._hit += 1
        return True

    def failed(self, side: Role, block: int) -> None:
        """Missing or corrupt in storage: lost. Ignored when the other side has the block in hand."""
        if self._taken.get(block) is side or block in self._offered[_OTHER[side]]:
            self._lose(block)

    def give_back(self, side: Role, blocks: Iterable[int]) -> None:
        """`side` is too late: the other side may have them; lost if it may not or gave them back too."""
        other = _OTHER[side]
        for block in blocks:
            if self._taken.get(block) is not side:
                continue
            del self._taken[block]
            self._gave_back[side].add(block)
            if block < self._first_lost:
                if self._open[other] and block not in self._gave_back[other]:
                    self._offered[other].add(block)
                else:
                    self._lose(block)

    def close(self, side: Role) -> None:
        """`side` reads no more (gone, draining): what it holds or was left for it goes to the other."""
        self._open[side] = False
        if side is Role.PREFILL:
            self._decode_start = 0
        else:
            self._prefill_end = self.blocks
        if not self._open[_OTHER[side]] and self._front < self._back:
            self._lose(self._front)
        for block in sorted(self._offered[side]):
            self._lose(block)
        self.give_back(side, self.held(side))

    def held(self, side: Role) -> tuple[int, ...]:
        """Blocks that `side` has taken and not yet answered for, also those that matter no more."""
        return tuple(block for block, holder in self._taken.items() if holder is side)

    @property
    def settled(self) -> bool:
        """True when the hit cannot change any more: each block before the first lost one has been read."""
        return self._hit == self._first_lost

    @property
    def hit(self) -> int:
        """Leading blocks that are there."""
        return self._hit

    def side_of(self, block: int) -> Role | None:
        """Who has read the block; None: nobody yet."""
        return self._done.get(block)

    def _untouched(self, side: Role) -> int:
        if not self._open[side]:
            return 0
        if side is Role.PREFILL:
            return min(self._back, self._prefill_end) - self._front
        return self._back - max(self._front, self._decode_start)

    def _lose(self, block: int) -> None:
        self._taken.pop(block, None)
        self._first_lost = min(self._first_lost, block)
        self._back = max(self._front, min(self._back, self._first_lost))
        for side, offered in self._offered.items():
            self._offered[side] = {b for b in offered if b < self._first_lost}
