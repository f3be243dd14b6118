"""The minutes of a fit, by a fake clock: their division, the steps left out, and the end of all work in time."""

import functools
import html
import json
import math

import pytest
from devices import timing
from hypothesis import given, settings
from hypothesis import strategies as st
from procedures import fit, made_up

from effnet.data.datasets import read_dataset
from effnet.errors import BudgetError, InputError
from effnet.jobs.fit.transfer import head
from effnet.planner.events import Said
from effnet.planner.timetable import Pace, deadline_of, use_of
from effnet.training.state.checkpoint import trained_seconds

pytestmark = pytest.mark.usefixtures("one_thread")


class Clock:
    """A fake clock that moves only if something advances it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """A clock, on a machine where a measurement takes 1 s and images take nothing."""
    monkeypatch.setattr("effnet.jobs.fit.time_left.machine_pace", lambda read, **_: Pace(measure=1.0))
    return Clock()


def by(clock, measure=lambda path: timing(1.0), **changes):
    """Return a procedure by this clock: files are measured twice if they miss, a million MACs of a plan take 0.1 ms."""
    candidate = {"candidate": lambda found: timing(found.cost.macs * 1e-7)}
    return made_up(measure, repeats=1, clock=clock, **candidate, **changes)


def train_at(images_per_second, monkeypatch):
    """Let training have this speed, as far as plans go."""
    monkeypatch.setattr("effnet.jobs.fit.time_left.training_speed", lambda spec: images_per_second)
    monkeypatch.setattr("effnet.training.speed.run_speed", lambda *_: images_per_second)


@pytest.fixture
def said():
    return []


@functools.cache
def digits_read():
    return read_dataset("digits")


def texts(said):
    return [event.text for event in said if isinstance(event, Said)]


@settings(deadline=None)
@given(
    left=st.floats(0, 1e5), measure=st.floats(0, 100), mac=st.floats(0, 1e-9), int8=st.booleans(), changed=st.booleans()
)
def test_what_is_left_is_shared_out_whole_and_learning_always_gets_some(left, measure, mac, int8, changed):
    digits, pace = digits_read(), Pace(mac=mac, measure=measure)
    use = use_of(left, pace, digits, 1e8, int8_steps=3 * int8, changed=changed)
    parts = (use.learning, use.change, use.int8, use.finishing)
    assert sum(parts) == pytest.approx(left)
    assert min(parts) >= 0
    assert use.finishing <= left / 2
    assert use.learning >= 0.07 * left
    assert (use.change > 0) <= changed
    # int8 gets enough time, or none.
    assert use.int8 == 0 or (int8 and use.int8 >= pace.int8(digits, 1e8, steps=3))


def test_without_minutes_nothing_has_an_end():
    deadline = deadline_of(None)
    assert not deadline.limited
    assert deadline.left() == deadline.at_most(3).left() == deadline.earlier(3).left() == math.inf
    assert use_of(math.inf, Pace(), digits_read(), 1.0, int8_steps=3, changed=True).learning == math.inf


def test_a_deadline_counts_what_was_used_and_is_never_negative():
    clock = Clock()
    deadline = deadline_of(2, clock=clock)
    assert (deadline.left(), deadline.at_most(10).left(), deadline.earlier(15).left()) == (120, 10, 105)
    clock.now += 110
    assert (deadline.left(), deadline.at_most(30).left(), deadline.earlier(15).left()) == (10, 10, 0)


def test_a_fine_tuning_whose_first_epoch_does_not_fit_is_not_begun(
    stripes, small_bundle, tmp_path, monkeypatch, clock, said
):
    """Regression: it was begun and discarded. An epoch of 159 images at 2 images/s takes 80 s."""
    monkeypatch.setattr("effnet.jobs.fit.transfer.length.train_speed", lambda spec: 2.0)
    # The maps take 4 x 159 x (1/2 - 1/3) / 3 = 35 s, and an epoch on them 53.
    slow = "effnet.jobs.fit.transfer.later_stages.train_speed"
    monkeypatch.setattr(slow, lambda spec, *, kept_stages: 3.0)
    options = {
        "weights": small_bundle,
        "strategy": "finetune",
        "minutes": 1,
        "out": tmp_path / "out",
        "procedure": by(clock),
    }
    report = fit(stripes, listener=said.append, **options).report.to_dict()
    sentence = "Fine-tuning was not begun, the head stays: 56 s were left, but it takes about 1:20 min"
    assert report["training"]["method"] == "head"
    assert report["time"]["left_out"] == [sentence]
    assert report["time"]["plan"] == {"before": 0.0, "learning": 56.0, "change": 0.0, "int8": 0.0, "finishing": 4.0}
    found = texts(said)
    assert sentence in found
    begin = found.index("1:00 min of 1:00 min are left, to be used for")
    assert found[begin + 1 : begin + 3] == ["      56 s  training", "       4 s  export, verification and report"]
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    assert sentence in page
    assert "<code>--minutes 1</code> was divided into training (56" in page


def test_int8_that_does_not_fit_is_not_tried_and_the_refusal_says_so(tmp_path, monkeypatch, clock):
    monkeypatch.setattr("effnet.jobs.fit.time_left.machine_pace", lambda read, **_: Pace(measure=10.0))
    monkeypatch.setattr("effnet.jobs.fit.deploy.export.climb", None)
    train_at(60.0, monkeypatch)
    sentence = "int8 was not tried: 20 s were left, but it takes about 2:00 min"
    with pytest.raises(BudgetError, match=sentence) as refused:
        fit(
            "digits", weights="none", precision="int8", max_macs=162_000, minutes=1, out=tmp_path / "out",
            procedure=by(clock, fallbacks=0),
        )  # fmt: skip
    assert "give more --minutes" in str(refused.value)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["time"]["left_out"] == [sentence]
    assert report["deployed"]["precision"] == "fp32"


def missing_once(clock, *, took):
    """Return a measurement of finished files: the first attempt's takes some seconds and misses the budget."""

    def measure(path):
        first = "attempt-1" in path.parts
        clock.now += took if first else 0
        return timing(2.0 if first else 0.5)

    return measure


