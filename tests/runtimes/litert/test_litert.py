"""The TFLite file computes the same as ONNX Runtime, describes itself, and is whole or absent."""

import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import build_trained, specs, state_arrays

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import Preprocess
from effnet.errors import MissingExtraError, SpecError
from effnet.runtimes.litert.writer import to_tflite
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export
from effnet.weights.folding import fold_norms, random_weights

litert = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

MEAN, STD = (0.485, 0.456, 0.406, 0.3), (0.229, 0.224, 0.225, 0.4)
TOLERANCE = 1e-4

pytestmark = pytest.mark.usefixtures("one_thread")


def normalisation(spec: ArchSpec) -> dict[str, tuple[float, ...]]:
    return {"mean": MEAN[: spec.in_channels], "std": STD[: spec.in_channels]}


def draw_images(spec: ArchSpec, side: int, *, batch: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (batch, side, side, spec.in_channels), dtype=np.uint8)


def small_spec(**changes: object) -> ArchSpec:
    b0 = get_spec("b0", num_classes=5)
    return dataclasses.replace(b0, stages=b0.stages[:2], head_channels=24, **changes)


def check_equal_to_onnx(spec: ArchSpec, side: int, folder: Path) -> None:
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=side)))
    common = {"resolution": side, **normalisation(spec)}
    write_onnx(to_onnx(spec, weights, **common), folder / "model.onnx")
    (folder / "model.tflite").write_bytes(to_tflite(spec, weights, **common))
    theirs, ours = open_engine(folder / "model.onnx"), open_engine(folder / "model.tflite")
    assert (ours.size, ours.channels, ours.classes) == (theirs.size, theirs.channels, theirs.classes)
    for batch in (1, 3, 2):
        images = draw_images(spec, side, batch=batch)
        expected, found = theirs.run(images), ours.run(images)
        assert found.dtype == np.float32
        # Probabilities are at most 1; the rounding of features grows with them.
        largest = 1.0 if spec.num_classes else max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize(
    "name, side",
    [
        ("b0", 33),
        ("efficientnet_b0", 64),
        ("lite0", 47),
        ("edgetpu_s", 64),
        ("v2_b0", 64),
        ("resnet18", 33),
    ],
)
def test_a_named_network_gives_the_same_probabilities_as_in_onnx_runtime(name, side, tmp_path):
    check_equal_to_onnx(get_spec(name, num_classes=7), side, tmp_path)


@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs(), st.integers(1, 40))
def test_a_random_network_gives_the_same_as_in_onnx_runtime(tmp_path_factory, spec, side):
    check_equal_to_onnx(spec, side, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "none"])
@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hard_swish"])
def test_every_activation_and_gate_is_the_same_function(activation, gate, tmp_path):
    check_equal_to_onnx(small_spec(activation=activation, se_gate=gate), 19, tmp_path)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("side", [2, 16, 17])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_padding_of_the_first_convolution_is_the_same(stride, kernel_size, side, padding, tmp_path):
    spec = small_spec(padding=padding)
    stem = dataclasses.replace(spec.stem, kernel_size=kernel_size, stride=stride, max_pool=True)
    check_equal_to_onnx(dataclasses.replace(spec, stem=stem), side, tmp_path)


def test_the_other_padding_gives_other_probabilities(tmp_path):
    """Guard the tests above: on even sides they would detect swapped paddings."""
    same, found = small_spec(padding="same"), []
    weights = fold_norms(same, state_arrays(build_trained(same, resolution=16)))
    images = draw_images(same, 16, batch=3)
    for padding in ("same", "symmetric"):
        spec = dataclasses.replace(same, padding=padding)
        (tmp_path / "model.tflite").write_bytes(to_tflite(spec, weights, resolution=16, **normalisation(spec)))
        found.append(open_engine(tmp_path / "model.tflite").run(images))
    assert np.abs(found[0] - found[1]).max() > 100 * TOLERANCE


def read_model(data: bytes):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def operators_by_output(data: bytes) -> dict[str, tuple[str, list[int]]]:
    """Return each operator's name and the types of its inputs and outputs, by the name of its output."""
    model = read_model(data)
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    return {
        graph.tensors[operator.outputs[0]].name.decode(): (
            names[model.operatorCodes[operator.opcodeIndex].builtinCode],
            [graph.tensors[index].type for index in (*operator.inputs, *operator.outputs)],
        )
        for operator in graph.operators
    }


def test_functions_run_inside_convolutions_and_norms_are_gone():
    spec = get_spec("lite0", num_classes=3)
    found = operators_by_output(to_tflite(spec, random_weights(spec), **normalisation(spec)))
    assert {op for op, _ in found.values()} == {
        "CAST", "SUB", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX",
    }  # fmt: skip
    assert found["stages.1.0.depthwise.conv"][0] == "DEPTHWISE_CONV_2D"


def test_what_cannot_be_exported_is_refused():
    spec = get_spec("resnet18", num_classes=2)
    with pytest.raises(SpecError, match="need 3 values each; got 1 and 3"):
        to_tflite(spec, random_weights(spec), mean=(0.5,), std=(0.5, 0.5, 0.5))
    with pytest.raises(SpecError, match="resolution must be a positive integer, in pixels; got 0"):
        to_tflite(spec, random_weights(spec), resolution=0, **normalisation(spec))


def test_the_same_weights_give_the_same_bytes():
    spec = small_spec()
    first, second = (to_tflite(spec, random_weights(spec, seed=3), **normalisation(spec)) for _ in range(2))
    assert first == second


