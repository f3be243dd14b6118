"""ExecuTorch's programs of detectors and segmenters return the outputs of the torch network."""

import pytest
from decoders import assert_outputs_of_torch

pytest.importorskip("executorch")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["wide", "unet", "anchors", "smp"])
def test_a_program_gives_the_outputs_of_torch(name, tmp_path):
    assert_outputs_of_torch(name, "executorch", tmp_path)
