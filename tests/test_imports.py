"""Imports of each command: the device side needs neither torch nor the other training packages."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from bundles import make_bundle
from in_images import untrained_bundle
from PIL import Image

import effnet

WORKSHOP = (
    "torch", "onnx", "safetensors", "sklearn", "scipy", "tensorboard", "matplotlib", "jinja2", "huggingface_hub",
)  # fmt: skip

# Python runs this before anything else, in child processes as well.
_TRAP = f"""
import sys

class Trap:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WORKSHOP}:
            print("imported", name, file=sys.stderr)
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Trap())
"""


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.fixture
def run_on_device(tmp_path):
    """Return a runner of `effnet WORDS...` in which importing a training package fails with a message."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "sitecustomize.py").write_text(_TRAP)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "trap")}

    def run(*words, program=("-m", "effnet")):
        command = [sys.executable, *program, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    return run


# Runs command lines, a JSON list each, one after the other in one process.
_ALL = """
import json, sys
from effnet.cli.main import main

for line in sys.argv[1:]:
    sys.argv = ["effnet", *json.loads(line)]
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, line
"""


def run_all(run_on_device, *lines):
    return run_on_device(*(json.dumps([str(word) for word in words]) for words in lines), program=("-c", _ALL))


def test_networks_as_data_need_no_workshop_package(run_on_device):
    done = run_all(
        run_on_device,
        ["--help"],
        ["fit", "--help"],
        ["models", "show", "b0"],
        ["models", "cost", "v2_s"],
        ["models", "scale", "b0", "--phi", "-2"],
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_networks_and_published_weights_are_listed_without_the_workshop(run_on_device):
    done = run_on_device("models", "list", "--family", "lite")
    assert done.returncode == 0
    assert "timm/tf_efficientnet_lite0.in1k" in done.stdout
    # Only to look into the hub's cache, which is empty without its client.
    assert set(done.stderr.split()) <= {"imported", "huggingface_hub"}


def test_a_bundle_needs_no_workshop_package(run_on_device, small_bundle, image):
    done = run_all(
        run_on_device,
        ["predict", small_bundle, image],
        ["bench", small_bundle, "--batch", 1],
        ["models", "cost", small_bundle],
        ["models", "show", small_bundle],
        ["runs", "list", small_bundle],
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sound_is_predicted_without_a_workshop_package(run_on_device, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    bundle = make_bundle(tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    config["preprocess"] |= {"sound": {"seconds": 0.5}, "value_range": {"low": -80, "high": 10}}
    (bundle / "config.json").write_text(json.dumps(config))
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(20_000) / 5), 44_100)
    done = run_on_device("predict", bundle, tmp_path / "tone.wav")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tone.wav" in done.stdout


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_objects_and_masks_are_found_and_drawn_without_a_workshop_package(run_on_device, image, tmp_path, task):
    bundle = untrained_bundle(tmp_path / "bundle", task)
    done = run_on_device("predict", bundle, image, "--draw", tmp_path / "drawn", "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "drawn").iterdir())) == 1


def test_explaining_needs_no_workshop_package(run_on_device, bundle_copy, image, tmp_path):
    effnet.export(bundle_copy, maps=True)
    done = run_on_device("explain", bundle_copy, image, "--out", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "page.html").is_file()


def test_corruptions_and_drift_need_no_workshop_package(run_on_device, small_bundle, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        (tmp_path / "few" / str(number)).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "few" / str(number) / "a.png")
    done = run_on_device("evaluate", small_bundle, tmp_path / "few", "--corruptions", "--severity", "5")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_on_device("monitor", small_bundle, tmp_path / "few", "--out", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "page.html").is_file()


def test_looking_at_images_needs_no_workshop_package(run_on_device, tiny_images):
    done = run_on_device("data", "inspect", tiny_images)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", [["fit", "digits"], ["train", "digits"], ["export"], ["evaluate"]])
def test_a_verb_of_the_workshop_says_how_to_install_it(verb, run_on_device, small_bundle, tmp_path):
    words = {"export": [small_bundle], "evaluate": [small_bundle, "digits"]}.get(verb[0], ["--out", tmp_path / "out"])
    done = run_on_device(*verb, *words)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("effnet: this needs ")
    assert last.endswith(', which is not installed; install it with: pip install "effnet[train]"')
    assert "Traceback" not in done.stderr


def test_every_exported_name_resolves():
    for name in effnet.__all__:
        assert getattr(effnet, name) is not None
    assert effnet.__dir__() == sorted(effnet.__all__)
    assert len(set(effnet.__all__)) == len(effnet.__all__)


def test_the_exported_names_are_the_public_api():
    assert set(effnet.__all__) == {
        "Run", "runs", "Comparison", "compare",
        "NAMES", "get_spec", "published", "ArchSpec", "BlockSpec", "Lineage", "stage", "describe",
        "spec_from_dict", "spec_to_dict", "cost", "Cost", "scale", "solve_phi",
        "read_dataset", "inspect", "Preprocess",
        "fit", "train", "Recipe", "FitResult", "build", "export", "load_module",
        "pull", "import_checkpoint", "Imported", "load_pretrained", "Pretrained",
        "load", "Predictor", "evaluate", "explain", "monitor", "time_model",
        "prune", "PruneResult", "search", "SearchResult", "quantize", "QuantizeResult",
        "align", "AlignResult", "zeroshot", "ZeroshotResult", "find", "Found",
        "audit", "Audit", "suggest", "Suggestions", "pretrain", "PretrainResult",
        "bench", "Bench", "profile", "DeviceProfile", "shard",
        "create_model", "load_state_dict", "transforms", "Dataset", "from_pretrained", "push_to_hub", "save",
    }  # fmt: skip


def test_exported_names_have_docstrings():
    for name in set(effnet.__all__) - {"NAMES"}:
        assert getattr(effnet, name).__doc__, name


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'effnet' has no attribute 'trian'"):
        _ = effnet.trian


def imported_by(*words):
    """Return the names of all modules that `effnet WORDS...` imports."""
    command = [sys.executable, "-X", "importtime", "-m", "effnet", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


# The options of the jobs, which the command line is made of.
OPTIONS = {
    f"effnet.jobs{name}"
    for name in (
        "",
        ".align",
        ".align.config",
        ".fit",
        ".fit.config",
        ".pretrain",
        ".pretrain.config",
        ".search",
        ".search.config",
        ".prune",
        ".prune.config",
        ".quantize",
        ".quantize.config",
    )
}


def in_rooms(loaded, room):
    """Return the modules of a package among those that were loaded."""
    return {name for name in loaded if f"{name}.".startswith(f"{room}.")}


def test_help_loads_nothing_that_takes_long():
    """`benchmarks.cold_help` measures its time."""
    loaded = imported_by("--help")
    assert "effnet.cli.main" in loaded
    slow = {"numpy", "PIL", "onnxruntime", "rich", "scipy", "optuna", "multiprocessing", *WORKSHOP}
    assert not loaded & slow
    assert {name.split(".")[1] for name in loaded if name.startswith("effnet.")} <= {
        "arch", "bundle", "cli", "errors", "jobs", "progress", "runtimes", "serving", "system", "watching",
    }  # fmt: skip
    assert in_rooms(loaded, "effnet.jobs") <= OPTIONS
    for room in ("effnet.serving", "effnet.watching"):
        assert in_rooms(loaded, room) == {room, f"{room}.settings"}
    # Of the runtimes only their records.
    assert {name.split(".")[2:] == ["engine"] for name in loaded if name.startswith("effnet.runtimes.")} == {False}


def test_one_image_is_predicted_with_little_loaded(small_bundle, image):
    """`benchmarks.cold_predict` measures its time."""
    loaded = imported_by("predict", small_bundle, image)
    assert {"numpy", "PIL.Image", "onnxruntime"} <= loaded
    assert in_rooms(loaded, "effnet.jobs") <= OPTIONS
    for room in ("report", "planner", "training", "nn", "compression"):
        assert not in_rooms(loaded, f"effnet.{room}")
    assert not loaded & {"scipy", "optuna", *WORKSHOP}
