"""The scheduler's timer on the loop that the gateway runs on."""

from __future__ import annotations

import asyncio

import uvloop

from dualpath_gateway.scheduler.core import Scheduler
from dualpath_gateway.scheduler.model import Patience
from dualpath_gateway.scheduler.service import SchedulerService
from dualpath_policy.model import Tuning


class Restless(Scheduler):
    """Has something to do at times that a test chooses."""

    at = 0.0
    ticked: asyncio.Event

    def next_wakeup(self) -> float | None:
        return self.at

    def tick(self, now: float) -> None:
        self.at = now + 60.0
        self.ticked.set()


async def set_again_and_again(ahead_s: float) -> None:
    scheduler = Restless(Patience(), Tuning())
    scheduler.ticked = asyncio.Event()
    service = SchedulerService(scheduler, lambda *_: None)
    for part in (1.0, 1.0, 0.5):  # the same time, then an earlier one
        scheduler.at = asyncio.get_running_loop().time() + part * ahead_s
        service._set_timer()
        service._set_timer()
    async with asyncio.timeout(20):
        await scheduler.ticked.wait()
    service.stop()


def test_a_timer_that_is_due_at_once_can_be_set_again() -> None:
    for ahead_s in (0.01, 0.0004, 0.0001, 0.0, -1.0):
        uvloop.run(set_again_and_again(ahead_s))
