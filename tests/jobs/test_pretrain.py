"""pretrain: a bundle without a head that fit takes, the probe that judges it, and resumed runs."""

import json
import shutil

import numpy as np
import procedures
import pytest
import safetensors.numpy
import torch
from pretrained_runs import striped

import effnet
from effnet.bundle.config import read_config
from effnet.errors import InputError
from effnet.jobs.pretrain import job as job_module
from effnet.jobs.pretrain.job import _Judged
from effnet.measurement.paired import Paired
from effnet.planner.events import Said
from effnet.weights.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return striped(tmp_path_factory.mktemp("images"), 40, seed=3, classes=False)


def weights(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def run(images, out, **options):
    said = []
    options = {"epochs": 2, "listener": said.append, "settings": {"train.batch_size": 8}} | options
    result = effnet.pretrain(images, out=out, **options)
    return result, [event.text for event in said if isinstance(event, Said)]


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_a_backbone_is_trained_without_labels(method, images, small_bundle, tmp_path):
    result, said = run(images, tmp_path / "out", method=method, weights=small_bundle)
    config = read_config(tmp_path / "out")
    assert (config.arch.num_classes, config.class_names) == (0, ())
    before, after = load_pretrained(str(small_bundle)).state, weights(tmp_path / "out")
    assert set(after) == {name for name in before if not name.startswith("classifier.")}
    assert any(not np.array_equal(before[name], after[name]) for name in after)
    assert result.kept is None
    assert "Nothing judged the weights" in said[-1]
    assert len(result.losses) == 2
    record = json.loads((tmp_path / "out" / "pretrain.json").read_text())
    assert record["recipe"]["train"]["last_counts"]
    assert np.isfinite(record["losses"]).all()
    assert load_pretrained(str(tmp_path / "out")).class_names == ()


def test_fit_begins_with_the_bundle(images, stripes, small_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    run(images, tmp_path / "out", weights=small_bundle)
    found = procedures.fit(stripes, weights=tmp_path / "out", strategy="head", out=tmp_path / "fit")
    assert found.report.training.head.weights == str(tmp_path / "out")
    own, begun = weights(tmp_path / "fit"), weights(tmp_path / "out")
    assert all(np.array_equal(own[name], begun[name]) for name in begun)


def test_a_larger_teacher_is_distilled(images, lite0_file, small_bundle, tmp_path):
    """The teacher must take as many channels: it is the network of the digits, trained differently."""
    teacher, _ = run(images, tmp_path / "teacher", weights=small_bundle)
    result, _ = run(images, tmp_path / "out", weights=small_bundle, teacher=teacher.folder, queued=32, seed=5)
    assert result.losses[-1] < result.losses[0]
    assert "distilled" in read_config(tmp_path / "out").origin.source
    with pytest.raises(InputError, match="--teacher must take as many channels as the network, 1; it takes 3"):
        run(images, tmp_path / "other", weights=small_bundle, teacher=lite0_file)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_an_interrupted_run_gives_the_same_weights(method, images, small_bundle, tmp_path):
    procedure = procedures.made_up(checkpoint_seconds=0.0)
    options = {"method": method, "weights": small_bundle, "procedure": procedure}
    torch.manual_seed(17)  # nothing may depend on what the process did before
    run(images, tmp_path / "whole", **options)
    count = []

    def stop(event):
        count.append(type(event).__name__)
        if count.count("Step") == 7:
            raise Stopped

    with pytest.raises(Stopped):
        run(images, tmp_path / "out", listener=stop, **options)
    with pytest.raises(InputError, match=r"--resume must repeat the options and images .*; changed: --seed"):
        run(images, tmp_path / "out", resume=True, seed=1, **options)
    with pytest.raises(InputError, match="add --resume to continue"):
        run(images, tmp_path / "out", **options)
    run(images, tmp_path / "out", resume=True, **options)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("better", [True, False])
def test_a_probe_decides_which_weights_are_kept(better, images, small_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    labelled = striped(tmp_path / "labelled", 60, seed=8, classes=True)
    shutil.copytree(images, tmp_path / "images")
    shutil.copy(labelled / "rows" / "001.png", tmp_path / "images" / "copy.png")
    judged = job_module._judged
    real = {}

    def verdict(*args):
        real["found"] = judged(*args)
        return _Judged(before=0.5, after=0.6, paired=Paired(images=9, lost=1, gained=2 if better else 1))

    monkeypatch.setattr(job_module, "_judged", verdict)
    result, said = run(tmp_path / "images", tmp_path / "out", weights=small_bundle, probe=str(labelled), epochs=1)
    assert result.kept is better
    assert f"the new weights are {'better' if better else 'not better'}" in said[-1]
    assert any("1 images in" in line and "copies of labelled ones" in line for line in said)
    before, after = load_pretrained(str(small_bundle)).state, weights(tmp_path / "out")
    same = all(np.array_equal(before[name], after[name]) for name in after)
    assert same is not better
    assert 1 / 3 < real["found"].before <= 1
    assert real["found"].paired.images == 9


def test_what_cannot_be_trained_is_refused(images, small_bundle, tmp_path):
    def refused(match, folder=images, **options):
        with pytest.raises(InputError, match=match):
            run(folder, tmp_path / "out", **options)
        assert not (tmp_path / "out" / "config.json").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)

    few = striped(tmp_path / "few", 5, seed=0, classes=False)
    refused("pretrain needs at least 8 images; there are 5", folder=few, weights=small_bundle)
    refused("must be a folder of images", folder=tmp_path / "none", weights=small_bundle)
    labelled = striped(tmp_path / "labelled", 12, seed=8, classes=True)
    refused("^DIR must hold images other than", folder=labelled, weights=small_bundle, probe=str(labelled))
    refused("pretrain needs --weights, or a network", weights="none")
    refused("give --epochs or --minutes", weights=small_bundle, minutes=1)
    refused("method must be simclr or byol; got 'moco'", weights=small_bundle, method="moco")
    refused(r"pretraining has no augment\.mixup", weights=small_bundle, settings={"augment.mixup": 0.2})
    refused(r"pretrain\.min_area must lie in", weights=small_bundle, min_area=2.0)
