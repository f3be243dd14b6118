"""The ONNX graph computes what the eager network computes."""

import dataclasses
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import build_trained, specs, state_arrays

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, SpecError
from effnet.nn.network import Network
from effnet.runtimes.onnxruntime.graph import OPSET, to_onnx, write_onnx
from effnet.runtimes.onnxruntime.session import IMAGE, open_session
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.weights.folding import fold_norms, random_weights

MEAN, STD = (0.485, 0.456, 0.406, 0.3), (0.229, 0.224, 0.225, 0.4)
TOLERANCE = 1e-4


pytestmark = pytest.mark.usefixtures("one_thread")


def normalisation(spec: ArchSpec) -> dict[str, tuple[float, ...]]:
    return {"mean": MEAN[: spec.in_channels], "std": STD[: spec.in_channels]}


def draw_images(spec: ArchSpec, side: int, *, batch: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (batch, side, side, spec.in_channels), dtype=np.uint8)


@torch.no_grad()
def eager_outputs(network: Network, images: np.ndarray) -> np.ndarray:
    """Return probabilities or, of a network without a classifier, features."""
    own = normalisation(network.spec)
    x = (images / 255.0 - np.array(own["mean"])) / np.array(own["std"])
    found = network(torch.from_numpy(x).float().permute(0, 3, 1, 2))
    return (found.softmax(1) if network.spec.num_classes else found).numpy()


def run_model(model: onnx.ModelProto, folder: Path, images: np.ndarray) -> np.ndarray:
    path = folder / "model.onnx"
    write_onnx(model, path)
    session = open_session(path)
    (output,) = session.get_outputs()
    return session.run([output.name], {IMAGE: images})[0]


def check_equal_to_eager(spec: ArchSpec, side: int, folder: Path) -> None:
    network = build_trained(spec, resolution=side)
    model = to_onnx(spec, fold_norms(spec, state_arrays(network)), resolution=side, **normalisation(spec))
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 3):
        images = draw_images(spec, side, batch=batch)
        expected = eager_outputs(network, images)
        found = run_model(model, folder, images)
        assert found.shape == (batch, spec.num_classes or spec.feature_channels)
        assert found.dtype == np.float32
        # Probabilities are at most 1; the rounding of features grows with them.
        largest = 1.0 if spec.num_classes else max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize(
    "name, side",
    [
        ("b0", 33),
        ("b0", 64),
        ("efficientnet_b0", 64),
        ("lite0", 47),
        ("edgetpu_s", 64),
        ("v2_b0", 64),
        ("resnet18", 33),
        ("resnet50", 32),
    ],
)
def test_a_named_network_gives_the_same_probabilities_in_onnx_runtime(name, side, tmp_path):
    check_equal_to_eager(get_spec(name, num_classes=7), side, tmp_path)


@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs(min_classes=2), st.integers(1, 40))
def test_a_random_network_gives_the_same_probabilities_in_onnx_runtime(tmp_path_factory, spec, side):
    check_equal_to_eager(spec, side, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    "name, side", [("b0", 33), ("efficientnet_b0", 64), ("lite0", 47), ("v2_b0", 64), ("resnet18", 33)]
)
def test_a_named_network_without_a_classifier_gives_the_same_features(name, side, tmp_path):
    check_equal_to_eager(get_spec(name, num_classes=0), side, tmp_path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs(), st.integers(1, 40))
def test_a_random_network_without_a_classifier_gives_the_same_features(tmp_path_factory, spec, side):
    check_equal_to_eager(dataclasses.replace(spec, num_classes=0), side, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("num_classes, name, width", [(0, "features", 512), (7, "probabilities", 7)])
def test_the_output_is_named_for_what_it_is(num_classes, name, width):
    spec = get_spec("resnet18", num_classes=num_classes)
    (output,) = to_onnx(spec, random_weights(spec), **normalisation(spec)).graph.output
    assert output.name == name
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", width]


def test_features_are_what_the_classifier_reads(tmp_path):
    spec = get_spec("lite0", num_classes=4)
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=40)))
    images = draw_images(spec, 40, batch=3)
    headless = dataclasses.replace(spec, num_classes=0)
    features = run_model(to_onnx(headless, weights, resolution=40, **normalisation(spec)), tmp_path, images)
    found = run_model(to_onnx(spec, weights, resolution=40, **normalisation(spec)), tmp_path, images)
    logits = features @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(found, torch.from_numpy(logits).softmax(1), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "none"])
@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hard_swish"])
def test_every_activation_and_gate_is_the_same_function(activation, gate, tmp_path):
    b0 = get_spec("b0", num_classes=5)
    spec = dataclasses.replace(b0, stages=b0.stages[:2], head_channels=24, activation=activation, se_gate=gate)
    check_equal_to_eager(spec, 19, tmp_path)


def test_the_same_network_with_the_other_padding_gives_other_probabilities():
    """Guard the tests above: on even sides they would notice swapped paddings."""
    same = get_spec("b0", num_classes=7)
    network = build_trained(same, resolution=64)
    symmetric = Network(dataclasses.replace(same, padding="symmetric"), dropout=0.0, drop_path=0.0, norm_momentum=0.1)
    symmetric.load_state_dict(network.state_dict())
    images = draw_images(same, 64, batch=3)
    difference = eager_outputs(network, images) - eager_outputs(symmetric.eval(), images)
    assert np.abs(difference).max() > 100 * TOLERANCE


