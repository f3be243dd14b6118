"""Rules as text, and when they start and end, by times that the test gives."""

import numpy as np
import pytest

from effnet.errors import InputError
from effnet.watching.record import Seen, Thing
from effnet.watching.rules.monitor import Monitor, Names
from effnet.watching.rules.read import read_rules
from effnet.watching.rules.triggers import Average
from effnet.watching.settings import Settings

LABELS = ("person", "traffic light", "cat")
DOOR, GATE = "zone door = 0.5,0 1,0 1,1 0.5,1", "line gate = 0.5,0 0.5,1"


def rules_of(*texts, labels=LABELS, objects=True):
    return read_rules(texts, labels=labels, objects=objects)


def test_rules_are_read():
    found = rules_of(
        "person > 0.8 for 5s", "queue: count(person in door) >= 3 for 2 min", "'traffic light'>=50%", DOOR, GATE,
        "count(*) == 0 for 500ms", "cat crosses gate to the left", "person in door > .5",
    )  # fmt: skip
    facts = [(r.label, r.counts, r.zone, r.sign, r.level, r.seconds) for r in found.rules]
    assert facts == [
        ("person", False, "", ">", 0.8, 5),
        ("person", True, "door", ">=", 3, 120),
        ("traffic light", False, "", ">=", 0.5, 0),
        ("*", True, "", "==", 0, 0.5),
        ("person", False, "door", ">", 0.5, 0),
    ]
    assert found.names[1] == "queue"
    assert [(c.label, c.line, c.side) for c in found.crossings] == [("cat", "gate", "left")]
    assert found.zones["door"] == ((0.5, 0), (1, 0), (1, 1), (0.5, 1))


