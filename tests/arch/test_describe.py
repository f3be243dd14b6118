import dataclasses

import pytest

from effnet.arch.catalog import NAMES, get_spec
from effnet.arch.cost import cost, layer_costs
from effnet.arch.describe import describe, stage_rows
from effnet.arch.layers import named_layers
from effnet.arch.spec import stage


def rows(name: str, **options: int) -> list[tuple[object, ...]]:
    return [dataclasses.astuple(row) for row in stage_rows(get_spec(name), **options)]


def test_b0_reads_like_table_1_of_the_paper_with_resolutions_that_follow_the_strides():
    assert rows("b0") == [
        ("conv3", 224, 2, 32, 1),
        ("depthwise_separable3, se 0.25", 112, 1, 16, 1),
        ("mbconv3, expand 6, se 0.25", 112, 2, 24, 2),
        ("mbconv5, expand 6, se 0.25", 56, 2, 40, 2),
        ("mbconv3, expand 6, se 0.25", 28, 2, 80, 3),
        ("mbconv5, expand 6, se 0.25", 14, 1, 112, 3),
        ("mbconv5, expand 6, se 0.25", 14, 2, 192, 4),
        ("mbconv3, expand 6, se 0.25", 7, 1, 320, 1),
        ("conv1", 7, 1, 1280, 1),
        ("pool, linear", 7, 1, 1000, 1),
    ]


def test_a_resnet_pools_in_its_stem_and_has_no_head():
    found = rows("resnet50")
    assert found[0] == ("conv7 + max pool", 224, 4, 64, 1)
    assert [row[0] for row in found[1:]] == ["bottleneck3, expand 0.25"] * 4 + ["pool, linear"]


def test_a_stage_without_shortcuts_says_so():
    assert "no skip" in rows("edgetpu_m")[1][0]
    assert "no skip" not in rows("edgetpu_m")[2][0]
    single = stage("mbconv", repeats=1, expand_ratio=6, in_channels=32, out_channels=16)
    assert "no skip" not in stage_rows(dataclasses.replace(get_spec("b0"), stages=(single,)))[1].operator


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resolution", [None, 33, 1])
def test_the_last_row_has_the_side_that_the_layers_have(name, resolution):
    spec = get_spec(name)
    sides = {row.name: row.size[0] for row in layer_costs(spec, resolution=resolution)}
    last = sides["head.conv"] if spec.head_channels else sides[f"stages.{len(spec.stages) - 1}.0.add"]
    assert stage_rows(spec, resolution=resolution)[-1].resolution == last


def test_a_network_without_head_and_classifier_ends_with_its_stages():
    spec = dataclasses.replace(get_spec("b0"), head_channels=0, num_classes=0)
    assert stage_rows(spec)[-1].operator == "mbconv3, expand 6, se 0.25"


def test_the_text_names_the_totals_and_every_layer_once():
    spec = get_spec("b0")
    text = describe(spec)
    total = cost(spec)
    assert text.startswith("b0: 3 x 224 x 224 -> 1000 classes\n")
    assert f"params {total.params}, macs {total.macs}" in text
    assert "activation silu, se gate sigmoid, norm epsilon 0.001, padding same" in text
    table = text[text.index("layer  ") :].splitlines()[1:]
    assert [line.split()[0] for line in table] == [name for name, _ in named_layers(spec)]
    assert sum(int(line.split()[-1]) for line in table) == total.macs
    assert sum(int(line.split()[-2]) for line in table) == total.params


def test_lines_end_without_blanks_and_the_text_with_a_newline():
    text = describe(get_spec("lite4"))
    assert text.endswith("\n")
    assert all(line == line.rstrip() for line in text.splitlines())
