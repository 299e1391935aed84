"""Moving blocks between engines."""

from dualpath_worker.transfer.agent import TransferAgent
from dualpath_worker.transfer.exit import leave
from dualpath_worker.transfer.results import Outcome, TransferResult, TransferStats

__all__ = ["Outcome", "TransferAgent", "TransferResult", "TransferStats", "leave"]
