"""Detectors and segmenters: torch and ONNX Runtime compute the same, folding is exact, levels share their weights."""

import numpy as np
import pytest
import torch
from decoders import NETWORKS, arrays, settled

from effnet.arch.cost import cost
from effnet.nn.dense import build_dense
from effnet.runtimes.onnxruntime.graph import to_onnx
from effnet.weights.folding import fold_norms, random_weights, unfold_norms


@pytest.fixture(params=NETWORKS)
def network(request):
    return settled(NETWORKS[request.param])


def test_onnx_runtime_gives_the_outputs_of_torch(network):
    import onnxruntime

    spec, folded = network.spec, fold_norms(network.spec, arrays(network))
    assert sum(parameter.numel() for parameter in network.parameters()) == cost(spec).params
    assert sum(array.size for array in folded.values()) == cost(spec).folded_params
    half = (0.5,) * 3
    model = to_onnx(spec, folded, mean=half, std=half)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (2, *spec.input_size, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    assert [output.name for output in session.get_outputs()] == list(expected)
    for values, wanted in zip(session.run(None, {"image": images}), expected.values(), strict=True):
        assert values.shape == wanted.shape
        np.testing.assert_allclose(values, wanted.numpy(), atol=1e-4 * np.abs(wanted.numpy()).max())


def test_cached_maps_of_the_backbone_give_the_same_outputs(network):
    images = torch.randn(1, 3, *network.spec.input_size)
    with torch.no_grad():
        taps = network.taps(images)
        found, expected = network.decode(taps), network(images)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(taps[level].shape[-1] == -(-images.shape[-1] // 2**level) for level in taps if level)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights_become_a_state_and_back(name):
    folded = random_weights(NETWORKS[name])
    again = fold_norms(NETWORKS[name], unfold_norms(NETWORKS[name], folded))
    assert folded.keys() == again.keys()
    assert all(np.allclose(folded[key], again[key], atol=1e-6) for key in folded)


def test_a_new_detector_gives_every_class_a_hundredth():
    found = build_dense(NETWORKS["points"], seed=0).eval()
    with torch.no_grad():
        scores = found(torch.randn(1, 3, 160, 160))["scores"].sigmoid()
    assert 0.005 < float(scores.mean()) < 0.02
