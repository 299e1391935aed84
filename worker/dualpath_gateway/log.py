"""Logs: one line an event, as text for people or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

LogFormat = Literal["text", "json"]


def event(logger: logging.Logger, name: str, /, **fields: object) -> None:
    """Log an event with its fields; None values are left out."""
    _log(logger, logging.INFO, name, fields)


def warn(logger: logging.Logger, name: str, /, **fields: object) -> None:
    """As `event`, for what somebody should see."""
    _log(logger, logging.WARNING, name, fields)


def _log(logger: logging.Logger, level: int, name: str, fields: dict[str, object]) -> None:
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": {k: v for k, v in fields.items() if v is not None}})


class _Lines(logging.Formatter):
    """Base: one line for everything, also for tracebacks."""

    def line(self, record: logging.LogRecord) -> dict[str, Any]:
        """What is told about a record."""
        found = {"level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        found |= getattr(record, "fields", {})
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return found


class JsonLines(_Lines):
    """One JSON object a line, with Unix time."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        return json.dumps({"time": round(record.created, 6), **self.line(record)}, default=str)


class TextLines(_Lines):
    """Time, level, event, then key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        line = self.line(record)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        head = f"{clock}.{int(record.msecs):03d} {line.pop('level'):7} {line.pop('event')}"
        line.pop("logger")
        return " ".join([head, *(f"{key}={_text(value)}" for key, value in line.items())])


def _text(value: object) -> str:
    text = str(value)
    return json.dumps(text) if " " in text or "\n" in text or not text else text


def set_up_logs(style: LogFormat, level: str = "INFO") -> None:
    """Send all logs of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
