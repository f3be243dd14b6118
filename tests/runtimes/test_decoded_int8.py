"""int8 files of detectors and segmenters: boxes and scores keep their scales, and levels are joined as floats."""

import pytest
from decoders import NETWORKS, correlations

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", NETWORKS)
def test_an_onnx_file_gives_nearly_the_outputs_of_torch(name, tmp_path):
    assert min(correlations(name, "onnx-int8", tmp_path).values()) > 0.97
