"""Predictions for networks that a plan has not measured."""

import dataclasses

import pytest

from effnet.planner.predict import Predictions
from effnet.planner.space import in_precision, list_candidates, weights_mb
from effnet.runtimes.write import write_export
from effnet.weights.folding import random_weights

TABLE = [c for c in list_candidates(num_classes=10, channels=3, short_side=224) if c.family == "lite0"]


def measured(candidate, size_mb):
    return dataclasses.replace(candidate, latency_ms=1.0, memory_mb=20.0, size_mb=size_mb)


def test_before_a_file_was_written_the_size_is_that_of_the_weights():
    assert Predictions(TABLE).of(0, "size_mb") == weights_mb(TABLE[0])


def test_one_file_tells_the_sizes_of_the_others_at_every_resolution():
    """An int8 file beside its weights is the same at every resolution, and no larger in a smaller network."""
    at = {}
    for c in TABLE:
        if c.phi == 0:
            at[c.spec.resolution] = in_precision(c, "int8")
    other = in_precision(next(c for c in TABLE if c.phi == -2), "int8")
    first = at[min(at)]
    beside = 0.08 * weights_mb(first)
    predictions = Predictions([measured(first, weights_mb(first) + beside), *at.values(), other])
    for index, c in enumerate(at.values(), 1):
        assert predictions.of(index, "size_mb") == pytest.approx(weights_mb(c) + beside)
    assert weights_mb(other) < predictions.of(len(at) + 1, "size_mb") <= weights_mb(other) + beside


def test_real_files_are_predicted_within_a_fiftieth(tmp_path):
    """Two fp32 files predict a third."""
    chosen = [next(c for c in TABLE if c.phi == phi) for phi in (0, -8, -4)]
    from effnet.bundle.config import ModelConfig
    from effnet.data.preprocess import Preprocess
    from effnet.weights.folding import unfold_norms

    sizes = []
    for number, c in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        side = c.spec.resolution
        config = ModelConfig(
            arch=c.spec, preprocess=Preprocess(resolution=side, crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3),
            class_names=tuple(map(str, range(10))),
        )  # fmt: skip
        path = write_export("onnx", folder, config, unfold_norms(c.spec, random_weights(c.spec)))
        sizes.append(path.stat().st_size / 1e6)
    table = [*map(measured, chosen[:2], sizes), chosen[2]]
    assert Predictions(table).of(2, "size_mb") == pytest.approx(sizes[2], rel=0.02)
