"""Clocks that tests set."""

from collections.abc import Iterator

from effnet.measurement.speed.pace import Clock


class FakeClock:
    """A clock that the test sets: wall time, and processor time of this process."""

    def __init__(self) -> None:
        self.wall = self.worked = 0.0

    def take(self, wall: float, worked: float | None = None) -> None:
        """Advance the wall time; the processor time advances by `worked` seconds, by default as much."""
        self.wall += wall
        self.worked += wall if worked is None else worked

    @property
    def clock(self) -> Clock:
        """Return the clock that the code under test reads."""
        return Clock(wall=lambda: self.wall, worked=lambda: self.worked)

    def runs(self, *laps: tuple[float, float]) -> Iterator[None]:
        """Yield once per run, which takes and computes the given seconds; the last is repeated forever."""
        for lap in laps:
            self.take(*lap)
            yield
        while True:
            self.take(*laps[-1])
            yield
