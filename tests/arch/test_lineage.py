"""The origin of networks, the names made of it, and that no code reads a name back."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

import effnet
from effnet.arch.catalog import NAMES, get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale
from effnet.errors import SpecError
from effnet.planner.space import list_candidates

# Methods and functions that take a text apart or look into it.
READS = {
    "partition", "rpartition", "split", "rsplit", "startswith", "endswith", "removeprefix", "removesuffix", "find",
    "index", "count", "replace", "match", "fullmatch", "search", "sub", "findall", "strip",
}  # fmt: skip


@pytest.mark.parametrize(
    "lineage, name, title",
    [
        (Lineage(base="two scales"), "two scales", "two scales, 96 px"),
        (Lineage(base="tf_efficientnet_lite0", network="lite0"), "tf_efficientnet_lite0", "Lite0, 96 px"),
        (
            Lineage(
                base="v2_b0", network="v2_b0", scaled="phi -12", width=1.1**-12, resolution=96, stride=4, expand=3,
                stages=5,
            ),
            "v2_b0 phi -12 at 96 stride 4 expand 3 first 5 stages",
            "V2-B0 x0.32, 96 px, stride 4, expand 3, 5 stages",
        ),
        (
            Lineage(base="b0", network="b0", variant="hard_swish", scaled="phi 1", width=1.1, resolution=96),
            "b0 hard_swish phi 1 at 96",
            "B0 x1.10, 96 px, hard-swish",
        ),
        (
            Lineage(base="lite0", network="lite0", resolution=96, activation="relu6", pruned_macs=65_300_000),
            "lite0 at 96 with relu6 pruned to 65.3M MACs",
            "Lite0, 96 px, ReLU6, pruned to 65.3M MACs",
        ),
        (
            Lineage(base="timm/b0.ra_in1k", network="b0", tag="ra_in1k", resolution=96, kept=0.88, kept_of="params"),
            "timm/b0.ra_in1k at 96 pruned to 88% of params",
            "B0 ra_in1k, 96 px, pruned to 88% of parameters",
        ),
        (
            Lineage(base="b0", network="b0", activation="relu6", kept=0.5),
            "b0 with relu6, pruned to 50% of macs",
            "B0, 96 px, ReLU6, pruned to 50% of MACs",
        ),
        (
            Lineage(base="b0", network="b0", scaled="width 1 depth 2", depth=2.0),
            "b0 width 1 depth 2",
            "B0, depth x2, 96 px",
        ),
    ],
)  # fmt: skip
def test_names_and_titles_are_made_of_the_origin(lineage, name, title):
    spec = dataclasses.replace(get_spec("b0"), lineage=lineage, resolution=96)
    assert (spec.name, spec.title) == (name, title)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_of_the_catalog_knows_itself_and_what_is_scaled_from_it(name):
    assert get_spec(name).lineage == Lineage(base=name, network=name)
    small = scale(f"{name}", phi=-2, resolution=64)
    assert (small.lineage.network, small.lineage.resolution) == (name, 64)
    assert small.lineage.width == pytest.approx(1.1**-2)
    assert small.title.endswith(" x0.83, 64 px")


def test_the_titles_of_candidates_tell_them_apart_as_their_names_do():
    found = list_candidates(num_classes=10, channels=3, short_side=32, precisions=("fp32", "int8"))
    assert len({c.title for c in found}) == len({(c.spec.name, c.precision) for c in found}) == len(found)
    assert max(len(c.title) for c in found) < 70


def test_the_origin_is_kept_in_a_file_and_changes_neither_the_network_nor_its_equality():
    spec = scale(get_spec("tf_efficientnet_b0"), phi=-3, resolution=48)
    data = json.loads(json.dumps(spec_to_dict(spec)))
    assert data["name"] == "tf_efficientnet_b0 phi -3 at 48"
    back = spec_from_dict(data)
    assert back.lineage == spec.lineage
    other = dataclasses.replace(spec, lineage=Lineage(base="other"))
    assert (other, hash(other)) == (spec, hash(spec))


def test_a_name_changed_in_a_file_is_the_name_of_another_network():
    data = spec_to_dict(get_spec("v2_s")) | {"name": "b0 at 3"}
    assert spec_from_dict(data).lineage == Lineage(base="b0 at 3")
    del data["lineage"]
    assert spec_from_dict(data).lineage == Lineage(base="b0 at 3")


@pytest.mark.parametrize(
    "lineage, words",
    [
        ([], r"lineage must be an object; got \[\]"),
        ({"bse": "b0"}, r"lineage has no field 'bse'; did you mean 'base'\?"),
        ({"base": "b0", "resolution": "big"}, r"lineage\.resolution must be a whole number; got 'big'"),
        ({"base": "b0\n"}, r"name must be printable text of at most 200 characters"),
        ({"base": "b" * 201}, r"name must be printable text of at most 200 characters"),
    ],
)
def test_a_wrong_origin_in_a_file_is_refused(lineage, words):
    with pytest.raises(SpecError, match=words):
        spec_from_dict(spec_to_dict(get_spec("b0")) | {"lineage": lineage})


@pytest.mark.parametrize(
    "base, words",
    [({"a": 1}, r"characters; got \{'a': 1\}"), ("x" * 201, r"got 'x{79}\.\.\."), ("a\x1b[31m", "printable text")],
)
def test_a_name_that_cannot_be_shown_is_refused(base, words):
    with pytest.raises(SpecError, match=words):
        Lineage(base=base)


def test_no_code_takes_the_name_of_a_network_apart():
    found = []
    for path in Path(effnet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if _reads_a_name(node):
                found.append(f"{path}:{node.lineno}")
    assert found == []


def _reads_a_name(node):
    """Whether the node calls something that takes a text apart on a network's name, or compares or indexes one."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READS:
        return any(map(_is_a_name, (node.func.value, *node.args)))
    if isinstance(node, ast.Compare):
        return any(map(_is_a_name, (node.left, *node.comparators)))
    return isinstance(node, ast.Subscript) and _is_a_name(node.value)


def _is_a_name(node):
    """Whether the expression is the name or title of something that is called a spec, an arch or a network."""
    if not isinstance(node, ast.Attribute) or node.attr not in ("name", "title"):
        return False
    owner = node.value
    called = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return called in ("spec", "arch", "lineage", "network", "whole", "shape")
