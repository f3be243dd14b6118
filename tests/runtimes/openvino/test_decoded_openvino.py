"""OpenVINO's files of detectors and segmenters return the outputs of the torch network."""

import pytest
from decoders import NETWORKS, assert_outputs_of_torch, correlations

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", NETWORKS)
def test_an_openvino_file_gives_the_outputs_of_torch(name, tmp_path):
    assert_outputs_of_torch(name, "openvino", tmp_path)


@pytest.mark.parametrize("name", ["wide", "unet"])
def test_fp16_gives_nearly_the_outputs_of_torch(name, tmp_path):
    assert min(correlations(name, "openvino-fp16", tmp_path).values()) > 0.999
