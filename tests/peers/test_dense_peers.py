"""Detectors have effdet's outputs with its weights, U-Nets those of segmentation_models_pytorch."""

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.detect_parity import NAMES, anchor_difference, compare, config_of, name_differences
from benchmarks.detect_parity import peer_of as detector_of
from benchmarks.segment_parity import ENCODERS, difference
from benchmarks.segment_parity import peer_of as unet_of
from effnet.arch.catalog import DETECTORS, get_spec
from effnet.weights.class_names import coco_names

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def effdet():
    """The package effdet, or a skip."""
    try:
        return peers.import_effdet()
    except ModuleNotFoundError as error:
        pytest.skip(f"effdet is absent ({error}); install it with: pip install --no-deps effdet==0.4.1")


@pytest.fixture(scope="module")
def smp():
    """The package segmentation_models_pytorch, or a skip."""
    try:
        return peers.import_smp()
    except ModuleNotFoundError as error:
        pytest.skip(
            f"smp is absent ({error}); install it with: pip install --no-deps segmentation-models-pytorch==0.6.0"
        )


@pytest.mark.parametrize("name", ["efficientdet_d1", "efficientdet_lite1", "effdet/efficientdet_d0"])
def test_outputs_losses_and_detections_are_effdets(effdet, name):
    found = compare(effdet, *detector_of(effdet, name))
    assert found["outputs"] < 1e-4
    assert found["loss"] < 1e-5
    assert found["boxes_px"] < 0.01
    assert found["scores"] < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_every_array_of_every_detector_has_effdets_name_and_shape(effdet, name):
    assert name_differences(effdet, name) == 0


@pytest.mark.parametrize("name", DETECTORS)
def test_anchors_and_numbers_are_effdets(effdet, name):
    spec, config = get_spec(name), config_of(effdet, name)
    assert (spec.resolution, spec.num_classes) == (config.image_size[0], config.num_classes)
    assert spec.decoder.head.ratios == tuple(map(tuple, config.aspect_ratios))
    assert anchor_difference(effdet, name) < 1e-4


@pytest.mark.parametrize("row", [ENCODERS[0], ENCODERS[2], ENCODERS[4]], ids=lambda row: row[0])
def test_masks_are_those_of_smp(smp, row):
    assert difference(*unet_of(smp, *row), row[2]) < 1e-4


def test_classes_are_cocos_ids_from_1_on(torchvision):
    """torchvision has N/A for the ids that no image has."""
    names = torchvision.models._meta._COCO_CATEGORIES
    assert len(names) - 1 == len(coco_names()) == 90
    assert all(theirs in ("N/A", ours) for ours, theirs in zip(coco_names(), names[1:], strict=True))
    assert np.unique(coco_names()).size == 90
