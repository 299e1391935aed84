"""One kept process: starts, pauses, giving up, killing what does not listen."""

from __future__ import annotations

import asyncio
import os

import pytest

from dualpath_cli import readyfile
from dualpath_cli.keeper import START_TRIES, Keeper
from dualpath_cli.process import Command, why

READY = """import sys, pathlib
part = pathlib.Path(sys.argv[1] + ".part")
part.write_text('{"metrics": "m"}')
part.rename(sys.argv[1])
"""
WAIT = "import signal; signal.sigwait([signal.SIGUSR1])\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


class Events:
    """Collects what a keeper tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.pauses: list[float] = []
        self.reasons: list[str] = []
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    def line(self, name, line):
        self.lines.append(line)

    def started(self, name, pid):
        self.queue.put_nowait("started")

    def is_ready(self, name, pid, content):
        self.queue.put_nowait("ready")

    def ended(self, name, reason, pause):
        self.pauses.append(pause)
        self.reasons.append(reason)
        self.queue.put_nowait("ended")

    def gave_up(self, name, reason, code):
        self.reasons.append(reason)
        self.queue.put_nowait(f"gave up {code}")

    async def until(self, event: str) -> None:
        async with asyncio.timeout(60):
            while await self.queue.get() != event:
                pass


@pytest.fixture
def keep(tmp_path):
    def make(code: str) -> tuple[Keeper, Events]:
        ready = tmp_path / "ready.json"
        events = Events()
        command = Command(name="it", arguments=("-S", "-c", code, str(ready)), ready_file=ready)
        return Keeper(lambda: command, events, first_pause_s=0.001), events

    return make


async def test_what_never_gets_ready_is_given_up_after_growing_pauses(keep):
    keeper, events = keep("import sys; print('no'); sys.exit(3)")
    await events.until("gave up 3")
    assert events.pauses == [0.001 * 2**i for i in range(START_TRIES - 1)]
    assert events.lines == ["no"] * START_TRIES
    assert events.reasons[-1] == "it exited with code 3"
    await keeper.stop(1)


async def test_what_was_ready_once_is_started_again_whatever_its_exit_code(keep):
    keeper, events = keep(READY + "sys.exit(2)")
    for _ in range(START_TRIES + 2):
        await events.until("started")
    await keeper.stop(5)


async def test_what_does_not_listen_is_killed_after_the_deadline(keep):
    keeper, events = keep(DEAF + READY + WAIT)
    await events.until("ready")
    await keeper.stop(0.01)
    assert not os.path.exists(f"/proc/{keeper.process.pid}")  # noqa: ASYNC240, PTH110


async def test_a_stop_during_a_pause_starts_nothing_more(keep):
    keeper, events = keep("import sys; sys.exit(1)")
    await events.until("ended")
    await keeper.stop(1)
    pid = keeper.process.pid
    await asyncio.sleep(0.01)
    assert keeper.process.pid == pid


async def test_a_fault_of_the_keeping_is_told(keep):
    keeper, events = keep(READY.replace('{"metrics": "m"}', "{{{") + WAIT)
    await events.until("gave up 1")
    assert "supervisor failed" in events.reasons[0]
    await keeper.stop(5)


async def test_very_long_lines_and_bytes_that_are_no_text_are_forwarded(keep):
    keeper, events = keep(
        f"import sys; sys.stdout.buffer.write(b'x' * 300000 + b'\\xff\\n'); {READY} {WAIT}".replace(
            "\n ", "\n"
        )
    )
    await events.until("ready")
    await keeper.stop(0)
    assert [len(line) for line in events.lines] == [300001]


def test_exit_codes_in_words():
    assert why(0) == "exited with code 0"
    assert why(-9) == "was ended by SIGKILL, by somebody or by the kernel for lack of memory"
    assert why(-15) == "was ended by SIGTERM"


def test_a_ready_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "ready.json"
    assert readyfile.read(path) is None
    readyfile.write(path, {"a": 1})
    readyfile.write(path, {"a": 2})
    assert readyfile.read(path) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]
