"""The catalog of published weights against the networks, the sources' own tables and itself."""

import math
import re
from pathlib import Path

import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.errors import SpecError, WeightsError
from effnet.weights.catalog import FAMILIES, SCHEMES, entries, find, preprocess_of, with_file

ALL = entries(supported_only=False)
FACTS = Path(__file__).parents[2].parent / "shared" / "reference" / "efficientnet-facts.md"


def timm_table():
    """Return the rows of the table of timm's entries, cells as texts."""
    if not FACTS.is_file():
        pytest.skip(f"{FACTS.name} is absent")
    text = FACTS.read_text(encoding="utf-8").partition("## 11.")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if "." in row[0]]


def test_every_entry_of_timm_is_there_as_its_table_has_it():
    rows, found = timm_table(), entries(scheme="timm", supported_only=False)
    assert len(rows) == len(found) == 114
    for row, entry in zip(rows, found, strict=True):
        tag, size, test_size, crop, test_crop, how, mode, normalisation, classes, hub, legacy, top1 = row
        assert entry.id == f"timm/{tag}"
        assert entry.hub == ("" if hub == "-" else hub)
        assert entry.resolution == int(size)
        assert entry.test_resolution == int(test_size or size)
        assert entry.crop == float(crop)
        assert entry.test_crop == float(test_crop or crop)
        assert (entry.interpolation, entry.mode, entry.num_classes) == (how, mode, int(classes))
        assert entry.mean == {"in": (0.485, 0.456, 0.406), "0.5": (0.5,) * 3}[normalisation]
        assert entry.std == {"in": (0.229, 0.224, 0.225), "0.5": (0.5,) * 3}[normalisation]
        assert entry.legacy_files == ((legacy,) if legacy else ())
        assert "; ".join(f"{value:.3f}@{at}" for value, at in entry.accuracies) == top1


def test_what_has_no_weights_is_named_untrained():
    untrained = [entry.id for entry in ALL if entry.untrained]
    assert len(untrained) == 22
    assert untrained == [entry.id for entry in ALL if entry.id.endswith(".untrained")]
    assert not set(untrained) & {entry.id for entry in entries()}


@pytest.mark.parametrize("entry", [e for e in ALL if not e.unsupported], ids=lambda e: e.id)
def test_every_supported_entry_names_a_network_of_its_size(entry):
    params = cost(get_spec(entry.network, num_classes=entry.num_classes)).params
    if entry.pruned:
        assert entry.params < params
    else:
        assert entry.params == params


def test_what_is_unsupported_says_why_and_names_no_network():
    unsupported = [entry for entry in ALL if entry.unsupported]
    assert len(unsupported) == 26
    for entry in unsupported:
        assert len(entry.unsupported) > 10
        with pytest.raises(SpecError):
            get_spec(entry.network)


def test_the_entries_of_each_origin_are_all_there():
    counts = {scheme: len(entries(scheme=scheme, supported_only=False)) for scheme in SCHEMES}
    # torchvision: B0-B7 and a second B1, V2 S-L, eight ResNets; Keras: 15 networks with and without a classifier;
    # TensorFlow: 6 + 8 + 2 + 9 + 10 of V1, 5 Lite, 3 EdgeTPU, 3 CondConv, 15 of V2; lukemelas: 8 and 9; PyPI: Lite0-2.
    assert counts == {"timm": 114, "torchvision": 20, "keras": 30, "tensorflow": 61, "lukemelas": 17, "pypi": 3}


def test_ids_are_distinct_and_begin_with_their_scheme():
    assert len({entry.id.lower() for entry in ALL}) == len(ALL)
    assert all(entry.id.startswith(f"{entry.scheme}/") for entry in ALL)


def test_every_file_has_a_place_and_a_hash_where_one_is_published():
    for entry in ALL:
        if entry.untrained:
            assert entry.hub == entry.url == ""
            continue
        assert bool(entry.hub) != bool(entry.url)
        assert entry.url == "" or entry.package or entry.url.endswith(f"/{entry.file}")
        assert all(re.fullmatch(r"sha256:([0-9a-f]{8}|[0-9a-f]{64})|md5:[0-9a-f]{32}", text) for text in entry.hashes)
        assert entry.hashes or entry.scheme == "tensorflow" or (entry.hub and not entry.legacy_files)
        # Published names end with the beginning of the hash.
        for name in (entry.file, *entry.legacy_files):
            if found := re.search(r"-([0-9a-f]{8})\.pth$", name):
                assert any(text.startswith(f"sha256:{found[1]}") for text in entry.hashes)


