"""ExecuTorch: the file alone has its classes and gives the ONNX file's probabilities, in fp32 and int8."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from several_outputs import assert_equal, assert_maps, assert_near, write_several
from strategies import build_trained, state_arrays

from effnet.arch.catalog import get_spec
from effnet.arch.layers import named_layers
from effnet.arch.scale import with_eca
from effnet.bundle.config import ModelConfig
from effnet.bundle.model_file import sha256
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, InputError, MissingExtraError, SpecError
from effnet.runtimes.executorch.deployed import deployed_module
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.probe import try_first
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import Quantization, write_export

SIDE = 31
NAMES = ("cat", "café", 'a "b"', "猫")

pytestmark = pytest.mark.usefixtures("one_thread")


def small(name="b0", *, activation="silu", stages=2):
    spec = get_spec(name, num_classes=len(NAMES))
    one_block_each = tuple(stage[:1] for stage in spec.stages[:stages])  # writing time grows with blocks
    return dataclasses.replace(spec, stages=one_block_each, head_channels=24, activation=activation)


def bundle_of(spec, *, side=SIDE):
    """Return a config with classes, temperature and threshold other than the defaults, and a state."""
    state = state_arrays(build_trained(spec, resolution=side))
    preprocess = Preprocess(resolution=side)
    return ModelConfig(arch=spec, preprocess=preprocess, class_names=NAMES, temperature=1.7, threshold=0.25), state


def draw(count, *, side=SIDE, channels=3):
    return np.random.default_rng(5).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def onnx_rows(folder, config, state, images):
    return open_engine(export_onnx(folder, config, state)).run(images)


@pytest.mark.parametrize(
    "name, side", [("b0", 33), ("b0", 64), ("lite0", 47), ("edgetpu_s", 48), ("v2_b0", 32), ("resnet18", 33)]
)
def test_the_deployed_module_gives_the_probabilities_of_the_onnx_file(name, side, tmp_path):
    config, state = bundle_of(get_spec(name, num_classes=len(NAMES)), side=side)
    images = draw(3, side=side)
    with torch.no_grad():
        found = deployed_module(config, state)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, onnx_rows(tmp_path, config, state, images), rtol=0, atol=1e-5)


def test_the_deployed_module_keeps_the_layers_names_and_has_no_norms():
    spec = small()
    module = deployed_module(*bundle_of(spec))
    names = {name for name, found in module.named_modules() if isinstance(found, torch.nn.Conv2d)}
    assert "network.stages.1.0.depthwise.conv" in names
    assert not [found for found in module.modules() if isinstance(found, torch.nn.BatchNorm2d)]


def test_a_network_without_a_classifier_is_refused(tmp_path):
    spec = dataclasses.replace(small(), num_classes=0)
    config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=SIDE), class_names=())
    for name in ("executorch", "coreml"):
        with pytest.raises(SpecError, match="has no classifier"):
            write_export(name, tmp_path, config, {})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bundle of a SiLU network with both channel attentions, its fp32 and int8 files, and the ONNX outputs."""
    folder = tmp_path_factory.mktemp("executorch")
    spec = small()
    config, state = bundle_of(dataclasses.replace(spec, stages=(spec.stages[0], *with_eca(spec).stages[1:])))
    images = draw(8)
    for name in ("executorch", "executorch-int8"):
        write_export(name, folder, config, state, images=images)
    return config, state, folder, images, onnx_rows(folder, config, state, images)


def test_the_file_gives_the_probabilities_of_the_onnx_file(exported):
    _, _, folder, images, expected = exported
    engine = open_engine(folder / "model.pte")
    assert (engine.size, engine.channels, engine.classes) == ((SIDE, SIDE), 3, len(NAMES))
    for batch in (1, 3, 8):
        np.testing.assert_allclose(engine.run(images[:batch]), expected[:batch], rtol=0, atol=1e-5)


def test_eight_bits_are_near_and_smaller(exported):
    _, _, folder, images, expected = exported
    found = open_engine(folder / "model.int8.pte").run(images)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    difference = np.abs(found - expected).max()
    assert 1e-6 < difference < 0.05  # rounded, but close
    sizes = [(folder / name).stat().st_size for name in ("model.int8.pte", "model.pte")]
    assert sizes[0] < 0.8 * sizes[1]  # the program itself is most of it


@pytest.mark.filterwarnings("ignore:This API is experimental")
@pytest.mark.filterwarnings("ignore:read_text is deprecated:DeprecationWarning")
@pytest.mark.parametrize("file", ["model.pte", "model.int8.pte"])
def test_the_file_alone_tells_its_classes_and_its_preprocessing(exported, file):
    import executorch.runtime

    config, folder = exported[0], exported[2]
    program = executorch.runtime.Runtime.get().load_program(folder / file)
    told = {name: program.load_method(name).execute([])[0] for name in program.method_names - {"forward"}}
    assert json.loads(told.pop("class_names")) == list(NAMES)
    assert json.loads(told.pop("preprocess")) == config.preprocess.to_dict()
    assert told == {"network": "b0", "threshold": "0.25"}


def test_xnnpack_runs_all_but_the_cast_of_bytes(exported):
    """Read the names of the operators that the file calls outside of a delegate."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    for file in ("model.pte", "model.int8.pte"):
        plan = deserialize_pte_binary((exported[2] / file).read_bytes()).program.execution_plan
        (forward,) = (found for found in plan if found.name == "forward")
        assert {operator.name for operator in forward.operators} <= {"dim_order_ops::_to_dim_order_copy"}
        assert [delegate.id for delegate in forward.delegates] == ["XnnpackBackend"]


def test_relu6_spends_its_range_on_what_it_lets_through(tmp_path):
    """XNNPACK's own quantizer observes a feature map before ReLU6 clips it; its error is several times as large."""
    config, state = bundle_of(small("lite0", activation="relu6", stages=1))
    images = draw(16)
    expected = onnx_rows(tmp_path, config, state, images)
    found = open_engine(write_export("executorch-int8", tmp_path, config, state, images=images)).run(images)
    assert np.abs(found - expected).max() < 0.05