@pytest.mark.parametrize(
    "texts, message",
    [
        (["person is here"], "a rule must be as"),
        (["persn > 0.5"], "did you mean 'person'"),
        (["count(person in yard) > 1"], "the zone of .* must be given"),
        (["person crosses road"], "the line of .* must be given"),
        (["zone a = 0,0 1,1"], "at least three points"),
        (["zone a = 0,0 1,1 2,0"], "shares of the frame's width"),
        (["line a = 0,0 0,0"], "must differ"),
        (["person == 0.5"], "== compares counts"),
        (["person > 0.5", "person > 0.5"], "another name"),
        (["person > 1e5x"], "a rule must be as"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_must_hold(texts, message):
    with pytest.raises(InputError, match=message):
        rules_of(*texts)


def test_counts_zones_and_lines_need_a_model_of_objects():
    for text in ("count(person) > 1", "person in door > 0.5"):
        with pytest.raises(InputError, match="need a model that finds objects"):
            rules_of(text, DOOR, objects=False)
    with pytest.raises(InputError, match="lines need a model"):
        rules_of("person crosses gate", GATE, objects=False)


def test_a_label_of_several_outputs_may_leave_out_the_output():
    labels = ("gender=female", "gender=male", "wears:hat", "age", "wears:male")
    assert rules_of("female > 0.5", labels=labels).rules[0].label == "gender=female"
    assert rules_of("wears:hat > 0.5", labels=labels).rules[0].label == "wears:hat"
    with pytest.raises(InputError, match="it is of several outputs: gender=male, wears:male"):
        rules_of("male > 0.5", labels=labels)


def run(texts, values, *, step=0.1, objects=False, labels=LABELS, **settings):
    """Return (seconds, kind, facts) of all notes; `values` are scores of the first label, or lists of things."""
    chosen = Settings(model="m", **({"smooth_seconds": 0.0, "hysteresis": 0.1, "gap_seconds": 0.25} | settings))
    rules = read_rules(texts, labels=labels, objects=objects)
    monitor = Monitor(rules, Names(labels=labels, objects=objects), chosen)
    found = []
    for number, value in enumerate(values):
        at = round(number * step, 6)
        scores = np.zeros(len(labels))
        if objects:
            for thing in value:
                scores[thing.label] = max(scores[thing.label], thing.score)
            seen = Seen(scores=scores, things=tuple(value))
        else:
            scores[0] = value
            seen = Seen(scores=scores)
        found += [(at, note.kind, note.facts) for note in monitor.see(seen, at)]
    return found + [(None, note.kind, note.facts) for note in monitor.stop("over")]


def test_a_rule_starts_after_its_duration_and_ends_after_the_gap():
    values = [0.0] * 5 + [0.9] * 20 + [0.1] * 10
    start, end = run(["person > 0.8 for 1s"], values)
    assert start[:2] == (1.5, "start")
    assert start[2]["since"] == 0.5
    assert end[:2] == (2.7, "end"), "0.25 s after 2.4, at the next frame"
    assert (end[2]["until"], end[2]["seconds"]) == (2.4, 1.9)


def test_a_short_failure_neither_ends_a_rule_nor_begins_its_wait_again():
    values = [0.9] * 6 + [0.1] * 2 + [0.9] * 6 + [0.1] * 2 + [0.9] * 3
    (start, end) = run(["person > 0.8 for 1s"], values)
    assert start[:2] == (1.0, "start")
    assert end == (None, "end", end[2])
    assert end[2]["reason"] == "over"
    assert run(["person > 0.8 for 1s"], ([0.9] * 6 + [0.1] * 4) * 4) == [], "a failure longer than the gap"


def test_hysteresis_keeps_a_rule_from_flickering():
    values = [0.81, 0.79] * 10 + [0.5] * 10
    assert [kind for _, kind, _ in run(["person > 0.8"], values, gap_seconds=0)] == ["start", "end"]
    flickers = run(["person > 0.8"], values, gap_seconds=0, hysteresis=0)
    assert len(flickers) == 20
    below = run(["person < 0.2"], [0.19, 0.25, 0.19, 0.31, 0.31], gap_seconds=0)
    assert [(at, kind) for at, kind, _ in below] == [(0.0, "start"), (0.3, "end")]


def test_durations_are_of_time_not_of_frames():
    """The same second at 2 and at 50 frames a second, and with a frame rate that changes."""
    for step in (0.5, 0.02):
        ((at, kind, _), _) = run(["person > 0.8 for 1s"], [0.9] * round(3 / step), step=step)
        assert (round(at, 6), kind) == (1.0, "start")


def test_the_average_depends_on_time_alone():
    def after(step):
        average = Average(0.5)
        average.see(np.array(0.0), 0.0)
        return [average.see(np.array(1.0), step * k) for k in range(1, round(1 / step) + 1)][-1]

    assert after(0.1) == pytest.approx(after(0.01)) == pytest.approx(1 - np.exp(-2))
    assert Average(0.0).see(np.array(3.0), 5.0) == 3.0


def test_a_flash_is_averaged_away():
    values = [0.0] * 10 + [1.0] + [0.0] * 10
    assert run(["person > 0.8"], values, smooth_seconds=0.5) == []
    assert run(["person > 0.8"], values) != []


def box(x, y=0.5, size=0.2, label=0, score=0.9):
    """Return an object that stands at (x, y)."""
    return Thing(label=label, score=score, box=(x - size / 2, y - size, x + size / 2, y))


def test_objects_are_counted_also_if_one_is_missed_for_a_frame():
    two, one = [box(0.2), box(0.7)], [box(0.2)]
    values = [two] * 5 + [one] + [two] * 14 + [[]] * 20
    start, end = run(["count(person) >= 2 for 1s"], values, objects=True, track_seconds=0.3)
    assert start[:2] == (1.1, "start"), "an object counts from its second frame"
    assert end[0] == pytest.approx(2.4, abs=0.11)
    assert run(["count(person) >= 2 for 1s"], [[box(0.2), box(0.7, label=2)]] * 30, objects=True) == []
    assert run(["count(*) >= 2 for 1s"], [[box(0.2), box(0.7, label=2)]] * 30, objects=True) != []


def test_a_false_object_of_one_frame_does_not_count():
    values = [[box(0.2)] if number % 4 == 0 else [] for number in range(40)]
    assert run(["count(person) >= 1"], values, objects=True) == []


def test_a_zone_holds_those_who_stand_in_it():
    inside = [[box(0.8)]] * 8
    ((at, kind, _), _) = run(["count(person in door) >= 1", DOOR], [[box(0.2)]] * 8 + inside, objects=True)
    assert (at, kind) == (0.9, "start")
    ((_, _, facts), _) = run(["person in door > 0.5", DOOR], inside, objects=True)
    assert facts["value"] == 0.9


def test_a_line_is_crossed_once_a_way_and_by_name_of_the_side():
    there = [[box(x)] for x in np.arange(0.2, 0.81, 0.05)]
    still = [[box(x)] for x in (0.495, 0.505) * 10]
    found = run(["person crosses gate", GATE], there + there[::-1], objects=True)
    # Who looks from the first point down to the second has the left of the frame on the right-hand side.
    assert [facts["to"] for _, _, facts in found] == ["left", "right"]
    assert found[-1][2]["totals"] == {"left": 1, "right": 1}
    assert len(run(["person crosses gate to the right", GATE], there + there[::-1], objects=True)) == 1
    assert run(["person crosses gate", GATE], still, objects=True) == [], "one who stands on it"
    around = [[box(x, y=0.9)] for x in np.arange(0.2, 0.81, 0.05)]
    assert run(["person crosses gate", "line gate = 0.5,0 0.5,0.5"], around, objects=True) == [], "past its end"


def test_two_who_pass_each_other_keep_their_numbers():
    """Side by side in height, so that their boxes overlap a little when they meet."""
    steps = np.linspace(0.1, 0.9, 33)
    values = [[box(x, y=0.5), box(1 - x, y=0.62)] for x in steps]
    found = run(["person crosses gate", GATE], values, objects=True)
    assert sorted((facts["object"], facts["to"]) for _, _, facts in found) == [(1, "left"), (2, "right")]


def test_without_rules_changes_are_told():
    settings = Settings(model="m", smooth_seconds=0.0, gap_seconds=0.25)
    monitor = Monitor(read_rules([], labels=LABELS, objects=False), Names(labels=LABELS, exclusive=3), settings)
    shown = [0] * 5 + [2] + [0] * 5 + [2] * 10
    notes = []
    for number, best in enumerate(shown):
        notes += [(number, note) for note in monitor.see(Seen(scores=np.eye(3)[best]), number / 10)]
    assert [(number, note.facts["label"], note.facts["was"]) for number, note in notes] == [
        (0, "person", None),
        (14, "cat", "person"),
    ]
    monitor = Monitor(read_rules([], labels=LABELS, objects=True), Names(labels=LABELS, objects=True), settings)
    counts = []
    for number in range(20):
        seen = Seen(scores=np.zeros(3), things=(box(0.3),) if number > 4 else ())
        counts += [note.facts["counts"] for note in monitor.see(seen, number / 10)]
    assert counts == [{"person": 1}]
