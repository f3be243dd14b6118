"""The pretrained networks that a fit can start from, and their order."""

import dataclasses
import math
import re

import pytest

import effnet
from effnet.arch.layers import named_layers
from effnet.planner.pretrained import CHANGES, changes_of, expected_accuracy, list_offers, list_pretrained, offer_of
from effnet.planner.space import candidate_from_dict
from effnet.weights.catalog import entries, find
from effnet.weights.pretrained import load_pretrained


@pytest.fixture(scope="module")
def offers():
    return list_offers(num_classes=7, channels=3, cached_only=False)


@pytest.fixture(scope="module")
def candidates(offers):
    return list_pretrained(offers)


def test_every_offer_is_published_can_be_built_and_has_the_classes_of_the_data(offers):
    known = {entry.id: entry for entry in entries()}
    assert len({offer.source for offer in offers}) == len(offers) > 60
    for offer in offers:
        entry = known[offer.source]
        assert entry.num_classes in (1000, 1001)
        assert not entry.pruned
        assert (offer.top1, offer.family) == (entry.top1, entry.family)
        assert (offer.spec.num_classes, offer.spec.in_channels) == (7, 3)
        assert offer.spec.resolution == offer.preprocess.resolution == entry.test_resolution
        assert offer.preprocess.mean == pytest.approx(entry.mean)


def test_grey_images_have_statistics_of_one_channel():
    offer = next(
        o for o in list_offers(num_classes=2, channels=1, cached_only=False) if o.spec.name.endswith("b0.ra_in1k")
    )
    assert offer.spec.in_channels == offer.preprocess.channels == 1
    assert offer.preprocess.mean == pytest.approx((0.449,), abs=1e-3)  # the mean over red, green and blue


def test_nothing_is_offered_from_empty_caches():
    assert list_offers(num_classes=7, channels=3, cached_only=True) == []


def test_what_is_downloaded_is_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path))
    entry = find("torchvision/resnet18.IMAGENET1K_V1")
    path = tmp_path / "weights" / entry.id / entry.file
    path.parent.mkdir(parents=True)
    path.touch()
    assert [offer.source for offer in list_offers(num_classes=7, channels=3, cached_only=True)] == [entry.id]


def test_every_network_comes_at_its_own_and_at_smaller_resolutions(offers, candidates):
    for offer in offers:
        own = [c for c in candidates if c.weights == offer.source]
        sides = [c.spec.resolution for c in own]
        assert max(sides) == offer.preprocess.resolution
        assert sides == sorted(set(sides), reverse=True)  # its own first: they are ordered by accuracy
        assert min(sides) == 64
        for c in own:
            assert c.preprocess.resolution == c.spec.resolution
            assert (c.preprocess.mean, c.preprocess.crop) == (offer.preprocess.mean, offer.preprocess.crop)
            assert c.spec.name == f"{offer.source} at {c.spec.resolution}"
            assert c.cost == effnet.cost(c.spec)


def test_they_come_in_the_order_of_the_accuracy_that_is_expected_of_them(offers, candidates):
    by_source = {offer.source: offer for offer in offers}
    expected = [
        expected_accuracy(
            by_source[c.weights].top1, native=by_source[c.weights].preprocess.resolution, resolution=c.spec.resolution
        )
        for c in candidates
    ]
    assert expected == sorted(expected, reverse=True)
    assert expected[0] == max(offer.top1 for offer in offers)


@pytest.mark.parametrize("native", [224, 300, 600])
def test_smaller_images_are_expected_to_cost_accuracy(native):
    values = [expected_accuracy(80.0, native=native, resolution=side) for side in (32, 64, 96, 128, 224, native)]
    assert values == sorted(values)
    assert values[-1] == expected_accuracy(80.0, native=native, resolution=2 * native) == 80.0
    halved = expected_accuracy(80.0, native=native, resolution=native // 2)
    assert 70 < halved < 75  # the loss of linear probes of Lite0: benchmarks/probe.py
    assert math.isfinite(expected_accuracy(None, native=native, resolution=64))


def test_a_pretrained_candidate_survives_its_json(candidates):
    for candidate in candidates[::50]:
        back = candidate_from_dict(candidate.to_dict())
        assert back == candidate
        assert (back.spec.name, back.weights, back.preprocess) == (
            candidate.spec.name, candidate.weights, candidate.preprocess,
        )  # fmt: skip


def test_the_offer_of_a_bundle_is_called_by_its_network_without_the_resolution(small_bundle):
    found = load_pretrained(str(small_bundle))
    assert re.search(r" at \d+", found.spec.name)
    offer = offer_of(found, num_classes=3, channels=1)
    (candidate,) = list_pretrained([offer])  # smaller than any resolution that is tried
    assert " at " not in offer.spec.name
    assert candidate.spec.lineage == dataclasses.replace(offer.spec.lineage, resolution=found.preprocess.resolution)
    assert (candidate.weights, candidate.preprocess) == (str(small_bundle), found.preprocess)
    names = [name for name, _ in named_layers(candidate.spec)]
    assert names == [name for name, _ in named_layers(found.spec)]


def test_pruned_networks_stand_beside_the_whole_ones_as_large_as_they_say(offers):
    offer = next(o for o in offers if o.spec.name.endswith("tf_efficientnet_lite0.in1k"))
    found = list_pretrained([offer], changes=CHANGES)
    whole = {c.spec.resolution: c for c in found if c.kept == 1}
    for c in found:
        if c.kept == 1:
            continue
        before = whole[c.spec.resolution]
        share = getattr(c.cost, c.kept_of) / getattr(before.cost, c.kept_of)
        assert 0.9 * c.kept < share <= 1.02 * c.kept  # exact at its own resolution
        assert c.whole == dataclasses.replace(offer.spec, resolution=c.spec.resolution)
        assert c.whole.name == f"{offer.spec.name} at {c.spec.resolution}"
        assert f"pruned to {c.kept:.0%} of {c.kept_of}" in c.spec.name
        assert found.index(c) > found.index(before)
        assert candidate_from_dict(c.to_dict()) == c
    assert {(c.kept_of, c.kept) for c in found} == {("macs", 1.0), *((change.count, change.kept) for change in CHANGES)}


def test_other_activations_stand_beside_a_networks_own(offers):
    offer = next(o for o in offers if o.spec.name.endswith("tf_efficientnet_b0.in1k"))
    changes = changes_of(offer.spec, can_train=True)
    found = list_pretrained([offer], precisions=("fp32", "int8"), changes=changes)
    assert {c.spec.activation for c in found} == {"silu", "relu6", "hard_swish"}
    for c in found:
        own = c.spec.activation == "silu"
        assert (c.whole is None) == (own and c.kept == 1)
        assert ("with" in c.spec.name) != own
        assert c.spec.se_gate == ("sigmoid" if own else "hard_sigmoid")
        assert c.whole is None or c.whole.activation == "silu"
        assert own or c.family.endswith(f" {c.spec.activation}")  # it is as fast as others of its activation
    pruned = [c for c in found if c.spec.activation == "relu6" and c.kept == 0.5]
    assert len({c.spec.name for c in pruned}) == len(pruned) / 2  # in two precisions
    assert all("with relu6, pruned to 50% of macs" in c.spec.name for c in pruned)


def test_without_training_a_network_keeps_its_activation(offers):
    offer = next(o for o in offers if o.spec.name.endswith("tf_efficientnet_b0.in1k"))
    assert {change.activation for change in changes_of(offer.spec, can_train=False)} == {None}
