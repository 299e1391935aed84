"""Log lines, as text and as JSON."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from dualpath_api.logs import JsonFormatter, TextFormatter, set_up_logging


@pytest.fixture(autouse=True)
def _same_logging_afterwards():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def record(message, *, error=None, **extra):
    made = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, message, (), error)
    made.__dict__.update(extra)
    made.created, made.msecs = 0.25, 250.0
    return made


def failure():
    try:
        raise KeyError("x")
    except KeyError:
        return sys.exc_info()


def test_a_text_line_has_time_level_process_and_request():
    line = TextFormatter("decode-0-0").format(record("two\nlines", request="cmpl-1"))
    assert line == "1970-01-01T00:00:00.250Z WARNING decode-0-0 two\\nlines request=cmpl-1"


def test_a_text_line_without_a_request_ends_with_the_message_and_a_traceback_follows():
    assert TextFormatter("p").format(record("hello")).endswith("p hello")
    assert TextFormatter("p").format(record("hello", error=failure())).endswith("KeyError: 'x'")


def test_a_json_line_is_one_object():
    line = JsonFormatter("p").format(record("two\nlines", request="cmpl-1", error=failure()))
    assert "\n" not in line
    found = json.loads(line)
    assert "KeyError" in found.pop("error")
    assert found == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "process": "p",
        "logger": "a.b",
        "message": "two\nlines",
        "request": "cmpl-1",
    }


@pytest.mark.parametrize(("form", "start"), [("json", "{"), ("text", "2")])
def test_logging_goes_to_stderr_in_the_form_that_was_asked_for(form, start, capsys):
    set_up_logging("p", form)
    logging.getLogger("x").info("hello")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(start)
