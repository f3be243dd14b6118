"""The estimate by leaving a class out: near the truth on made-up classes, and none for too few of them."""

import numpy as np
import pytest

from effnet.measurement.classification.unknown import area_under_roc
from effnet.measurement.known.scores import fit_score, score_values
from effnet.tasks.known import TITLES
from effnet.training.transfer import leave_one_out as module
from effnet.training.transfer.head import train_head
from effnet.training.transfer.leave_one_out import LeftOut, leave_one_out


def draw(rng, centres, count):
    labels = np.repeat(np.arange(len(centres)), count)
    return (centres[labels] + rng.normal(size=(len(labels), centres.shape[1]))).astype(np.float32), labels


@pytest.fixture(scope="module")
def classes():
    return np.random.default_rng(0).normal(size=(20, 40)) * 0.7


def test_the_estimate_is_near_the_truth(classes):
    rng = np.random.default_rng(1)
    features, labels = draw(rng, classes[:10], 30)
    found = {each.method: each.auroc for each in leave_one_out(features, labels).estimates}
    assert list(found) == list(TITLES)
    head = train_head(features, labels, num_classes=10, val_features=features, val_labels=labels)
    known, _ = draw(rng, classes[:10], 30)
    strange, _ = draw(rng, classes[10:], 30)
    for method in ("energy", "knn", "mahalanobis"):
        score = fit_score(method, features, labels)
        truth = area_under_roc(*(score_values(score, part, head.weight, head.bias) for part in (known, strange)))
        assert found[method] == pytest.approx(truth, abs=0.08)


def test_no_image_is_scored_by_what_was_fitted_on_it(classes, monkeypatch):
    features, labels = draw(np.random.default_rng(2), classes[:4], 12)
    groups = np.arange(len(labels)) // 2
    fitted = []
    real_head, real_score = module.train_head, module.score_values

    def head(rows, *args, **options):
        fitted.append({row.tobytes() for row in rows})
        return real_head(rows, *args, **options)

    def values(score, rows, *args, **options):
        assert not {row.tobytes() for row in rows} & fitted[-1]
        numbers = [int(np.flatnonzero((features == row).all(1))[0]) for row in rows]
        partners = {features[number ^ 1].tobytes() for number in numbers}
        assert not partners & fitted[-1]
        return real_score(score, rows, *args, **options)

    monkeypatch.setattr(module, "train_head", head)
    monkeypatch.setattr(module, "score_values", values)
    assert leave_one_out(features, labels, groups=groups).estimates
    assert len(fitted) >= 4


def test_few_classes_or_images_give_no_estimate(classes):
    features, labels = draw(np.random.default_rng(3), classes[:2], 20)
    assert leave_one_out(features, labels) == LeftOut()
    features, labels = draw(np.random.default_rng(3), classes[:5], 1)
    assert leave_one_out(features, labels) == LeftOut()


def test_it_is_the_same_each_time(classes):
    features, labels = draw(np.random.default_rng(4), classes[:4], 10)
    assert leave_one_out(features, labels, seed=3) == leave_one_out(features, labels, seed=3)
