"""Networks of several outputs with random weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from strategies import build_trained

from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig, write_config, write_digests
from effnet.bundle.weights import load_arrays_, load_module, save_bundle, state_arrays
from effnet.data.preprocess import Preprocess, normalize
from effnet.data.several.outputs import OutputSpec, column_names, placed
from effnet.measurement.verify import eager_features, eager_maps, eager_outputs
from effnet.nn.network import build
from effnet.runtimes.digests import digests_of
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import FORMATS
from effnet.runtimes.write import write_export
from effnet.weights.folding import random_weights, unfold_norms

SIDE = 32
SPECS = (
    OutputSpec(name="gender", kind="one", classes=("Men", "Women"), temperature=2.0, threshold=0.4),
    OutputSpec(name="year", kind="number", mean=2011.5, scale=3.0, tolerance=1.0),
    OutputSpec(name="tags", kind="many", classes=("sea", "sun", "trees"), temperature=0.5, thresholds=(0.3, 0.5, 0.6)),
    OutputSpec(name="pool", kind="one", classes=tuple(map(str, range(7)))),
)


def several_config(
    specs: Sequence[OutputSpec] = SPECS, *, arch: ArchSpec | None = None, side: int = SIDE
) -> ModelConfig:
    """Return the config of a network with these outputs, by default a tiny B0 for colour images."""
    names = column_names(specs)
    if arch is None:
        arch = with_total_stride(scale(get_spec("b0", num_classes=len(names)), phi=-20, resolution=side), 8)
    return ModelConfig(
        arch=arch,
        preprocess=Preprocess(
            resolution=side, mean=(0.485, 0.456, 0.406, 0.4)[: arch.in_channels], std=(0.25,) * arch.in_channels
        ),
        class_names=names,
        task="several",
        specs=tuple(specs),
    )


def random_state(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return weights of a network with plausible BatchNorm statistics."""
    return state_arrays(build_trained(config.arch, resolution=config.preprocess.resolution))


