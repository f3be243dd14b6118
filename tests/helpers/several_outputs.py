"""Networks of several outputs with random weights."""

from collections.abc import Sequence

import numpy as np
from strategies import build_trained

from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import state_arrays
from effnet.data.outputs import OutputSpec, column_names
from effnet.data.preprocess import Preprocess

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


def random_images(config: ModelConfig, count: int, *, seed: int = 0) -> np.ndarray:
    """Return uint8 [count, R, R, C]: smooth shapes with noise, so that features differ between images."""
    rng, side = np.random.default_rng(seed), config.preprocess.resolution
    coarse = rng.integers(0, 256, (count, 3, 3, config.preprocess.channels))
    large = np.repeat(np.repeat(coarse, -(-side // 3), axis=1), -(-side // 3), axis=2)[:, :side, :side]
    return np.clip(large + rng.normal(0, 20, large.shape), 0, 255).astype(np.uint8)
