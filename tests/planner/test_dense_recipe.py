"""The recipe of a detector: the stages that do not learn are those before the feature pyramid."""

import dataclasses

import pytest

from effnet import get_spec
from effnet.arch.decoders.usual import with_detector, with_segmenter
from effnet.arch.layers import backbone_taps
from effnet.planner.dense_recipe import dense_recipe, early_stages

GIVEN = {"epochs": 3, "mirror_safe": True, "seed": 0}


@pytest.mark.parametrize(("name", "stages"), [("lite0", 2), ("b0", 2), ("v2_b0", 2), ("resnet18", 1)])
def test_the_early_stages_end_before_the_first_feature_map_of_the_pyramid(name, stages):
    spec = with_detector(dataclasses.replace(get_spec(name), resolution=128), 3)
    assert early_stages(spec) == stages
    assert backbone_taps(spec)[3].startswith(f"stages.{stages}.")


def test_only_the_backbone_of_a_pretrained_detector_is_frozen_in_part():
    lite0 = get_spec("lite0")
    detector, segmenter = with_detector(lite0, 3), with_segmenter(lite0, 3)
    tuned = dense_recipe(detector, pretrained=True, **GIVEN).train
    assert (tuned.frozen_stages, tuned.frozen_norms, tuned.start_counts) == (2, True, True)
    for spec, pretrained in ((detector, False), (segmenter, True), (segmenter, False)):
        assert dense_recipe(spec, pretrained=pretrained, **GIVEN).train.frozen_stages == 0
