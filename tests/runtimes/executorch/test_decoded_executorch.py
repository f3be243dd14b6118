"""ExecuTorch's programs of detectors and segmenters return the outputs of the torch network."""

import numpy as np
import pytest
import torch
from decoders import NETWORKS, arrays, assert_outputs_of_torch, config_of, made

pytest.importorskip("executorch")

from effnet.runtimes.executorch.deployed import deployed_module

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_program_gives_the_outputs_of_torch(tmp_path):
    assert_outputs_of_torch("wide", "executorch", tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_module_of_static_operations_gives_the_outputs_of_torch(name):
    """The one that ExecuTorch and Core ML convert: a conversion takes a minute."""
    network, images, expected = made(name)
    module = deployed_module(config_of(network.spec), arrays(network))
    assert module.network.spec == network.spec
    with torch.no_grad():
        found = module(torch.from_numpy(images))
    found = found if isinstance(found, tuple) else (found,)
    for values, wanted in zip(found, expected.values(), strict=True):
        np.testing.assert_allclose(values.numpy(), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
