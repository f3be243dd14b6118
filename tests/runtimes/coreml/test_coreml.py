"""Core ML: the package's inputs, outputs and metadata. Only Apple's systems run it, so its numbers are not tested."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from several_outputs import write_several
from strategies import build_trained, state_arrays

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError, MissingExtraError
from effnet.runtimes.registry import find_format, open_engine
from effnet.runtimes.write import write_export

SIDE = 31
NAMES = ("cat", "café", "猫")

pytestmark = pytest.mark.usefixtures("one_thread")


def bundle_of(channels):
    b0 = get_spec("b0", num_classes=len(NAMES), in_channels=channels)
    spec = dataclasses.replace(b0, stages=b0.stages[:2], head_channels=24)
    preprocess = Preprocess(resolution=SIDE, mean=(0.4,) * channels, std=(0.2,) * channels)
    state = state_arrays(build_trained(spec, resolution=SIDE))
    return ModelConfig(arch=spec, preprocess=preprocess, class_names=NAMES, threshold=0.5), state


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle, its package, written twice, and the package's specification."""
    folder = tmp_path_factory.mktemp("coreml")
    config, state = bundle_of(3)
    for _ in range(2):
        path = write_export("coreml", folder, config, state)
    import coremltools

    return config, state, path, coremltools.utils.load_spec(str(path))


def test_its_input_is_a_image_and_its_outputs_are_the_class_and_each_ones_probability(exported):
    description = exported[3].description
    (image,) = description.input
    kind = image.type.imageType
    assert (image.name, kind.width, kind.height) == ("image", SIDE, SIDE)
    assert kind.colorSpace == kind.ColorSpace.Value("RGB")
    assert [(output.name, output.type.WhichOneof("Type")) for output in description.output] == [
        ("classLabel", "stringType"),
        ("classLabel_probs", "dictionaryType"),
    ]
    assert description.predictedFeatureName == "classLabel"


def operations_of(spec):
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def test_it_knows_its_classes_and_its_preprocessing(exported):
    config, spec = exported[0], exported[3]
    told = spec.description.metadata.userDefined
    assert json.loads(told["class_names"]) == list(NAMES)
    assert json.loads(told["preprocess"]) == config.preprocess.to_dict()
    assert (told["network"], told["threshold"]) == ("b0", "0.5")
    classify = next(operation for operation in operations_of(spec) if operation.type == "classify")
    (labels,) = classify.inputs["classes"].arguments
    held = [value.immediateValue.tensor.strings.values[0] for value in labels.value.immediateValue.list.values]
    assert held == list(NAMES)


def test_it_has_every_layer_and_weights_of_16_bits(exported):
    config, _, path, spec = exported
    kinds = [operation.type for operation in operations_of(spec)]
    assert kinds.count("conv") == sum(layer.op == "conv" for _, layer in named_layers(config.arch))
    assert kinds[-2:] == ["cast", "classify"]
    assert "softmax" in kinds
    weights = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    least = 2 * cost(config.arch).folded_params
    assert 0.9 * least < weights.stat().st_size < 1.5 * least  # tiny constants are in the program itself
    assert find_format("coreml").size_bytes(path.parent) > weights.stat().st_size


def test_the_weights_are_the_folded_ones(exported):
    from effnet.runtimes.onnxruntime.writer import calibrated_weights

    config, state, path, _ = exported
    held = (path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").read_bytes()
    weights = calibrated_weights(config, state)
    for name in ("stages.1.0.expand.conv.weight", "head.conv.weight"):
        assert weights[name].astype(np.float16).tobytes() in held


def test_nothing_else_is_left_behind(exported):
    assert [found.name for found in exported[2].parent.iterdir()] == ["model.mlpackage"]


def test_grey_images_are_images_and_others_are_arrays(tmp_path):
    import coremltools

    for channels, kind in ((1, "imageType"), (4, "multiArrayType")):
        config, state = bundle_of(channels)
        spec = coremltools.utils.load_spec(str(write_export("coreml", tmp_path, config, state)))
        (image,) = spec.description.input
        assert image.type.WhichOneof("Type") == kind


def test_nothing_here_runs_it(exported):
    with pytest.raises(InputError, match="it cannot run coreml, only export to it"):
        open_engine(exported[2])


def test_a_failed_write_leaves_the_old_package(exported, tmp_path, monkeypatch):
    config, state, path, _ = exported
    old = shutil.copytree(path, tmp_path / path.name)
    before = sorted(found.name for found in old.rglob("*"))
    import os

    real = os.replace

    def fail(source, target):
        if target == old:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("effnet.runtimes.coreml.writer.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_export("coreml", tmp_path, config, state)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert sorted(found.name for found in old.rglob("*")) == before


def test_without_coremltools_the_extra_is_named(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r'needs coremltools, .* pip install "effnet\[coreml\]"'):
        write_export("coreml", tmp_path, *exported[:2])


def test_a_package_of_several_outputs_names_each(tmp_path):
    write_several(tmp_path, ["coreml"])
    import coremltools

    spec = coremltools.utils.load_spec(str(tmp_path / "model.mlpackage"))
    assert [output.name for output in spec.description.output] == ["gender", "year", "tags", "output_4"]
    told = json.loads(spec.description.metadata.userDefined["outputs"])
    assert [output["name"] for output in told] == ["gender", "year", "tags", "pool"]
