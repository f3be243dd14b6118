"""Scores of several outputs against scikit-learn, with unknown cells."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs import SPECS, made, parts, scored
from sklearn import metrics

from effnet.data.several.outputs import OutputSpec
from effnet.measurement.several import multilabel
from effnet.measurement.several import score as several
from effnet.measurement.several.figures import mean_score, output_scores, skill
from effnet.measurement.several.text import warnings_of
from effnet.system.records import from_data, to_data


@pytest.mark.parametrize("seed", range(4))
def test_all_figures_are_scikit_learns(seed):
    rows, targets = made(150, seed=seed)
    kind, scene, year = scored(rows, targets).outputs
    (p, label), (q, tags), (number, true) = parts(rows, targets)
    answers, label = p.argmax(1), label[:, 0].astype(int)
    assert kind.known == len(label)
    close = lambda found: pytest.approx(found, abs=1e-5)  # noqa: E731
    assert kind.value == close(metrics.accuracy_score(label, answers))
    assert kind.classes.balanced_accuracy == close(metrics.balanced_accuracy_score(label, answers))
    assert kind.classes.nll == close(metrics.log_loss(label, p))
    assert kind.baseline == np.bincount(label).max() / len(label)
    assert scene.value == close(metrics.average_precision_score(tags, q, average="macro"))
    assert [tag.average_precision for tag in scene.tags.tags] == close(
        list(metrics.average_precision_score(tags, q, average=None))
    )
    present = q >= np.array(SPECS[1].thresholds)
    assert scene.tags.micro_f1 == close(metrics.f1_score(tags, present, average="micro"))
    assert scene.tags.macro_f1 == close(metrics.f1_score(tags, present, average="macro"))
    assert [tag.precision for tag in scene.tags.tags] == close(
        list(metrics.precision_score(tags, present, average=None))
    )
    assert [tag.recall for tag in scene.tags.tags] == close(list(metrics.recall_score(tags, present, average=None)))
    assert scene.tags.exact_match == close(metrics.accuracy_score(tags, present))
    assert scene.tags.nll == close(np.mean([metrics.log_loss(t, s) for t, s in zip(tags.T, q.T, strict=True)]))
    assert scene.baseline == close(tags.mean())
    assert year.value == close(metrics.mean_absolute_error(true, number))
    assert year.number.rmse == close(metrics.root_mean_squared_error(true, number))
    assert year.number.r2 == close(metrics.r2_score(true, number))
    median = np.full(len(true), np.median(true))
    assert year.baseline == close(metrics.mean_absolute_error(true, median))
    assert year.score == close(metrics.d2_absolute_error_score(true, number))


_cells = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 1.0, math.nan])),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(st.lists(_cells, min_size=1, max_size=3))
def test_tags_of_any_known_cells_are_scikit_learns(columns):
    shortest = min(map(len, columns))
    scores = np.array([[cell[0] for cell in column[:shortest]] for column in columns]).T
    targets = np.array([[cell[1] for cell in column[:shortest]] for column in columns]).T
    present, known = scores >= 0.5, ~np.isnan(targets)
    found, f1 = multilabel.average_precisions(scores, targets), multilabel.count(present, targets).f1
    for tag in range(len(columns)):
        true, of, said = (some[known[:, tag], tag] for some in (targets, scores, present))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of what is undefined
            expected = metrics.average_precision_score(true, of) if true.any() else math.nan
            theirs = metrics.f1_score(true, said, zero_division=math.nan) if len(true) else math.nan
        assert found[tag] == pytest.approx(expected, abs=1e-5, nan_ok=True)
        assert f1[tag] == pytest.approx(theirs, abs=1e-5, nan_ok=True)


def test_unknown_cells_never_count():
    rows, targets = made(60)
    wild = np.where(np.isnan(targets[:, 4]), 1e9, rows[:, 6])
    other = np.column_stack([np.where(np.isnan(targets[:, :1]), [[1.0, 0, 0]], rows[:, :3]), rows[:, 3:6], wild])
    found, again = scored(rows, targets), scored(other, targets)
    assert dataclasses.replace(found, mistakes=()) == dataclasses.replace(again, mistakes=())
    assert [mistake.index for mistake in found.mistakes] == [mistake.index for mistake in again.mistakes]


def test_the_mean_score_is_that_of_training_and_the_mean_of_the_outputs():
    rows, targets = made(80)
    found = scored(rows, targets)
    each = output_scores(rows, targets, SPECS)
    assert list(each.values()) == pytest.approx([output.score for output in found.outputs])
    assert found.figure == found.headline["mean_score"] == pytest.approx(mean_score(rows, targets, SPECS))
    assert found.mean_score == pytest.approx(np.mean(list(each.values())))
    kind, scene, year = found.outputs
    assert (kind.score, scene.score) == (kind.value, scene.value)
    assert year.score == pytest.approx(1 - year.value / year.baseline)


def test_the_skill_of_a_number_is_limited_and_a_constant_target_has_none():
    true = np.array([1.0, 2.0, 3.0])
    assert skill(true, true) == 1
    assert skill(np.full(3, 2.0), true) == 0
    assert skill(true + 1e6, true) == -1
    assert skill(np.full(3, 2.0), np.full(3, 2.0)) == 0
    assert skill(np.full(3, 2.5), np.full(3, 2.0)) == -1


def test_an_output_without_known_values_is_said_and_left_out():
    rows, targets = made(50)
    targets[:, 0] = np.nan
    found = scored(rows, targets)
    assert found.outputs[0].known == 0
    assert math.isnan(found.outputs[0].value)
    assert found.mean_score == pytest.approx(np.mean([output.score for output in found.outputs[1:]]))
    (warning,) = warnings_of(found)
    assert warning == "The output kind is not scored: no test image has a known value of it."
    targets[:] = np.nan
    found = scored(rows, targets)
    assert math.isnan(found.mean_score)
    assert len(warnings_of(found)) == 3
    assert list(several.lines(found))
    assert from_data(several.SCORE, to_data(found), where="score").images == 50


def test_tags_that_no_image_has_are_left_out_of_the_mean():
    rows, targets = made(60, unknown=0)
    targets[:, 2] = 0
    scene = scored(rows, targets).outputs[1]
    expected = [metrics.average_precision_score(targets[:, i], rows[:, 2 + i]) for i in (1, 3)]
    assert scene.value == pytest.approx(np.mean(expected))
    assert math.isnan(scene.tags.tags[1].average_precision)
    targets[:, 1:4] = 0
    found = scored(rows, targets)
    assert math.isnan(found.outputs[1].value)
    assert "no test image has any of its tags" in found.outputs[1].chance
    assert not math.isnan(found.mean_score)


def test_an_output_no_better_than_its_baseline_is_said_first():
    good = warnings_of(scored(*made(300)))
    assert good == []
    rows, targets = made(300)
    rows[:] = [0.5, 0.3, 0.2, 0.5, 0.5, 0.5, 2010.0]  # the same answers to all images
    kind, scene, year = warnings_of(scored(rows, targets))
    assert kind.startswith(("The output kind is not shown to be better than", "The output kind is no better than"))
    assert scene.startswith("The output scene is not shown to be better than a random ranking")
    assert year.startswith("The output year is not shown to be better than always answering the median")


def test_the_intervals_hold_the_truth_of_many_images():
    rows, targets = made(40_000, seed=100)
    values = [metric(*part) for metric, part in zip((_accuracy, _map, _mae), parts(rows, targets), strict=True)]
    held = np.zeros(3)
    for seed in range(20):
        some = scored(*made(200, seed=seed)).outputs
        held += [low <= value <= high for value, (low, high) in zip(values, (o.interval for o in some), strict=True)]
    assert min(held) >= 17  # 95 % of 20 is 19
    assert some == scored(*made(200, seed=19)).outputs  # the resamplings are seeded


def _accuracy(part, target):
    return (part.argmax(1) == target[:, 0]).mean()


def _map(part, target):
    return metrics.average_precision_score(target, part)


def _mae(part, target):
    return metrics.mean_absolute_error(target, part)


def test_the_bootstrap_of_weights_is_that_of_repeated_images():
    rows, targets = made(40, seed=5)
    scores, tags = rows[:, 3:6], targets[:, 1:4]
    (weights,) = multilabel.drawn(40)
    assert (weights.sum(1) == 40).all()
    for found, of in zip(multilabel.bootstrap_map(scores, tags)[:20], weights, strict=False):
        again = np.repeat(np.arange(40), of.astype(int))
        assert found == pytest.approx(multilabel.mean_average_precision(scores[again], tags[again]))


def test_random_rankings_are_those_of_shuffled_images():
    rows, targets = made(30, seed=1, unknown=0)
    scores, tags = rows[:, 3:6], targets[:, 1:4]
    tags[3, 1] = np.nan
    rng = np.random.default_rng(0)
    shuffled = [multilabel.mean_average_precision(scores, tags[rng.permutation(30)]) for _ in range(1000)]
    found = multilabel.random_map(scores, tags)
    assert found.mean() == pytest.approx(np.mean(shuffled), abs=0.01)
    assert np.percentile(found, (5, 95)) == pytest.approx(np.percentile(shuffled, (5, 95)), abs=0.02)


def test_a_guess_is_rarely_called_better_than_its_baseline():
    called = [0, 0, 0]
    for seed in range(40):
        rows, targets = made(100, seed=seed, strength=1e-3, unknown=0)
        for number, output in enumerate(scored(rows, targets).outputs):
            called[number] += not output.chance
    assert max(called) <= 4  # 2.5 % of 40 is one


def test_the_worst_mistakes_of_each_output_come_first():
    rows, targets = made(200)
    found = scored(rows, targets).mistakes
    assert [m.output for m in found] == sorted((m.output for m in found), key=["kind", "scene", "year"].index)
    for name in ("kind", "scene", "year"):
        some = [mistake for mistake in found if mistake.output == name]
        assert len(some) == 8
        assert [m.weight for m in some] == sorted((m.weight for m in some), reverse=True)
        assert len({m.index for m in some}) == 8
        assert all(mistake.label != mistake.predicted for mistake in some)
    errors = np.abs(rows[:, 6] - targets[:, 4])
    worst = next(mistake for mistake in found if mistake.output == "year")
    assert worst.index == np.nanargmax(errors)
    assert worst.weight == pytest.approx(np.nanmax(errors))
    tag = next(mistake for mistake in found if mistake.output == "scene")
    assert {tag.label, tag.predicted} in ({"sea", "no sea"}, {"sun", "no sun"}, {"tree", "no tree"})


def test_a_score_is_read_back_and_has_words():
    found = scored(*made(60), leaked=["0.png", "3.png"])
    assert from_data(several.SCORE, json.loads(json.dumps(to_data(found))), where="score") == found
    assert (found.clean.leaked, found.clean.images) == (2, 58)
    first, leak, *others = several.lines(found)
    assert first == f"mean score {found.mean_score:.2%} of 3 outputs on 60 images"
    assert leak.startswith("WARNING: 2 test images leak")
    assert [line.split(":")[0] for line in others] == ["kind", "scene", "year"]
    table = several.table(found)
    assert [row[0] for row in table.rows] == ["kind", "scene", "year"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_a_hierarchy_is_scored_at_each_level():
    spec = OutputSpec(name="what", kind="one", classes=("animal/cat", "animal/dog", "car"))
    rows = np.array([[0.3, 0.3, 0.4], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]])
    (what,) = scored(rows, np.array([[0.0], [0.0], [2.0]]), (spec,)).outputs
    (level,) = what.classes.levels
    # The car is the most probable class of the first image, but the animals together are more probable.
    assert what.value == 1 / 3
    assert (level.level, level.classes, level.accuracy) == (1, 2, 1.0)


def test_costs_decide_and_are_scored():
    spec = OutputSpec(name="what", kind="one", classes=("cat", "dog"), miss=(1.0, 5.0))
    tags = OutputSpec(name="tags", kind="many", classes=("a",), thresholds=(0.2,), miss=(4.0,))
    rows = np.array([[0.7, 0.3, 0.3], [0.7, 0.3, 0.1], [0.9, 0.1, 0.9]])
    found = scored(rows, np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]), (spec, tags))
    what, scene = found.outputs
    assert what.value == 2 / 3  # the second image's cat is taken for a dog, which costs 1
    cost = what.classes.cost
    assert (cost.mean, cost.without, cost.constant) == (1 / 3, 5 / 3, 2 / 3)
    cost = scene.tags.cost
    assert (cost.mean, cost.without, cost.constant) == (0.0, 4 / 3, 1 / 3)


def test_a_balanced_model_is_compared_with_a_guess():
    spec = (OutputSpec(name="what", kind="one", classes=("a", "b")),)
    labels = np.repeat([0.0, 1.0], [190, 10])[:, None]
    answers = np.concatenate([np.repeat([0, 1], [120, 70]), np.repeat([1, 0], [9, 1])])
    rows = np.eye(2)[answers]
    (unequal,), (balanced,) = (scored(rows, labels, spec, balanced=some).outputs for some in (False, True))
    assert "no better than always answering 'a'" in unequal.chance
    assert balanced.chance == ""
