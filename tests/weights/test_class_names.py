"""ImageNet's class names: their order, their number, and that they are distinct."""

from pathlib import Path

import pytest

import effnet.weights.class_names as module
from effnet.weights.class_names import class_names, wnid_names


@pytest.mark.parametrize("count", [1000, 1001, 11821, 21843])
def test_there_are_as_many_names_as_classes_and_each_once(count):
    names = class_names(count)
    assert len(names) == len(set(names)) == count
    assert all(name == name.strip() != "" for name in names)


@pytest.mark.parametrize("count", [0, 2, 999, 21841])
def test_other_numbers_of_classes_have_no_names(count):
    assert class_names(count) is None


def test_well_known_classes_stand_where_everybody_expects_them():
    names = class_names(1000)
    known = {
        0: "tench",
        207: "golden retriever",
        281: "tabby",
        388: "giant panda",
        817: "sports car",
        999: "toilet tissue",
    }
    assert {index: names[index] for index in known} == known


def test_the_background_comes_first():
    assert class_names(1001)[1:] == class_names(1000)
    assert class_names(1001)[0] == "background"


def test_two_cranes_and_two_maillots_are_told_apart():
    names = class_names(1000)
    assert [names[i] for i in (134, 517)] == ["crane (bird)", "crane (machine)"]
    assert [names[i] for i in (638, 639)] == ["maillot (tights)", "maillot (swimsuit)"]
    assert {"crane (n02012849)", "crane (n03126707)"} < set(class_names(21843))


def test_synsets_have_names():
    names = wnid_names()
    assert len(names) == 21844  # ImageNet-21k lacks the teddy of ImageNet-1k
    assert names["n01440764"] == "tench"
    assert names["n04399382"] == "teddy"
    assert set(class_names(1000)) < set(names.values())


def test_the_data_are_small():
    data = Path(module.__file__).with_name("data")
    assert sum((data / name).stat().st_size for name in ("imagenet1k.tsv", "imagenet21k.tsv.gz")) < 500_000