def fitted_state(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return random weights whose last layer was fitted on the colours of images: its columns differ by them."""
    state, images = unfold_norms(config.arch, random_weights(config.arch)), random_images(config, 64, seed=2)
    module = build(config.arch)
    load_arrays_(module, state, where="the test's weights")
    features = eager_features(module, config, images)
    colours = np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1)
    colours = (colours - colours.mean(0)) / colours.std(0)
    # The columns of a number are as wide as the targets, those of classes a few times wider.
    sizes = np.concatenate([[1.0 if spec.kind == "number" else 4.0] * spec.width for spec in config.specs])
    targets = colours @ np.random.default_rng(3).normal(0, 6**-0.5, (6, len(sizes))) * sizes
    centred = features - features.mean(0)
    ridge = len(images) * 1e-2 * np.eye(centred.shape[1])
    weights = np.linalg.solve(centred.T @ centred + ridge, centred.T @ targets).T
    state["classifier.weight"] = weights.astype(np.float32)
    state["classifier.bias"] = (-weights @ features.mean(0)).astype(np.float32)
    return state


def random_images(config: ModelConfig, count: int, *, seed: int = 0) -> np.ndarray:
    """Return uint8 [count, R, R, C]: smooth shapes with noise, so that features differ between images."""
    rng, side = np.random.default_rng(seed), config.preprocess.resolution
    coarse = rng.integers(0, 256, (count, 3, 3, config.preprocess.channels))
    large = np.repeat(np.repeat(coarse, -(-side // 3), axis=1), -(-side // 3), axis=2)[:, :side, :side]
    return np.clip(large + rng.normal(0, 20, large.shape), 0, 255).astype(np.uint8)


def small(name: str, *, num_classes: int = 2) -> ArchSpec:
    """Return the first two stages of a named network."""
    arch = get_spec(name, num_classes=num_classes)
    return dataclasses.replace(arch, stages=arch.stages[:2], head_channels=arch.head_channels and 24)


_texts = st.text(min_size=1, max_size=8)
_names = st.text(st.characters(exclude_characters="=:"), min_size=1, max_size=8)


@st.composite
def specs(draw: st.DrawFn) -> tuple[OutputSpec, ...]:
    """Draw outputs of any kinds and names, with temperatures, means and scales."""
    found = []
    for name in draw(st.lists(_names, min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(["one", "many", "number"]))
        if kind == "number":
            mean, scale = draw(st.sampled_from([(0.0, 1.0), (2011.0, 3.5), (-0.2, 0.01)]))
            found.append(OutputSpec(name=name, kind=kind, mean=mean, scale=scale))
        else:
            classes = tuple(draw(st.lists(_texts, min_size=1, max_size=4, unique=True)))
            temperature = draw(st.sampled_from([1.0, 0.5, 3.0]))
            found.append(OutputSpec(name=name, kind=kind, classes=classes, temperature=temperature))
    return tuple(found)


def write_several(folder: Path, names: Sequence[str], *, maps: bool = False) -> ModelConfig:
    """Write a bundle of a small Lite0 with `SPECS` and its exports `names`; int8 is calibrated on images of seed 1."""
    config = several_config(arch=small("lite0", num_classes=len(column_names(SPECS))))
    state, images = fitted_state(config), random_images(config, 16, seed=1)
    save_bundle(folder, config, state)
    for name in names:
        write_export(name, folder, config, state, images=images, maps=maps)
    write_config(config, folder)
    write_digests(folder, digests_of(folder, names), maps=[FORMATS[name].file for name in names] if maps else [])
    return config


def assert_equal(folder: Path, name: str) -> None:
    """Fail unless an fp32 file has the outputs' names and returns what the eager network does."""
    predictor = Predictor(folder, format=name)
    config = predictor.config
    assert [output.name for output in predictor.engine.outputs] == ["gender", "year", "tags", "output_4"]
    images = random_images(config, 5)
    eager, found = eager_outputs(load_module(folder), config, images), predictor.outputs(images)
    for place in placed(config.specs):
        pair = found[:, place.columns], eager[:, place.columns]
        np.testing.assert_allclose(*pair, atol=1e-4, rtol=1e-6, err_msg=place.spec.name)


def assert_near(folder: Path, name: str, least: float = 0.95) -> None:
    """Fail unless a file of reduced precision, written on `random_images` of seed 1, follows the eager network.

    Each column's values must correlate with the eager ones over images by more than `least`.
    """
    predictor = Predictor(folder, format=name)
    config = predictor.config
    images = random_images(config, 48)
    eager, found = eager_outputs(load_module(folder), config, images), predictor.outputs(images)
    for place in placed(config.specs):
        for column in range(place.columns.start, place.columns.stop):
            related = np.corrcoef(eager[:, column], found[:, column])[0, 1]
            assert related > least, (place.spec.name, related)


def assert_maps(folder: Path, name: str, least: float = 0.98) -> None:
    """Fail unless a file's activation maps are those of the eager network, and in fp32 add up to its logits.

    Those of a reduced precision have at least the cosine `least`.
    """
    predictor = Predictor(folder, format=name)
    config, module = predictor.config, load_module(folder)
    images = random_images(config, 8)
    rows, maps = predictor.outputs_and_maps(images)
    np.testing.assert_array_equal(rows, predictor.outputs(images))
    expected = eager_maps(module, config, images)
    over = (0, 2, 3)
    cosines = (maps * expected).sum(over) / np.sqrt((maps**2).sum(over) * (expected**2).sum(over))
    assert cosines.min() > (0.9999 if predictor.format.precision == "fp32" else least)
    if predictor.format.precision == "fp32":
        pixels = torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)
        with torch.no_grad():
            logits = module(pixels).numpy() / config.temperatures
        bias = module.classifier.bias.detach().numpy() / config.temperatures
        np.testing.assert_allclose(maps.mean((2, 3)) + bias, logits, rtol=1e-4, atol=1e-4)
