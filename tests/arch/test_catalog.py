import dataclasses

import pytest

from effnet.arch.catalog import (
    DETECTOR_FAMILIES,
    DETECTORS,
    FAMILIES,
    NAMES,
    default_dropout,
    get_spec,
    published,
    published_ap,
)
from effnet.arch.cost import cost
from effnet.errors import SpecError

OFFICIAL = ("same", 1e-3)
TIMM = ("symmetric", 1e-5)
WIDE = ("symmetric", 1e-3)


@pytest.mark.parametrize(
    "name, short, dialect",
    [
        ("b0", "b0", OFFICIAL),
        ("efficientnet-b0", "b0", OFFICIAL),
        ("efficientnet_b0", "b0", TIMM),
        ("efficientnet_b3.ra2_in1k", "b3", TIMM),
        ("timm/efficientnet_b0.ra_in1k", "b0", TIMM),
        ("timm/b0", "b0", TIMM),
        ("torchvision/efficientnet_b0", "b0", TIMM),
        ("torchvision/efficientnet_b4", "b4", TIMM),
        ("torchvision/efficientnet_b5", "b5", WIDE),
        ("torchvision/efficientnet_b7", "b7", WIDE),
        ("tf_efficientnet_b0", "b0", OFFICIAL),
        ("timm/tf_efficientnet_b0.ns_jft_in1k", "b0", OFFICIAL),
        ("tf_efficientnet_b8.ap_in1k", "b8", OFFICIAL),
        ("tf_efficientnet_l2.ns_jft_in1k", "l2", OFFICIAL),
        ("efficientnet_lite0", "lite0", TIMM),
        ("tf_efficientnet_lite2", "lite2", OFFICIAL),
        ("efficientnet_es", "edgetpu_s", TIMM),
        ("tf_efficientnet_em", "edgetpu_m", OFFICIAL),
        ("efficientnet_el", "edgetpu_l", TIMM),
        ("efficientnetv2_s", "v2_s", TIMM),
        ("tf_efficientnetv2_s.in21k_ft_in1k", "v2_s", OFFICIAL),
        ("tf_efficientnetv2_b0", "v2_b0", OFFICIAL),
        ("efficientnet_v2_m", "v2_m", WIDE),
        ("torchvision/efficientnet_v2_l", "v2_l", WIDE),
        ("resnet50", "resnet50", TIMM),
        ("timm/resnet18.a1_in1k", "resnet18", TIMM),
        ("torchvision/resnet152", "resnet152", TIMM),
        ("  B0 ", "b0", OFFICIAL),
        ("efficientdet_d0", "efficientdet_d0", OFFICIAL),
        ("tf_efficientdet_lite3x", "efficientdet_lite3x", OFFICIAL),
        ("effdet/tf_efficientdet_d7x", "efficientdet_d7x", OFFICIAL),
        ("efficientdet-d4", "efficientdet_d4", OFFICIAL),
    ],
)
def test_a_peers_name_means_that_peers_padding_and_epsilon(name, short, dialect):
    spec = get_spec(name)
    assert (spec.padding, spec.norm_epsilon) == dialect
    assert spec.name == name
    official = get_spec(short)
    assert spec == dataclasses.replace(official, padding=dialect[0], norm_epsilon=dialect[1])


def test_timm_has_sizes_of_its_own_for_two_lite_networks():
    assert [get_spec(f"lite{n}").resolution for n in range(5)] == [224, 240, 260, 280, 300]
    assert [get_spec(f"tf_efficientnet_lite{n}").resolution for n in range(5)] == [224, 240, 260, 300, 380]
    assert [get_spec(f"efficientnet_lite{n}").resolution for n in (3, 4)] == [300, 380]


@pytest.mark.parametrize("name", NAMES)
def test_short_names_are_the_official_networks(name):
    spec = get_spec(name)
    assert (spec.padding, spec.norm_epsilon) == (TIMM if name.startswith("resnet") else OFFICIAL)
    assert (spec.name, spec.num_classes, spec.in_channels) == (name, 1000, 3)


@pytest.mark.parametrize(
    "prefix, activation",
    [("b", "silu"), ("lite", "relu6"), ("edgetpu", "relu"), ("v2", "silu"), ("resnet", "relu")],
)
def test_each_family_has_its_activation(prefix, activation):
    assert {get_spec(name).activation for name in NAMES if name.startswith(prefix)} == {activation}


