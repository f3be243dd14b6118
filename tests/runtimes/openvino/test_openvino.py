"""OpenVINO's files: equal to ONNX Runtime's, quantized where they should be, and self-describing."""

import json
import sys

import numpy as np
import openvino
import pytest
from bundles import make_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from several_outputs import assert_equal, assert_maps, assert_near, write_several
from strategies import build_trained, specs

from effnet.arch.layers import named_layers
from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import load_state, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError, MissingExtraError, SpecError
from effnet.measurement.sample import gather
from effnet.runtimes.openvino.writer import read_description
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import Quantization, write_export

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("line\nbreak", "a cat", "größer", *"defghij")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("openvino") / "bundle", class_names=NAMES, threshold=0.25)


@pytest.fixture(scope="module")
def images():
    # As in photographs, adjacent pixels are similar.
    coarse = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 1), dtype=np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


@pytest.fixture(scope="module")
def write(bundle, images):
    """A function that writes one of the bundle's formats and returns its path."""

    def run(folder, name, **settings):
        config, state = read_config(bundle), load_state(bundle)
        return write_export(name, folder, config, state, images=images, quantization=Quantization(**settings))

    return run


@pytest.fixture(scope="module")
def int8(write, tmp_path_factory):
    """The bundle in int8, with two layers left float."""
    kept = ("stem.conv", "stages.1.0.project.conv")
    return write(tmp_path_factory.mktemp("int8"), "openvino-int8", float_layers=kept)


