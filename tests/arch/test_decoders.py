"""Networks with a decoder: published counts, files, sizes, and the channels that pruning may remove."""

import dataclasses

import pytest

from effnet.arch.catalog import DETECTORS, get_spec
from effnet.arch.channels import keep_from, kept_spec, kept_widths, tied_widths, width_channels
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import cost
from effnet.arch.decoders.record import AnchorHead, Detector, Pyramid, Segmenter, UNet
from effnet.arch.decoders.usual import with_detector, with_segmenter
from effnet.arch.layers import layer_widths, named_layers, output_shapes
from effnet.arch.scale import scale
from effnet.errors import SpecError
from effnet.nas.spaces.stages import rows_of
from effnet.weights.schemes.smp import unet

# Parameters by google/automl's efficientdet_arch_test.py (D7x's are counted), MACs of convolutions in millions.
PUBLISHED = [
    ("b0", 512, 64, 3, 3, "fast", 7, 3_880_067, 2_492),
    ("b1", 640, 88, 4, 3, "fast", 7, 6_625_898, 6_003),
    ("b2", 768, 112, 5, 3, "fast", 7, 8_097_039, 10_832),
    ("b3", 896, 160, 6, 4, "fast", 7, 12_032_296, 24_569),
    ("b4", 1024, 224, 7, 4, "fast", 7, 20_723_675, 54_584),
    ("b5", 1280, 288, 7, 4, "fast", 7, 33_653_315, 134_134),
    ("b6", 1280, 384, 8, 5, "sum", 7, 51_871_782, 224_121),
    ("b6", 1536, 384, 8, 5, "sum", 7, 51_871_782, 322_732),
    ("b7", 1536, 384, 8, 5, "sum", 8, 77_147_166, 407_628),
    ("lite0", 320, 64, 3, 3, "sum", 7, 3_243_470, 974),
    ("lite1", 384, 88, 4, 3, "sum", 7, 4_248_318, 1_967),
    ("lite2", 448, 112, 5, 3, "sum", 7, 5_252_334, 3_371),
    ("lite3", 512, 160, 6, 4, "sum", 7, 8_350_862, 7_480),
    ("lite3", 640, 200, 6, 4, "sum", 7, 9_280_862, 13_978),
    ("lite4", 640, 224, 7, 4, "sum", 7, 15_130_894, 20_168),
]


# Google/automl's anchor scales other than 4.
SCALES = {"efficientdet_d7": 5.0, **{f"efficientdet_lite{size}": 3.0 for size in ("0", "1", "2", "3x")}}


def efficientdet(backbone, side, channels, cells, repeats, fusion, levels, *, classes=90, bias=True):
    neck = Pyramid(channels=channels, cells=cells, max_level=levels, fusion=fusion, redundant_bias=bias)
    decoder = Detector(neck=neck, head=AnchorHead(repeats=repeats))
    return dataclasses.replace(
        get_spec(backbone), resolution=side, head_channels=0, num_classes=classes, decoder=decoder
    )


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[1]}")
def test_every_efficientdet_has_the_published_parameters_and_multiply_accumulates(row):
    found = cost(efficientdet(*row[:7]))
    assert (found.params, round(found.macs / 1e6)) == row[7:]


@pytest.mark.parametrize("name, row", list(zip(DETECTORS, PUBLISHED, strict=True)), ids=lambda value: str(value)[:20])
def test_the_networks_of_the_catalog_are_the_published_ones(name, row):
    spec = get_spec(name)
    expected = efficientdet(*row[:7])
    head = dataclasses.replace(expected.decoder.head, scale=SCALES.get(name, 4.0))
    assert spec == dataclasses.replace(expected, decoder=dataclasses.replace(expected.decoder, head=head))
    assert spec.title == f"EfficientDet-{name.removeprefix('efficientdet_').capitalize()}, {row[1]} px"


def test_classes_and_redundant_biases_change_the_counts_as_published():
    d0, lite0, lite2 = (PUBLISHED[number][:7] for number in (0, 9, 11))
    assert [cost(efficientdet(*row, classes=1)).params for row in (d0, lite0, lite2)] == [
        3_828_002, 3_191_405, 5_161_821,
    ]  # fmt: skip
    assert [cost(efficientdet(*row, bias=False)).params for row in (d0, lite0)] == [3_877_763, 3_241_166]