def fit_shades(data, out, **options):
    return fit(
        data, weights="none", max_latency_ms=1, max_macs=162_000, precision="fp32", minutes=1, out=out, **options
    )


def test_a_second_attempt_gets_the_time_that_is_left_and_no_more(tiny_images, tmp_path, monkeypatch, clock):
    """Regression: it started all of its training again."""
    # 36 images at 12 images/s: an epoch takes 3 s without validation, and 0.9 of the time of training is for epochs.
    train_at(12.0, monkeypatch)
    monkeypatch.setattr("effnet.planner.settings.most_epochs", lambda number: 1000)
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist.training_need", lambda *_, **__: None)
    report = fit_shades(
        tiny_images, tmp_path / "out", procedure=by(clock, missing_once(clock, took=20))
    ).report.to_dict()
    plan = json.loads((tmp_path / "out" / "run" / "plan.json").read_text())
    dataset = read_dataset(tiny_images)
    number = len(dataset.train) + len(dataset.val) / 3
    epochs = [attempt["recipe"]["train"]["epochs"] for attempt in plan["attempts"][:2]]
    assert epochs == [int(0.9 * (left - 4) * 12 / number) for left in (60, 40)]
    assert [attempt["honoured"] for attempt in report["attempts"]] == [False, True]
    assert report["time"]["used_seconds"] == 20


def test_a_second_attempt_that_does_not_fit_is_left_out_and_said(tiny_images, tmp_path, monkeypatch, clock, said):
    train_at(12.0, monkeypatch)
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist.training_need", lambda *_, **__: None)
    with pytest.raises(BudgetError, match=r"was not tried: 6 s were left, .* give more --minutes") as refused:
        fit_shades(
            tiny_images, tmp_path / "out", listener=said.append, procedure=by(clock, missing_once(clock, took=54))
        )
    assert "latency 2 ms is over the budget of 1 ms" in str(refused.value)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["attempts"]) == 1
    # A second measurement of the file might have ended too late.
    assert len(report["latency"]["measurements"]) == 1
    assert report["time"]["left_out"][0] in texts(said)


def test_a_resumed_fit_has_the_rest_of_its_minutes(tiny_images, tmp_path, monkeypatch, clock):
    train_at(12.0, monkeypatch)
    procedure = by(clock, lambda path: timing(0.5))
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist.training_need", lambda *_, **__: None)
    out = tmp_path / "out"
    before = fit_shades(tiny_images, out, procedure=procedure).report.to_dict()
    path = out / "run" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"seconds": 15.0}))
    trained = trained_seconds(out / "run" / "attempt-1")
    assert trained > 0
    after = fit_shades(tiny_images, out, procedure=procedure, resume=True).report.to_dict()
    assert after["time"]["used_seconds"] == pytest.approx(15 + trained, abs=0.1)
    assert after["test_accuracy"] == before["test_accuracy"]
    # Regression: with a verification longer than all minutes it had more of them than were given, -340 s used.
    path.write_text(json.dumps(plan | {"pace": plan["pace"] | {"measure": 100.0}}))
    assert fit_shades(tiny_images, out, procedure=procedure, resume=True).report.to_dict()["time"]["used_seconds"] == 0


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"minutes": 2}, "give --minutes or --set train.epochs, not both; got 2 and 3"),
        ({"minutes": 3}, "give --minutes or --set train.epochs, not both; got 3 and 3"),  # regression: it was accepted
        ({"epochs": 5}, "--epochs and --set train.epochs must not differ; got 5 and 3"),
    ],
)
def test_a_fit_is_told_once_how_long_to_train(length, message, tiny_images, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(tiny_images, settings={"train.epochs": 3}, out=tmp_path / "out", **length)


def test_views_that_do_not_fit_are_left_out_of_a_head(tiny_images, small_bundle, tmp_path, monkeypatch, clock, said):
    """Of 42 training images in three classes a head sees three views each, if there is time."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("effnet.jobs.fit.transfer.head.time.monotonic", clock)
    whole = head._features

    def slow(*arguments, **options):
        clock.now += 26
        return whole(*arguments, **options)

    monkeypatch.setattr("effnet.jobs.fit.transfer.head._features", slow)
    out = tmp_path / "out"
    report = fit(
        tiny_images,
        weights=small_bundle,
        strategy="head",
        minutes=1,
        out=out,
        listener=said.append,
        procedure=by(clock),
    ).report.to_dict()
    assert report["training"]["head"]["views"] == 1
    (sentence,) = report["time"]["left_out"]
    assert sentence.startswith("2 more random views of each training image were left out: 30 s were left")
    assert sentence in texts(said)
    assert report["time"]["used_seconds"] == 52
