"""Where KV lives in an engine: registered Full Block slots, and pages of the decode cache."""

from dualpath_worker.blocks.pages import PagePool
from dualpath_worker.blocks.pool import BlockPool, SlotState

__all__ = ["BlockPool", "PagePool", "SlotState"]
