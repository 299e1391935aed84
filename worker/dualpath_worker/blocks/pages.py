"""Which pages of the decode cache belong to whom: integers only, the tensors are the engine's.

Pages have reference counts, so the choices of one request (n > 1) share the pages of their prompt. A shared
page is never written: before a choice writes into one (the last, partial page of the prompt) it takes its
own with `own`, and copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualpath_worker.blocks.runs import pick


class PageError(RuntimeError):
    """Sharing or dropping a page that nobody has: a bug of the caller."""


class PagePool:
    """`total` pages; used by the engine's own thread only."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError("a page pool needs at least one page")
        self.total = total
        self._refs = np.zeros(total, np.int32)

    def take(self, n: int, *, after: int | None = None) -> list[int] | None:
        """`n` free pages with one reference each, all or nothing; those behind `after` if they are free."""
        pages = pick(self._refs == 0, n, after=after)
        if pages is not None:
            self._refs[pages] = 1
        return pages

    def share(self, pages: Sequence[int]) -> None:
        """One more owner for each page."""
        self._check(pages, "share")
        for page in pages:
            self._refs[page] += 1

    def drop(self, pages: Sequence[int]) -> None:
        """One owner less for each page; the last one frees it."""
        self._check(pages, "drop")
        for page in pages:
            self._refs[page] -= 1

    def own(self, page: int, *, after: int | None = None) -> int | None:
        """A page to write into: `page` itself if it is not shared, else a fresh one (the caller copies).

        None: no page is free; the reference to `page` is kept then.
        """
        self._check([page], "own")
        if self._refs[page] == 1:
            return page
        fresh = self.take(1, after=after)
        if fresh is None:
            return None
        self.drop([page])
        return fresh[0]

    def refs(self, page: int) -> int:
        """Owners of a page; 0: free."""
        return int(self._refs[page])

    @property
    def available(self) -> int:
        """Free pages."""
        return int(np.count_nonzero(self._refs == 0))

    @property
    def used(self) -> int:
        """Pages with at least one owner; a shared page counts once."""
        return self.total - self.available

    def _check(self, pages: Sequence[int], verb: str) -> None:
        if len(set(pages)) != len(pages):
            raise PageError(f"cannot {verb} a page twice in one call: {list(pages)}")
        for page in pages:
            if not 0 <= page < self.total or self._refs[page] == 0:
                raise PageError(f"cannot {verb} page {page}: nobody has it")
