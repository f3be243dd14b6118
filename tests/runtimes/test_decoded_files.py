"""Files of detectors and segmenters return the outputs of the torch network, under their names, in their shapes."""

import functools

import numpy as np
import pytest
from decoders import NETWORKS, arrays, config_of, outputs_of, parted, settled, small

from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export

pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def made(name):
    """A small network, images, and its outputs for them."""
    network = settled(small(NETWORKS[name]))
    images = np.random.default_rng(0).integers(0, 256, (2, *network.spec.input_size, 3), dtype=np.uint8)
    return network, images, outputs_of(network, images)


def written(name, target, folder):
    network = made(name)[0]
    return open_engine(write_export(target, folder, config_of(network.spec), arrays(network)))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", ["litert", "openvino", "executorch"])
def test_a_file_gives_the_outputs_of_torch(name, target, tmp_path):
    pytest.importorskip({"litert": "ai_edge_litert"}.get(target, target))
    network, images, expected = made(name)
    engine = written(name, target, tmp_path)
    assert (engine.size, [output.name for output in engine.outputs]) == (network.spec.input_size, list(expected))
    for batch in (1, 2):
        found = parted(engine, engine.run(images[:batch]))
        for output, wanted in expected.items():
            np.testing.assert_allclose(found[output], wanted[:batch], rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", ["onnx-fp16", "onnx-w8", "openvino-fp16"])
def test_small_formats_give_nearly_the_outputs_of_torch(name, target, tmp_path):
    pytest.importorskip({"openvino-fp16": "openvino"}.get(target, "onnx"))
    _, images, expected = made(name)
    engine = written(name, target, tmp_path)
    for output, found in parted(engine, engine.run(images)).items():
        assert np.corrcoef(found.ravel(), expected[output].ravel())[0, 1] > (0.97 if "w8" in target else 0.999)