def test_torchvisions_renamed_files_are_accepted_by_both_hashes():
    renamed = [entry for entry in entries(scheme="torchvision") if len(entry.hashes) == 2]
    assert [entry.network for entry in renamed] == [f"torchvision/efficientnet_b{i}" for i in range(8)]
    assert renamed[0].hashes == (
        "sha256:7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
        "sha256:3dd342df",
    )


def test_preprocessing_is_valid_and_resizes_to_whole_pixels():
    for entry in ALL:
        for test in (True, False):
            preprocess = preprocess_of(entry, test=test)
            assert preprocess.resolution in {entry.resolution, entry.test_resolution}
            assert preprocess.channels == 3
    shorter = {
        "torchvision/efficientnet_b1.IMAGENET1K_V1": 256,
        "torchvision/efficientnet_b1.IMAGENET1K_V2": 255,
        "torchvision/efficientnet_b3.IMAGENET1K_V1": 320,
        "torchvision/efficientnet_b4.IMAGENET1K_V1": 384,
        "torchvision/efficientnet_b7.IMAGENET1K_V1": 600,
        "torchvision/resnet50.IMAGENET1K_V1": 256,
        "torchvision/resnet50.IMAGENET1K_V2": 232,
    }
    # Google's crops keep the middle s / (s + 32) of the image.
    google = [e for e in ALL if e.scheme in ("tensorflow", "keras", "lukemelas", "pypi") and e.mode == "center"]
    assert len(google) > 80
    shorter |= {entry.id: entry.resolution + 32 for entry in google}
    for name, resized in shorter.items():
        preprocess = preprocess_of(find(name))
        assert math.floor(preprocess.resolution / preprocess.crop) == resized, name


def test_training_and_test_sizes_differ_where_they_were_published_so():
    entry = find("efficientnet_b0.ra4_e3600_r224_in1k")
    train, test = preprocess_of(entry, test=False), preprocess_of(entry)
    assert (train.resolution, train.crop) == (224, 0.9)
    assert (test.resolution, test.crop) == (256, 1.0)
    assert (entry.top1, entry.accuracies) == (79.364, ((79.364, 256), (78.568, 224)))


def test_integers_of_the_training_normalise_to_what_the_network_saw():
    for name, low, high in [
        ("tensorflow/efficientnet-lite0.in1k", -127 / 128, 1.0),
        ("tensorflow/efficientnetv2-s.in1k", -1.0, 127 / 128),
        ("keras/efficientnet_v2_s.imagenet", -1.0, 127 / 128),
        ("tensorflow/efficientnet-b0.ap", -1.0, 1.0),
    ]:
        preprocess = preprocess_of(find(name))
        assert (0 - preprocess.mean[0]) / preprocess.std[0] == pytest.approx(low)
        assert (1 - preprocess.mean[0]) / preprocess.std[0] == pytest.approx(high)


def test_the_background_class_is_counted_where_the_file_has_it():
    assert [e.id for e in ALL if e.num_classes == 1001] == [
        f"tensorflow/efficientnet-edgetpu-{size}.in1k" for size in "SML"
    ]
    assert {e.num_classes for e in ALL} == {0, 1000, 1001, 11821, 21843}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_part_the_entries(family):
    assert {entry.family for entry in entries(family=family)} == {family}
    assert sum(len(entries(family=name, supported_only=False)) for name in FAMILIES) == len(ALL)


def test_an_unknown_family_is_refused():
    with pytest.raises(WeightsError, match=r"family must be one of v1, lite, .*; received 'lit'; did you mean 'lite'"):
        entries(family="lit")


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.id)
def test_an_entry_is_found_by_its_id_with_and_without_its_scheme(entry):
    assert find(entry.id) is entry
    bare = entry.id.partition("/")[2]
    if sum(other.id.endswith(f"/{bare}") for other in ALL) == 1:
        assert find(bare) is entry


