"""Every named network against the counts published by its authors, torchvision and timm."""

import sys

import pytest

from effnet.arch.catalog import NAMES, get_spec
from effnet.arch.cost import cost, layer_costs

# name params GMACs blocks stem head final_side buffers stages (channels x repeats).
# Source: tensorflow/tpu @7dc921f846c9, google/automl @6a54c8741e7c; torchvision's num_params agree exactly.
EFFICIENTNETS = """
b0         5288548   0.386  16  32 1280  7   42016 16x1 24x2 40x2 80x3 112x3 192x4 320x1
b1         7794184   0.687  23  32 1280  8   62048 16x2 24x3 40x3 80x4 112x4 192x5 320x2
b2         9109994   0.994  23  32 1408  9   67568 16x2 24x3 48x3 88x4 120x4 208x5 352x2
b3        12233232   1.827  26  40 1536 10   87296 24x2 32x3 48x3 96x5 136x5 232x6 384x2
b4        19341616   4.394  32  48 1792 12  125200 24x2 32x4 56x4 112x6 160x6 272x8 448x2
b5        30389784  10.266  39  48 2048 15  172736 24x3 40x5 64x5 128x7 176x7 304x9 512x3
b6        43040704  19.068  45  56 2304 17  224432 32x3 40x6 72x6 144x8 200x8 344x11 576x3
b7        66347960  37.746  55  64 2560 19  310720 32x4 48x7 80x7 160x10 224x10 384x13 640x4
b8        87413142  62.597  61  72 2816 21  380032 32x4 56x8 88x8 176x11 248x11 424x15 704x4
l2       480309308 475.704  88 136 5504 25 1090688 72x6 104x11 176x11 344x16 480x16 824x22 1376x6
lite0      4652008   0.385  16  32 1280  7       - 16x1 24x2 40x2 80x3 112x3 192x4 320x1
lite1      5416680   0.600  21  32 1280  8       - 16x1 24x3 40x3 80x4 112x4 192x5 320x1
lite2      6092072   0.860  21  32 1280  9       - 16x1 24x3 48x3 88x4 120x4 208x5 352x1
lite3      8197096   1.383  24  32 1280  9       - 24x1 32x3 48x3 96x5 136x5 232x6 384x1
lite4     13006568   2.553  30  32 1280 10       - 24x1 32x4 56x4 112x6 160x6 272x8 448x1
edgetpu_s  5438392   1.789  18  32 1280  7       - 24x1 32x2 48x4 96x5 144x4 192x2
edgetpu_m  6899496   3.013  24  32 1280  8       - 24x2 32x3 48x5 96x6 144x5 192x3
edgetpu_l 10589712   7.936  27  40 1536 10       - 32x2 40x3 56x6 112x7 176x6 232x3
v2_b0      7139704   0.718  21  32 1280  7   60608 16x1 32x2 48x2 96x3 112x5 192x8
v2_b1      8141052   1.197  27  32 1280  8   71072 16x2 32x3 48x3 96x4 112x6 192x9
v2_b2     10096086   1.698  28  32 1408  9   82288 16x2 32x3 56x3 104x4 120x6 208x10
v2_b3     14358406   3.011  32  40 1536 10  109216 16x2 40x3 56x3 112x5 136x7 232x12
v2_s      21458488   8.366  40  24 1280 12  153872 24x2 48x4 64x4 128x6 160x9 256x15
v2_m      54139356  24.582  57  24 1280 15  292032 24x3 48x5 80x5 160x7 176x14 304x18 512x5
v2_l     118515272  56.080  79  32 1280 15  512576 32x4 64x7 96x7 192x10 224x19 384x25 640x7
v2_xl    208119808  93.353 100  32 1280 16  777024 32x4 64x8 96x8 192x16 256x24 512x32 640x8
"""

# name: params, GMACs, blocks. Source: torchvision/models/resnet.py, _metrics of IMAGENET1K_V1.
RESNETS = {
    "resnet18": (11689512, 1.814, 8),
    "resnet34": (21797672, 3.664, 16),
    "resnet50": (25557032, 4.089, 16),
    "resnet101": (44549160, 7.801, 33),
    "resnet152": (60192808, 11.514, 50),
}

ROWS = [line.split() for line in EFFICIENTNETS.strip().splitlines()]


def test_the_tables_hold_every_named_network():
    assert {row[0] for row in ROWS} | set(RESNETS) == set(NAMES)
    assert len(NAMES) == len(set(NAMES)) == 31


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_efficientnet_has_its_published_size_and_shape(row):
    name, params, gmacs, blocks, stem, head, final_side, buffers, *stages = row
    spec = get_spec(name)
    found = cost(spec)
    assert found.params == int(params)
    assert f"{found.macs / 1e9:.3f}" == gmacs
    assert len(spec.blocks) == int(blocks)
    assert spec.stem.channels == int(stem)
    assert spec.head_channels == spec.feature_channels == int(head)
    assert [f"{blocks[-1].out_channels}x{len(blocks)}" for blocks in spec.stages] == stages
    assert buffers in ("-", str(found.buffers))
    assert {row.name: row.size for row in layer_costs(spec)}["head.conv"] == (int(final_side),) * 2
    assert spec.total_stride == 32


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_has_the_size_that_torchvision_publishes(name):
    params, gmacs, blocks = RESNETS[name]
    spec = get_spec(name)
    found = cost(spec)
    assert found.params == params
    assert f"{found.macs / 1e9:.3f}" == f"{gmacs:.3f}"
    assert (len(spec.blocks), spec.head_channels, spec.total_stride) == (blocks, 0, 32)
    assert spec.feature_channels == (512 if name in ("resnet18", "resnet34") else 2048)


def test_the_layer_table_adds_up_to_the_total():
    for name in NAMES:
        spec = get_spec(name)
        rows = layer_costs(spec)
        found = cost(spec)
        assert sum(row.params for row in rows) == found.params
        assert sum(row.macs for row in rows) == found.macs


def test_the_cost_of_b0_takes_few_steps():
    """Planning computes the cost of thousands of networks; calls are counted, which does not depend on the machine."""
    spec, calls = get_spec("b0"), []
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event == "call" else None)
    try:
        cost(spec)
    finally:
        sys.setprofile(None)
    assert len(calls) < 3000
