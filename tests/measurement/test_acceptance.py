"""The accuracy on labelled images decides whether a reduced-precision file is written, for every precision."""

import dataclasses

import numpy as np
import pytest
from bundles import make_bundle

import effnet
from effnet.bundle.config import read_config, write_config
from effnet.errors import BudgetError, InputError
from effnet.measurement.answers import right_answers
from effnet.runtimes.ledger import read_ledger
from effnet.runtimes.predictor import Predictor
from effnet.weights.labels import choose_images

pytestmark = pytest.mark.usefixtures("one_thread")

FP16 = ["onnx-fp16", "openvino-fp16"]


@pytest.fixture
def sharp(tmp_path):
    """A bundle with confident predictions: fp16 rounding of its logits is fifty times as large in the probabilities."""
    bundle = make_bundle(tmp_path / "bundle")
    write_config(dataclasses.replace(read_config(bundle), temperature=0.02), bundle)
    return bundle


def names(bundle):
    return sorted(path.name for path in bundle.iterdir())


def scripted(monkeypatch, *, lost):
    """Make fp32 right on every image, other precisions on all but `lost`; return formats and numbers of images."""
    asked = []

    def answer(predictor, split, *, progress=None):
        asked.append((predictor.format.name, len(split)))
        return np.arange(len(split)) >= (0 if predictor.format.precision == "fp32" else lost)

    monkeypatch.setattr("effnet.measurement.acceptance.right_answers", answer)
    return asked


def test_rounding_that_costs_no_accuracy_is_shipped_and_never_called_a_bug(sharp):
    found = effnet.export(sharp, to=FP16, data="digits")
    for name in FP16:
        assert found[name].check.max_difference > 0.02  # far above the difference that was once refused as a bug
        assert (found[name].judged.images, found[name].judged.drop) == (269, 0)
        assert (read_ledger(sharp)[name].judged, read_ledger(sharp)[name].drop) == (269, 0)
    split = choose_images("digits", folder=sharp, config=read_config(sharp), part="val").split
    expected = effnet.export(sharp, to=["onnx"]) and right_answers(Predictor(sharp, format="onnx"), split)
    np.testing.assert_array_equal(right_answers(Predictor(sharp, format="onnx-fp16"), split), expected)


def test_without_data_nothing_judges_and_it_is_said(sharp, run_cli):
    ran = run_cli("export", sharp, "--to", ",".join(["onnx", *FP16]))
    assert (ran.code, ran.err) == (0, "")
    first, *others = ran.out.splitlines()
    assert "not measured" not in first
    assert all(line.endswith("random images; accuracy not measured: give --data") for line in others)
    assert read_ledger(sharp)["onnx-fp16"].drop is None


@pytest.mark.parametrize("name", ["onnx-fp16", "onnx-w8", "onnx-int8"])
def test_what_loses_more_than_it_may_is_refused_and_leaves_nothing(name, sharp, monkeypatch, run_cli):
    asked, before = scripted(monkeypatch, lost=3), names(sharp)
    ran = run_cli("export", sharp, "--to", name, "--data", "digits", "--set", "images=8")
    assert (ran.code, ran.out) == (3, "")
    assert f"{name} loses 1.12 percentage points: of 269 images 3 became wrong and 0 right" in ran.err
    assert "more than the allowed 0.5 percentage points" in ran.err
    assert "--max-drop" in ran.err
    assert names(sharp) == before
    assert asked == [("onnx", 269), (name, 269)]
    ran = run_cli("export", sharp, "--to", name, "--data", "digits", "--set", "images=8", "--max-drop", 1.2)
    assert "; accuracy drop against fp32 +1.12 pp on 269 labelled images" in ran.out
    assert read_ledger(sharp)[name].drop == pytest.approx(3 / 269)


def test_32_bits_answer_once_for_all_formats_and_are_not_judged(sharp, monkeypatch):
    asked = scripted(monkeypatch, lost=0)
    found = effnet.export(sharp, to=["onnx", "onnx-fp16", "onnx-w8"], data="digits")
    assert asked == [("onnx", 269), ("onnx-fp16", 269), ("onnx-w8", 269)]
    assert found["onnx"].judged is None


def test_one_format_of_several_is_refused(sharp, monkeypatch):
    scripted(monkeypatch, lost=9)
    with pytest.raises(BudgetError, match=r"onnx-fp16 loses 3\.35 percentage points"):
        effnet.export(sharp, to=["onnx-fp16", "onnx"], data="digits")
    assert set(read_ledger(sharp)) == {"onnx"}


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "0.5", None])
def test_a_share_that_is_none_is_refused(value, sharp):
    with pytest.raises(InputError, match="max_drop must be a share of the images from 0 to 1"):
        effnet.export(sharp, to="onnx-fp16", max_drop=value)
