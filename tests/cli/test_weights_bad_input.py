"""fit --weights on the command line with weights that cannot be used: one line, exit code 2, nothing written."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
import torch
from messages import refused
from procedures import UNTIMED

pytestmark = pytest.mark.usefixtures("one_thread")

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture
def refusal(run_cli, photos, tmp_path, monkeypatch):
    """Return a function that fits the photos with some words and returns the line of the refusal."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        before = sorted(tmp_path.iterdir())
        words = ("fit", photos, "--minutes", 0.1, *words, "--out", tmp_path / "out")
        message = refused(run_cli(*words, procedure=UNTIMED))
        assert sorted(tmp_path.iterdir()) == before
        return message

    return run


@pytest.fixture
def rewritten(lite0_file, tmp_path):
    """Return a function that changes the arrays of Lite0's file, and returns the path of the new one."""

    def rewrite(change):
        arrays = safetensors.numpy.load_file(lite0_file)
        change(arrays)
        path = tmp_path / f"{LITE0}.safetensors"
        safetensors.numpy.save_file(arrays, path)
        return path

    return rewrite


def test_another_network_than_the_one_that_is_named(refusal, lite0_file):
    message = refusal("--weights", lite0_file, "--set", "fit.model=" + "tf_efficientnet_b0")
    assert message == (
        f"{LITE0}.safetensors does not hold tf_efficientnet_b0: blocks.0.0.se.conv_reduce.weight is missing, "
        "blocks.0.0.se.conv_reduce.bias is missing, blocks.0.0.se.conv_expand.weight is missing and 61 more; its "
        "shapes are those of lite0"
    )
    assert "unknown network 'tf_efficientnet_lite9'" in refusal(
        "--weights", lite0_file, "--set", "fit.model=" + LITE0[:-1] + "9"
    )


@pytest.mark.parametrize(
    "change, difference",
    [
        (lambda arrays: arrays.pop("blocks.1.0.conv_pw.weight"), "blocks.1.0.conv_pw.weight is missing"),
        (
            lambda arrays: arrays.update({"blocks.1.0.adapter": np.ones(3, np.float32)}),
            "blocks.1.0.adapter is unknown",
        ),
        (
            lambda arrays: arrays.update({"conv_head.weight": np.ones((640, 320, 1, 1), np.float32)}),
            "conv_head.weight must have shape (1280, 320, 1, 1) and has (640, 320, 1, 1)",
        ),
    ],
)
def test_keys_and_shapes_that_differ_are_named_with_what_was_expected(change, difference, refusal, rewritten):
    path = rewritten(change)
    message = refusal("--weights", path)
    assert message.startswith(f"{path.name} must hold a network that effnet knows: ")
    assert message.endswith(f" (against lite0: {difference})")
    assert "; get the file again, or name another" in message or "; pass the one it was pruned from" in message
    key = "bn2.weight" if "conv_head" in difference else difference.partition(" ")[0]
    assert f"{path.name} does not hold {LITE0}: {key} " in refusal("--weights", path, "--set", f"fit.model={LITE0}")


def test_numbers_that_are_not_finite_are_counted(refusal, rewritten):
    def spoil(arrays):
        arrays["conv_stem.weight"][0, 0, 0, :2] = np.nan, np.inf

    path = rewritten(spoil)
    assert refusal("--weights", path).startswith(
        f"{path}: conv_stem.weight must hold finite numbers; 2 of 864 are NaN or infinite; get the file again"
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (lambda whole: whole[:-1000], r" is not a complete safetensors file \(.+\); get it again"),
        (lambda whole: b"", r" must be a file of weights \(\.safetensors, .+\); it is empty; get it again"),
        (lambda whole: b"<!DOCTYPE html>", r" must be a file of weights .*; it is a web page, .*; look at the page"),
    ],
)
def test_a_file_that_was_cut_off_or_is_none_of_weights(content, message, refusal, lite0_file, tmp_path):
    path = tmp_path / f"{LITE0}.safetensors"
    path.write_bytes(content(lite0_file.read_bytes()))
    assert re.match(re.escape(str(path)) + message, refusal("--weights", path))


def test_a_file_that_bears_a_published_name_must_have_the_published_hash(refusal, lite0_file, tmp_path):
    path = shutil.copy(lite0_file, tmp_path / f"{LITE0}-0aa007d2.pth")
    message = refusal("--weights", path)
    assert message.startswith(
        f"{LITE0}-0aa007d2.pth is not the published file of timm/{LITE0}.in1k: expected sha256:0aa007d2, found sha256:"
    )
    assert message.endswith("; get it again or, if it is your own, rename it")