def layers_with_weights(spec):
    return tuple(name for name, layer in named_layers(spec) if layer.op in ("conv", "linear"))


def test_float_layers_keep_their_bits(exported, tmp_path):
    config, state, folder, images, expected = exported
    quantization = Quantization(float_layers=layers_with_weights(config.arch), bias_correction="none")
    path = write_export("executorch-int8", tmp_path, config, state, images=images, quantization=quantization)
    assert path.stat().st_size > 0.9 * (folder / "model.pte").stat().st_size
    rounded = np.abs(open_engine(folder / "model.int8.pte").run(images) - expected).max()
    assert np.abs(open_engine(path).run(images) - expected).max() < rounded


def test_biases_take_up_what_the_rounded_weights_lose():
    from effnet.runtimes.executorch.int8 import _rounded, correct_biases_

    module = deployed_module(*bundle_of(small()))
    images = torch.from_numpy(draw(8))
    layer = module.network.stages[1][0].expand.conv
    seen = []
    handle = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        module(images)
        handle.remove()
        correct_biases_(module, images)
        ((maps, before),) = seen
        layer.weight.copy_(_rounded(layer.weight))
        after = layer(maps)
    np.testing.assert_allclose(after.mean((0, 2, 3)), before.mean((0, 2, 3)), rtol=0, atol=1e-4)
    assert (after - before).abs().max() > 1e-3  # single pixels are still rounded


def test_what_it_has_no_means_of_is_refused(tmp_path):
    config, state = bundle_of(small())
    for quantization, message in (
        (Quantization(method="entropy"), "is calibrated by minmax or percentile; got entropy"),
        (Quantization(bias_correction="full"), "corrects biases fast or not at all; got full"),
        (Quantization(float_layers=("stem.conv", "stem.con")), r"got 'stem\.con'"),
    ):
        with pytest.raises(InputError, match=message):
            write_export("executorch-int8", tmp_path, config, state, images=draw(1), quantization=quantization)
    with pytest.raises(InputError, match="executorch-int8 must be calibrated on images"):
        write_export("executorch-int8", tmp_path, config, state)
    assert not list(tmp_path.iterdir())


def test_the_percentile_leaves_single_values_out():
    from effnet.runtimes.executorch.int8 import PercentileObserver

    observer = PercentileObserver(dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine)
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    values[0] = 40.0
    observer(values)
    scale, _ = observer.calculate_qparams()
    assert float(scale) == pytest.approx(1 / 255, rel=0.05)


def test_engines_of_other_thread_counts_take_turns(exported):
    _, _, folder, images, expected = exported
    one, two = (open_engine(folder / "model.pte", threads=threads) for threads in (1, 2))
    for engine in (one, two, one, one, two):
        np.testing.assert_allclose(engine.run(images[:2]), expected[:2], rtol=0, atol=1e-5)
    library = one._library
    one.run(images[:1])
    assert library._threadpool_get_thread_count() == 1
    two.run(images[:1])
    assert library._threadpool_get_thread_count() == 2


def test_a_new_process_hears_nothing_of_the_runtimes_insides(exported):
    """Warnings would be errors here, and the C++ side writes to the terminal."""
    code = (
        "import sys, numpy; from effnet.runtimes.registry import open_engine; "
        f"print(open_engine(sys.argv[1]).run(numpy.zeros((2, {SIDE}, {SIDE}, 3), 'uint8')).shape)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(exported[2] / "model.pte")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.stderr) == (f"(2, {len(NAMES)})\n", "")


def test_a_file_that_is_absent_or_no_program_is_refused(tmp_path):
    with pytest.raises(BundleError, match="none is there: `effnet export` writes it"):
        open_engine(tmp_path / "model.pte")
    (tmp_path / "model.pte").write_bytes(b"no program" * 100)
    with pytest.raises(BundleError, match="ExecuTorch cannot read"):
        open_engine(tmp_path / "model.pte")


def test_a_program_that_ends_its_process_is_an_error_here(exported, tmp_path, monkeypatch):
    """One byte of its identifier makes the runtime abort, even where it verifies the program."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    content = bytearray((exported[2] / "model.pte").read_bytes())
    content[5] = 0xFF
    path = tmp_path / "model.pte"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{path} must be a whole model; it crashed the process .* \(SIG\w+\)"):
        try_first(path, "executorch", sha256(content))


def test_without_executorch_the_extra_is_named(exported, tmp_path, monkeypatch):
    config, state, folder, _, _ = exported
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(MissingExtraError, match=r'needs executorch, .* pip install "effnet\[executorch\]"'):
        write_export("executorch", tmp_path, config, state)
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings", None)
    with pytest.raises(MissingExtraError, match="needs executorch"):
        open_engine(folder / "model.pte")


def test_a_failed_write_leaves_the_old_file(exported, tmp_path, monkeypatch):
    config, state = exported[:2]
    (tmp_path / "model.pte").write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_export("executorch", tmp_path, config, state)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pte"]
    assert (tmp_path / "model.pte").read_bytes() == b"old"


def test_files_of_several_outputs_return_each_under_its_name_and_their_maps(tmp_path):
    names = ["executorch", "executorch-int8"]
    write_several(tmp_path, names, maps=True)
    assert_equal(tmp_path, names[0])
    for name in names[1:]:
        assert_near(tmp_path, name)
    for name in names:
        assert_maps(tmp_path, name)
