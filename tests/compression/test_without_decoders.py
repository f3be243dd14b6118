"""What compression has for classifiers alone refuses detectors and segmenters in words."""

import dataclasses

import pytest
from decoders import NETWORKS, arrays, settled, small

from effnet.compression.equalize import equalize
from effnet.compression.fake_quant import round_
from effnet.errors import SpecError
from effnet.weights.folding import fold_norms


def test_a_detector_is_refused_in_words():
    network = settled(dataclasses.replace(small(NETWORKS["points"]), resolution=64))
    folded = fold_norms(network.spec, arrays(network))
    for what in (
        lambda: equalize(network.spec, folded),
        lambda: round_(network),
    ):
        with pytest.raises(SpecError, match=r"is for networks without a decoder; .* detects or segments"):
            what()
