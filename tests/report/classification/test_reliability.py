"""Confidence and calibration on the page and on the card."""

import xml.etree.ElementTree as ElementTree

import pytest
from pages import card_of, page_of, sample, typed, words_of

from effnet.measurement.classification.score import Answered
from effnet.report import text as wording
from effnet.report.classification import reliability


def unsure_sample(*, answered=True, unknown=True):
    """Return a report of a model that can abstain."""
    some = sample()
    sentence = "The threshold was chosen on 269 validation images, to answer 95 % of them."
    some["calibration"] |= {"threshold": 0.7012, "coverage": 0.95, "sentence": sentence}
    if answered:
        some["test"]["answered"] = {"threshold": 0.7012, "coverage": 0.96, "error": 0.04}
    if unknown:
        some["test"]["unknown"] = {"images": 120, "unreadable": 1, "rejected": 0.458, "auroc": 0.913}
    return some


def test_the_page_says_how_sure_it_is():
    page = page_of(unsure_sample())
    for words in (
        "On the test images its mean confidence is 84.0 % , its accuracy 98.9 %.",
        "expected calibration error is 3.1 % (15 bins",
        "without the temperature of 0.496, fitted on 269 validation images, it would be 14.0 %.",
        "Below a probability of 0.701 . It then answers 96.0 % of the test images, and 4.0 % of those answers are",
        "The threshold was chosen on 269 validation images, to answer 95 % of them.",
        "Of 120 images of none of its classes it rejects 45.8 % .",
        "91.3 % of the time (AUROC). 1 more could not be read.",
        "Threshold Answered (coverage) Wrong answers (error) 0 100 % 10.0 % 0.7 96.0 % 4.0 % 0.8 90.0 % 2.5 % "
        "0.95 50.0 % 0.0 %",
    ):
        assert words in words_of(page)
    assert page.tags["svg"] == 6


def test_the_card_says_how_sure_it_is():
    text = card_of(unsure_sample())
    assert "a temperature of 0.496, fitted on 269 validation images, is included in `model.onnx`" in text
    assert 'Below a probability of 0.701 the answer is "unknown". 96.0 % of the test images are answered' in text
    assert "Of 120 images of none of the classes 45.8 % are rejected; AUROC 0.913." in text
    assert 'if probabilities[best] >= 0.7012 else "unknown"' in text
    assert "A threshold rejects many images of anything else, but not all." in text


def test_a_model_that_always_answers_is_said_to():
    some = unsure_sample(answered=False, unknown=False)
    some["calibration"] |= {"threshold": None, "sentence": "No threshold was requested: the model always answers."}
    page = page_of(some, draws=False)
    assert "Abstention: the answer “unknown” No threshold was requested: the model always answers." in words_of(page)
    assert "Below a probability" not in words_of(page)
    card = card_of(some)
    assert '"unknown"' not in card
    assert "answers with one of them for any image." in card


def texts_of(svg):
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_plots_of_sureness_show_what_was_measured():
    some = unsure_sample()
    assert {"before", "calibrated"} <= set(texts_of(reliability.reliability_svg(typed(some))))
    assert "threshold 0.701" in texts_of(reliability.risk_coverage_svg(typed(some)))
    some["test"]["uncalibrated"], some["test"]["answered"] = some["test"]["sureness"], None
    assert not {"before", "calibrated"} & set(texts_of(reliability.reliability_svg(typed(some))))
    assert not any("threshold" in text for text in texts_of(reliability.risk_coverage_svg(typed(some))))


def test_a_curve_of_one_point_is_drawn():
    some = unsure_sample()
    some["test"]["risk_coverage"] = [[0.9, 1.0, 0.0]]
    assert reliability.risk_coverage_svg(typed(some))
    assert reliability.threshold_rows(typed(some)) == [Answered(threshold=0.0, coverage=1.0, error=0.0)]


@pytest.mark.parametrize(
    "value, words",
    [(0, "0"), (0.0, "0"), (0.5, "0.5"), (0.585392, "0.585"), (0.9951, "0.9951"), (0.99997123, "0.999971"), (1, "1")],
)
def test_a_threshold_is_shown_with_the_digits_that_matter_and_never_above_itself(value, words):
    assert wording.probability(value) == words
    assert float(wording.probability(value)) <= value