def test_the_file_has_a_signature_and_tells_that_its_batch_is_free(tmp_path):
    spec = small_spec()
    data = to_tflite(spec, random_weights(spec), resolution=24, **normalisation(spec))
    interpreter = litert.Interpreter(model_content=data)
    (image,) = interpreter.get_input_details()
    assert (image["name"], image["dtype"], list(image["shape_signature"])) == ("image", np.uint8, [-1, 24, 24, 3])
    run = interpreter.get_signature_runner("serving_default")
    assert run(image=draw_images(spec, 24, batch=2))["probabilities"].shape == (2, 5)


def state_and_config(spec: ArchSpec, side: int, names: tuple[str, ...], **changes: object):
    preprocess = Preprocess(resolution=side, **normalisation(spec))
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=names, **changes)
    return config, state_arrays(build_trained(spec, resolution=side))


def test_the_file_is_a_zip_with_labels_and_preprocessing(tmp_path):
    names = ("Katze", "犬", "two\nlines", "a", "b")
    config, state = state_and_config(small_spec(), 16, names, threshold=0.25)
    path = write_export("litert", tmp_path, config, state)
    assert [found.name for found in tmp_path.iterdir()] == ["model.tflite"]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().splitlines() == ["Katze", "犬", "two lines", "a", "b"]
        told = json.loads(archive.read("effnet.json"))
    assert told["class_names"] == list(names)
    assert Preprocess.from_dict(told["preprocess"]) == config.preprocess
    assert (told["network"], told["threshold"]) == (config.arch.name, 0.25)


class Table:
    """A table of a flatbuffer, read by field numbers, as by a reader that only has the schema."""

    def __init__(self, data: bytes, position: int | None = None) -> None:
        from flatbuffers.table import Table as Raw

        start = int.from_bytes(data[:4], "little") if position is None else position
        self.data, self.raw = data, Raw(data, start)

    def _at(self, number: int) -> int:
        offset = self.raw.Offset(4 + 2 * number)
        assert offset, f"field {number} is absent"
        return self.raw.Pos + offset

    def text(self, number: int) -> str:
        return self.raw.String(self._at(number)).decode()

    def byte(self, number: int) -> int:
        return self.data[self._at(number)]

    def table(self, number: int) -> "Table":
        return Table(self.data, self.raw.Indirect(self._at(number)))

    def tables(self, number: int) -> list["Table"]:
        slot = self._at(number) - self.raw.Pos
        start = self.raw.Vector(slot)
        return [Table(self.data, self.raw.Indirect(start + 4 * i)) for i in range(self.raw.VectorLen(slot))]


@pytest.mark.parametrize("channels, colours", [(3, 1), (1, 2)])
def test_the_metadata_follow_the_schema_of_the_task_library(channels, colours, tmp_path):
    """Field numbers and codes of tensorflow/tflite-support metadata_schema.fbs."""
    config, state = state_and_config(small_spec(in_channels=channels), 16, tuple("abcde"))
    data = write_export("litert", tmp_path, config, state).read_bytes()
    model = read_model(data)
    entries = {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert entries["min_runtime_version"] == b"1.14.0\0"
    metadata = entries["TFLITE_METADATA"]
    assert metadata[4:8] == b"M001"
    root = Table(metadata)
    assert root.text(0) == config.arch.name
    assert root.text(7) == "1.0.0"
    (details,) = root.tables(6)
    assert (details.text(0), details.byte(2)) == ("effnet.json", 1)
    (graph,) = root.tables(3)
    (image,), (output,) = graph.tables(2), graph.tables(3)
    assert image.text(0) == "image"
    assert (image.table(3).byte(0), image.table(3).table(1).byte(0)) == (2, colours)
    assert output.text(0) == "probabilities"
    assert output.table(3).byte(0) == 1
    (labels,) = output.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)


def test_the_temperature_is_inside(tmp_path):
    spec = small_spec()
    config, state = state_and_config(spec, 16, tuple("abcde"))
    images = draw_images(spec, 16, batch=4)
    raw = open_engine(write_export("litert", tmp_path, config, state)).run(images)
    cooled = dataclasses.replace(config, temperature=2.0)
    found = open_engine(write_export("litert", tmp_path, cooled, state)).run(images)
    expected = np.sqrt(raw) / np.sqrt(raw).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_without_a_classifier_is_refused_and_nothing_is_written(tmp_path):
    config, state = state_and_config(small_spec(num_classes=0), 16, ())
    with pytest.raises(SpecError, match=r"model\.tflite outputs probabilities, but b0 has no classifier"):
        write_export("litert", tmp_path, config, state)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_last_good_file(tmp_path, monkeypatch):
    config, state = state_and_config(small_spec(), 16, tuple("abcde"))
    path = write_export("litert", tmp_path, config, state)
    before = path.read_bytes()

    def fail(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        write_export("litert", tmp_path, config, state)
    assert [found.name for found in tmp_path.iterdir()] == ["model.tflite"]
    assert path.read_bytes() == before


def test_without_the_package_an_export_says_what_to_install(monkeypatch):
    spec = small_spec()
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match=r'needs ai-edge-litert.* pip install "effnet\[litert\]"'):
        to_tflite(spec, random_weights(spec), **normalisation(spec))


def test_neither_torch_nor_tensorflow_is_imported(run_python):
    code = """
import sys
from effnet.arch.catalog import get_spec
from effnet.runtimes.litert.writer import to_tflite
from effnet.runtimes.litert.int8 import random_int8
from effnet.weights.folding import random_weights
spec = get_spec("lite0", num_classes=2)
to_tflite(spec, random_weights(spec), mean=(0.5,) * 3, std=(0.5,) * 3, resolution=32)
random_int8(spec, resolution=32)
print({"torch", "tensorflow", "jax", "litert_torch", "onnx"} & set(sys.modules))
"""
    done = run_python("-c", code)
    assert (done.out.strip(), done.code) == ("set()", 0), done.err
    assert "%" not in done.err  # the quantizer's progress bars
