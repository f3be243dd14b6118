"""Terminal output: sentences, tables, and a progress bar if stdout is a terminal.

All output passes through here, because names of files and classes may contain terminal control sequences.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from effnet.system.text import harmless, harmless_json, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from effnet.planner.events import Event
    from effnet.progress import Step

_SHOWN_CANDIDATES = 14
# Without a terminal, a long epoch prints a progress line at most this often.
_QUIET_SECONDS = 60.0
# Minimum width of the bar beside its text, in columns.
_BAR_COLUMNS = 12


def make_console(*, stderr: bool = False) -> "Console":
    """Return a console that wraps lines only on a terminal and never colours a pipe."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    # If FORCE_COLOR is set, as on many build servers, rich treats a pipe as a terminal.
    if not (found.is_terminal and found.file.isatty()):
        found = Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=200, force_terminal=False)
    return found


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, left: Sequence[str] = ()) -> None:
    """Print rows under column headers; columns named in `left` are left-aligned, the others right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(one_line(column), justify="left" if column in left else "right", overflow="fold")
    for row in rows:
        # A Text is never read as markup: class names and paths may contain brackets.
        table.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in row))
    make_console().print(table)


def print_text(text: str = "", *, flush: bool = False) -> None:
    """Print lines to stdout."""
    print(harmless(text), flush=flush)


def print_json(data: Any) -> None:
    """Print data as JSON."""
    print(harmless_json(json.dumps(data, ensure_ascii=False, indent=1)))


def fail(message: str) -> None:
    """Print an error to stderr; if stderr cannot be written, the exit code alone reports it."""
    with suppress(OSError, ValueError):
        print(f"effnet: {harmless(message)}", file=sys.stderr)


def print_candidates(candidates: Sequence[Any]) -> None:
    """Print the chosen candidate and those closest to it; the report lists all."""
    taken = next((i for i, c in enumerate(candidates) if c.status == "taken"), 0)
    # Measured candidates come before those that were only predicted or counted.
    weight = {"taken": 0, "failed": 0, "fits": 1, "rejected": 2, "unmeasured": 3}
    ranked = sorted(
        range(len(candidates)),
        key=lambda i: (weight[candidates[i].status] + (candidates[i].latency_ms is None), abs(i - taken)),
    )
    rows = []
    for i in sorted(ranked[:_SHOWN_CANDIDATES]):
        c = candidates[i]
        latency = "-" if c.latency_ms is None else f"{c.latency_ms:.3g}"
        memory = "-" if c.memory_mb is None else f"{c.memory_mb:.1f}"
        size = f"{c.size_mb:.2f}"
        rows.append(
            (
                c.title,
                amount(c.cost.macs),
                amount(c.cost.params),
                size,
                latency,
                memory,
                c.status,
                c.reason,
            )
        )
    columns = ("network", "MACs", "params", "MB", "ms", "memory MB", "verdict", "why")
    print_table(columns, rows, left=("network", "verdict", "why"))
    if len(candidates) > len(rows):
        print_text(f"{len(candidates) - len(rows)} more candidates are in the report.")


def amount(value: float) -> str:
    """Format a count with three significant digits and k, M or G."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g}{letter}"
    return f"{value:.3g}"


class TerminalListener(AbstractContextManager):
    """Prints the events of a fit: a progress bar on a terminal, else a line per epoch and at most one per minute.

    `clock` counts seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = make_console()
        self._watched = self._console.is_terminal and not self._console.is_dumb_terminal
        self._clock = clock
        self._told = clock()
        self._progress: Any = None
        self._task: Any = None

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def __call__(self, event: "Event") -> None:
        from effnet.planner.events import Counted, Measured, Planned, Said
        from effnet.progress import EpochEnd, Noted, Step

        match event:
            case Said():
                self._stop()
                text = harmless(f"\n{event.text}" if event.heading else event.text)
                self._console.print(text, style="bold" if event.heading else None, soft_wrap=True)
            case Noted():
                self._stop()
                self._console.print(harmless(event.text), soft_wrap=True)
            case Measured():
                self._show_measured(event)
            case Planned():
                self._stop()
                print_candidates(event.candidates)
            case Counted():
                self._show_count(event)
            case Step():
                self._show_step(event)
            case EpochEnd():
                self._show_epoch(event)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def _start(self, *columns: Any) -> None:
        from rich.progress import Progress

        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=None, text="")
        self._progress.start()

    def _show_measured(self, event: Any) -> None:
        if not self._watched:
            return
        if self._progress is None:
            from rich.progress import SpinnerColumn, TextColumn

            self._start(SpinnerColumn(), TextColumn("{task.fields[text]}", markup=False))
        c = event.candidate
        text = f"{event.number} measured; {c.title}: {c.latency_ms:.3g} ms, {c.status}"
        self._progress.update(self._task, text=one_line(text))

    def _show_count(self, event: Any) -> None:
        self._show_bar(event.done, event.total, f"{event.label}: {event.done} of {event.total}")

    def _show_bar(self, done: int, total: int, text: str) -> None:
        if not self._watched:
            return
        if self._progress is None:
            from rich.progress import BarColumn, TextColumn
            from rich.table import Column

            # Text that wraps would shift all lines below it.
            text_column = Column(no_wrap=True, overflow="ellipsis")
            text_field = TextColumn("{task.fields[text]}", markup=False, table_column=text_column)
            self._start(BarColumn(bar_width=_BAR_COLUMNS), text_field)
        self._progress.update(self._task, total=total, completed=done, text=one_line(text))

    def _show_step(self, event: Any) -> None:
        if self._watched:
            columns = self._console.width - _BAR_COLUMNS - 1
            self._show_bar(event.step, event.total_steps, progress_text(event, columns=columns))
        elif self._clock() - self._told >= _QUIET_SECONDS:
            self._tell(progress_text(event))

    def _show_epoch(self, event: Any) -> None:
        if not self._watched:
            self._tell(
                f"epoch {event.epoch}: loss {event.loss:.4f}, val loss {event.val_loss:.4f}, "
                f"val {event.words}, lr {event.learning_rate:.2g}, "
                f"{event.images_per_second:.0f} images/s, {event.seconds:.1f} s"
            )

    def _tell(self, line: str) -> None:
        print_text(line, flush=True)
        self._told = self._clock()


def progress_text(event: "Step", *, columns: int | None = None) -> str:
    """Return the training progress on one line; less important parts are dropped if it is wider than `columns`."""
    parts = [
        f"epoch {event.epoch}/{event.epochs}",
        f"step {event.step}/{event.total_steps}",
        f"loss {event.loss:.3f}",
        event.val and f"val {event.val}",
        f"lr {event.learning_rate:.2g}",
        f"{event.images_per_second:.0f} images/s",
        f"{event.memory_mb:.0f} MB",
        f"{_clock(event.seconds_left)} left",
    ]
    for number in (6, 4, 1, 3, 5):  # the least important first
        text = "  ".join(part for part in parts if part)
        if columns is None or len(text) <= columns:
            return text
        parts[number] = ""
    return "  ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counter(label: str) -> "AbstractContextManager[Callable[[int, int], None] | None]":
    """Return a context manager that shows a progress counter (done of total), on a terminal only."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        return nullcontext(None)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def show():
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    return show()


@contextmanager
def counters() -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress counter of one title after the other: the function takes title, done and total."""
    with ExitStack() as stack:
        shown: dict[str, Callable[[int, int], None] | None] = {}

        def progress(title: str, done: int, total: int) -> None:
            if title not in shown:
                stack.close()
                shown[title] = stack.enter_context(counter(title))
            if show := shown[title]:
                show(done, total)

        yield progress
