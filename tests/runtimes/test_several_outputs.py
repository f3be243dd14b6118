"""Files of several outputs return the same as the eager network, under the names of the outputs, in their order."""

import dataclasses
import json
import zipfile

import numpy as np
import onnx
import pytest
import scipy.special
import several_outputs
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from several_outputs import SPECS, random_images, random_state, several_config
from strategies import specs as networks

from effnet.arch.layers import named_layers
from effnet.bundle.config import write_config
from effnet.bundle.weights import load_arrays_, load_module
from effnet.data.preprocess import normalize
from effnet.data.several.outputs import OutputSpec, placed
from effnet.errors import BundleError, EffnetError
from effnet.measurement.verify import compare, eager_outputs
from effnet.nn.network import build
from effnet.runtimes.onnxruntime.graph import to_onnx
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export
from effnet.tasks.several import file_outputs
from effnet.tasks.task import names_in_file
from effnet.weights.folding import calibrated_weights, random_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def module_of(config, state):
    module = build(config.arch)
    load_arrays_(module, state, where="the test's weights")
    return module.eval()


def expected_rows(config, module, images):
    """Return the answers to images, with SciPy's functions of the eager network's logits."""
    pixels = torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = module(pixels).double().numpy()
    parts = []
    for place in placed(config.specs):
        spec, part = place.spec, logits[:, place.columns] / place.spec.temperature
        if spec.kind == "one":
            parts.append(scipy.special.softmax(part, axis=1))
        else:
            parts.append(scipy.special.expit(part) if spec.kind == "many" else spec.mean + spec.scale * part)
    return np.concatenate(parts, axis=1)


def assert_close(config, found, expected):
    for place in placed(config.specs):
        pair = found[:, place.columns], expected[:, place.columns]
        size = max(1.0, float(np.abs(pair[1]).max()))
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-4 * size, err_msg=place.spec.name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks(), several_outputs.specs(), st.integers(1, 40))
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_random_outputs_of_random_networks_are_those_of_the_eager_network(name, tmp_path_factory, arch, given, side):
    arch = dataclasses.replace(arch, num_classes=sum(spec.width for spec in given))
    config = several_config(given, arch=arch, side=side)
    state, images = random_state(config), random_images(config, 3)
    engine = open_engine(write_export(name, tmp_path_factory.getbasetemp(), config, state))
    if len(given) > 1:
        assert tuple(output.name for output in engine.outputs) == names_in_file(config.file_outputs)
    assert [output.width for output in engine.outputs] == [spec.width for spec in given]
    assert_close(config, engine.run(images), expected_rows(config, module_of(config, state), images))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with its files of ONNX Runtime and LiteRT."""
    folder = tmp_path_factory.mktemp("several")
    several_outputs.write_several(folder, ["onnx", "onnx-fp16", "onnx-w8", "onnx-int8", "litert", "litert-int8"])
    return folder


@pytest.mark.parametrize("name", ["onnx-fp16", "onnx-w8", "onnx-int8", "litert-int8"])
def test_reduced_precision_keeps_each_output_near_the_eager_one(made, name):
    several_outputs.assert_near(made, name)


def test_predict_gives_an_answer_of_each_output(made):
    (found,) = Predictor(made).predict(np.zeros((40, 40, 3), np.uint8))
    assert list(found) == ["gender", "year", "tags", "pool"]
    assert set(found["gender"].labels) == {"Men", "Women"}
    assert set(found["tags"].probabilities) == {"sea", "sun", "trees"}
    assert isinstance(found["year"], float)


def test_a_file_is_usable_alone(made):
    outputs = {
        "onnx": {entry.key: entry.value for entry in onnx.load(made / "model.onnx").metadata_props}["outputs"],
        "litert": json.dumps(json.loads(zipfile.ZipFile(made / "model.tflite").read("effnet.json"))["outputs"]),
    }
    for text in outputs.values():
        assert json.loads(text) == [
            {"tensor": "gender", "name": "gender", "kind": "one", "classes": ["Men", "Women"], "threshold": 0.4},
            {"tensor": "year", "name": "year", "kind": "number"},
            {"tensor": "tags", "name": "tags", "kind": "many", "classes": ["sea", "sun", "trees"],
             "thresholds": [0.3, 0.5, 0.6]},
            {"tensor": "output_4", "name": "pool", "kind": "one", "classes": list("0123456")},
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_b0", "resnet18"])
def test_an_output_never_has_the_name_of_another_tensor(name):
    arch = several_outputs.small(name)
    layers = [layer for layer, _ in named_layers(arch)]
    odd = [
        "image",
        "cam",
        "blood pressure",
        "a\0b",
        "ß é",
        "a;b",
        "a b",
        "zero",
        "features",
        "output_3",
        "1st",
        *layers,
    ]
    specs = [OutputSpec(name=text, kind="number") for text in odd]
    outputs = file_outputs(specs)
    names = names_in_file(outputs)
    assert names[:3] == ("output_1", "output_2", "blood_pressure")
    assert all(name.isidentifier() and name.isascii() for name in names)
    arch = dataclasses.replace(arch, num_classes=len(specs))
    model = to_onnx(arch, random_weights(arch), mean=(0.5,) * 3, std=(0.5,) * 3, answers=outputs)
    onnx.checker.check_model(model)  # names are unique
    assert [output.name for output in model.graph.output] == list(names)


@pytest.mark.parametrize(
    "other",
    [
        (SPECS[1], SPECS[0], SPECS[2], SPECS[3]),
        (SPECS[0], SPECS[1], dataclasses.replace(SPECS[2], name="labels"), SPECS[3]),
        (OutputSpec(name="all", kind="one", classes=tuple(map(str, range(13)))),),
    ],
)
def test_a_file_of_other_outputs_is_refused(made, tmp_path, other):
    config = several_config(other)
    write_export("onnx", tmp_path, config, random_state(config))
    for folder, asked in ((made, config), (tmp_path, several_config())):
        write_config(asked, tmp_path)
        (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
        with pytest.raises(BundleError, match=r"must map image \[32, 32, 3\] to .*, as in config.json; it maps image"):
            _ = Predictor(tmp_path).engine
        write_export("onnx", tmp_path, config, random_state(config))


class Shifted:
    """A predictor whose file returns one output with an error."""

    def __init__(self, made, shift):
        self.inner = Predictor(made)
        self.folder, self.config, self.format, self.shift = made, self.inner.config, self.inner.format, shift

    def outputs(self, images):
        rows = self.inner.outputs(images)
        rows[:, self.shift[0]] += self.shift[1]
        return rows


@pytest.mark.parametrize("column, size, name", [(0, 0.01, "gender"), (2, 0.01, "year"), (12, 0.01, "pool")])
def test_the_check_of_an_export_names_the_output_that_differs(made, column, size, name):
    config = several_config()
    images = random_images(config, 4)
    eager = eager_outputs(load_module(made), config, images)
    assert compare(eager, Predictor(made), images).agreement == 1
    size *= 50 if name == "year" else 1  # its tolerance grows with its scale and its largest value
    with pytest.raises(EffnetError, match=rf"must match the eager {name} within .* This is a bug"):
        compare(eager, Shifted(made, (column, size)), images)


def test_the_columns_of_each_output_are_divided_by_its_temperature():
    config = several_config()
    weights, state = calibrated_weights(config, random_state(config)), random_state(config)
    divided = state["classifier.weight"] / weights["classifier.weight"]
    np.testing.assert_allclose(divided[:, 0], [2, 2, 1, 0.5, 0.5, 0.5, *[1] * 7], rtol=1e-5)