def operations(path):
    return {op.get_friendly_name(): op for op in openvino.Core().read_model(path).get_ordered_ops()}


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(spec=specs(min_classes=2), resolution=st.integers(9, 24))
def test_openvino_gives_what_onnx_runtime_gives(spec, resolution, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    half = (0.4,) * spec.in_channels
    preprocess = Preprocess(resolution=resolution, mean=half, std=half)
    names = tuple(str(i) for i in range(spec.num_classes))
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=names)
    state = state_arrays(build_trained(spec, resolution=resolution))
    shape = (3, resolution, resolution, spec.in_channels)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    expected, found = (
        open_engine(write_export(name, folder, config, state)).run(images) for name in ("onnx", "openvino")
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.onnx", "model.xml"]


@pytest.mark.parametrize("name, most", [("openvino", 1e-5), ("openvino-fp16", 2e-2), ("openvino-bf16", 0.2)])
def test_the_precisions_differ_by_no_more_than_their_rounding(name, most, write, bundle, images, tmp_path):
    path = write(tmp_path, name)
    expected, engine = open_engine(bundle / "model.onnx").run(images), open_engine(path)
    assert np.abs(engine.run(images) - expected).max() < most
    fast = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert engine.computes_in == ("bf16" if name == "openvino-bf16" and fast else "f32")
    half = path.with_suffix(".bin").stat().st_size / (bundle / "model.safetensors").stat().st_size
    assert (half < 0.6) == (name != "openvino")


def test_the_file_tells_its_classes_its_preprocessing_and_its_threshold(int8, bundle):
    config, found = read_config(bundle), read_description(int8)
    assert json.loads(found["class_names"]) == list(NAMES)
    assert json.loads(found["preprocess"]) == config.preprocess.to_dict()
    assert (found["network"], found["threshold"]) == (config.arch.name, "0.25")
    model = openvino.Core().read_model(int8)
    labels = model.get_rt_info(["model_info", "labels"]).astype(str)
    assert labels.split(" ") == ["line_break", "a_cat", "größer", *"defghij"]


def test_layers_that_stay_float_do_and_all_others_do_not(int8):
    found = operations(int8)

    def weights(name):
        source = found[f"{name}/WithoutBiases"].input_value(1).get_node()
        return source.get_element_type().get_type_name(), source.get_type_name()

    assert weights("stem.conv") == weights("stages.1.0.project.conv") == ("f32", "Constant")
    for name in ("stages.0.0.depthwise.conv", "stages.0.0.project.conv", "stages.1.0.expand.conv", "classifier"):
        assert weights(name)[1] != "Constant"
    before = found["stages.1.0.project.conv/WithoutBiases"].input_value(0).get_node()
    assert before.get_type_name() != "FakeQuantize"
    assert found["stages.1.0.expand.conv/WithoutBiases"].input_value(0).get_node().get_type_name() == "FakeQuantize"


def test_no_activation_is_quantized_within(int8, bundle):
    spec = read_config(bundle).arch
    silus = [name for name, layer in named_layers(spec) if layer.function == "silu"]
    found = operations(int8)
    assert {found[name].get_type_name() for name in silus} == {"Swish"}
    assert not [name for name in silus if found[name].input_value(0).get_node().get_type_name() == "FakeQuantize"]


def test_int8_runs_batches_of_any_size_in_processes_that_live_on(int8, write, images, run_python, tmp_path):
    # Processors with AMX crashed here: openvinotoolkit/openvino#37577.
    script = "import sys, numpy as np; from effnet.runtimes.registry import open_engine\n"
    script += "engine = open_engine(sys.argv[1]); images = np.load(sys.argv[2])\n"
    script += "for n in (4, 1, 4, 7, 1):\n for _ in range(60): assert engine.run(images[:n]).shape == (n, 10)\n"
    np.save(tmp_path / "images.npy", images)
    assert run_python("-c", script, int8, tmp_path / "images.npy").code == 0
    model = openvino.Core().read_model(int8)
    assert list(model.input(0).get_shape()) == [1, 16, 16, 1]
    engine = open_engine(int8)
    together = engine.run(images)
    np.testing.assert_allclose(
        np.concatenate([engine.run(images[i : i + 3]) for i in range(0, 24, 3)]), together, atol=1e-5
    )


def test_int8_is_smaller_and_its_float_weights_have_16_bits(int8, write, tmp_path):
    whole = write(tmp_path, "openvino").with_suffix(".bin").stat().st_size
    assert int8.with_suffix(".bin").stat().st_size < 0.6 * whole
    source = operations(int8)["stages.0.0.se.reduce/WithoutBiases"].input_value(1).get_node()
    assert source.get_type_name() == "Convert"
    assert source.input_value(0).get_element_type().get_type_name() == "f16"


def test_biases_are_corrected_unless_not_wanted(int8, write, tmp_path):
    plain = operations(write(tmp_path, "openvino-int8", bias_correction="none", float_layers=("stem.conv",)))
    name = "stages.1.0.expand.conv"
    biases = [ops[name].input_value(1).get_node().data.ravel() for ops in (plain, operations(int8))]
    assert not np.array_equal(*biases)


@pytest.mark.parametrize("settings", [{}, {"method": "percentile"}, {"bias_correction": "full"}])
def test_int8_names_most_digits_as_the_trained_network_does(settings, small_bundle, tmp_path, capsys):
    config, state = read_config(small_bundle), load_state(small_bundle)
    images = gather(config, "digits", folder=small_bundle, calibrated=48)
    path = write_export(
        "openvino-int8", tmp_path, config, state, images=images.calibration, quantization=Quantization(**settings)
    )
    assert capsys.readouterr() == ("", "")
    expected, found = (open_engine(p).run(images.check) for p in (small_bundle / "model.onnx", path))
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.8
    assert np.abs(found - expected).mean() < 0.05


def test_what_nncf_cannot_do_is_refused(write, tmp_path):
    with pytest.raises(InputError, match="by minmax or percentile; got entropy"):
        write(tmp_path, "openvino-int8", method="entropy")
    with pytest.raises(
        InputError, match=r"must be a convolution or a linear layer .*'stem\.com'; did you mean 'stem\."
    ):
        write(tmp_path, "openvino-int8", float_layers=("stem.com",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "package, name, line",
    [
        ("openvino", "openvino", 'pip install "effnet[openvino]"'),
        ("nncf", "openvino-int8", 'pip install "effnet[compress]"'),
    ],
)
def test_a_package_that_is_missing_is_named(package, name, line, write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as error:
        write(tmp_path, name)
    assert str(error.value) == f"this needs {package}, which is not installed; install it with: {line}"
    assert not list(tmp_path.iterdir())


def test_what_openvino_cannot_convert_leaves_nothing_behind(write, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(openvino, "save_model", fail)
    with pytest.raises(SpecError, match=r"OpenVINO .* cannot make openvino of this network: no such operator"):
        write(tmp_path, "openvino")
    assert not list(tmp_path.iterdir())


def test_files_of_several_outputs_return_each_under_its_name_and_their_maps(tmp_path):
    names = ["openvino", "openvino-fp16", "openvino-int8"]
    write_several(tmp_path, names, maps=True)
    assert_equal(tmp_path, names[0])
    assert_near(tmp_path, names[1])
    # On a processor without VNNI OpenVINO takes fewer than 8 bits: columns of these random outputs correlate by 0.72 to
    # 0.98. Columns of other outputs would not correlate at all.
    assert_near(tmp_path, names[2], least=0.6)
    for name in names:
        assert_maps(tmp_path, name, least=0.9)  # as above
