"""Long work beside the event loop: a few threads for texts above a size, the rest is done at once.

What runs in a thread must release the interpreter lock (tokenizers does) or be Python code, which yields
it; the switch interval is set to 1 ms at start, so a thread never holds the loop up for longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

INLINE_CHARS = 2048
"""Shorter texts are cheaper to handle at once (about 1 ms) than to hand to a thread."""


class WorkPool:
    """Runs functions in threads, or at once when the work is small."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="text")
        self.sent = 0  # to a thread, since start

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """The result of `work`; `size` is the text's length in characters (or bytes)."""
        if size <= INLINE_CHARS:
            return work()
        self.sent += 1
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Wait for nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)
