"""An export against the eager network: fp32 computes the same, reduced precision gives finite numbers."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from effnet.errors import BudgetError, BundleError, EffnetError
from effnet.measurement.verify import compare
from effnet.runtimes.registry import find_format
from effnet.tasks.classification import PROBABILITIES

IMAGES = np.zeros((4, 8, 8, 1), np.uint8)
EAGER = np.tile(np.float32([0.7, 0.3]), (4, 1))


class Answers:
    """A predictor with given outputs."""

    folder, config = "B", SimpleNamespace(file_outputs=(dataclasses.replace(PROBABILITIES, width=2),))

    def __init__(self, name, rows):
        self.format, self.rows = find_format(name), np.float32(rows)

    def outputs(self, images):
        return self.rows


@pytest.mark.parametrize("name", ["onnx-fp16", "openvino-fp16", "openvino-bf16", "onnx-w8", "litert-int8"])
def test_what_rounding_does_to_probabilities_is_told_and_not_judged(name):
    found = compare(EAGER, Answers(name, EAGER + np.float32([-0.1, 0.1])), IMAGES)
    assert (found.images, found.agreement) == (4, 1)
    assert found.max_difference == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["onnx", "openvino", "litert", "executorch"])
@pytest.mark.parametrize("change", [0.002, np.nan])
def test_a_file_of_32_bits_that_computes_something_else_is_a_bug(name, change):
    assert compare(EAGER, Answers(name, EAGER + 5e-4), IMAGES).max_difference == pytest.approx(5e-4, rel=0.01)
    with pytest.raises(EffnetError, match=r"differs by .* on 4 images\. This is a bug in effnet") as raised:
        compare(EAGER, Answers(name, EAGER + change), IMAGES)
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fewer_bits_that_give_no_numbers_are_refused_without_calling_it_a_bug(bad):
    rows = EAGER.copy()
    rows[1, 0] = bad
    with pytest.raises(BudgetError, match="onnx-fp16 must output finite numbers; it does not on 1 of 4") as raised:
        compare(EAGER, Answers("onnx-fp16", rows), IMAGES)
    assert "bug" not in str(raised.value)


@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_weights_that_give_no_numbers_are_named(name):
    with pytest.raises(BundleError, match="with the weights of B it does not on 4 of 4 images"):
        compare(np.full_like(EAGER, np.nan), Answers(name, EAGER), IMAGES)
