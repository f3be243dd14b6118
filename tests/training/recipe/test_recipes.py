"""The built-in recipes against the published ones, and recipe files of the user."""

import json
from importlib.util import find_spec

import pytest
from hypothesis import given
from places import GOLDEN
from strategies import specs

from benchmarks.peers import import_timm
from effnet import get_spec, scale
from effnet.arch.catalog import NAMES
from effnet.errors import InputError
from effnet.nn.network import build
from effnet.training.optim.optimisers import RMSPropTF, make_optimizer
from effnet.training.recipe.file import recipe_from_dict
from effnet.training.recipe.read import RECIPES, read_recipe, summary
from effnet.training.recipe.schema import Recipe

FOLDER = GOLDEN / "recipes"
GOLDEN_MODELS = ("b0", "v2_s")


def of(name, model="b0"):
    return read_recipe(name, get_spec(model))


@pytest.mark.parametrize("model", GOLDEN_MODELS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_it_was(name, model, check_golden):
    """After an intended change: pytest tests/recipes --update-golden"""
    check_golden(FOLDER / f"{name}-{model}.json", json.dumps(of(name, model).to_dict(), indent=1) + "\n")


def test_no_golden_file_is_left_over():
    expected = {f"{name}-{model}" for name in RECIPES for model in GOLDEN_MODELS}
    assert {path.stem for path in FOLDER.iterdir()} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_it_is_run_and_what_comes_of_it(name):
    text = RECIPES[name].__doc__
    assert summary(name) == text.splitlines()[0]
    assert f"--recipe {name}" in text
    for word in ("Command: effnet train", "Hardware: ", "Time", ":"):
        assert word in text
    assert of(name).name == name


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("model", NAMES)
def test_every_network_has_every_recipe_which_comes_back_from_its_json(name, model):
    recipe = of(name, model)
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@given(spec=specs())
def test_every_random_network_has_every_recipe(spec):
    for name in RECIPES:
        assert read_recipe(name, spec).name == name


@pytest.mark.parametrize(
    "model, sizes, magnitudes, alphas",
    [
        ("v2_s", (171, 214, 257, 300), (5, 6.6667, 8.3333, 10), (0, 0, 0, 0)),
        ("v2_m", (192, 256, 320, 384), (5, 8.3333, 11.6667, 15), (0, 0.0667, 0.1333, 0.2)),
        ("v2_l", (192, 256, 320, 384), (5, 10, 15, 20), (0, 0.1667, 0.3333, 0.5)),
        ("v2_xl", (192, 256, 320, 384), (5, 10, 15, 20), (0, 0.1667, 0.3333, 0.5)),
        ("v2_b0", (144, 160, 176, 192), (None,) * 4, (0, 0, 0, 0)),
        ("v2_b3", (156, 184, 212, 240), (None,) * 4, (0, 0, 0, 0)),
    ],
)
def test_the_stages_of_v2_are_those_of_its_code(model, sizes, magnitudes, alphas):
    """Source: google/automl, efficientnetv2/main.py (ibase 128, linspace) and effnetv2_configs.py."""
    recipe = of("imagenet_v2", model)
    assert tuple(stage.resolution for stage in recipe.stages) == sizes
    assert tuple(stage.magnitude for stage in recipe.stages) == magnitudes
    assert tuple(stage.mixup for stage in recipe.stages) == tuple(stage.cutmix for stage in recipe.stages) == alphas
    assert {stage.share for stage in recipe.stages} == {1.0}
    assert recipe.augment.policy == ("autoaugment" if magnitudes[0] is None else "randaugment")


@pytest.mark.parametrize(
    "model, weight, epochs, magnitude",
    [
        ("b0", 1 / 2, 700, None), ("b1", 3 / 4, 700, None), ("b2", 3 / 4, 700, 6), ("b3", 3 / 4, 700, 12),
        ("b4", 3 / 4, 700, 15), ("b5", 3 / 4, 350, 18), ("b6", 3 / 4, 350, 24), ("b7", 3 / 4, 350, 27),
    ],
)  # fmt: skip
def test_noisy_student_is_that_of_its_script(model, weight, epochs, magnitude):
    """Source: google-research/noisystudent, local_scripts/imagenet/run.sh (unlabel_ratio, train_ratio, randaug_mag)."""
    recipe = of("noisy_student", model)
    assert (recipe.loss.teacher_weight, recipe.loss.temperature, recipe.train.epochs) == (weight, 1.0, epochs)
    assert recipe.train.epochs * 1_281_167 // recipe.train.batch_size in (109_474, 218_949)  # main.py: train_steps
    assert recipe.schedule.decay_epochs == 2.4 * epochs / 350
    if magnitude is None:
        assert recipe.augment.policy == "none"
    else:
        assert (recipe.augment.policy, recipe.augment.magnitude) == ("randaugment", magnitude)


@pytest.mark.parametrize(
    "model, dropout",
    [("b0", 0.2), ("b7", 0.5), ("timm/tf_efficientnet_b4.aa_in1k", 0.4), ("v2_l", 0.4), ("resnet50", 0.0)],
)
def test_dropout_is_that_of_the_variant(model, dropout):
    assert of("imagenet_v1", model).model.dropout == dropout


def test_a_scaled_network_has_the_dropout_of_what_it_was_scaled_from():
    assert read_recipe("imagenet_v1", scale(get_spec("b5"), phi=-3)).model.dropout == 0.4


def test_the_rates_are_the_published_ones():
    assert of("imagenet_v1").train.peak_lr == pytest.approx(0.128)
    assert of("imagenet_v2", "v2_s").train.peak_lr == pytest.approx(0.256)
    assert of("imagenet_timm_ra").train.peak_lr == pytest.approx(0.048)
    assert of("imagenet_timm_ra").schedule.warmup_from * 0.048 == pytest.approx(1e-6)


def test_v1_decays_biases_and_v2_does_not():
    """tensorflow/tpu excludes variables named batch_normalization, google/automl .*(bias|gamma|beta).*"""
    model = build(scale(get_spec("b0"), phi=-10))
    counts = {}
    for name in ("imagenet_v1", "imagenet_v2"):
        optimizer = make_optimizer(model, of(name))
        assert isinstance(optimizer, RMSPropTF)
        counts[name] = sum(len(g["params"]) for g in optimizer.param_groups if g["weight_decay"] == 1e-5)
    kernels = sum(p.ndim > 1 for p in model.parameters())
    biases = sum(name.endswith("bias") and "norm" not in name for name, _ in model.named_parameters())
    assert counts == {"imagenet_v1": kernels + biases, "imagenet_v2": kernels}


@pytest.mark.elsewhere
@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_timms_recipe_makes_the_optimiser_that_timm_makes_of_its_words():
    import_timm()
    from timm.optim import create_optimizer_v2

    model, recipe = build(scale(get_spec("b0"), phi=-10)), of("imagenet_timm_ra")
    theirs = create_optimizer_v2(model, opt="rmsproptf", lr=0.048, weight_decay=1e-5, momentum=0.9, eps=0.001)
    ours = make_optimizer(model, recipe)
    for key, other in (("momentum", "momentum"), ("decay", "alpha"), ("eps", "eps")):
        assert {group[key] for group in ours.param_groups} == {group[other] for group in theirs.param_groups}
    decayed = [
        {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        for optimizer in (ours, theirs)
    ]
    assert decayed[0] == decayed[1]


def test_cifar10_differs_between_networks_in_what_was_published_with_them_only():
    ours, other = of("cifar10", "b0").to_dict(), of("cifar10", "resnet18").to_dict()
    assert [group for group in ours if ours[group] != other[group]] == ["model"]


def test_small_data_is_the_defaults():
    assert of("small_data") == Recipe()


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"got 'imagenet_v3'; did you mean 'imagenet_v[12]'\?"):
        of("imagenet_v3")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", r"must be a recipe as JSON; it cannot be read"),
        ("[" * 100_000, r"must be a recipe as JSON; it cannot be read"),
        ("[]", r"a recipe must be an object with fields"),
        ('{"train": {"lrr": 1}}', r"no field 'train.lrr'; .*did you mean 'lr'\?"),
        ('{"train": {"lr": "fast"}}', r"train.lr must be a number; got 'fast'"),
        ('{"train": {"lr": -1}}', r"train.lr must be positive and finite; got -1.0"),
        ('{"train": {"lr": NaN}}', r"it must hold finite numbers; got NaN"),
        ("[" * 10**5, r"it is nested too deeply"),
        ('{"train": {"lr": 1%s}}' % ("0" * 400), r"whole numbers of at most 64 bits"),
    ],
)
def test_a_json_file_that_makes_no_recipe_names_itself_and_the_field(text, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        of(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["mine.json", "mine.py", "folder.json", "folder.py"])
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match=name):
        of(tmp_path / name)


