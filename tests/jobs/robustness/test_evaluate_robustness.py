"""evaluate with corruptions and attacks on a real bundle: figures recomputed, both precisions, pages, refusals."""

import json

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.data.corruptions.kinds import corrupt
from effnet.data.datasets import Split, read_dataset
from effnet.errors import InputError
from effnet.measurement.classification import calibration


@pytest.fixture(scope="module")
def split():
    test = read_dataset("digits", seed=0).test
    return Split(sources=test.sources[:60], labels=test.labels[:60])


@pytest.fixture(scope="module")
def both(small_bundle, tmp_path_factory):
    """A copy of the small bundle with an int8 file beside its fp32 one."""
    import shutil

    folder = shutil.copytree(
        small_bundle, tmp_path_factory.mktemp("both") / "bundle", ignore=shutil.ignore_patterns("run")
    )
    if not (folder / "model.int8.onnx").exists():
        effnet.export(folder, to="onnx-int8", data="digits", max_drop=1.0)
    return folder


def test_figures_are_those_of_the_corrupted_images_recomputed(both, split):
    model = effnet.load(both)
    found = effnet.evaluate(model, split, corruptions=True, severity=4)
    assert found.formats == ("onnx", "onnx-int8")
    assert len(found.kinds) == 10
    assert len(found.conditions) == 2 * 11
    for name in found.formats:
        one = effnet.load(both, format=name)
        rows = one.outputs(
            np.stack([one.prepare(corrupt(np.asarray(image), "contrast", 4)) for image in split.sources])
        )
        row = found.of(name, "contrast", 4)
        assert row.accuracy == pytest.approx((rows.argmax(1) == split.labels).mean())
        assert row.ece == pytest.approx(calibration.expected_calibration_error(rows, split.labels), abs=1e-6)
        assert row.interval[0] < row.accuracy < row.interval[1]
        assert row.ece_interval[0] < row.ece_interval[1]
    clean = effnet.evaluate(effnet.load(both, format="onnx"), split)
    assert found.of("onnx", "clean", 0).accuracy == clean.accuracy
    corrupted = [c.accuracy for c in found.conditions if c.kind != "clean" and c.format == "onnx"]
    assert found.means[0].accuracy == pytest.approx(np.mean(corrupted))
    assert found.means[0].interval[0] <= found.means[0].accuracy <= found.means[0].interval[1]
    assert found.gap.clean == pytest.approx(found.of("onnx-int8", "clean", 0).accuracy - clean.accuracy)
    assert effnet.evaluate(effnet.load(both), split, corruptions=True, severity=4) == found


def test_attacks_cost_more_the_larger_they_are_and_the_file_gets_the_same_images(small_bundle, split):
    split = Split(sources=split.sources[:30], labels=split.labels[:30])
    found = effnet.evaluate(effnet.load(small_bundle, format="onnx"), split, adversarial=48)
    clean = found.of("network", "", 0).accuracy
    assert clean == found.of("onnx", "", 0).accuracy
    line = [found.of("network", "pgd", eps).accuracy for eps in (1, 8, 48)]
    assert clean >= line[0] >= line[1] >= line[2]
    assert line[2] < clean - 0.3
    assert found.of("network", "pgd", 48).accuracy <= found.of("network", "fgsm", 48).accuracy
    # The file computes what the network does, so that attacks on one are attacks on the other.
    assert abs(found.of("onnx", "pgd", 48).accuracy - line[2]) <= 1 / 30


@pytest.fixture(scope="module")
def folder(split, tmp_path_factory):
    """The first twenty of these digits as files, in a folder of each class."""
    root = tmp_path_factory.mktemp("files") / "few"
    for index in range(20):
        (root / str(split.labels[index])).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(split.sources[index])[..., 0]).save(root / str(split.labels[index]) / f"{index}.png")
    return root


def test_the_command_prints_and_draws(run_cli, small_bundle, folder, tmp_path):
    page = tmp_path / "page.html"
    ran = run_cli("evaluate", small_bundle, folder, "--corruptions", "--severity", 3, "--out", page, "--use", "onnx")
    assert ran.code == 0, ran.err
    assert "motion blur" in ran.out
    assert "mean corrupted" in ran.out
    text = page.read_text()
    assert "<svg" in text
    assert "motion blur" in text
    ran = run_cli("evaluate", small_bundle, folder, "--adversarial", 1, "--format", "json", "--use", "onnx")
    assert {row["method"] for row in json.loads(ran.out)["rows"]} == {"", "fgsm", "pgd"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--severity", "3"], "severity is that of corruptions"),
        (["--corruptions", "--adversarial", "4"], "give one of them at a time"),
        (["--out", "page.html"], "--out is the page of --corruptions"),
        (["--corruptions", "--out", "page.txt"], "ends in .html"),
        (["--corruptions", "--unknown-from", "."], "unknown_from is measured on images as they are"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run_cli, small_bundle, words, message):
    ran = run_cli("evaluate", small_bundle, "digits", *words)
    assert ran.code == 2
    assert message in ran.err


def test_other_tasks_and_sizes_are_refused(small_bundle, split):
    model = effnet.load(small_bundle)
    with pytest.raises(InputError, match="from 1 to 64; got"):
        effnet.evaluate(model, split, adversarial=0.5)
    with pytest.raises(InputError, match="from 1 to 5; got 9"):
        effnet.evaluate(model, split, corruptions=True, severity=9)