@pytest.mark.parametrize(
    "name, hint",
    [
        ("bo", "'b"),
        ("lite-0", "'lite0'"),
        ("v2s", "'v2_s'"),
        ("resnet5", "'resnet5"),
        ("edgetpu", "'edgetpu_"),
        ("timm/resnet51", "'resnet5"),
        ("google/resnet50", "'resnet50'"),
        ("efficientdet_d8", "'efficientdet_d"),
        ("effdet/efficientdet_d6", "'efficientdet_d6'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, hint):
    with pytest.raises(SpecError, match=f"unknown network '{name}'; did you mean {hint}"):
        get_spec(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "/",
        "b9",
        "lite5",
        "efficientnet_",
        "efficientnet_v2_resnet18",
        "efficientnet_resnet18",
        "x/b0",
    ],
)
def test_names_of_no_network_are_refused_with_where_to_look(name):
    with pytest.raises(SpecError, match=r"unknown network .*`effnet models list` lists them all"):
        get_spec(name)


def test_classes_and_channels_are_arguments():
    spec = get_spec("b0", num_classes=10, in_channels=1)
    assert (spec.num_classes, spec.in_channels) == (10, 1)
    assert cost(get_spec("b0")).params - cost(spec).params == 990 * (1280 + 1) + 2 * 9 * 32
    with pytest.raises(SpecError, match=r"num_classes .* got -1"):
        get_spec("b0", num_classes=-1)


def test_the_families_hold_every_name_once():
    assert [name for names in FAMILIES.values() for name in names] == list(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_a_published_accuracy_with_its_source(name):
    found = published(name)
    assert found is not None
    assert 65 < found.top1 < 90
    assert found.resolution == get_spec(name).resolution
    assert found.source


def test_effdets_own_detectors_differ_from_the_official_ones():
    own, official = get_spec("effdet/efficientdet_d0"), get_spec("efficientdet_d0")
    assert (own.padding, own.norm_epsilon) == TIMM
    assert cost(own).params == 3_877_763
    neck = dataclasses.replace(own.decoder.neck, redundant_bias=True)
    changes = {"padding": "same", "norm_epsilon": 1e-3, "decoder": dataclasses.replace(own.decoder, neck=neck)}
    assert dataclasses.replace(own, **changes) == official


def test_every_detector_has_cocos_classes_and_a_published_ap():
    assert [name for names in DETECTOR_FAMILIES.values() for name in names] == list(DETECTORS)
    for name in DETECTORS:
        assert (get_spec(name).num_classes, published(name)) == (90, None)
        assert published_ap(name).resolution == get_spec(name).resolution
    assert get_spec("efficientdet_d1", num_classes=3, in_channels=1).num_classes == 3
    assert published_ap("b0") is None


def test_published_aps_are_those_of_automl():
    """Source: efficientdet/README.md: the larger a network, the better."""
    d, lite = ([published_ap(name).val for name in names] for names in DETECTOR_FAMILIES.values())
    assert d == [34.3, 40.2, 43.5, 46.8, 49.3, 51.2, 52.1, 53.4, 54.4]
    assert lite == [26.41, 31.50, 35.06, 38.77, 42.64, 43.18]
    assert (published_ap("tf_efficientdet_d7x").test, published_ap("efficientdet_d0").test_50) == (55.1, 53.0)


def test_published_accuracies_of_the_paper():
    assert [published(f"b{n}").top1 for n in range(8)] == [77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3]
    assert [published(f"lite{n}").top1 for n in range(5)] == [75.1, 76.7, 77.6, 79.8, 81.5]
    assert [published(f"edgetpu_{n}").top1 for n in "sml"] == [77.23, 78.69, 80.62]
    assert [published(f"v2_{n}").top1 for n in ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")] == [
        78.7, 79.8, 80.5, 82.1, 83.9, 85.2, 85.7, 87.2,
    ]  # fmt: skip


def test_dropout_rates_of_the_released_trainings():
    rates = [default_dropout(f"b{n}") for n in range(9)] + [default_dropout("l2")]
    assert rates == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5]
    assert [default_dropout(f"lite{n}") for n in range(5)] == [0.2, 0.2, 0.3, 0.3, 0.3]
    assert [default_dropout(f"edgetpu_{n}") for n in "sml"] == [0.2, 0.2, 0.3]
    assert [default_dropout(f"v2_{n}") for n in ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")] == [
        0.2, 0.2, 0.3, 0.3, 0.2, 0.3, 0.4, 0.4,
    ]  # fmt: skip
    assert default_dropout("resnet50") == 0.0
    assert default_dropout("tf_efficientnet_b4") == 0.4