def test_a_json_file_of_bytes_that_are_no_text_is_refused(tmp_path):
    (tmp_path / "mine.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="cannot be read"):
        of(tmp_path / "mine.json")


def test_a_python_file_makes_a_recipe_of_the_network(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from effnet.training.recipe.published import imagenet_v1\n"
        "def recipe(spec):\n"
        "    return dataclasses.replace(imagenet_v1(spec), name=f'for {spec.name}')\n"
    )
    assert of(path, "b5").name == "for b5"
    assert of(path, "b5").model.dropout == 0.4
    assert list(tmp_path.iterdir()) == [path]  # no bytecode is written next to it


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "def recipe(spec):\n    x = 1\n    return x / 0\n",
            r"ZeroDivisionError in line 3: division by zero",
        ),
        ("import nothing_of_this_name\n", r"it raised ModuleNotFoundError in line 1: No module named"),
        ("def recipe(:\n", r"it raised SyntaxError"),
        ("x = 1\n", r"it raised AttributeError: .*'recipe'"),
        ("recipe = 3\n", r"it raised TypeError"),
        ("def recipe(spec):\n    return {}\n", r"must return an effnet.Recipe; it returned \{\}"),
        ("def recipe():\n    pass\n", r"it raised TypeError"),
        (
            "import effnet\nfrom effnet.training.recipe.schema import Train\n"
            "def recipe(spec):\n    return effnet.Recipe(train=Train(lr=-1))\n",
            r"it raised InputError in line 4: train.lr must be positive",
        ),
    ],
)
def test_a_python_file_that_makes_no_recipe_says_why(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        of(path)
    assert str(path) in str(caught.value)
