import json

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from effnet.data.datasets import Split
from effnet.errors import DataError
from effnet.measurement.classification import calibration
from effnet.measurement.classification.score import bootstrap, score, wilson
from effnet.measurement.classification.text import rare_class_warning
from effnet.weights.labels import choose_images

NAMES = ("cat", "dog", "owl")
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
SPLIT = Split(sources=[f"{i}.jpg" for i in range(5)], labels=np.array([0, 1, 1, 0, 2]))


def test_a_score_counted_by_hand():
    found = score(PROBABILITIES, SPLIT, NAMES)
    assert found.images == 5
    assert found.accuracy == 3 / 5
    assert found.confusion == ((1, 1, 0), (1, 1, 0), (0, 0, 1))
    assert [(c.name, c.precision, c.recall, c.support) for c in found.per_class] == [
        ("cat", 0.5, 0.5, 2),
        ("dog", 0.5, 0.5, 2),
        ("owl", 1.0, 1.0, 1),
    ]
    assert found.top5 is None


@pytest.mark.parametrize("seed", range(8))
def test_scores_of_classes_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    classes, images = (
        int(rng.integers(2, 12)),
        int(rng.integers(1, 60)),
    )  # some classes lack images or predictions
    labels, probabilities = rng.integers(0, classes, images), rng.dirichlet(np.ones(classes), images)
    names = tuple(map(str, range(classes)))
    found = score(probabilities, Split(sources=[""] * images, labels=labels), names)
    predicted, known = probabilities.argmax(1), np.arange(classes)
    assert np.array_equal(found.confusion, confusion_matrix(labels, predicted, labels=known))
    theirs = np.transpose(precision_recall_fscore_support(labels, predicted, labels=known, zero_division=0.0))
    ours = [(c.precision, c.recall, c.f1, c.support) for c in found.per_class]
    assert np.allclose(ours, theirs, rtol=1e-12, atol=0)


def test_mistakes_come_most_confident_first_with_their_source():
    found = score(PROBABILITIES, SPLIT, NAMES).mistakes
    assert [(m.index, m.source, m.label, m.predicted, m.probability) for m in found] == [
        (3, "3.jpg", "cat", "dog", 0.8),
        (2, "2.jpg", "dog", "cat", 0.6),
    ]


def test_images_left_out_do_not_shift_the_others():
    kept = np.array([0, 2, 4])
    found = score(PROBABILITIES[kept], SPLIT, NAMES, indices=kept)
    assert (found.images, found.accuracy) == (3, 2 / 3)
    assert [m.source for m in found.mistakes] == ["2.jpg"]


def test_the_interval_is_wilsons():
    # 81 of 263: R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, Table I. The others by hand: n / (n + z^2).
    assert wilson(10, 10) == pytest.approx((0.7224672, 1.0), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize("right, count", [(3, 5), (257, 269), (10, 10), (0, 4)])
@pytest.mark.filterwarnings("ignore:The confidence interval cannot be calculated")
def test_the_bootstrap_is_scipys(right, count):
    outcomes = np.repeat((1.0, 0.0), (right, count - right))
    theirs = scipy.stats.bootstrap(
        (outcomes,), np.mean, n_resamples=9999, method="percentile", vectorized=True, rng=np.random.default_rng(1)
    ).confidence_interval
    assert bootstrap(right, count) == pytest.approx(tuple(theirs), abs=1.01 / count)
    assert bootstrap(right, count, resamples=200_000) == pytest.approx(tuple(theirs), abs=0.51 / count)
    assert bootstrap(right, count) == bootstrap(right, count)


def test_bootstrap_and_wilson_agree_where_images_are_many():
    assert bootstrap(9_000, 10_000) == pytest.approx(wilson(9_000, 10_000), abs=5e-4)


def test_a_score_says_what_its_temperature_did():
    rng = np.random.default_rng(0)
    raw = rng.dirichlet(np.ones(7), 500)
    split = Split(sources=[f"{i}.jpg" for i in range(500)], labels=rng.integers(0, 7, 500))
    tempered = calibration.apply_temperature(raw, 2.5)
    found = score(tempered, split, tuple("abcdefg"), temperature=2.5)
    for sureness, probabilities in ((found.sureness, tempered), (found.uncalibrated, raw)):
        assert sureness.ece == pytest.approx(calibration.expected_calibration_error(probabilities, split.labels))
        assert sureness.nll == pytest.approx(calibration.negative_log_likelihood(probabilities, split.labels))
    assert found.sureness.ece < found.uncalibrated.ece
    assert found.accuracy == score(raw, split, tuple("abcdefg")).accuracy
    assert found.top5 == pytest.approx(top_k_accuracy_score(split.labels, raw, k=5))
    assert found.aurc == pytest.approx(calibration.risk_coverage(tempered, split.labels).aurc)
    json.dumps(found.to_dict())


def test_a_threshold_leaves_images_unanswered():
    assert score(PROBABILITIES, SPLIT, NAMES).answered is None
    found = score(PROBABILITIES, SPLIT, NAMES, threshold=0.8).answered
    assert (found.coverage, found.error) == (3 / 5, 1 / 3)
    assert score(PROBABILITIES, SPLIT, NAMES, threshold=0.95).answered.error is None


def test_a_class_that_the_model_does_not_know_is_named():
    from effnet import get_spec
    from effnet.bundle.config import ModelConfig
    from effnet.data.preprocess import Preprocess

    spec = get_spec("b0", num_classes=3, in_channels=1)
    preprocess = Preprocess(resolution=16, mean=(0.5,), std=(0.5,))
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=("0", "1", "two"))
    with pytest.raises(DataError, match="has no class '2'"):
        choose_images("digits", folder="nowhere", config=config)


