"""The process of a watch: it opens the bundle, watches, and ends cleanly at a signal."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from effnet.serving.http.address import address_of, is_local, listen
from effnet.serving.settings import Settings as ServeSettings
from effnet.serving.versions.version import Source as ModelSource
from effnet.serving.versions.version import Version, load_version
from effnet.system.machine import usable_cores
from effnet.watching.answers import Window, answer_to, names_of
from effnet.watching.outputs.events import Lines, Take
from effnet.watching.outputs.latest import Latest
from effnet.watching.outputs.recorder import Recorder
from effnet.watching.outputs.snapshots import Snapshots
from effnet.watching.outputs.webhook import Webhook
from effnet.watching.record import Seen
from effnet.watching.rules.read import read_rules
from effnet.watching.settings import Settings
from effnet.watching.sources.source import Source
from effnet.watching.watch import Told, Watch

_LOOK_SECONDS = 0.5

Say = Callable[[str], None]


def watch(sources: Sequence[Source], settings: Settings, *, say: Say, warn: Say) -> int:
    """Watch sources until all end or a signal comes; return the number of files and frames that could not be read.

    `say` gets the address of the server, `warn` what a person should read. Raises InputError for a rule, a model or an
    address that cannot be used.
    """
    folder = Path(settings.model)
    engines = settings.workers or min(usable_cores(), len(sources))
    serving = ServeSettings(use=settings.use, workers=engines, max_batch=1)
    version = load_version(ModelSource(name=folder.resolve().name, folder=folder), serving, warn=warn)
    names = names_of(version.config)
    rules = read_rules(settings.rule, labels=names.labels, objects=names.objects)

    def answer(engine: int, image: np.ndarray) -> Seen:
        return answer_to(version.engine(engine), image, threshold=settings.threshold)

    windows = None
    if version.config.preprocess.clip is not None:
        least = version.first.chosen_threshold(settings.threshold)
        windows = partial(Window, version.config, threshold=least)
    with ExitStack() as stack:
        told = _told(stack, sources, version, settings, say=say, warn=warn, counts=lambda: running.counts())
        running = Watch(
            sources, settings, rules=rules, names=names, answer=answer, engines=engines, told=told, windows=windows
        )
        stopping = stack.enter_context(_signals())
        running.start()
        while not running.wait(_LOOK_SECONDS) and not stopping.is_set():
            pass
        running.stop()
        if told.latest is not None:
            told.latest.close()
    if running.failure is not None:
        raise running.failure
    return running.unreadable


def _told(
    stack: ExitStack,
    sources: Sequence[Source],
    version: Version,
    settings: Settings,
    *,
    say: Say,
    warn: Say,
    counts: Callable[[], tuple[int, int]],
) -> Told:
    """Open whatever learns of events; `stack` closes it."""
    lines = Lines(settings.events)
    stack.callback(lines.close)
    takers: list[Take] = [lines]
    recorder, latest = Recorder(), Latest() if settings.view else None
    if settings.port is not None:
        recorder = _serve(stack, sources, version, settings, latest, say=say, warn=warn, counts=counts)
    if latest is not None:
        takers.append(latest.event)
    if settings.webhook is not None:
        webhook = Webhook(settings.webhook, tries=settings.webhook_tries, told=recorder.webhook)
        stack.callback(webhook.close)
        takers.append(webhook)
    snapshots = None if settings.snapshots is None else Snapshots(settings.snapshots, most=settings.most_snapshots)
    return Told(takers=takers, warn=warn, recorder=recorder, latest=latest, snapshots=snapshots)


def _serve(
    stack: ExitStack,
    sources: Sequence[Source],
    version: Version,
    settings: Settings,
    latest: Latest | None,
    *,
    say: Say,
    warn: Say,
    counts: Callable[[], tuple[int, int]],
) -> Recorder:
    """Start the server of metrics and view."""
    from effnet.watching.outputs.metrics import Recorded
    from effnet.watching.outputs.server import Server, make_app

    recorded = Recorded(version, [source.name for source in sources], counts=counts)
    listening = listen(settings.host, settings.port or 0)
    address = address_of(listening)
    if not is_local(settings.host):
        what = "the frames of all sources" if latest is not None else "the metrics"
        warn(f"anyone who reaches {address} can see {what}: keep watch.host=127.0.0.1, or use a proxy with keys")
    stack.callback(Server(make_app(recorded, latest), listening).close)
    say(f"{'view' if latest is not None else 'metrics'} on {address}{'/watch' if latest is not None else '/metrics'}")
    return recorded


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT, SIGTERM or SIGHUP sets; a second SIGINT raises KeyboardInterrupt."""
    stopping = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if stopping.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopping.set()

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # One that is ignored from the start, as under nohup, stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
