"""Trials of detectors: the whole network from scratch, the decoder alone on kept feature maps of pretrained weights."""

import dataclasses

import pytest
import torch
from rectangles import PREPROCESS, narrow_detector, rectangle_set
from tiny_runs import tiny_dataset

import effnet
from effnet.bundle.names import RUN
from effnet.jobs.fit.choice import dense_trials
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.other_tasks import without_unasked_trials
from effnet.nas.trials import TableSpace
from effnet.planner.space import only_candidate
from effnet.training.detection.kept import KeptDataset

ROUNDS = 2

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def candidate(tmp_path):
    """A detector whose backbone has weights in a bundle."""
    spec = narrow_detector().spec
    torch.manual_seed(0)
    network = effnet.create_model(dataclasses.replace(spec, decoder=None, num_classes=2))
    weights = effnet.save(network, tmp_path / "weights", class_names=("a", "b"))
    return dataclasses.replace(only_candidate(spec), weights=str(weights), preprocess=PREPROCESS)


@pytest.fixture
def trained(monkeypatch):
    """What the trainings of trials received: the data set, the recipe and the network; of two rounds, for speed."""
    found, train = [], dense_trials.train

    def record(model, dataset, recipe, *args, **options):
        found.append((dataset, recipe, model))
        return train(model, dataset, recipe, *args, **options)

    monkeypatch.setattr(dense_trials, "train", record)
    monkeypatch.setattr(dense_trials, "ROUNDS", ROUNDS)
    monkeypatch.setattr(dense_trials, "run_speed", lambda *args: 100.0)
    return found


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_trial_trains_what_its_time_pays_for_and_leaves_nothing(pretrained, candidate, trained, tmp_path):
    job = job_of(FitConfig("unread", out=tmp_path / "out", minutes=1.0, weights="none"))
    heard = []
    score = dense_trials.dense_trial(job, rectangle_set(16, 4), seconds=ROUNDS * 0.04)
    one = candidate if pretrained else dataclasses.replace(candidate, weights="")
    best = score(one, lambda number, value: heard.append(value) or True)
    assert len(heard) == ROUNDS
    assert best == max(heard)
    ((dataset, recipe, model),) = trained
    assert recipe.train.epochs == ROUNDS
    assert isinstance(dataset, KeptDataset) == pretrained
    assert (recipe.train.frozen_stages == len(model.stages)) == pretrained
    assert not list((tmp_path / "out" / RUN).iterdir())


def test_the_space_of_trials_tells_decoders_apart(candidate):
    notes = ("detector 88", "detector 48")
    spec = candidate.spec
    specs = [dataclasses.replace(spec, lineage=dataclasses.replace(spec.lineage, note=note)) for note in notes]
    space = TableSpace([dataclasses.replace(candidate, spec=spec, status="fits") for spec in specs])
    assert sorted(space.places.values()) == [0, 1]
    assert {space.network(genome).lineage.note for genome in space.places} == set(notes)


@pytest.mark.parametrize("dataset, number", [(rectangle_set(4, 2), 0), (tiny_dataset(), 8)])
def test_a_long_fit_has_trials_of_classifiers_alone_unless_they_are_asked_for(dataset, number, tmp_path):
    job = job_of(FitConfig("unread", out=tmp_path, minutes=40.0, weights="none"))
    assert without_unasked_trials(job, dataset).num_trials == number
    asked = job_of(FitConfig("unread", out=tmp_path, minutes=40.0, weights="none", trials=3))
    assert without_unasked_trials(asked, dataset).num_trials == 3
