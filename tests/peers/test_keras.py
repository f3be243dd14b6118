"""With Keras' weights, every stage and the logits of its EfficientNets are Keras'."""

import re
from collections.abc import Mapping

import numpy as np
import parity
import pytest
import torch
from torch import Tensor

from effnet.arch.catalog import get_spec
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.nn.network import build
from effnet.weights.schemes import from_effnet, to_effnet

pytestmark = pytest.mark.usefixtures("one_thread")

V1 = {f"EfficientNetB{i}": f"b{i}" for i in range(8)}
V2 = {f"EfficientNetV2{size}": f"v2_{size.lower()}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")}
NAMES = V1 | V2
# Those between have the same layers in other numbers, as timm's have, all of which are compared.
COMPARED = [f"EfficientNet{size}" for size in ("B0", "B1", "B3", "B7", "V2B0", "V2B3", "V2S", "V2L")]
# As in parity.images_for: both paddings matter at 40 pixels already.
CASES = [(name, side) for name in COMPARED for side in ((48, 49) if name.endswith("B0") else (40,))]


@pytest.fixture
def make_peer(keras, monkeypatch):
    """Return a maker of Keras' networks, their weights zero: drawing them would take most of the time."""

    def zeros(self: object, shape: tuple[int, ...], dtype: str | None = None, **_: object) -> Tensor:
        return keras.ops.zeros(shape, dtype=dtype)

    def make(name: str, *, side: int):
        # Versions 2 of the network can leave out their preprocessing; in version 1 it only divides by 255.
        options = {"include_preprocessing": False} if name in V2 else {}
        return getattr(keras.applications, name)(
            weights=None, classes=10, classifier_activation=None, input_shape=(side, side, 3), **options
        )

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
    return make


def arrays_of(peer) -> dict[str, np.ndarray]:
    return {weight.path: weight.value.detach().numpy() for weight in peer.weights}


def assign_(peer, arrays: Mapping[str, np.ndarray]) -> None:
    """Give Keras every weight, and each weight to Keras; only its preprocessing keeps its own."""
    assigned = {weight.path: weight for weight in peer.weights if not weight.path.startswith("normalization")}
    assert set(assigned) == set(arrays)
    for path, weight in assigned.items():
        weight.assign(arrays[path])


def outputs(keras, peer, images: Tensor, *, factor: float) -> parity.Outputs:
    """Return what every stage puts out, the network's last layer of that number, and the logits."""
    last: dict[str, object] = {}
    for layer in peer.layers:
        if found := re.match(r"block(\d+)", layer.name):
            last[f"stages.{int(found[1]) - 1}"] = layer.output
    values = keras.Model(peer.input, {**last, "logits": peer.output})(
        images.permute(0, 2, 3, 1) * factor, training=False
    )
    return {name: value.permute(0, 3, 1, 2) if value.ndim == 4 else value for name, value in values.items()}


def test_no_network_of_keras_is_left_out(keras):
    assert set(NAMES) == {name for name in dir(keras.applications) if name.startswith("EfficientNet")}


@pytest.mark.parametrize(("name", "side"), CASES)
@torch.inference_mode()
def test_every_stage_and_the_logits_equal_those_of_keras(keras, make_peer, photos, name, side):
    spec = get_spec(NAMES[name], num_classes=10)
    network = parity.bare(lambda: build(spec))
    parity.draw_weights_(network)
    parity.give_statistics_(network, photos)
    peer = make_peer(name, side=side)
    assign_(peer, from_effnet(state_arrays(network), spec, scheme="keras"))
    for tensor in network.state_dict().values():
        tensor.zero_()
    load_arrays_(network, to_effnet(arrays_of(peer), spec, scheme="keras", where=name), where=name)
    images = parity.mixed_images(photos, count=2, side=side, seed=side)
    expected = outputs(keras, peer, images, factor=255.0 if name in V1 else 1.0)
    found = parity.outputs(network, parity.stages_of(network), images)
    parity.assert_none(parity.apart(found, expected))
