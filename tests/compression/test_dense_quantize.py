"""The search for int8 of detectors and segmenters: by AP and mIoU, and with layers that levels share."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from annotated_sets import write_coins, write_terrain
from decoders import NETWORKS, arrays, config_of, outputs_of, settled, small
from dense_bundles import write_detector, write_segmenter
from devices import timing

import effnet
from effnet.arch.catalog import get_spec
from effnet.arch.decoders.usual import with_detector
from effnet.arch.layers import named_layers
from effnet.bundle.config import read_config
from effnet.compression.equalize import equalize
from effnet.compression.fake_quant import round_
from effnet.compression.kept import images_key
from effnet.compression.ladder import climb
from effnet.compression.qat import divergence, rounded_network, sensitive_layers, train_rounded
from effnet.compression.step import Gate
from effnet.compression.subject import Subject
from effnet.compression.tools import Tools, equalized
from effnet.data.datasets import read_dataset
from effnet.errors import SpecError
from effnet.measurement.evaluate import evaluate
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.report.facts import SearchFacts
from effnet.runtimes.registry import find_format, open_engine
from effnet.runtimes.write import Quantization, write_export
from effnet.tasks.task import parted
from effnet.weights.folding import fold_norms
from effnet.weights.labels import read_as_fitted

pytestmark = pytest.mark.usefixtures("one_thread")

FASTER_IN_INT8 = Stopwatch(once=lambda path, **_: timing(1.0 if "int8" in path.name else 2.0))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a detector, a segmenter, and the data of both."""
    folder = tmp_path_factory.mktemp("dense-quantize")
    write_detector(folder / "detector")
    write_segmenter(folder / "segmenter")
    write_coins(folder / "coins", images=12)
    write_terrain(folder / "terrain", images=12)
    return folder


def subject_of(network):
    return Subject(config=config_of(network.spec), state=arrays_of_weights(network))


def arrays_of_weights(network):
    return {name: array for name, array in arrays(network).items() if "num_batches" not in name}


@pytest.fixture(scope="module")
def points():
    """A detector whose heads are shared by four levels, and images of its input."""
    network = settled(dataclasses.replace(small(NETWORKS["points"]), resolution=64))
    return network, np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)


class Scripted:
    """Tools whose artifacts are text, and whose figures stand in a table by the words of the quantization."""

    def __init__(self, **table):
        self.table, self.tried = table, []

    def write(self, name, folder, subject, images, quantization):
        found, key = find_format(name), name.partition("-")[2] or "fp32"
        if found.precision == "int8":
            words = [quantization.method, *["full"] * (quantization.bias_correction == "full")]
            key = "_".join([*words, *[str(len(quantization.float_layers))] * bool(quantization.float_layers)])
        self.tried.append(key)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / found.file).write_text(json.dumps(self.table[key]))
        return folder / found.file

    def figure(self, folder, name, split, threads):
        return json.loads((folder / find_format(name).file).read_text())

    def tools(self):
        return Tools(
            write=self.write,
            figure=self.figure,
            outside=lambda *_: 3.0,
            stopwatch=FASTER_IN_INT8,
            rank_layers=lambda subject, images: (("one", 2.0), ("two", 1.0), ("three", 0.5), ("four", 0.1)),
        )


@pytest.fixture
def search(place, tmp_path):
    def go(script, **options):
        config = read_config(place / "detector")
        state = {"weights": np.zeros(1, np.float32)}
        data = read_dataset(str(place / "coins"))
        data = dataclasses.replace(data, class_names=config.class_names)
        options = {"folder": tmp_path / "ladder", "tools": script.tools()} | options
        return climb(Subject(config=config, state=state), data, runtime="onnxruntime", **options)

    return go


def test_a_step_may_lose_one_point_of_ap_or_what_is_allowed(search, tmp_path):
    table = {"fp32": 0.5, "fp16": 0.5, "minmax": 0.48, "percentile": 0.491, "entropy": 0.5}
    found = search(Scripted(**table))
    assert [step.name for step in found.steps if step.kept] == ["fp32", "fp16", "int8 percentile"]
    assert found.winner.name == "int8 percentile"
    (refused,) = [step for step in found.steps if step.name == "int8 minmax"]
    assert refused.reason == "it has AP 48.00% on 2 images, and fp32 has 50.00%: it may lose 1 percentage points"
    assert found.winner.accuracy is None
    assert "int8 percentile wins, AP 49.10%" in found.sentence
    more = search(Scripted(**table), gate=Gate(max_drop=0.03), folder=tmp_path / "more")
    assert more.winner.name == "int8 minmax"