@pytest.mark.parametrize(
    "name, expected",
    [
        ("tf_efficientnet_b0_ns", "timm/tf_efficientnet_b0.ns_jft_in1k"),
        ("TF_EfficientNet_B0_NS", "timm/tf_efficientnet_b0.ns_jft_in1k"),
        ("timm/tf_efficientnet_b8_ap", "timm/tf_efficientnet_b8.ap_in1k"),
        ("tf_efficientnet_l2_ns", "timm/tf_efficientnet_l2.ns_jft_in1k"),
        ("tf_efficientnet_l2_ns_475", "timm/tf_efficientnet_l2.ns_jft_in1k_475"),
        ("tf_efficientnetv2_s_in21ft1k", "timm/tf_efficientnetv2_s.in21k_ft_in1k"),
        ("tf_efficientnetv2_xl_in21k", "timm/tf_efficientnetv2_xl.in21k"),
        ("efficientnet_b2a", "timm/efficientnet_b2.ra_in1k"),
        ("efficientnet_b3a", "timm/efficientnet_b3.ra2_in1k"),
        ("tf_efficientnet_lite0-0aa007d2.pth", "timm/tf_efficientnet_lite0.in1k"),
        ("efficientnet_b5_lukemelas-b6417697.pth", "torchvision/efficientnet_b5.IMAGENET1K_V1"),
        ("efficientnet_b5_lukemelas-1a07897c.pth", "torchvision/efficientnet_b5.IMAGENET1K_V1"),
        ("adv-efficientnet-b8-22a8fe65.pth", "lukemelas/efficientnet-b8.ap"),
        ("efficientnetv2-b0_notop.h5", "keras/efficientnet_v2_b0.imagenet_notop"),
    ],
)
def test_older_names_and_file_names_are_found(name, expected):
    assert find(name).id == expected


@pytest.mark.parametrize(
    "name, expected",
    [
        ("b0", "timm/tf_efficientnet_b0.ns_jft_in1k"),
        ("lite0", "timm/tf_efficientnet_lite0.in1k"),
        ("efficientnet_lite0", "timm/efficientnet_lite0.ra_in1k"),
        ("efficientnet_b0", "timm/efficientnet_b0.ra4_e3600_r224_in1k"),
        ("efficientnet_b5", "timm/efficientnet_b5.sw_in12k_ft_in1k"),
        ("v2_b3", "timm/tf_efficientnetv2_b3.in21k_ft_in1k"),
        ("efficientnet_v2_s", "torchvision/efficientnet_v2_s.IMAGENET1K_V1"),
        ("resnet50", "torchvision/resnet50.IMAGENET1K_V2"),
        ("torchvision/efficientnet_b1", "torchvision/efficientnet_b1.IMAGENET1K_V2"),
        ("torchvision/efficientnet_b5", "torchvision/efficientnet_b5.IMAGENET1K_V1"),
        ("keras/b0", "keras/efficientnet_b0.imagenet"),
        ("keras/efficientnet_b0", "keras/efficientnet_b0.imagenet"),
        ("tensorflow/efficientnet-b0", "tensorflow/efficientnet-b0.ns"),
        ("lukemelas/efficientnet-b7", "lukemelas/efficientnet-b7.ap"),
        ("edgetpu_s", "timm/tf_efficientnet_es.in1k"),
    ],
)
def test_a_networks_name_stands_for_its_best_weights(name, expected):
    assert find(name).id == expected


def test_the_best_weights_are_of_the_same_function():
    for name in ("b0", "efficientnet_b0", "torchvision/efficientnet_b5", "lite3", "v2_m"):
        wanted, found = get_spec(name), get_spec(find(name).network)
        assert (found.padding, found.norm_epsilon, found.stages) == (wanted.padding, wanted.norm_epsilon, wanted.stages)


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "tf_efficientnet_lit0",
            r"no published weights are named 'tf_efficientnet_lit0'; did you mean 'tf_\w+_lite0\.",
        ),
        ("", "no published weights are named ''"),
        ("model.safetensors", "no published weights are named"),
        ("foo/b0", "no published weights are named"),
        (
            "efficientnet_b7",
            r"no weights were published for the network 'efficientnet_b7'; .*timm/tf_efficientnet_b7\.ns",
        ),
        ("keras/resnet50", "no weights were published for the network 'keras/resnet50'; .*torchvision/resnet50"),
        ("efficientnet-b0.tar.gz", r"several published weights .* one of tensorflow/efficientnet-b0\.base, "),
        ("efficientnet-b0.aa", r"one of tensorflow/efficientnet-b0\.aa, lukemelas/efficientnet-b0\.aa$"),
    ],
)
def test_what_is_not_found_is_said_with_a_hint(name, message):
    with pytest.raises(WeightsError, match=message):
        find(name)


def test_files_are_told_by_their_names():
    assert [e.id for e in with_file("efficientnetb0.h5")] == ["keras/efficientnet_b0.imagenet"]
    assert len(with_file("efficientnet-b0.tar.gz")) == 3
    assert with_file("model.safetensors") == with_file("") == ()


def test_looking_at_the_catalog_loads_no_array_package(run_python):
    code = "import effnet.weights.catalog as c, sys; c.find('b0'); print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    assert run_python("-c", code).out == "set()\n"
