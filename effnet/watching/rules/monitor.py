"""What the answers of one source mean over time: rules, labels that change, objects that come and go. No clock."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.watching.record import Note, Seen
from effnet.watching.rules.geometry import is_inside
from effnet.watching.rules.read import ANY, Crossing, Rule, Rules
from effnet.watching.rules.tracker import Track, Tracker
from effnet.watching.rules.triggers import Average, Change, Crossings, Steady, Trigger
from effnet.watching.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names that a model answers with: `labels` in the order of its scores, and whether it finds objects.

    The scores of the first `exclusive` are probabilities of classes, of which one holds; 0 if there is no such answer.
    """

    labels: tuple[str, ...]
    objects: bool = False
    exclusive: int = 0


class Monitor:
    """The rules of one source, and its state."""

    def __init__(self, rules: Rules, names: Names, settings: Settings) -> None:
        self._rules, self._names = rules, names
        self._index = {label: number for number, label in enumerate(names.labels)}
        self._tracker = Tracker(seconds=settings.track_seconds)
        self._average = Average(settings.smooth_seconds)
        self._steady = Steady(settings.gap_seconds)
        self._triggers = [
            Trigger(
                rule, smooth=settings.smooth_seconds, margin=settings.hysteresis, gap=settings.gap_seconds
            )
            for rule in rules.rules
        ]  # fmt: skip
        self._crossings = [(rule, Crossings(*rules.lines[rule.line])) for rule in rules.crossings]
        self.tracks: tuple[Track, ...] = ()
        self.label = ""

    @property
    def active(self) -> tuple[str, ...]:
        """The names of the rules that hold."""
        return tuple(trigger.rule.name for trigger in self._triggers if trigger.active)

    def see(self, seen: Seen, at: float) -> list[Note]:
        """Return what is worth noting, given the answer to the frame at a time of the source, which grows."""
        if self._names.objects:
            self.tracks = self._tracker.see(seen.things, at)
        # Rules say what is worth an event; without any, every change is.
        notes = [] if (changed := self._changed(seen, at)) is None or self._rules.names else [changed]
        for trigger in self._triggers:
            if (change := trigger.see(self._value(trigger.rule, seen, at), at)) is not None:
                notes.append(_note(trigger.rule, change))
        for rule, crossings in self._crossings:
            tracks = [track for track in self.tracks if self._is_of(track.label, rule.label)]
            for track, side in crossings.see(tracks):
                if not rule.side or rule.side == side:
                    notes.append(self._crossed(rule, track, side, crossings.totals))
        return notes

    def stop(self, reason: str) -> list[Note]:
        """End the rules that hold, as the frames stop; return a note of each."""
        self._tracker.reset()
        self._average.reset()
        self._steady.reset()
        self.tracks = ()
        found = [(trigger.rule, trigger.stop()) for trigger in self._triggers]
        return [_note(rule, change, reason=reason) for rule, change in found if change is not None]

    def _is_of(self, number: int, label: str) -> bool:
        return label == ANY or number == self._index[label]

    def _value(self, rule: Rule, seen: Seen, at: float) -> float:
        """Return the value that a rule compares."""
        if not rule.counts and not rule.zone:
            return float(seen.scores[self._index[rule.label]])
        found: Sequence[Track] = [track for track in self.tracks if self._is_of(track.label, rule.label)]
        if rule.zone:
            found = [track for track in found if is_inside(track.foot, self._rules.zones[rule.zone])]
        if rule.counts:
            return float(len(found))
        return max((track.score for track in found if track.at == at), default=0.0)

    def _changed(self, seen: Seen, at: float) -> Note | None:
        """Return a note if the best class, or the number of objects, has changed for good."""
        if self._names.objects:
            counts = Counter(self._names.labels[track.label] for track in self.tracks)
            before = self._steady.value
            if not self._steady.see(dict(counts), at) or (before is None and not counts):
                return None
            return Note(kind="counts", facts={"counts": dict(counts)})
        if not self._names.exclusive:
            return None
        scores = self._average.see(seen.scores[: self._names.exclusive], at)
        best = int(np.argmax(scores))
        label = self._names.labels[best]
        if not self._steady.see(label, at):
            return None
        was, self.label = self.label, label
        return Note(kind="label", facts={"label": label, "was": was or None, "value": round(float(scores[best]), 6)})

    def _crossed(self, rule: Crossing, track: Track, side: str, totals: dict[str, int]) -> Note:
        facts = {"label": self._names.labels[track.label], "object": track.number, "to": side, "totals": dict(totals)}
        return Note(kind="crossed", rule=rule.name, facts=facts)


def _note(rule: Rule, change: Change, *, reason: str = "") -> Note:
    facts = {"value": round(change.value, 6), "since": round(change.since, 3)}
    if change.starts:
        return Note(kind="start", rule=rule.name, facts=facts)
    facts |= {"until": round(change.until, 3), "seconds": round(change.until - change.since, 3)}
    return Note(kind="end", rule=rule.name, facts=facts | ({"reason": reason} if reason else {}))
