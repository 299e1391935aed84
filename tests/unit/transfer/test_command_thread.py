"""Commands run in order, answer their callers, and survive each other."""

import threading

import pytest

from dualpath_worker.transfer.thread import CommandThread

PATIENCE_S = 30


@pytest.fixture
def thread():
    made = CommandThread("test", lambda had_commands: 0.01)
    yield made
    made.close(PATIENCE_S)


def test_commands_run_in_order_on_one_thread(thread):
    ran = []
    for number in range(100):
        thread.put(lambda n=number: ran.append((n, threading.current_thread().name)))
    assert thread.call(lambda: len(ran)) == 100
    assert ran == [(n, "test") for n in range(100)]


def test_an_exception_goes_to_who_waits_for_the_answer(thread):
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)


def test_a_failing_command_is_logged_and_the_next_one_runs(thread, caplog):
    thread.put(lambda: 1 / 0)
    assert thread.call(lambda: "still here") == "still here"
    assert "command failed" in caplog.text


def test_between_commands_the_thread_does_its_own_work():
    worked = threading.Event()
    thread = CommandThread("test", lambda had_commands: worked.set() or 0.01)
    assert worked.wait(PATIENCE_S)
    thread.close(PATIENCE_S)
