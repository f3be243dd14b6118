"""Read rules, zones and lines from text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from effnet.errors import InputError, nearest
from effnet.system.text import brief
from effnet.watching.record import Point

ANY = "*"
"""The label of an object of any class."""

EXAMPLES = "'person > 0.8 for 5s', 'count(person in door) >= 3 for 2s' or 'person crosses gate'"

_LABEL = r"""(?:'[^']+'|"[^"]+"|[^\s'"()<>=]+)"""
_NAME = r"[^\W\d][\w-]*"
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_COMPARISON = re.compile(
    rf"(?:count\s*\(\s*(?P<counted>{_LABEL})(?:\s+in\s+(?P<where>{_NAME}))?\s*\)"
    rf"|(?P<label>{_LABEL})(?:\s+in\s+(?P<zone>{_NAME}))?)"
    rf"\s*(?P<sign><=|>=|==|<|>)\s*(?P<level>{_NUMBER})(?P<percent>\s*%)?"
    rf"(?:\s+for\s+(?P<duration>{_NUMBER})\s*(?P<unit>ms|s|min|h)?)?"
)
_CROSSING = re.compile(rf"(?P<label>{_LABEL})\s+crosses\s+(?P<line>{_NAME})(?:\s+to\s+the\s+(?P<side>left|right))?")
_PLACE = re.compile(rf"(?P<kind>zone|line)\s+(?P<name>{_NAME})\s*=\s*(?P<points>.*)")
_NAMED = re.compile(rf"(?P<name>{_NAME})\s*:\s+(?P<rest>.+)")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A value of the frames, compared with `level`, for `seconds`.

    The value is the score of a label or, if `counts`, the number of its objects; in a zone, if it has one.
    """

    name: str
    label: str
    counts: bool
    zone: str
    sign: str
    level: float
    seconds: float

    def holds(self, value: float, *, margin: float = 0.0) -> bool:
        """Return whether the comparison holds, or fails by less than a margin."""
        if self.sign == "==":
            return value == self.level
        above = value - self.level if self.sign[0] == ">" else self.level - value
        if margin:
            return above > -margin
        return above >= 0 if self.sign[-1] == "=" else above > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """An object of a label crosses a line, to one `side` of it or, without one, to any."""

    name: str
    label: str
    line: str
    side: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All rules, and the zones (corners) and lines (two ends) that they name."""

    rules: tuple[Rule, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    zones: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    lines: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rules."""
        return tuple(each.name for each in (*self.rules, *self.crossings))


R = TypeVar("R", Rule, Crossing)


def read_rules(texts: Sequence[str], *, labels: Sequence[str], objects: bool) -> Rules:
    """Return the rules in texts about names that a model answers with, `labels`; `objects` says that it finds these.

    Raises InputError for a text that is no rule, and for a label, zone or line that is not known.
    """
    zones, lines = dict[str, tuple[Point, ...]](), dict[str, tuple[Point, ...]]()
    found: list[Rule | Crossing] = []
    for text in texts:
        if (place := _PLACE.fullmatch(text.strip())) is not None:
            target = zones if place["kind"] == "zone" else lines
            target[place["name"]] = _points(text, place)
        else:
            found.append(_rule(text.strip()))
    rules = tuple(_checked(each, labels, zones, objects) for each in found if isinstance(each, Rule))
    crossings = tuple(_checked_crossing(each, labels, lines, objects) for each in found if isinstance(each, Crossing))
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"each rule must have another name; {twice!r} is given twice: write 'NAME: RULE'")
    return Rules(rules=rules, crossings=crossings, zones=zones, lines=lines)


def _rule(text: str) -> Rule | Crossing:
    named = _NAMED.fullmatch(text)
    name, rest = (named["name"], named["rest"]) if named else (text, text)
    if (crossing := _CROSSING.fullmatch(rest)) is not None:
        label, line, side = crossing["label"], crossing["line"], crossing["side"] or ""
        return Crossing(name=name, label=_plain(label), line=line, side=side)
    match = _COMPARISON.fullmatch(rest)
    if match is None:
        raise InputError(f"a rule must be as {EXAMPLES}; got {brief(text)}")
    counts = match["counted"] is not None
    if match["sign"] == "==" and not counts:
        raise InputError(f"== compares counts; scores are compared with > or <; got {brief(text)}")
    level = float(match["level"]) / (100 if match["percent"] else 1)
    duration = float(match["duration"] or 0) * _UNITS[match["unit"] or "s"]
    return Rule(
        name=name, label=_plain(match["counted"] or match["label"]), counts=counts,
        zone=match["where"] or match["zone"] or "", sign=match["sign"], level=level, seconds=duration,
    )  # fmt: skip


def _plain(label: str) -> str:
    return label[1:-1] if label[0] in "'\"" else label


def _points(text: str, place: re.Match[str]) -> tuple[Point, ...]:
    kind, wanted = place["kind"], "two points" if place["kind"] == "line" else "at least three points"
    try:
        pairs = [tuple(map(float, word.split(","))) for word in place["points"].split()]
    except ValueError:
        pairs = []
    enough = len(pairs) == 2 if kind == "line" else len(pairs) >= 3
    if not enough or any(len(pair) != 2 or not all(0 <= side <= 1 for side in pair) for pair in pairs):
        raise InputError(
            f"a {kind} must have {wanted}, X,Y each, as shares of the frame's width and height from 0 to 1, as in "
            f"'{kind} {place['name']} = 0.1,0.5 0.9,0.5{'' if kind == 'line' else ' 0.9,1 0.1,1'}'; got {brief(text)}"
        )
    points = tuple((pair[0], pair[1]) for pair in pairs)
    if kind == "line" and points[0] == points[1]:
        raise InputError(f"the two points of a line must differ; got {brief(text)}")
    return points


def _checked(rule: Rule, labels: Sequence[str], zones: Mapping[str, object], objects: bool) -> Rule:
    if (rule.counts or rule.zone) and not objects:
        raise InputError(f"counts and zones need a model that finds objects (effnet fit on boxes); got {rule.name!r}")
    if rule.zone and rule.zone not in zones:
        raise InputError(
            f"the zone of {rule.name!r} must be given, as in --rule 'zone {rule.zone} = 0,0.5 1,0.5 1,1 0,1'; "
            f"there {'are ' + ', '.join(zones) if zones else 'is none'}"
        )
    return _with_label(rule, labels, any_label=rule.counts)


def _checked_crossing(rule: Crossing, labels: Sequence[str], lines: Mapping[str, object], objects: bool) -> Crossing:
    if not objects:
        raise InputError(f"lines need a model that finds objects (effnet fit on boxes); got {rule.name!r}")
    if rule.line not in lines:
        raise InputError(
            f"the line of {rule.name!r} must be given, as in --rule 'line {rule.line} = 0.5,0 0.5,1'; there "
            f"{'are ' + ', '.join(lines) if lines else 'is none'}"
        )
    return _with_label(rule, labels, any_label=True)


def _with_label(rule: R, labels: Sequence[str], *, any_label: bool) -> R:
    """Return the rule with its label as the model has it: that of one output may be given without the output."""
    if rule.label in labels or (any_label and rule.label == ANY):
        return rule
    ends = [label for label in labels if rule.label in re.split("[=:]", label, maxsplit=1)[1:]]
    if len(ends) == 1:
        return replace(rule, label=ends[0])
    what = f"it is of several outputs: {', '.join(ends)}" if ends else f"got {brief(rule.label)}"
    shown = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise InputError(
        f"the label of {rule.name!r} must be one that the model answers with ({shown}); {what}"
        f"{nearest(rule.label, labels)}"
    )
