"""fit --recipe: the fields that it takes from a recipe, and those that it refuses."""

import dataclasses

import pytest

from effnet.errors import InputError
from effnet.jobs.fit.asked import with_recipe
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.training.recipe.schema import Recipe, Stage

ROBUST = {
    "augment.noise": 0.2,
    "augment.blur": 0.15,
    "augment.jpeg": 0.15,
    "augment.policy": "randaugment",
    "train.start_counts": False,
    "train.last_counts": True,
}


def test_a_recipe_gives_the_fields_that_differ_and_settings_override_them():
    assert with_recipe(None, None) == {}
    assert with_recipe({"train.lr": 0.1}, None) == {"train.lr": 0.1}
    assert with_recipe({}, "robust") == ROBUST
    assert with_recipe({"augment.noise": 0.1}, "robust") == {**ROBUST, "augment.noise": 0.1}
    made = dataclasses.replace(Recipe(), train=dataclasses.replace(Recipe().train, lr=0.01, epochs=7, seed=3))
    assert with_recipe({}, made) == {"train.lr": 0.01, "train.start_counts": False}


def test_a_job_trains_with_them_and_repeats_them(tmp_path):
    job = job_of(FitConfig(data="digits", recipe="robust", out=tmp_path))
    assert job.asked.settings == ROBUST
    assert job.config.settings == ROBUST  # so that the command that runs it again has them
    assert job.options["settings"] == ROBUST
    found = job.asked.complete(Recipe(), epochs=2, seed=0)
    assert found.augment.policy == "randaugment"
    assert found.train.epochs == 2


def test_a_recipe_of_stages_is_refused():
    with pytest.raises(InputError, match="a recipe with stages trains at several: use `effnet train`"):
        with_recipe({}, dataclasses.replace(Recipe(), stages=(Stage(), Stage())))
    with pytest.raises(InputError, match="did you mean 'robust'"):
        with_recipe({}, "robustt")
