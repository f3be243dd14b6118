"""Ctrl-C and termination signals: the first takes effect between two steps, a second Ctrl-C at once."""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

_TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_AGAIN_SECONDS = 0.01


class Terminated(KeyboardInterrupt):
    """The system asked this process to end (docker stop, systemd, slurm, a closed terminal); treated like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class Interrupt:
    """Whether Ctrl-C was pressed once or twice, or the system asked this process to end."""

    asked = False
    insisted = False
    number: int = signal.SIGINT

    def check(self) -> None:
        """Raise KeyboardInterrupt, or Terminated, if an interrupt is pending."""
        if not self.asked:
            return
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.terminated = True
        raise Terminated(self.number)

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; call `check` before each."""
        for item in items:
            self.check()
            yield item


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal ended: 128 and the signal's number, 130 for Ctrl-C."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


class _Stop:
    """The handler of `obeyed_signals`: it raises the exception that ends the command."""

    terminated = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _refuse_shortage(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.terminated:  # `timeout` and supervisors send it twice; that must not interrupt the cleanup
            self.terminated = True
            raise Terminated(number)

    def again(self, lost: "sys.UnraisableHookArgs") -> None:
        """Raise an interrupt again that was lost where Python ignores errors, as in a destructor; report all others."""
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        self.terminated = False
        number = lost.exc_value.number if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        _thread.start_new_thread(_send_again, (number,))


def _send_again(number: int) -> None:
    """Send the signal to the main thread a moment later, when the code that lost it has returned."""
    time.sleep(_AGAIN_SECONDS)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


stop = _Stop()


def _refuse_shortage(number: int) -> None:
    """Raise MemoryError if the signal is from OpenBLAS, which sends itself SIGINT if it cannot start a thread."""
    if number != signal.SIGINT:
        return
    try:
        _thread.start_new_thread(lambda: None, ())  # takes no lock that the interrupted code may hold
    except RuntimeError as error:
        raise MemoryError(str(error)) from None


@contextmanager
def obeyed_signals() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP raise Terminated; for a command's main function.

    A signal that is ignored from the start, as under nohup, stays ignored; one with a handler keeps it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_TERMINATING)}
    free = {n: h for n, h in before.items() if h in (signal.SIG_DFL, signal.default_int_handler)}
    stop.terminated, hook = False, sys.unraisablehook
    if hook is sys.__unraisablehook__:
        sys.unraisablehook = stop.again
    for number in free:
        signal.signal(number, stop)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in free.items():
            signal.signal(number, handler)


@contextmanager
def held_interrupts() -> Iterator[Interrupt]:
    """Only record the first termination signal, so that no step is cut in half; a second Ctrl-C ends at once.

    Outside the main thread, and in programs with their own handlers, nothing changes.
    """
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        _refuse_shortage(number)
        if not interrupt.asked:
            interrupt.asked, interrupt.number = True, number
        elif number == signal.SIGINT:
            interrupt.insisted = True
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_TERMINATING)}
    ours = {number: h for number, h in before.items() if h in (stop, signal.default_int_handler)}
    for number in ours:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