@pytest.mark.elsewhere
def test_torch_export_of_the_eager_network_gives_the_same_probabilities(tmp_path):
    if importlib.util.find_spec("onnxscript") is None:
        pytest.skip("torch.onnx needs onnxscript, which is not installed")
    spec = dataclasses.replace(get_spec("b0", num_classes=7), resolution=64)
    network = build_trained(spec, resolution=64)
    images = draw_images(spec, 64, batch=1)
    x = (images / 255.0 - np.array(MEAN[:3])) / np.array(STD[:3])
    x = x.astype(np.float32).transpose(0, 3, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            torch.nn.Sequential(network, torch.nn.Softmax(1)).eval(),
            (torch.from_numpy(x),),
            dynamo=True,
            verbose=False,
            optimize=False,
        )
        program.save(tmp_path / "torch.onnx")
    session = open_session(tmp_path / "torch.onnx")
    theirs = session.run(None, {session.get_inputs()[0].name: x})[0]
    model = to_onnx(spec, fold_norms(spec, state_arrays(network)), **normalisation(spec))
    ours = run_model(model, tmp_path, images)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def test_the_graph_has_the_layers_names_static_pads_and_no_norms():
    spec = get_spec("b0")
    model = to_onnx(spec, random_weights(spec), resolution=65, metadata={"task": "test"}, **normalisation(spec))
    nodes = {node.name: node for node in model.graph.node}
    assert "BatchNormalization" not in {node.op_type for node in nodes.values()}
    assert nodes["stages.1.0.depthwise.conv"].op_type == "Conv"
    pads = {a.name: list(a.ints) for a in nodes["stages.1.0.depthwise.conv"].attribute}["pads"]
    assert pads == [1, 1, 1, 1]  # 33 pixels come in: an odd side pads alike on both ends
    even = to_onnx(spec, random_weights(spec), resolution=64, **normalisation(spec))
    stem = next(node for node in even.graph.node if node.name == "stem.conv")
    assert {a.name: list(a.ints) for a in stem.attribute}["pads"] == [0, 0, 1, 1]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert {prop.key: prop.value for prop in model.metadata_props} == {"task": "test"}
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 65, 65, 3]


def test_the_constants_of_the_graph_are_the_folded_parameters_and_the_mean():
    spec = get_spec("resnet18")
    model = to_onnx(spec, random_weights(spec), **normalisation(spec))
    sizes = {constant.name: int(np.prod(constant.dims)) for constant in model.graph.initializer}
    assert sizes.pop("normalise.mean") == 3
    assert sum(sizes.values()) == cost(spec).folded_params


def test_folding_computes_in_64_bits_what_the_norm_does():
    spec = get_spec("resnet18", num_classes=3)
    state = state_arrays(build_trained(spec, resolution=32))
    folded = fold_norms(spec, state)
    gain, shift, mean, var = (
        state[f"stem.norm.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / np.sqrt(var + spec.norm_epsilon)
    expected = (state["stem.conv.weight"] * factor[:, None, None, None]).astype(np.float32)
    np.testing.assert_array_equal(folded["stem.conv.weight"], expected)
    np.testing.assert_array_equal(folded["stem.conv.bias"], (shift - mean * factor).astype(np.float32))
    np.testing.assert_array_equal(folded["classifier.weight"], state["classifier.weight"])
    assert {array.dtype for array in folded.values()} == {np.dtype(np.float32)}


def test_weights_that_do_not_fit_are_refused_by_name_and_shape():
    spec = get_spec("resnet18")
    state = state_arrays(build_trained(spec, resolution=32))
    lacking = {key: array for key, array in state.items() if key != "stem.norm.running_var"}
    with pytest.raises(SpecError, match=r"lack stem\.norm\.running_var"):
        fold_norms(spec, lacking)
    with pytest.raises(SpecError, match=r"classifier\.weight must have shape \(10, 512\); got \(1000, 512\)"):
        fold_norms(get_spec("resnet18", num_classes=10), state)


def test_what_cannot_be_exported_is_refused():
    spec = get_spec("resnet18", num_classes=2)
    with pytest.raises(SpecError, match="need 3 values each; got 1 and 3"):
        to_onnx(spec, random_weights(spec), mean=(0.5,), std=(0.5, 0.5, 0.5))
    with pytest.raises(SpecError, match="resolution must be a positive integer, in pixels; got 0"):
        to_onnx(spec, random_weights(spec), resolution=0, **normalisation(spec))


def test_a_bundle_without_a_classifier_has_no_probabilities_to_export(tmp_path):
    spec = get_spec("resnet18", num_classes=0)
    config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=32), class_names=())
    with pytest.raises(SpecError, match=r"resnet18 has no classifier .* effnet fit DATA --weights"):
        export_onnx(tmp_path, config, {})
    assert not list(tmp_path.iterdir())


def test_random_weights_keep_probabilities_finite_and_away_from_certainty(tmp_path):
    for name in ("b0", "resnet18"):
        spec = get_spec(name, num_classes=10)
        model = to_onnx(spec, random_weights(spec), resolution=64, **normalisation(spec))
        found = run_model(model, tmp_path, draw_images(spec, 64, batch=2))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_a_file_that_is_not_there_or_is_no_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"none is there. `effnet export` writes it"):
        open_session(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BundleError, match="cannot read"):
        open_session(tmp_path / "text.onnx")


def test_writing_leaves_no_other_file_behind_and_equal_bytes_each_time(tmp_path):
    spec = get_spec("resnet18", num_classes=2)
    for name in ("a.onnx", "b.onnx"):
        write_onnx(to_onnx(spec, random_weights(spec, seed=3), **normalisation(spec)), tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
