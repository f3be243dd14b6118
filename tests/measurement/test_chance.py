import numpy as np
import pytest

from effnet.data.datasets import Split
from effnet.measurement.classification.chance import chance_sentence, most_frequent
from effnet.measurement.classification.score import score, wilson
from effnet.measurement.classification.text import clean_sentence

NAMES = ("cat", "dog")


def sentence(right: int, labels: list[int]) -> str:
    found = np.array(labels)
    interval = wilson(right, len(found))
    return chance_sentence(right / len(found), interval, most_frequent(found, NAMES), labels=found)


def test_a_model_that_guesses_is_told_plainly() -> None:
    labels = [0] * 60 + [1] * 40
    assert sentence(60, labels) == (
        "The model is no better than always answering 'cat' (60.0% of the test images): check the labels and the "
        "layout."
    )
    assert "is no better than always answering 'cat'" in sentence(20, labels)
    assert sentence(66, labels).startswith("The model is not shown to be better than always answering 'cat' (60.0%")
    assert sentence(75, labels) == ""
    assert sentence(10, [0] * 10) == ""  # a single class cannot tell
    assert sentence(96, [0] * 95 + [1] * 5) != ""


def test_a_score_has_the_baseline_and_what_is_left_without_leaks() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    split = Split(sources=[f"{i}.png" for i in range(8)], labels=labels)
    answers = np.eye(2)[[0, 0, 1, 1, 1, 1, 0, 0]]
    found = score(answers, split, NAMES, leaked=("0.png", "1.png", "3.png", "nowhere.png"))
    assert found.accuracy == 5 / 8
    assert (found.most_frequent.name, found.most_frequent.share) == ("dog", 5 / 8)
    assert (found.clean.leaked, found.clean.images, found.clean.accuracy) == (3, 5, pytest.approx(2 / 5))
    assert found.clean.confidence == wilson(2, 5)
    assert "3 test images leak" in clean_sentence(found.clean)
    assert "Without them the accuracy is 40.00% on 5 images" in clean_sentence(found.clean)
    everything = score(answers, split, NAMES, leaked=split.sources).clean
    assert (everything.leaked, everything.images, everything.accuracy) == (8, 0, None)
    assert "The accuracy without them is unknown" in clean_sentence(everything)
    assert score(answers, split, NAMES).clean is None
