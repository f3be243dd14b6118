"""Checkpoints of effdet and segmentation_models_pytorch become bundles that answer."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import effnet
from effnet.arch.catalog import get_spec
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_module, state_arrays
from effnet.data.preprocess import normalize, resize_and_crop
from effnet.data.view.letterbox import letterbox
from effnet.errors import InputError
from effnet.jobs.import_checkpoint import import_checkpoint
from effnet.nn.dense import DenseNetwork, build_dense
from effnet.weights.schemes import from_effnet
from effnet.weights.schemes.smp import unet

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A bundle of EfficientDet-Lite0 with COCO's classes, from a checkpoint under effdet's names."""
    folder, spec = tmp_path_factory.mktemp("detector"), get_spec("efficientdet_lite0")
    state = state_arrays(build_dense(spec, seed=0))
    save_file(from_effnet(state, spec, scheme="effdet"), folder / "best.safetensors")
    return import_checkpoint(folder / "best.safetensors", preprocess={"resolution": 128}, out=folder / "bundle")


def test_a_detector_becomes_a_bundle_with_cocos_classes_and_its_preprocessing(detector):
    config = read_config(detector.folder)
    assert (config.task, config.arch.resolution, len(config.class_names)) == ("detection", 128, 90)
    assert (config.class_names[0], config.class_names[89]) == ("person", "toothbrush")
    assert (config.preprocess.mode, config.preprocess.interpolation) == ("corner", "bilinear")
    # google/automl: (x - 127) / 128.
    assert np.allclose(normalize(np.full((1, 1, 3), 255, np.uint8), config.preprocess), (255 - 127) / 128)
    assert any("COCO" in note for note in detector.notes)
    assert "pipeline_tag: object-detection" in (detector.folder / "README.md").read_text()
    assert isinstance(load_module(detector.folder), DenseNetwork)


def test_its_class_i_is_output_i_and_its_boxes_are_left_top_right_bottom(detector, tmp_path):
    """One anchor is taught an object; effdet's box codes are ty, tx, th, tw, and its classes begin at 1."""
    config = read_config(detector.folder)
    module = load_module(detector.folder)
    with torch.no_grad():
        module.get_submodule("head.scores.last.pointwise").weight.zero_()
        bias = module.get_submodule("head.scores.last.pointwise").bias.fill_(-9.0)
        bias.view(9, 90)[1, 16] = 2.0  # the second ratio of the least anchor, class 16, COCO's id 17: a cat
        module.get_submodule("head.boxes.last.pointwise").weight.zero_()
        codes = module.get_submodule("head.boxes.last.pointwise").bias.zero_().view(9, 4)
        codes[1] = torch.tensor([0.25, -0.5, 0.0, 0.1])
    save_file(from_effnet(state_arrays(module), config.arch, scheme="effdet"), tmp_path / "taught.safetensors")
    taught = import_checkpoint(
        tmp_path / "taught.safetensors", preprocess={"resolution": 128}, out=tmp_path / "b"
    ).folder  # fmt: skip
    found = effnet.load(taught).answer_in(IMAGE)
    assert {config.class_names[number] for number in found.classes} == {"cat"}
    # The wide anchor in the second row and third column of level 3, 8 pixels a cell, scale 3; the image is at its top.
    place = letterbox(96, 128, input_height=128, input_width=128)
    centre, sides = np.array([2.5, 1.5]) * 8, np.array([1.4, 0.7]) * 3 * 8
    x, y = centre + np.array([-0.5, 0.25]) * sides
    half = np.exp([0.1, 0.0]) * sides / 2
    wanted = place.to_image(np.array([[x - half[0], y - half[1], x + half[0], y + half[1]]]))
    assert np.abs(found.boxes - wanted).max(1).min() < 1e-3


def test_classes_of_another_number_must_be_named(detector, tmp_path):
    spec = get_spec("efficientdet_lite0", num_classes=2)
    save_file(from_effnet(state_arrays(build_dense(spec)), spec, scheme="effdet"), tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="has 2 classes and does not name them"):
        import_checkpoint(tmp_path / "two.safetensors", out=tmp_path / "a")
    with pytest.raises(InputError, match="COCO's ids are 1 to 90, and the checkpoint has 2 classes"):
        import_checkpoint(tmp_path / "two.safetensors", classes="coco", out=tmp_path / "a")


def test_a_unet_becomes_a_bundle_whose_mask_is_that_of_its_module(tmp_path):
    spec = unet(get_spec("lite0"), scheme="smp_timm", num_classes=3, channels=(16, 16, 8, 8, 8))
    state = state_arrays(build_dense(spec, seed=0))
    save_file(from_effnet(state, spec, scheme="smp_timm"), tmp_path / "unet.safetensors")
    made = import_checkpoint(
        tmp_path / "unet.safetensors", classes=["sky", "road", "car"], preprocess={"resolution": 64}, out=tmp_path / "b"
    )
    config = read_config(made.folder)
    assert (config.task, config.class_names, config.arch.padding) == (
        "segmentation",
        ("sky", "road", "car"),
        "symmetric",
    )
    images = normalize(resize_and_crop(IMAGE, config.preprocess)[None], config.preprocess)
    with torch.no_grad():
        mask = load_module(made.folder)(torch.from_numpy(images.transpose(0, 3, 1, 2)))["mask"]
    assert mask.shape == (1, 3, 64, 64)
    assert mask.std() > 0
