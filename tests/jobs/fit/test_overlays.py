"""The worst mistakes in a report, under the map of the wrong class rather than the right one."""

from types import SimpleNamespace

import numpy as np
import pytest
from bundles import DIGITS, make_bundle

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_state
from effnet.data.datasets import read_dataset
from effnet.jobs.fit.overlays import mistakes_overlaid
from effnet.measurement.evaluate import evaluate
from effnet.report.explanation.overlay import overlay
from effnet.runtimes.predictor import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_shown_mistake_has_the_contrast_of_the_predicted_and_the_true_class(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    config, test = read_config(bundle), read_dataset("digits", seed=3).test
    score = evaluate(Predictor(bundle), test)
    deployed = SimpleNamespace(config=config, state=load_state(bundle))
    found = list(mistakes_overlaid(deployed, score, test))
    assert len(found) == 24  # the network was not trained
    effnet.export(bundle, maps=True)
    mistake = score.mistakes[5]
    image = Predictor(bundle).prepare(test.sources[mistake.index])
    maps = Predictor(bundle).maps(image[None])[0]
    expected = overlay(image, maps[DIGITS.index(mistake.predicted)] - maps[DIGITS.index(mistake.label)])
    np.testing.assert_array_equal(found[5], expected)


def test_other_tasks_and_perfect_scores_have_none(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    deployed = SimpleNamespace(config=read_config(bundle), state=load_state(bundle))
    for mistakes in ((), (SimpleNamespace(index=0),)):
        assert list(mistakes_overlaid(deployed, SimpleNamespace(mistakes=mistakes), None)) == []