def test_wordnet_ids_name_imagenets_classes(tmp_path):
    from PIL import Image

    from effnet import get_spec
    from effnet.bundle.config import ModelConfig
    from effnet.data.preprocess import Preprocess
    from effnet.weights.class_names import class_names

    for wnid in ("n01440764", "n03888257"):
        (tmp_path / wnid).mkdir()
        for number in range(8):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / wnid / f"{number}.png")
    config = ModelConfig(arch=get_spec("b0"), preprocess=Preprocess(resolution=16), class_names=class_names(1000))
    labels = choose_images(tmp_path, folder="nowhere", config=config).split.labels
    assert {config.class_names[label] for label in labels} == {"tench", "parachute"}


def rare_score(rare_right, *, balanced=False):
    """Return the score of 170 cats, all but two right, and 16 dogs."""
    labels = np.repeat([0, 1], [170, 16])
    predicted = np.concatenate([np.arange(170) < 2, np.arange(16) < rare_right]).astype(int)
    split = Split(sources=[""] * 186, labels=labels)
    return score(np.eye(2)[predicted] * 0.8 + 0.1, split, NAMES[:2], balanced=balanced)


def test_a_rare_class_that_is_missed_is_named_with_what_to_do():
    train, found = np.repeat([0, 1], [850, 50]), rare_score(9)
    assert (found.lowest.name, found.lowest.recall, found.lowest.support) == ("dog", 9 / 16, 16)
    assert found.balanced_accuracy == (168 / 170 + 9 / 16) / 2
    low, high = found.balanced_bootstrap
    assert low < found.balanced_accuracy < high
    json.dumps(found.to_dict())
    assert rare_class_warning(found, train, NAMES[:2], balanced=False) == [
        "Only 56.2% of the 16 test images of 'dog' are classified correctly, against 95.2% of all; it has 50 of 900 "
        "training images: --set fit.balance=adjust gives rare classes the same weight as frequent ones, "
        "at some cost to the frequent ones."
    ]
    (sentence,) = rare_class_warning(found, train, NAMES[:2], balanced=True)
    assert sentence.endswith("more images of it would help most.")
    assert rare_class_warning(found, np.repeat([0, 1], 450), NAMES[:2], balanced=False) == []  # it is not rare
    assert rare_class_warning(rare_score(16), train, NAMES[:2], balanced=False) == []


def test_a_model_of_equal_classes_is_held_against_a_guess_and_not_against_the_most_frequent_class():
    labels = np.repeat([0, 1], [94, 6])
    predicted = np.concatenate([np.arange(94) < 8, np.arange(6) < 5]).astype(int)  # 91 of 100, with most dogs
    split = Split(sources=[""] * 100, labels=labels)
    assert "no better than always answering 'cat'" in score(np.eye(2)[predicted], split, NAMES[:2]).chance
    assert score(np.eye(2)[predicted], split, NAMES[:2], balanced=True).chance == ""
    guessed = score(np.eye(2)[np.arange(100) % 2], split, NAMES[:2], balanced=True).chance
    assert "not shown to be better than a guess, whose balanced accuracy is 50.0%" in guessed
