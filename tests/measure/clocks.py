"""Clocks that tests wind."""

from collections.abc import Iterator

from effnet.measure.pace import Clock


class FakeClock:
    """A clock that shows what it is told: seconds that pass, and seconds that this process computes."""

    def __init__(self) -> None:
        self.wall = self.worked = 0.0

    def take(self, wall: float, worked: float | None = None) -> None:
        """Let time pass, in which the process computes all the time if not for `worked` seconds."""
        self.wall += wall
        self.worked += wall if worked is None else worked

    @property
    def clock(self) -> Clock:
        """What is asked for the time."""
        return Clock(wall=lambda: self.wall, worked=lambda: self.worked)

    def runs(self, *laps: tuple[float, float]) -> Iterator[None]:
        """Yield once a run, which takes and computes so many seconds; the last goes on for ever."""
        for lap in laps:
            self.take(*lap)
            yield
        while True:
            self.take(*laps[-1])
            yield
