"""Recipes as values and as data: refused fields and values, and their errors."""

import json

import pytest

from effnet.errors import InputError
from effnet.training.recipe.file import recipe_from_dict, with_values
from effnet.training.recipe.schema import Recipe, Stage


@pytest.mark.parametrize(
    "wrong",
    [
        {"train.epochs": 0}, {"train.batch_size": 1}, {"train.lr": float("nan")}, {"model.dropout": 1.0},
        {"augment.view": "mirror"}, {"train.layer_decay": 0.0}, {"train.layer_decay": 1.01},
        {"train.layer_decay": float("nan")}, {"train.epochs": 2.5}, {"train.epochs": "3"}, {"stages": 3},
        {"model.norm_momentum": 0.0}, {"schedule.warmup_from": 1.0}, {"schedule.final": -0.1},
        {"augment.min_area": 0.0}, {"augment.magnitude": 31}, {"augment.erasing_fill": "rainbow"},
        {"augment.interpolation": "cubic"}, {"train.ema_every": 0}, {"loss.teacher_weight": 1.5},
        {"loss.temperature": 0.0}, {"optimizer.nesterov": 1}, {"optimizer.eps": float("inf")}, {"train": 5},
        {"train.clip_norm": -1.0}, {"loss.teacher": 7}, {"name": None},
    ],
)  # fmt: skip
def test_a_recipe_out_of_range_is_refused(wrong):
    with pytest.raises(InputError, match=rf"^{next(iter(wrong))} must"):
        with_values(Recipe(), wrong)


@pytest.mark.parametrize(
    "stage",
    [
        {"share": 0}, {"resolution": 7}, {"resolution": 64.5}, {"micro_batch": -1}, {"dropout": 1.0},
        {"magnitude": 31.0}, {"mixup": -0.1}, {"cutmix": float("nan")},
    ],
)  # fmt: skip
def test_a_stage_out_of_range_is_named_by_its_number(stage):
    with pytest.raises(InputError, match=rf"^stages\[1\]\.{next(iter(stage))} must"):
        recipe_from_dict({"stages": [{}, stage]})


@pytest.mark.parametrize(
    "data, message",
    [
        ({"train": {"learning_rate": 1}}, r"no field 'train.learning_rate'; the known fields are epochs, "),
        ({"trian": {}}, r"no field 'trian'; .*did you mean 'train'\?"),
        ({"stages": [{"sahre": 1}]}, r"no field 'stages\[0\].sahre'; .*did you mean 'share'\?"),
        ([], r"a recipe must be an object with fields; got \[\]"),
        ({"optimizer": {"name": "adam"}}, r"optimizer.name must be one of .*did you mean 'adamw'\?"),
    ],
)
def test_a_field_that_is_not_known_is_named_with_the_nearest(data, message):
    with pytest.raises(InputError, match=message):
        recipe_from_dict(data)


@pytest.mark.parametrize(
    "dotted, message",
    [
        ("train.learning_rate", "no field 'train.learning_rate'"),
        ("trian.lr", r"no field 'trian.lr'; .*did you mean 'train'\?"),
        ("train.lr.peak", "no field 'train.lr.peak'"),
        ("name.x", "no field 'name.x'"),
        ("", "no field ''"),
        ("stages.share", "no field 'stages.share'"),
    ],
)
def test_a_dotted_name_that_leads_nowhere_is_refused(dotted, message):
    with pytest.raises(InputError, match=message):
        with_values(Recipe(), {dotted: 1})


def test_a_recipe_comes_back_from_its_json():
    recipe = with_values(
        Recipe(stages=(Stage(resolution=96), Stage(share=2.0, mixup=0.2))),
        {"train.lr": 1, "loss.teacher": "a/b", "optimizer.nesterov": True},
    )
    assert (recipe.train.lr, type(recipe.train.lr)) == (1.0, float)
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert with_values(recipe, {"stages": []}).stages == ()
