"""Ctrl-C: the first asks, the second ends."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


class Interrupt:
    """Whether somebody has pressed Ctrl-C, and again."""

    asked = False
    insisted = False

    def check(self) -> None:
        """Raises KeyboardInterrupt where somebody has."""
        if self.asked:
            raise KeyboardInterrupt

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields the items, and checks before each."""
        for item in items:
            self.check()
            yield item


@contextmanager
def held_interrupts() -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C is only noted, so that a step is never cut in half; a second one ends at once.

    Other threads than the main one, and programs with a handler of their own, keep what they have.
    """
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            interrupt.insisted = True
            raise KeyboardInterrupt
        interrupt.asked = True

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