class Program:
    """Code that an unsafe unpickler would run: it creates a folder in the current one."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "write",
    [lambda path: torch.save({"state_dict": Program()}, path), lambda path: path.write_bytes(pickle.dumps(Program()))],
)
def test_a_pickle_with_a_program_is_not_run(write, refusal, tmp_path):
    path = tmp_path / "weights.pth"
    write(path)
    message = refusal("--weights", path)  # which checks that there is no new folder
    assert message.startswith(f"{path} must hold tensors and nothing else; this pickle ")
    assert "a pickle can run any program, so it is not opened; if you trust it, load it yourself" in message


def damage(bundle, change):
    path = bundle / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def test_a_bundle_whose_classes_are_not_as_many_as_its_outputs(refusal, bundle_copy):
    damage(bundle_copy, lambda config: config["class_names"].pop())
    assert refusal("--weights", bundle_copy) == (
        f"{bundle_copy / 'config.json'}: a model with 10 outputs needs as many class names; got 9: name each output, "
        "in their order"
    )


def test_a_bundle_of_other_weights_or_none(refusal, bundle_copy):
    def widen(config):
        config["class_names"].append("eleven")
        config["arch"]["num_classes"] = 11
        config["outputs"][0]["shape"] = [11]

    damage(bundle_copy, widen)
    message = refusal("--weights", bundle_copy)
    assert f"{bundle_copy / 'model.safetensors'}: classifier.weight must have shape (11, " in message
    (bundle_copy / "model.safetensors").unlink()
    message = refusal("--weights", bundle_copy)
    assert (
        message
        == f"a bundle must contain model.safetensors; {bundle_copy} has none: copy it there, or name another bundle"
    )


def test_a_bundle_for_grey_images_does_not_see_colours(refusal, small_bundle):
    assert refusal("--weights", small_bundle) == (
        f"weights must read 3 channels, or as many as the images have, 3; {small_bundle} reads 1: give --set "
        "fit.channels=1, or other weights"
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--weights", "none", "--set", "fit.strategy=finetune"],
            "the strategy finetune needs pretrained weights, but --weights is none; name some, or leave "
            "fit.strategy out",
        ),
        (
            ["--weights", "lite0", "--set", "fit.strategy=scratch"],
            "training from scratch uses no weights, but --weights is lite0; give one of the two",
        ),
        (
            ["--set", "fit.strategy=heads"],
            "the strategy must be one of auto, head, finetune, scratch; got 'heads'; did you mean 'head'?",
        ),
        (
            ["--set", "fit.model=b0"],
            "fit.model names the network of a --weights FILE, but --weights is auto; leave it out, or train this "
            "one network with: effnet train DATA --model b0",
        ),
        (
            ["--weights", "torchvision/resnet18.IMAGENET1K_V1", "--set", "fit.model=b0"],
            "fit.model names the network of a --weights FILE, but --weights is torchvision/resnet18.IMAGENET1K_V1; "
            "leave it out, or train this one network with: effnet train DATA --model b0",
        ),
        (["--set", "fit.coverage=0.9", "--set", "fit.max_error=0.1"], "give coverage or max_error, not both"),
        (["--set", "fit.coverage=95"], "coverage must be a share above 0 and at most 1, such as 0.95; got 95.0"),
        (
            ["--set", "fit.strategy=head", "--minutes", 1, "--epochs", 1],
            "give --epochs or --minutes, not both",
        ),
        (["--set", "fit.unknown_from=absent"], "unknown images must be in a folder; absent is not a folder"),
    ],
)
def test_options_that_contradict_each_other(words, message, refusal):
    assert refusal(*words) == message


@pytest.mark.parametrize("strategy", ["head", "finetune"])
def test_a_strategy_that_needs_weights_does_not_train_from_scratch_where_there_are_none(strategy, refusal):
    assert refusal("--set", f"fit.strategy={strategy}").startswith("no pretrained weights are available, neither in ")


@pytest.mark.parametrize(
    "weights, message",
    [
        (
            "tf_efficientnet_lit0.in1k",
            rf"no published weights are named 'tf_efficientnet_lit0\.in1k'; did you mean '{LITE0}\.in1k'\? \(`effnet m",
        ),
        (
            "timm/mobilenetv3",
            r"no published weights are named 'timm/mobilenetv3'.* \(`effnet models list` lists them\)",
        ),
        (
            "gone.safetensors",
            r"there must be a file of weights at gone\.safetensors; none is there, .*; correct the path",
        ),
        ("models/gone", r"there must be a file of weights at models/gone; none is there, nor is a bundle; correct"),
        (".", r"\. is a folder; as weights it must hold one TensorFlow checkpoint .* name the file of weights itself"),
        ("", r"weights must be an id of `effnet models list`, a file or a bundle; the text is empty"),
        (
            "tf_efficientnet_cc_b0_4e.in1k",
            r"effnet cannot build timm/.*: its convolutions are conditional \(CondConv\)",
        ),
        (
            "efficientnet_b7.untrained",
            r"effnet cannot build timm/efficientnet_b7\.untrained: no weights were published",
        ),
        ("lite0", rf"timm/{LITE0}\.in1k is not downloaded yet, .*; looked in .*; to use a file from elsewhere: effnet"),
    ],
)
def test_weights_that_there_are_not(weights, message, refusal):
    assert re.match(message, refusal("--weights", weights))


def test_what_cannot_be_meant_is_said_before_the_images_are_read(run_cli, photos, tmp_path):
    ran = run_cli("fit", photos, "--weights", "gone.safetensors", "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")


@pytest.fixture
def online(monkeypatch):
    """Allow downloads, which then fail before any request."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("http.client.HTTPConnection.connect", lambda *_: pytest.fail("it asked"))


@pytest.mark.usefixtures("online")
def test_a_cache_that_cannot_be_made_is_named(refusal, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "file" / "cache"))
    message = refusal("--weights", "torchvision/resnet18.IMAGENET1K_V1")
    assert message.startswith(f"the cache folder {tmp_path / 'file' / 'cache'}")
    assert message.endswith("cannot be written to (Not a directory); set EFFNET_CACHE to another one")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.usefixtures("online")
def test_a_cache_that_is_read_only_is_named(refusal, monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    message = refusal("--weights", "torchvision/resnet18.IMAGENET1K_V1")
    assert message.endswith("cannot be written to (Permission denied); set EFFNET_CACHE to another one")
