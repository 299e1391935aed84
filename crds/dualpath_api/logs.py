"""Logging: one line an event on stderr, as text or as JSON, with the request's id where there is one.

Use `log.info("...", extra={"request": id})`: the id is a field of the JSON line and ends the text line. More
figures of an event go into `extra={"fields": {...}}`.
"""

from __future__ import annotations

import json
import logging
import sys
import time


class TextFormatter(logging.Formatter):
    """2026-01-31T12:00:00.123Z WARNING decode-0-0 message request=cmpl-1."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line; line breaks of a message are escaped, a traceback follows on its own lines."""
        message = record.getMessage().replace("\n", "\\n")
        request = getattr(record, "request", None)
        suffix = f" request={request}" if request else ""
        suffix += "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        line = f"{_timestamp(record)} {record.levelname:7} {self._process} {message}{suffix}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, process, logger, message, request, error."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Everything in one line, tracebacks too."""
        fields: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := getattr(record, "request", None):
            fields["request"] = request
        fields = {**_fields(record), **fields}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up_logging(process: str, form: str, level: int = logging.INFO) -> None:
    """Send all logs to stderr in one form ("text" or "json")."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if form == "json" else TextFormatter(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return dict(getattr(record, "fields", {}))


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(char in text for char in ' "=\n') else text


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"
