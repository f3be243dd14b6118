"""The peers' own keys and shapes are those that effnet converts to and from."""

import warnings

import numpy as np
import pytest
import torch

from effnet.arch.catalog import get_spec
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.nn.network import build
from effnet.weights.identify import identify
from effnet.weights.readers.files import read_arrays
from effnet.weights.schemes import detect_scheme, foreign_shapes, plain_arrays, to_effnet


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(t.shape) for key, t in module.state_dict().items() if not key.endswith("num_batches_tracked")}


def make(build, *args, **kwargs):
    """Build a peer without drawing its weights, which no test here reads."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return build(*args, **kwargs)


@pytest.mark.parametrize("num_classes", [10, 0])
@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnet_b0", "efficientnet_b1", "tf_efficientnet_l2", "tf_efficientnet_lite0",
        "tf_efficientnet_lite4", "efficientnet_es", "tf_efficientnet_el", "tf_efficientnetv2_b0",
        "tf_efficientnetv2_b3", "efficientnetv2_s", "efficientnetv2_xl", "resnet18", "resnet50",
    ],
)  # fmt: skip
def test_timm(timm, name, num_classes):
    peer = shapes_of(make(timm.create_model, name, pretrained=False, num_classes=num_classes, in_chans=4))
    spec = get_spec(f"timm/{name}", num_classes=num_classes, in_channels=4)
    assert foreign_shapes(spec, "timm") == peer
    assert detect_scheme(peer) == ("torchvision" if name.startswith("resnet") else "timm")


@pytest.mark.parametrize(
    "name",
    [*(f"efficientnet_b{i}" for i in range(8)), *(f"efficientnet_v2_{s}" for s in "sml"), "resnet18", "resnet50"],
)
def test_torchvision(torchvision, name):
    peer = shapes_of(make(torchvision.models.get_model, name, weights=None, num_classes=10))
    assert foreign_shapes(get_spec(f"torchvision/{name}", num_classes=10), "torchvision") == peer
    assert detect_scheme(peer) == "torchvision"


@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("name, short", [("EfficientNetB0", "b0"), ("EfficientNetV2B0", "v2_b0")])
def test_keras(keras, name, short, include_top):
    model = getattr(keras.applications, name)(weights=None, include_top=include_top)
    arrays = {w.path: np.broadcast_to(np.float32(0), w.shape) for w in model.weights}
    spec = get_spec(short, num_classes=1000 if include_top else 0)
    assert detect_scheme(arrays) == "keras"
    found = {key: array.shape for key, array in plain_arrays(arrays, "keras").items()}
    assert found == foreign_shapes(spec, "keras")
    assert to_effnet(arrays, spec, scheme="keras", where=name).keys() == foreign_shapes(spec, "effnet").keys()


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("file", ["w.weights.h5", "w.keras"])
def test_files_that_keras_writes_come_back_by_name(keras, tmp_path, file):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Normalization(name="normalization"),
            layers.Conv2D(4, 3, use_bias=False, name="stem_conv"),
            layers.BatchNormalization(name="stem_bn"),
            layers.DepthwiseConv2D(3, use_bias=False, name="block1a_dwconv"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2, name="predictions"),
        ]
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([rng.standard_normal(w.shape).astype(w.dtype) for w in layer.get_weights()])
    (model.save if file == "w.keras" else model.save_weights)(tmp_path / file)
    expected = {"/".join(w.path.split("/")[-2:]): np.asarray(w.value.detach()) for w in model.weights}
    found = read_arrays(tmp_path / file)
    assert {"stem_conv/kernel", "stem_bn/moving_variance", "block1a_dwconv/kernel", "predictions/bias"} <= set(found)
    assert set(expected) - set(found) <= {"normalization/count"}
    assert all(np.array_equal(array, expected[name]) for name, array in found.items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["efficientnet_b1_pruned", "efficientnet_b2_pruned"])
def test_pruned_networks_of_timm_compute_the_same(timm, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = timm.create_model(name, pretrained=False, num_classes=10)
    generator = torch.Generator().manual_seed(0)
    for module in peer.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Nothing but statistics can tell one epsilon from another.
            module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.02 + 0.02 * torch.rand(module.running_var.shape, generator=generator))
    peer.eval()
    arrays = state_arrays(peer)
    scheme, spec = identify(arrays, name_hint=f"timm/{name}.in1k")
    assert (scheme, spec.name, spec.padding, spec.norm_epsilon) == ("timm", name, "same", 1e-3)
    network = build(spec).eval()
    load_arrays_(network, to_effnet(arrays, spec, scheme=scheme, where=name), where=name)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    expected, found = peer(images), network(images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.std() > 1e-3