def test_an_undefined_figure_is_refused_and_the_next_way_is_tried(search):
    found = search(Scripted(fp32=0.5, fp16=0.5, minmax=float("nan"), percentile=0.5))
    assert [step.kept for step in found.steps if step.name == "int8 minmax"] == [False]
    assert found.winner.name == "int8 percentile"
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["steps"][2]["lost"]["after"] is None


def test_the_latency_of_an_answer_contains_the_time_outside_the_file(search):
    found = search(Scripted(fp32=0.5, fp16=0.5, minmax=0.5))
    assert (found.steps[0].latency_ms, found.winner.latency_ms, found.winner.base_ms) == (5.0, 4.0, 5.0)
    assert found.winner.speed == pytest.approx(5 / 4)


def test_layers_stay_float_and_training_is_left_out_with_a_reason(search):
    table = {"fp32": 0.5, "fp16": 0.5, "minmax": 0.3, "percentile": 0.4, "entropy": 0.2, "percentile_full": 0.35}
    table |= {"percentile_1": 0.45, "percentile_2": 0.495}
    script = Scripted(**table)
    found = search(script)
    assert script.tried == list(table)
    assert found.winner.name == "int8 percentile, 2 layers float"
    (left_out,) = [step for step in found.steps if step.name == "replaced activation"]
    assert left_out.reason == ("left out: a detector or a segmenter learns from annotations, not from its fp32 network")
    assert SearchFacts.from_dict(json.loads(json.dumps(found.to_dict()))).steps[0].lost["before"] == 0.5


def test_a_finished_step_is_found_again_with_its_figure(search):
    table = {"fp32": 0.5, "fp16": 0.5, "minmax": 0.5}
    first = search(Scripted(**table))
    script = Scripted(**table)
    again = search(script)
    assert script.tried == []
    assert again.to_dict()["tested"] == first.to_dict()["tested"]
    timeless = [[dataclasses.replace(step, seconds=0.0) for step in found.steps] for found in (first, again)]
    assert timeless[0] == timeless[1]


def test_masks_have_a_key_that_is_the_same_in_every_process(place):
    images = np.zeros((1, 2, 2, 3), np.uint8)
    one, other = (images_key(read_dataset(str(place / "terrain")).val, images) for _ in range(2))
    assert one == other
    assert one != images_key(read_dataset(str(place / "terrain")).test, images)


@pytest.mark.parametrize(("model", "data"), [("detector", "coins"), ("segmenter", "terrain")])
def test_a_quantized_detector_or_segmenter_is_an_ordinary_bundle(place, tmp_path, model, data):
    tools = Tools(stopwatch=FASTER_IN_INT8)
    found = effnet.quantize(place / model, place / data, out=tmp_path / "out", tools=tools, max_drop=99).record
    assert found.format == "onnx-int8"
    val = read_as_fitted(place / data, folder=place / model, config=read_config(place / model)).val
    figures = [evaluate(effnet.load(folder), val).figure for folder in (place / model, tmp_path / "out")]
    assert (found.winner.lost.before, found.winner.lost.after) == pytest.approx(figures, abs=1e-6)
    assert set(found.tested) == {"fp32", "winner", "lost"}
    assert read_config(tmp_path / "out").deployed == "onnx-int8"
    assert effnet.load(tmp_path / "out").predict(next((place / data / "images").iterdir()))
    record = json.loads((tmp_path / "out" / "quantize.json").read_text())
    assert record["steps"][0]["lost"]["figure"] == read_config(place / model).task_record.figure.key


def test_each_level_has_layers_and_ranges_of_its_own_when_it_is_rounded(points):
    network, images = points
    with pytest.raises(SpecError, match="layers share no weights"):
        round_(network)
    rounded = rounded_network(subject_of(network), images)
    depthwise = [rounded.get_submodule(f"head.boxes.0.depthwise.p{level}") for level in range(3, 7)]
    assert len({id(module) for module in depthwise}) == 4
    assert all(torch.equal(module.weight, depthwise[0].weight) for module in depthwise)
    ranges = [rounded.ranges[f"head/boxes/0/depthwise/p{level}"].high.item() for level in range(3, 7)]
    assert len(set(ranges)) == 4


def test_rounding_errs_about_as_much_as_the_int8_file(points, tmp_path):
    network, images = points
    subject = subject_of(network)
    path = write_export("onnx-int8", tmp_path, subject.config, subject.state, images=images)
    exported = parted(open_engine(path).run(images), subject.config.file_outputs)
    with torch.no_grad():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        rounded = rounded_network(subject, images)(pixels)
    plain = outputs_of(network, images)
    for name, wanted in exported.items():
        ours, theirs = (np.abs(found - plain[name]).mean() for found in (rounded[name].numpy(), wanted))
        assert 1 / 3 < ours / theirs < 3


