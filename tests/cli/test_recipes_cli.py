"""recipes, and train --recipe, on the command line."""

import json
import shlex

import pytest
import safetensors.numpy
from messages import refused

from effnet import scale
from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_to_dict
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.nn.network import build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A file of a network that trains quickly."""
    path = tmp_path_factory.mktemp("specs") / "tiny.json"
    path.write_text(json.dumps(spec_to_dict(scale(get_spec("b0"), phi=-20, resolution=8))))
    return path


def weights(out):
    return safetensors.numpy.load_file(out / "model.safetensors")


def equal(first, second):
    return all((array == second[name]).all() for name, array in first.items())


def test_recipes_are_listed_with_a_line_each(run_cli):
    ran = run_cli("recipes")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "small_data", "robust", "cifar10", "imagenet_v1", "imagenet_v2", "imagenet_timm_ra", "noisy_student", "advprop",
    ]  # fmt: skip
    assert lines[3].endswith("RMSProp as in TensorFlow, AutoAugment, 350 epochs in batches of 2048.")


def test_a_recipe_is_printed_for_a_network_and_read_again(run_cli, tmp_path):
    ran = run_cli("recipes", "imagenet_v1", "--model", "b7")
    data = json.loads(ran.out)
    assert (data["name"], data["model"]["dropout"], data["optimizer"]["name"]) == ("imagenet_v1", 0.5, "rmsprop_tf")
    path = tmp_path / "mine.json"
    path.write_text(ran.out)
    assert run_cli("recipes", path).out == ran.out


def test_recipes_need_no_torch(run_python):
    code = (
        "import sys; sys.argv = ['effnet', 'recipes', 'imagenet_v2']\n"
        "from effnet.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert run_python("-c", code).out.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--recipe", "imagenet_v9"], "did you mean 'imagenet_v2'?"),
        (["--recipe", "cifar10", "--set", "train.lrr=1"], "no field 'train.lrr'"),
        (["--recipe", "cifar10", "--set", "train.lr=fast"], "train.lr must be a number; got 'fast'"),
        (["--recipe", "cifar10", "--set", "train.lr=0"], "train.lr must be positive and finite; got 0.0"),
        (
            ["--recipe", "cifar10", "--set", "train.lr"],
            "--set must be FIELD=VALUE, such as train.lr=0.1; got",
        ),
        (["--set", "train.lr=-1"], "train.lr must be positive and finite; got -1.0"),
        (["--recipe", "cifar10", "--epochs", 0], "epochs must lie in 1..100000; got 0"),
        (["--recipe", "cifar10", "--set", "train.seed=4294967296"], "train.seed must be at most 4294967295"),
        (["--recipe", "cifar10", "--set", "loss.teacher=nobody"], "nobody"),
    ],
)
def test_what_is_no_recipe_is_refused_before_training(words, message, run_cli, tiny, tiny_images, tmp_path):
    ran = run_cli("train", tiny_images, "--model", tiny, *words, "--out", tmp_path / "out")
    assert message in refused(ran)
    assert not (tmp_path / "out").exists()


def save_teacher(folder, class_names):
    spec = scale(get_spec("b0", num_classes=len(class_names), in_channels=1), phi=-20, resolution=8)
    preprocess = Preprocess(resolution=8, mean=(0.5,), std=(0.5,))
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=class_names, versions={}, split_seed=0)
    save_bundle(folder, config, state_arrays(build(spec, seed=0)))
    return folder


def test_a_teacher_of_other_classes_is_refused_before_training(run_cli, tiny, tiny_images, tmp_path):
    teacher = save_teacher(tmp_path / "teacher", ("dark", "light"))
    words = ["--set", f"loss.teacher={teacher}", "--out", tmp_path / "out"]
    ran = run_cli("train", tiny_images, "--model", tiny, *words)
    assert "the classes of the teacher must be those of the data set" in refused(ran)
    assert not (tmp_path / "out").exists()


def test_a_run_writes_its_recipe_which_runs_it_again_to_the_same_weights(run_cli, tiny, tiny_images, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["train", tiny_images, "--model", tiny, "--resolution", 8]
    options = ["--recipe", "cifar10", "--set", "train.batch_size=8", "--set", "optimizer.name=lamb", "--epochs", 2]
    ran = run_cli(*words, *options, "--seed", 3, "--out", first)
    assert (ran.code, ran.err) == (0, "")
    recipe = json.loads((first / "run" / "recipe.json").read_text())
    assert recipe["name"] == "cifar10"
    assert (recipe["train"]["epochs"], recipe["train"]["batch_size"], recipe["train"]["seed"]) == (2, 8, 3)
    assert recipe["optimizer"]["name"] == "lamb"
    report = json.loads((first / "report.json").read_text())
    assert report["training"]["recipe"] == recipe

    assert run_cli(*words, "--recipe", first / "run" / "recipe.json", "--out", second).code == 0
    assert equal(weights(first), weights(second))
    assert json.loads((second / "run" / "recipe.json").read_text()) == recipe

    said = ["effnet", *words, "--recipe", "cifar10", "--epochs", 2, "--seed", 3, "--set", "train.batch_size=8"]
    assert report["command"] == shlex.join(map(str, [*said, "--set", 'optimizer.name="lamb"', "--out", first]))


def test_what_is_said_on_the_command_line_comes_before_the_recipe(run_cli, tiny, tiny_images, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import effnet\nfrom effnet.training.recipe.schema import Train\n"
        "def recipe(spec):\n    return effnet.Recipe(name='mine', train=Train(epochs=9, batch_size=16, seed=5))\n"
    )
    words = ["train", tiny_images, "--model", tiny, "--recipe", path, "--set", "train.epochs=7", "--epochs", 1]
    assert run_cli(*words, "--out", tmp_path / "out").code == 0
    recipe = json.loads((tmp_path / "out" / "run" / "recipe.json").read_text())
    assert (recipe["name"], recipe["train"]["epochs"], recipe["train"]["seed"]) == ("mine", 1, 5)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["split_seed"] == 5
    ran = run_cli(*words, "--set", "train.lr=0.5", "--out", tmp_path / "out", "--resume")
    message = refused(ran)
    assert "--resume must repeat the options of the fit" in message
    assert "recipe.train.lr was 0.003, now 0.5" in message
    assert "recipe was '" in refused(run_cli(*words[:4], "--epochs", 1, "--out", tmp_path / "out", "--resume"))
    assert run_cli(*words, "--out", tmp_path / "out", "--resume").code == 0


def test_fields_of_the_recipe_that_effnet_chooses_can_be_set_too(run_cli, tiny, tiny_images, tmp_path):
    words = ["train", tiny_images, "--model", tiny, "--set", "train.epochs=1", "--set", "model.norm_momentum=0.5"]
    assert run_cli(*words, "--out", tmp_path / "out").code == 0
    recipe = json.loads((tmp_path / "out" / "run" / "recipe.json").read_text())
    assert (recipe["train"]["epochs"], recipe["model"]["norm_momentum"], recipe["name"]) == (1, 0.5, "small_data")
    assert (recipe["train"]["batch_size"], recipe["augment"]["flip"]) == (32, True)  # as chosen for so few


def test_a_run_learns_from_a_teacher_of_another_resolution(run_cli, tiny, tiny_images, tmp_path):
    teacher = save_teacher(tmp_path / "teacher", ("dark", "light", "middle"))
    words = ["train", tiny_images, "--model", tiny, "--resolution", 16, "--epochs", 1]
    assert run_cli(*words, "--out", tmp_path / "alone").code == 0
    assert run_cli(*words, "--set", f"loss.teacher={teacher}", "--out", tmp_path / "taught").code == 0
    assert not equal(weights(tmp_path / "alone"), weights(tmp_path / "taught"))
