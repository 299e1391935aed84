"""Events in the two forms of log lines."""

from __future__ import annotations

import json
import logging

from dualpath_api.logs import JsonFormatter, TextFormatter
from dualpath_gateway.log import event, warn

FIELDS = {"request": "r1", "level": "x", "reason": "no room", "engine": None, "blocks": 3, "warning": True}


def test_an_event_is_one_line_with_its_fields(caplog):
    log = logging.getLogger("dualpath.test")
    with caplog.at_level(logging.INFO, "dualpath.test"):
        event(log, "read", **FIELDS)
        warn(log, "lost", name="a\nb")
    first, second = caplog.records
    found = json.loads(JsonFormatter("gateway").format(first))
    assert (found["message"], found["level"], found["request"]) == ("read", "info", "r1")
    assert (found["reason"], found["blocks"], found["warning"]) == ("no room", 3, True)
    assert "engine" not in found
    text = TextFormatter("gateway").format(first)
    assert text.endswith('gateway read request=r1 level=x reason="no room" blocks=3 warning=True')
    assert TextFormatter("gateway").format(second).endswith('WARNING gateway lost name="a\\nb"')