def test_the_most_sensitive_layer_is_one_whose_channels_no_scale_suits(points):
    network, images = points
    subject = subject_of(network)
    name = "neck.cells.0.0.pointwise"
    state = dict(subject.state)
    # One input of a layer is a thousand times the others, and its weight as much smaller.
    factor = np.ones(16, np.float32)
    factor[0] = 1e3
    state["neck.cells.0.0.depthwise.weight"] = state["neck.cells.0.0.depthwise.weight"] * factor[:, None, None, None]
    state[f"{name}.weight"] = state[f"{name}.weight"] / factor[None, :, None, None]
    ranked = sensitive_layers(dataclasses.replace(subject, state=state), images)
    assert {layer for layer, _ in ranked} == {
        found for found, layer in named_layers(network.spec) if layer.op in ("conv", "linear")
    }
    assert {layer for layer, _ in ranked[:2]} == {name, "neck.cells.0.0.depthwise"}


def test_a_change_counts_where_an_object_is(points):
    network, _ = points
    outputs = config_of(network.spec).file_outputs
    boxes, scores = (np.zeros(output.shape, np.float32) for output in outputs)
    scores -= 8
    scores[5, 2] = 4

    def rows(boxes, scores):
        return torch.from_numpy(np.concatenate([boxes.ravel(), scores.ravel()])[None])

    def moved(place):
        other = boxes.copy()
        other[place] += 1
        return divergence(rows(boxes, scores), rows(other, scores), outputs)

    assert moved(5) == pytest.approx(4 / 2 / (1 + np.exp(-4)), rel=1e-4)
    assert moved(6) < 0.01
    lower = scores.copy()
    lower[5, 2] = -4
    assert divergence(rows(boxes, scores), rows(boxes, lower), outputs) > 1


def test_a_segmenters_cells_are_compared_class_by_class():
    config = config_of(small(dataclasses.replace(NETWORKS["pyramid"], resolution=64)))
    (output,) = config.file_outputs
    logits = torch.randn(2, *output.shape)
    # A number that is added to all classes of a cell changes no answer.
    same = divergence(logits.flatten(1), (logits + 3.0).flatten(1), [output])
    assert same == pytest.approx(0, abs=1e-3)
    assert divergence(logits.flatten(1), logits.flip(1).flatten(1), [output]) > 1


def test_training_that_rounds_is_for_networks_without_a_decoder(points, tmp_path):
    network, images = points
    with pytest.raises(SpecError, match=r"is for networks without a decoder; .* detects or segments"):
        train_rounded(subject_of(network), None, images, None, folder=tmp_path)


def test_equalization_changes_no_answer_and_no_layer_that_levels_share():
    """A ResNet's detector: pairs in its backbone have factors, the heads stay what they were, with their BatchNorms."""
    backbone = dataclasses.replace(get_spec("resnet18"), resolution=64)
    network = settled(small(with_detector(backbone, 3)))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    subject = subject_of(network)
    found = equalized(subject, images)
    assert any(not np.array_equal(found.state[name], array) for name, array in subject.state.items())
    heads = {name for name in subject.state if name.startswith("head.")}
    shared = {layer.weights for _, layer in named_layers(network.spec) if layer.weights}
    assert shared
    for name in heads:
        np.testing.assert_array_equal(found.state[name], subject.state[name])
    again = settled(network.spec)
    again.load_state_dict({name: torch.from_numpy(array) for name, array in found.state.items()}, strict=False)
    for name, wanted in outputs_of(network, images).items():
        np.testing.assert_allclose(outputs_of(again.eval(), images)[name], wanted, atol=1e-4 * np.abs(wanted).max())


def test_relu6_and_silu_have_no_equalization(points):
    network, images = points
    assert equalized(subject_of(network), images) is None
    with pytest.raises(SpecError, match="needs the activation relu"):
        equalize(network.spec, fold_norms(network.spec, arrays(network)))


def test_one_level_of_a_shared_layer_may_stay_float(points, tmp_path):
    network, images = points
    subject = subject_of(network)
    rows = {}
    for name, layers in (("all", ()), ("one", ("head.scores.last.pointwise.p3",))):
        (tmp_path / name).mkdir()
        path = write_export(
            "onnx-int8", tmp_path / name, subject.config, subject.state, images=images,
            quantization=Quantization(float_layers=layers),
        )  # fmt: skip
        rows[name] = parted(open_engine(path).run(images), subject.config.file_outputs)["scores"]
    first = 8 * 8  # the places of level 3
    assert not np.array_equal(rows["all"][:, :first], rows["one"][:, :first])
    np.testing.assert_array_equal(rows["all"][:, first:], rows["one"][:, first:])
