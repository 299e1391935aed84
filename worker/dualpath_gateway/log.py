"""Log events of the gateway: a name and figures, written as one line by `dualpath_api.logs`."""

from __future__ import annotations

import logging


def event(logger: logging.Logger, name: str, /, **fields: object) -> None:
    """Log an event with its fields; None values are left out."""
    _log(logger, logging.INFO, name, fields)


def warn(logger: logging.Logger, name: str, /, **fields: object) -> None:
    """As `event`, for what somebody should see."""
    _log(logger, logging.WARNING, name, fields)


def _log(logger: logging.Logger, level: int, name: str, fields: dict[str, object]) -> None:
    if logger.isEnabledFor(level):
        request = fields.pop("request", None)
        known = {key: value for key, value in fields.items() if value is not None}
        logger.log(level, name, extra={"fields": known, "request": request})