def test_outputs_have_a_row_for_each_anchor():
    spec = efficientdet(*PUBLISHED[9][:7])
    assert output_shapes(spec, (320, 320)) == {"boxes": (19_206, 4), "scores": (19_206, 90)}
    assert output_shapes(with_detector(get_spec("lite0"), 6), (320, 320)) == {"boxes": (2_125, 4), "scores": (2_125, 6)}


def test_the_unet_has_the_parameters_of_segmentation_models_pytorch():
    """Its 6,251,469 for EfficientNet-B0 and one class contain 412,160 of a head convolution that nothing reads."""
    decoder = UNet(
        channels=(256, 128, 64, 32, 16), separable=False, last_kernel=3, skips_stem=True, activation="relu"
    )  # fmt: skip
    spec = dataclasses.replace(
        get_spec("b0"), head_channels=0, num_classes=1, padding="symmetric", decoder=Segmenter(decoder=decoder)
    )
    assert cost(spec).params == 6_251_469 - 412_160


@pytest.mark.parametrize(
    "spec", [with_detector(get_spec("b0"), 3), with_segmenter(get_spec("lite0"), 5, kind="unet")], ids=["boxes", "mask"]
)
def test_a_file_holds_a_network_of_any_height_with_a_decoder(spec):
    spec = dataclasses.replace(spec, resolution=320, height=192)
    assert spec_from_dict(spec_to_dict(spec)) == spec
    assert spec.size_at(640) == (384, 640)
    wide, square = cost(spec), cost(dataclasses.replace(spec, height=0))
    assert wide.macs == pytest.approx(0.6 * square.macs, rel=0.01)


def test_old_files_stay_as_they_were():
    assert not {"height", "decoder"} & set(spec_to_dict(get_spec("b0")))


def test_pruning_reaches_what_the_decoder_reads_and_leaves_the_decoder():
    for spec in (with_detector(get_spec("lite0"), 4), with_segmenter(get_spec("lite0"), 4, kind="unet")):
        read = {name for tie in tied_widths(spec) for name in tie.readers if not name.startswith(("stem", "stages"))}
        assert read
        halves = {name: tuple(range(count // 2)) for name, count in width_channels(spec).items()}
        keep = keep_from(spec, halves)
        small = kept_spec(spec, keep)
        widths, layers = kept_widths(spec, keep), dict(named_layers(small))
        for name, (reads, writes) in layer_widths(spec).items():
            assert (len(widths[reads]), len(widths[writes])) == (layers[name].in_channels, layers[name].out_channels)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"head_channels": 1280}, "no head convolution"),
        ({"num_classes": 0}, "must have classes"),
        ({"decoder": "unet"}, "must be a Detector or a Segmenter"),
    ],
)
def test_a_decoder_needs_a_network_without_a_head(change, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(with_detector(get_spec("b0"), 3), **change)


def test_a_unet_may_read_a_level_before_its_last_block():
    spec = unet(get_spec("b0"), scheme="smp", num_classes=1)
    skips = dict(named_layers(spec))["decoder.0.concat"].inputs
    assert skips == ("decoder.0.resize", "stages.4.0.project.norm")
    assert spec_from_dict(spec_to_dict(spec)) == spec
    wrong = dataclasses.replace(spec.decoder.decoder, early=((4, 3),))
    with pytest.raises(SpecError, match="block 3 of the backbone must have a feature map of stride 16"):
        named_layers(dataclasses.replace(spec, decoder=Segmenter(decoder=wrong)))
    with pytest.raises(SpecError, match="early must be pairs"):
        dataclasses.replace(wrong, early=((4,),))


def test_pools_pad_as_the_convolutions_do():
    for name, function in (("efficientdet_d0", "same"), ("effdet/efficientdet_d0", "")):
        pools = [layer for _, layer in named_layers(get_spec(name)) if layer.op == "max_pool"]
        assert {layer.function for layer in pools} == {function}


def test_scaling_is_for_networks_without_a_decoder():
    with pytest.raises(SpecError, match="must be a classifier; efficientdet_d0 has a decoder: scale its backbone"):
        scale("efficientdet_d0", phi=1)
    with pytest.raises(SpecError, match="the base of a search must be a classifier; efficientdet_d0 has a decoder"):
        rows_of(get_spec("efficientdet_d0"))


def test_a_decoder_needs_the_levels_that_it_reads():
    neck = Pyramid(channels=8, cells=1, min_level=6, max_level=7)
    decoder = Detector(neck=neck, head=AnchorHead(repeats=1))
    with pytest.raises(SpecError, match="at most 5"):
        named_layers(dataclasses.replace(with_detector(get_spec("b0"), 3), decoder=decoder))
