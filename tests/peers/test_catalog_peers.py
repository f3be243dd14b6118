"""The catalog of published weights against the registries of those who publish them."""

import ast
import importlib.util
import math
import re
from pathlib import Path

import pytest

from effnet.arch.catalog import get_spec
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_module
from effnet.jobs.pull import pull
from effnet.weights.catalog import entries, find, preprocess_of
from effnet.weights.class_names import class_names, wnid_names

TIMM = entries(scheme="timm", supported_only=False)


@pytest.mark.parametrize("entry", TIMM, ids=lambda e: e.id)
def test_timm_has_the_same_facts(timm, entry):
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(entry.id.partition("/")[2], allow_unregistered=False)
    assert entry.untrained == (not cfg.has_weights)
    assert entry.hub == (cfg.hf_hub_id or "")
    assert entry.num_classes == cfg.num_classes
    assert entry.licence == cfg.license
    if cfg.url:
        assert entry.legacy_files == (cfg.url.rpartition("/")[2],)
    train, test = preprocess_of(entry, test=False), preprocess_of(entry)
    assert (train.resolution, train.crop) == (cfg.input_size[1], cfg.crop_pct)
    assert test.resolution == (cfg.test_input_size or cfg.input_size)[1]
    assert test.crop == (cfg.test_crop_pct or cfg.crop_pct)
    assert (test.mode, test.interpolation) == (cfg.crop_mode or "center", cfg.interpolation)
    assert (test.mean, test.std) == (tuple(cfg.mean), tuple(cfg.std))


def test_timm_has_no_other_weights_of_the_family(timm):
    published = [name for name in timm.list_models(module="efficientnet", pretrained=True) if "efficientnet" in name]
    assert sorted(published) == sorted(e.id.partition("/")[2] for e in TIMM if not e.untrained)


def test_names_that_timm_gave_up_are_found(timm):
    from timm.models._registry import _module_to_deprecated_models

    older = {
        old: new
        for old, new in _module_to_deprecated_models["efficientnet"].items()
        if "efficientnet" in new and "." in new
    }
    assert len(older) > 20
    for old, new in older.items():
        assert find(old).id == f"timm/{new}"


@pytest.mark.parametrize("name", ["b1_pruned", "b2_pruned", "b3_pruned", "es_pruned", "el_pruned"])
def test_pruned_networks_have_timms_counts(timm, name):
    import torch

    with torch.device("meta"):
        network = timm.create_model(f"efficientnet_{name}")
    entry = find(f"efficientnet_{name}.in1k")
    assert entry.params == sum(p.numel() for p in network.parameters())
    # Google's pruned EdgeTPU networks have zeros in them, not fewer channels.
    assert entry.pruned == name.startswith("b")
    ours = get_spec(entry.network)
    assert network.bn1.eps == ours.norm_epsilon
    assert (type(network.conv_stem).__name__ == "Conv2dSame") == (ours.padding == "same")


def test_timms_file_of_a_pruned_network_is_pulled_and_computes_the_same(timm, two_threads, tmp_path):
    import safetensors.torch
    import torch

    torch.manual_seed(0)
    theirs = timm.create_model("efficientnet_b1_pruned").eval()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    folder = pull("efficientnet_b1_pruned.in1k", file=tmp_path / "model.safetensors", out=tmp_path / "out")
    ours = load_module(folder)
    pixels = torch.randn(1, 3, 240, 240)
    with torch.no_grad():
        assert torch.allclose(ours(pixels), theirs(pixels), atol=1e-4)
    assert read_config(folder).preprocess.std == (0.5, 0.5, 0.5)
    assert read_config(folder).class_names == class_names(1000)


@pytest.mark.parametrize("entry", entries(scheme="torchvision"), ids=lambda e: e.id)
def test_torchvision_has_the_same_facts(torchvision, entry):
    name, _, tag = entry.id.partition("/")[2].partition(".")
    weights = torchvision.models.get_model_weights(name)[tag]
    assert weights.url == entry.url
    assert weights.meta["num_params"] == entry.params
    assert weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] == entry.top1
    transforms, preprocess = weights.transforms(), preprocess_of(entry)
    assert transforms.crop_size == [preprocess.resolution]
    assert transforms.resize_size == [math.floor(preprocess.resolution / preprocess.crop)]
    assert transforms.interpolation.value == preprocess.interpolation
    assert (tuple(transforms.mean), tuple(transforms.std)) == (preprocess.mean, preprocess.std)


def test_torchvisions_newest_weights_are_all_there(torchvision):
    for name in [f"efficientnet_{x}" for x in ("b0", "b1", "b7", "v2_s", "v2_l")] + ["resnet18", "resnet152"]:
        tags = {f"torchvision/{name}.{weights.name}" for weights in torchvision.models.get_model_weights(name)}
        assert tags == {e.id for e in entries(scheme="torchvision") if e.id.startswith(f"torchvision/{name}.")}


@pytest.mark.parametrize(
    "file, pattern", [("efficientnet", "efficientnet{}"), ("efficientnet_v2", "efficientnetv2-{}")]
)
def test_keras_has_the_same_hashes(file, pattern):
    found = importlib.util.find_spec("keras")
    if found is None:
        pytest.skip('keras is absent; install it with: pip install "effnet[peers]"')
    source = (Path(found.origin).parent / "src" / "applications" / f"{file}.py").read_text(encoding="utf-8")
    base = re.search(r'BASE_WEIGHTS_PATH = "(.*?)"', source)[1]
    hashes = ast.literal_eval(re.search(r"WEIGHTS_HASHES = (\{.*?\n\})", source, re.DOTALL)[1])
    assert len(hashes) in (7, 8)
    for size, (top, headless) in hashes.items():
        name = pattern.format(size.removeprefix("-"))
        for suffix, md5 in (("", top), ("_notop", headless)):
            entry = find(f"{name}{suffix}.h5")
            assert (entry.url, entry.hashes) == (f"{base}{name}{suffix}.h5", (f"md5:{md5}",))


def test_class_names_are_those_of_timm_and_torchvision(timm, torchvision):
    from timm.data import ImageNetInfo

    ours, theirs = class_names(1000), torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    differ = {i: (a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b}
    assert set(differ) == {134, 517, 638, 639}
    names = wnid_names()
    assert tuple(names[wnid] for wnid in ImageNetInfo("imagenet-1k").label_names()) == ours
    for subset, count in (("imagenet-12k", 11821), ("imagenet-21k-goog", 21843)):
        info, found = ImageNetInfo(subset), class_names(count)
        assert len(found) == info.num_classes()
        for index in range(0, count, 97):
            lemma = info.index_to_description(index).partition(", ")[0]
            assert found[index] in (lemma, f"{lemma} ({info.index_to_label_name(index)})")
