"""Signals end a command in order: once, after saving its state, and not if they are ignored."""

import os
import signal
import sys
import threading

import pytest

from effnet.system.signals import Terminated, exit_code, held_interrupts, obeyed_signals, stop

ENDING = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def as_a_shell_starts_it():
    """The handlers of a new process, however the tests are run."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_what_tells_it_and_the_handlers_come_back(number, code):
    with pytest.raises(KeyboardInterrupt) as raised, obeyed_signals():
        signal.raise_signal(number)
    assert exit_code(raised.value) == code
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_what_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup, or a shell that runs it in the background
    with obeyed_signals(), held_interrupts() as interrupt:
        signal.raise_signal(number)
    assert not interrupt.asked


def test_a_second_request_does_not_cut_the_clearing_up_short():
    cleared = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # `timeout` sends it twice
            signal.raise_signal(signal.SIGHUP)
            cleared.append(True)

    with pytest.raises(Terminated), obeyed_signals():
        work()
    assert cleared


@pytest.mark.parametrize("number", ENDING)
def test_a_held_request_is_noted_and_raised_at_the_check(number):
    with obeyed_signals(), held_interrupts() as interrupt:
        for _ in range(3):
            signal.raise_signal(number)
        assert interrupt.asked
        assert not interrupt.insisted
        with pytest.raises(Terminated) as raised:
            interrupt.check()
        assert raised.value.number == number
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.insisted


def test_outside_a_command_the_system_ends_the_process_as_ever():
    with held_interrupts():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class _Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_in_a_destructor_is_not_lost(capsys):
    def work():
        sys.unraisablehook = stop.again  # pytest installs its own
        _Dying()
        threading.Event().wait(300)

    with pytest.raises(KeyboardInterrupt), obeyed_signals():
        work()
    assert capsys.readouterr().err == ""


def test_the_signal_of_a_library_that_can_start_no_thread_is_no_interrupt(monkeypatch):
    """OpenBLAS sends itself SIGINT in this case."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    with pytest.raises(MemoryError, match="can't start new thread"), obeyed_signals():
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(MemoryError), obeyed_signals(), held_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
