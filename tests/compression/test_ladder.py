"""The quantization search: order and acceptance of steps with scripted artifacts, real searches, whole bundles."""

import dataclasses
import hashlib
import json
import re
import shutil
import types
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from bundles import assert_files_are_known
from devices import timing
from patterns import patterns
from procedures import BRIEF
from static_int8 import write_static

from effnet.bundle.config import read_config
from effnet.bundle.weights import load_module
from effnet.compression.ladder import climb
from effnet.compression.step import Gate, Step, best_of, judge
from effnet.compression.tools import Tools
from effnet.data.datasets import Split, read_dataset
from effnet.errors import BudgetError, DataError, InputError, MissingExtraError
from effnet.jobs.quantize.api import quantize
from effnet.measurement.answers import predict_split
from effnet.measurement.budget import Budget
from effnet.measurement.paired import Paired
from effnet.measurement.sample import calibration_images
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.verify import check_export
from effnet.report.facts import SearchFacts
from effnet.report.plots.sensitivity import save_sensitivity, sensitivity_sentence, sensitivity_svg
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.recorded import record_each, recorded_answers
from effnet.runtimes.registry import FORMATS, find_format, open_engine

pytestmark = pytest.mark.usefixtures("one_thread")

COUNT = 400
BIG = Split(sources=[np.zeros((16, 16, 1), np.uint8)] * COUNT, labels=np.arange(COUNT) % 4)


FASTER_IN_INT8 = Stopwatch(once=lambda path, **_: timing(0.5 if "int8" in path.name else 1.0))


class Scripted:
    """Artifacts that are text files: a table holds the loss, the speed and the size of each, by a part of its name.

    `lost` is in images of 400, `memory` in 10^6 bytes. An artifact that is not in the table cannot be made.
    """

    def __init__(self, memory=None, **table):
        self.table, self.memory = table, memory or {}
        self.made, self.trained, self.ranked = [], [], 0

    def entry(self, path):
        return json.loads(path.read_text())

    def write(self, name, folder, subject, images, quantization):
        found = find_format(name)
        key = self.key(found.precision, subject, quantization)
        self.made.append(key)
        if key not in self.table:
            raise InputError(f"nobody makes {key}")
        folder.mkdir(parents=True, exist_ok=True)
        lost, speed, size = self.table[key]
        path = folder / found.file
        path.write_text(json.dumps({"lost": lost, "speed": speed}).ljust(int(1000 * size)))
        return path

    def key(self, precision, subject, quantization):
        if precision != "int8":
            return precision
        words = [subject.config.arch.activation, quantization.method]
        if quantization.bias_correction == "full":
            words.append("full")
        if "equal" in subject.state:
            words.append("equal")
        if "qat" in subject.state:
            words.append("qat")
        elif "trained" in subject.state:
            words.append("trained")
        if quantization.float_layers:
            words.append(str(len(quantization.float_layers)))
        return "_".join(words)

    def answer(self, folder, name, split, threads):
        lost = self.entry(folder / find_format(name).file)["lost"]
        right = np.arange(len(split)) >= 10  # ten are wrong in any case
        right[10 : 10 + lost] = False
        return right

    def measure(self, path, **_):
        memory = self.memory.get("int8" if "int8" in path.name else "fp32", 0.0)
        return dataclasses.replace(timing(8 / self.entry(path)["speed"]), memory_mb=memory)

    def rank_layers(self, subject, images):
        self.ranked += 1
        return tuple((f"layer {number}", 1.5 / (number + 1)) for number in range(12))

    def marked(self, subject, word):
        return dataclasses.replace(subject, state=dict(subject.state) | {word: np.zeros(1, np.float32)})

    def train_replaced(self, subject, spec, dataset, recipe, **rest):
        self.trained.append(spec.activation)
        changed = dataclasses.replace(subject, config=dataclasses.replace(subject.config, arch=spec))
        return self.marked(changed, "trained")

    def train_rounded(self, subject, dataset, images, recipe, **rest):
        self.trained.append("rounded")
        return self.marked(subject, "qat")

    def tools(self, *, equalize=True):
        return Tools(
            write=self.write,
            answer=self.answer,
            stopwatch=Stopwatch(once=self.measure),
            rank_layers=self.rank_layers,
            equalize=(lambda subject, images: self.marked(subject, "equal"))
            if equalize
            else (lambda subject, images: None),
            train_replaced=self.train_replaced,
            train_rounded=self.train_rounded,
        )


@pytest.fixture
def subject(good):
    """A network with SiLU, with scripted outputs."""
    arch = dataclasses.replace(good.config.arch, activation="silu")
    return dataclasses.replace(good, config=dataclasses.replace(good.config, arch=arch))


@pytest.fixture(scope="module")
def data():
    return dataclasses.replace(patterns(), val=BIG)


@pytest.fixture(autouse=True)
def no_speed_measured(monkeypatch):
    monkeypatch.setattr("effnet.compression.trained_steps.train_speed", lambda spec: 1000.0)


@pytest.fixture
def run(subject, data, tmp_path):
    def go(script, **arguments):
        arguments = {"folder": tmp_path / "ladder", "tools": script.tools()} | arguments
        return climb(subject, data, runtime="onnxruntime", **arguments)

    return go


FP32 = {"fp32": (0, 1.0, 4)}
GOOD_INT8 = {"silu_minmax": (1, 1.5, 1)}


def names(ladder, *, accepted=None):
    return [step.name for step in ladder.steps if accepted is None or step.accepted is accepted]


@pytest.mark.elsewhere
def test_the_first_int8_that_keeps_the_gate_ends_the_search_for_another(run):
    script = Scripted(**FP32, fp16=(0, 1.0, 2), **GOOD_INT8, silu_percentile=(0, 1.5, 1))
    found = run(script, train=False)
    assert names(found) == ["fp32", "fp16", "int8 minmax"]
    assert names(found, accepted=True) == names(found)
    assert (found.winner.name, found.format, found.config.deployed) == ("int8 minmax", "onnx-int8", "onnx-int8")
    assert found.met
    assert not found.changed
    assert (found.folder / "model.int8.onnx").is_file()


def test_every_way_to_round_is_tried_in_order_until_one_keeps_the_gate(run):
    script = Scripted(
        **FP32, silu_minmax=(40, 1.5, 1), silu_percentile=(20, 1.5, 1), silu_entropy=(30, 1.5, 1),
        silu_percentile_full=(10, 1.5, 1), silu_percentile_equal=(9, 1.5, 1), silu_percentile_equal_1=(5, 1.4, 1.2),
        silu_percentile_equal_2=(4, 1.4, 1.3), silu_percentile_equal_4=(2, 1.3, 1.5),
    )  # fmt: skip
    found = run(script, train=False)
    assert names(found)[2:] == [
        "int8 minmax", "int8 percentile", "int8 entropy", "int8 percentile, full bias correction",
        "int8 percentile, equalized", "int8 percentile, 1 layer float", "int8 percentile, 2 layers float",
        "int8 percentile, 4 layers float",
    ]  # fmt: skip
    assert found.winner.name == "int8 percentile, 4 layers float"
    assert found.quantization.float_layers == tuple(f"layer {number}" for number in range(4))
    assert found.sensitivity == script.rank_layers(None, None)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["sensitivity"][1] == {"layer": "layer 1", "harm": 0.75}
    assert sensitivity_sentence(SearchFacts.from_dict(record)) == (
        "Of 12 layers, the most sensitive to quantization are layer 0, layer 1, layer 2; 4 stay float in the winner"
    )
    refused = found.steps[2].reason
    assert refused.startswith("it loses 10.00 percentage points: of 400 images 40 became wrong")
    assert refused.endswith("more than the allowed 0.5 percentage points")
    assert "; significant, McNemar" in refused


def test_a_ranking_is_found_again_and_is_of_the_network_that_won(run):
    table = FP32 | {
        "silu_minmax": (40, 1.5, 1), "relu6_minmax": (390, 2.5, 1), "relu6_minmax_trained": (30, 2.5, 1),
        "relu6_minmax_trained_1": (1, 2.4, 1.1),
    }  # fmt: skip
    script = Scripted(**table)
    ranked = script.rank_layers

    def rank_layers(subject, images):
        return ranked(subject, images)[:: -1 if "trained" in subject.state else 1]

    script.rank_layers = rank_layers
    found = run(script)
    assert found.winner.name == "replaced relu6 int8 minmax, 1 layer float"
    assert found.sensitivity[0][0] == "layer 11"
    assert script.ranked == 2
    again = Scripted(**table)
    assert run(again).sensitivity == found.sensitivity
    assert again.ranked == 0


@pytest.mark.parametrize(
    ("table", "budget", "why"),
    [
        (GOOD_INT8, None, "int8 meets the accuracy criterion without it"),
        (GOOD_INT8, Budget(size_mb=5), "int8 was not tried"),
    ],
)
def test_where_layers_were_not_ranked_one_sentence_says_why(run, tmp_path, table, budget, why):
    found = run(Scripted(**FP32, **table), train=False, budget=budget)
    assert found.sensitivity == ()
    facts = SearchFacts.from_dict(found.to_dict())
    assert sensitivity_sentence(facts) == f"Layers were not ranked by sensitivity to quantization: {why}"
    assert sensitivity_svg(facts) is None
    (tmp_path / "old.svg").write_text("of another climb")
    assert not save_sensitivity(facts, tmp_path / "old.svg")
    assert not (tmp_path / "old.svg").exists()


def test_the_plot_has_a_bar_for_each_of_the_most_harmful_layers_and_marks_those_left_float(run, tmp_path):
    rows = [{"layer": f"stages.{number}.conv", "harm": 3.0 / (number + 1)} for number in range(60)]
    rows[2]["harm"] = None  # it had no finite number
    settings = {"method": "minmax", "bias_correction": "none", "pair_stem": False}
    settings["float_layers"] = ["stages.0.conv", "stages.1.conv"]
    record = run(Scripted(**FP32, **GOOD_INT8), train=False).to_dict()
    ladder = SearchFacts.from_dict(record | {"sensitivity": rows, "quantization": settings})
    plot = tmp_path / "plots" / "plot.svg"
    plot.parent.mkdir()
    assert save_sensitivity(ladder, plot)
    first = plot.read_bytes()
    assert save_sensitivity(ladder, plot)
    assert plot.read_bytes() == first
    assert [path.name for path in plot.parent.iterdir()] == ["plot.svg"]
    for root in (ElementTree.fromstring(first), ElementTree.fromstring(sensitivity_svg(ladder))):
        texts = "".join(root.itertext())
        named = [row["layer"] for row in rows if f"{row['layer']}\n" in texts]
        assert named == [f"stages.{number}.conv" for number in (0, 1, *range(3, 25))]
        assert "24 most sensitive of 60 layers" in texts
        filled = [
            path.get("style", "") for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("clip-path")
        ]
        assert sum("#d55e00" in style for style in filled) == 2  # vermillion
        assert sum("#0072b2" in style and "fill" in style for style in filled) == 22  # blue


def test_a_step_that_brings_neither_speed_nor_size_is_refused(run):
    found = run(Scripted(**FP32, fp16=(0, 0.5, 3.95), silu_minmax=(0, 0.9, 4)), train=False)
    assert found.winner.name == "fp32"
    assert [step.reason for step in found.steps if step.format == "onnx-fp16"] == [
        "neither faster (-50%) nor smaller (+1%) than fp32"
    ]


def test_what_is_smaller_but_slower_counts_and_wins_only_where_size_is_the_aim(run, tmp_path):
    table = FP32 | {"fp16": (0, 0.8, 2), "w8": (0, 0.9, 1.2), "silu_minmax": (0, 0.7, 1)}
    found = run(Scripted(**table), train=False)
    assert names(found, accepted=True) == ["fp32", "fp16", "int8 minmax"]
    assert found.winner.name == "fp32"
    found = run(Scripted(**table), train=False, budget=Budget(size_mb=0.0025), folder=tmp_path / "size")
    assert (found.winner.name, names(found)) == ("fp16", ["fp32", "fp16"])
    found = run(Scripted(**table), train=False, budget=Budget(size_mb=0.0015), folder=tmp_path / "small")
    assert (found.winner.name, names(found)) == ("w8", ["fp32", "fp16", "w8"])


def test_the_ladder_ends_where_the_limits_are_kept(run):
    script = Scripted(**FP32, fp16=(0, 1.2, 2), **GOOD_INT8)
    found = run(script, budget=Budget(latency_ms=9))
    assert (names(found), found.met) == (["fp32"], True)
    assert "meets the limits (latency 9 ms)" in found.sentence


def test_a_limit_of_memory_is_one_like_the_others(run):
    """An fp32 network that is fast enough but takes too much memory does not meet the limits."""
    script = Scripted(**FP32, **GOOD_INT8, memory={"fp32": 20.0, "int8": 12.0})
    found = run(script, budget=Budget(latency_ms=9, memory_mb=15))
    assert (found.winner.name, found.met, found.winner.memory_mb) == ("int8 minmax", True, 12.0)
    assert "meets the limits (latency 9 ms, peak memory 15 MB)" in found.sentence


def test_where_int8_is_wanted_nothing_else_will_do(run):
    script = Scripted(**FP32, fp16=(0, 1.2, 2), **GOOD_INT8)
    found = run(script, budget=Budget(latency_ms=9), precision="int8")
    assert (found.winner.name, found.met) == ("int8 minmax", True)
    assert "meets the limits (latency 9 ms, int8)" in found.sentence


def test_limits_that_nothing_keeps_name_the_nearest(run):
    found = run(Scripted(**FP32, **GOOD_INT8), budget=Budget(latency_ms=2), train=False)
    assert not found.met
    assert found.sentence.startswith(
        "no step meets the limits (latency 2 ms) and the accuracy criterion; the nearest: int8"
    )


def test_only_activations_that_are_faster_rounded_are_trained(run):
    script = Scripted(
        **FP32, **GOOD_INT8, hard_swish_minmax=(390, 1.4, 1), relu6_minmax=(390, 2.5, 1),
        relu6_minmax_trained=(2, 2.5, 1),
    )  # fmt: skip
    found = run(script)
    assert script.trained == ["relu6"]
    assert found.winner.name == "replaced relu6 int8 minmax"
    assert found.changed
    assert found.config.arch.activation == "relu6"
    (refused,) = [step for step in found.steps if step.name == "replaced hard_swish"]
    assert refused.reason == "not worth training: its int8 is 1.40 times as fast as fp32, and 1.50 is already reached"


def test_rounding_is_trained_only_where_it_fails_otherwise_and_must_beat_it(run, tmp_path):
    table = FP32 | {"silu_minmax": (40, 1.5, 1), "silu_minmax_qat": (1, 1.5, 1)}
    script = Scripted(**table)
    found = run(script)
    assert script.trained == ["rounded"]
    assert found.winner.name == "trained int8"
    script = Scripted(**table | {"silu_minmax_qat": (40, 1.5, 1)})
    found = run(script, gate=Gate(max_drop=0.2), folder=tmp_path / "wide")
    assert script.trained == []
    worse = judge(found.steps[2], [], Gate(max_drop=0.2), must_beat=found.steps[2].accuracy)
    assert worse[:2] == (True, False)
    assert worse[2].startswith("no better than without this training, 87.50%")


def test_without_training_nothing_is_trained(run):
    script = Scripted(**FP32, silu_minmax=(40, 1.5, 1), relu6_minmax=(0, 9, 1))
    assert run(script, train=False).winner.name == "fp32"
    assert script.trained == []


def test_a_training_of_which_no_epoch_fits_is_not_begun(run, monkeypatch):
    """It was started, interrupted within its first epoch and discarded."""
    script = Scripted(**FP32, silu_minmax=(40, 1.5, 1), relu6_minmax=(40, 9, 1))
    monkeypatch.setattr("effnet.compression.trained_steps.train_speed", lambda spec: 0.1)
    found = run(script, minutes=1)
    assert script.trained == []
    late = [step.reason for step in found.steps if step.done == "not trained"]
    assert late
    assert all(re.fullmatch(r"not trained: an epoch takes about \d+ s, and \d+ s are left for it", why) for why in late)


def test_past_its_time_no_step_begins(run, monkeypatch):
    script, now = Scripted(**FP32, **GOOD_INT8, fp16=(0, 1, 2)), [0.0]
    monkeypatch.setattr("effnet.compression.ladder.time.monotonic", lambda: now[0])
    plain = script.answer

    def slow(*arguments):
        now[0] += 45
        return plain(*arguments)

    script.answer = slow
    found = run(script, minutes=1)
    assert names(found) == ["fp32", "fp16"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_climb_goes_on_where_it_was(run, error):
    table = FP32 | {"fp16": (0, 1.0, 2)} | GOOD_INT8
    script = Scripted(**table)
    plain = script.measure

    def breaks(path, **options):
        if "int8" in path.name:
            raise error
        return plain(path, **options)

    script.measure = breaks
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        run(script, train=False)
    again = Scripted(**table)
    found = run(again, train=False)
    assert again.made == ["silu_minmax"]
    assert found.to_dict()["steps"][:2] == [
        step | {"seconds": found.steps[i].seconds}
        for i, step in enumerate(run(Scripted(**table), train=False).to_dict()["steps"][:2])
    ]


def test_other_weights_begin_anew(run, subject, data, tmp_path):
    table = FP32 | GOOD_INT8
    run(Scripted(**table), train=False)
    again = Scripted(**table)
    other = dataclasses.replace(subject, state=dict(subject.state) | {"stem.norm.bias": np.ones(8, np.float32)})
    climb(other, data, runtime="onnxruntime", folder=tmp_path / "ladder", tools=again.tools(), train=False)
    assert "fp32" in again.made


def test_trained_weights_are_found_again(run):
    table = FP32 | {"silu_minmax": (40, 1.5, 1), "silu_minmax_qat": (1, 1.5, 1)}
    run(Scripted(**table))
    again = Scripted(**table)
    assert run(again).winner.name == "trained int8"
    assert again.trained == []


def test_a_missing_package_is_said_and_not_taken_for_a_failed_step(run):
    script = Scripted(**FP32)

    def absent(name, folder, subject, images, quantization):
        if "int8" in name:
            raise MissingExtraError("nncf", "compress")
        return Scripted.write(script, name, folder, subject, images, quantization)

    script.write = absent
    with pytest.raises(MissingExtraError, match=r"pip install"):
        run(script)


def test_few_validation_images_are_said_to_be_few():
    step = Step(name="x", format="onnx-int8", done="", accuracy=0.9, paired=Paired(images=60, lost=2, gained=0))
    kept, _, reason = judge(step, [], Gate())
    assert not kept
    assert reason.endswith(
        "more than the allowed 0.5 percentage points; with 60 images a single one is 1.67, which is allowed"
    )


def test_among_those_as_fast_the_smallest_wins():
    def step(name, speed, size, lost=0):
        return Step(
            name=name, format="onnx", done="", latency_ms=1 / speed, speed=speed, size_mb=size, accepted=True,
            paired=Paired(images=100, lost=lost, gained=0),
        )  # fmt: skip

    steps = [step("a", 1.0, 4), step("b", 2.0, 2), step("c", 1.97, 1)]
    assert best_of(steps, Budget(), Gate()).name == "c"
    assert best_of([*steps, step("d", 3.0, 5)], Budget(), Gate()).name == "d"
    budget = Budget(latency_ms=0.9)
    assert best_of([step("e", 2.0, 1, lost=3), step("f", 1.2, 2)], budget, Gate()).name == "f"


def test_data_that_cannot_serve_are_refused(good, data, tmp_path):
    def go(changed):
        climb(good, changed, runtime="onnxruntime", folder=tmp_path / "ladder")

    nothing = Split(sources=[], labels=np.empty(0, np.int64))
    one = Split(sources=data.train.sources[:8:4], labels=data.train.labels[:8:4])
    for changed, message in (
        (dataclasses.replace(data, val=nothing), "patterns has none"),
        (dataclasses.replace(data, class_names=("a", "b", "c", "e")), "must have the network's 4 classes in its order"),
        (
            dataclasses.replace(data, train=one),
            "two classes; the 2 drawn are all of .*: give the data",
        ),
    ):
        with pytest.raises(DataError, match=message):
            go(changed)
    with pytest.raises(InputError, match="max_drop"):
        Gate(max_drop=1.5)


def test_every_class_calibrates_as_much_as_any_other(good, data):
    labels = np.array([0] * 100 + [1, 2, 3] * 5)
    sources = [np.full((16, 16, 1), label, np.uint8) for label in labels]
    train = Split(sources=[*sources[:-1], "no-such-file.png"], labels=labels)
    drawn = calibration_images(
        Split(sources=sources, labels=labels), good.config.preprocess, class_names=data.class_names, count=20
    )
    assert np.unique(drawn[:, 0, 0, 0], return_counts=True)[1].tolist() == [5, 5, 5, 5]
    found = calibration_images(train, good.config.preprocess, class_names=data.class_names, count=20)
    assert np.unique(found[:, 0, 0, 0], return_counts=True)[1].tolist() == [6, 5, 5, 4]  # one is unreadable


def test_a_real_climb_ends_with_an_artifact_that_is_as_good_as_it_says(good, tmp_path):
    """The artifact is opened and scored again, in ONNX Runtime; the allowed drop is so large that int8 passes."""
    data = patterns()
    found = climb(
        good, data, runtime="onnxruntime", folder=tmp_path, tools=Tools(write=write_static, stopwatch=BRIEF),
        train=False, gate=Gate(max_drop=0.1),
    )  # fmt: skip
    by_name = {step.name: step for step in found.steps}
    step = by_name["int8 minmax"]
    assert step.kept
    path = tmp_path / "int8-minmax" / "model.int8.onnx"
    assert step.size_mb == pytest.approx(path.stat().st_size / 1e6)
    assert open_engine(path).classes == 4
    probabilities, _ = predict_split(Predictor(tmp_path / "int8-minmax", format="onnx-int8"), data.val)
    assert step.accuracy == (probabilities.argmax(1) == data.val.labels).mean()
    assert by_name["fp16"].reason == "it cannot be made: there is no onnx-fp16 here"
    assert 0 < step.latency_ms < 100
    assert set(found.tested) == {"fp32", "fp32_balanced", "winner", "winner_balanced", "paired"}
    assert json.loads(json.dumps(found.to_dict()))["winner"] == found.winner.name


@pytest.mark.elsewhere
def test_a_real_climb_that_rounding_fails_ends_with_trained_weights(fragile, tmp_path, monkeypatch):
    """Really written, scored and trained; only the clock is scripted, and no layer may stay float."""
    monkeypatch.setattr("effnet.compression.ladder._METHODS", ("minmax",))
    monkeypatch.setattr("effnet.compression.trained_steps.recovery_epochs", lambda *sizes, **rest: 8)
    data, heard = patterns(), []
    tools = Tools(
        write=write_static,
        stopwatch=FASTER_IN_INT8,
        rank_layers=lambda subject, images: (),
        equalize=lambda subject, images: None,
    )
    found = climb(
        fragile, data, runtime="onnxruntime", folder=tmp_path, tools=tools, gate=Gate(max_drop=0.3),
        listener=heard.append,
    )  # fmt: skip
    by_name = {step.name: step for step in found.steps}
    assert not by_name["int8 minmax"].kept
    assert by_name["int8 minmax, full bias correction"].reason.startswith("it cannot be made")
    assert found.winner.name == "trained int8"
    assert found.winner.accuracy > by_name["int8 minmax"].accuracy + 0.1
    assert found.changed
    assert found.tested["winner"] > by_name["int8 minmax"].accuracy
    assert any("with the fp32 network as teacher" in getattr(event, "text", "") for event in heard)


def test_equalized_channels_round_where_spoilt_ones_do_not(fragile, tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.compression.ladder._METHODS", ("minmax",))
    tools = Tools(
        write=write_static,
        stopwatch=FASTER_IN_INT8,
    )
    found = climb(
        fragile, patterns(), runtime="onnxruntime", folder=tmp_path, tools=tools, gate=Gate(max_drop=0.1), train=False
    )
    by_name = {step.name: step for step in found.steps}
    assert not by_name["int8 minmax"].kept
    assert found.winner.name == "int8 minmax, equalized"
    assert found.winner.accuracy > by_name["int8 minmax"].accuracy + 0.1
    assert found.changed


@pytest.mark.elsewhere
def test_a_real_climb_leaves_the_layer_float_that_rounding_spoils_and_shows_it(fragile, tmp_path, monkeypatch):
    """Really ranked, written and scored, in ONNX Runtime; only the clock is scripted."""
    monkeypatch.setattr("effnet.compression.ladder._METHODS", ("minmax",))
    tools = Tools(
        stopwatch=FASTER_IN_INT8,
        equalize=lambda subject, images: None,
    )
    found = climb(
        fragile, patterns(), runtime="onnxruntime", folder=tmp_path, tools=tools, gate=Gate(max_drop=0.05), train=False
    )
    worst, harm = found.sensitivity[0]
    assert worst == "stages.1.0.depthwise.conv"
    assert harm > 1000 * found.sensitivity[2][1]
    assert worst in found.quantization.float_layers
    assert found.winner.accuracy > found.steps[2].accuracy + 0.3
    texts = "".join(ElementTree.fromstring(sensitivity_svg(SearchFacts.from_dict(found.to_dict()))).itertext())
    assert all(f"{layer}\n" in texts for layer, _ in found.sensitivity)
    assert "All layers, each quantized alone" in texts


# The bundle.


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".ladder" not in str(path)
    }


@pytest.fixture(autouse=True)
def answers_of_scripted_files(monkeypatch):
    """The files that `Scripted` writes cannot run: answers are recorded of real ones."""
    from effnet.jobs.quantize import api as job

    def record(folder, names, *, into):
        record_each(folder, [name for name in names if not is_scripted(folder / FORMATS[name].file)], into=into)

    monkeypatch.setattr(job, "record_each", record)


def is_scripted(path):
    return path.read_bytes().startswith(b'{"lost"')


def test_what_the_winner_answers_is_recorded_beside_the_other_formats(bundle_copy, tmp_path, monkeypatch):
    from effnet.jobs.quantize import api as job

    record_each(bundle_copy, ["onnx"], into=bundle_copy)
    before = recorded_answers(bundle_copy, FORMATS["onnx"])
    shutil.copyfile(bundle_copy / "model.onnx", tmp_path / "model.int8.onnx")
    found = types.SimpleNamespace(
        winner=types.SimpleNamespace(name="int8 minmax"), format="onnx-int8", folder=tmp_path, changed=False,
        to_dict=dict,
    )  # fmt: skip
    monkeypatch.setattr(job, "SearchFacts", types.SimpleNamespace(from_dict=dict))
    monkeypatch.setattr(job, "save_sensitivity", lambda facts, path: None)
    job.deploy(found, bundle_copy)
    for name in ("onnx", "onnx-int8"):
        np.testing.assert_allclose(recorded_answers(bundle_copy, FORMATS[name]), before)
    assert read_config(bundle_copy).deployed == "onnx-int8"


def test_a_bundle_gets_the_winner_and_the_record(bundle_copy):
    script = Scripted(**FP32, **GOOD_INT8)
    before = contents(bundle_copy)
    found = quantize(bundle_copy, "digits", tools=script.tools(), train=False, max_drop=1.0).record
    after = contents(bundle_copy)
    assert found.winner.name == "int8 minmax"
    assert {name for name in after if before.get(name) != after[name]} == {
        "config.json", "model.int8.onnx", "quantize.json",
    }  # fmt: skip
    assert read_config(bundle_copy).deployed == "onnx-int8"
    assert_files_are_known(bundle_copy)
    assert json.loads((bundle_copy / "quantize.json").read_text())["winner"] == "int8 minmax"
    assert not (bundle_copy / ".ladder").exists()


def test_a_bundle_shows_its_sensitive_layers_as_long_as_they_are_its_own(bundle_copy):
    plot = bundle_copy / "sensitivity.svg"
    script = Scripted(**FP32, silu_minmax=(200, 1.5, 1), silu_minmax_2=(0, 1.4, 1))
    quantize(bundle_copy, "digits", tools=script.tools(equalize=False), train=False)
    assert "stays float" in "".join(ElementTree.parse(plot).getroot().itertext())
    quantize(bundle_copy, "digits", tools=Scripted(**FP32, silu_minmax=(0, 9, 1)).tools(), train=False)
    assert not plot.exists()


def test_what_is_deployed_already_stays_where_nothing_is_better(bundle_copy):
    quantize(bundle_copy, "digits", tools=Scripted(**FP32, **GOOD_INT8).tools(), train=False)
    before = contents(bundle_copy)
    found = quantize(bundle_copy, "digits", tools=Scripted(**FP32, silu_minmax=(1, 1.4, 1)).tools(), train=False).record
    assert found.winner.name == "as deployed"
    assert {name for name, digest in contents(bundle_copy).items() if before[name] != digest} == {"quantize.json"}


def test_new_weights_take_the_old_exports_with_them(bundle_copy):
    quantize(bundle_copy, "digits", tools=Scripted(**FP32, **GOOD_INT8).tools(), train=False)
    for name in ("model.tflite", "features.onnx"):
        (bundle_copy / name).write_text("of the old weights")

    class Trains(Scripted):
        def marked(self, subject, word):
            shifted = subject.state["classifier.bias"] + 1
            return dataclasses.replace(subject, state=dict(subject.state) | {"classifier.bias": shifted})

    script = Trains(**FP32, **GOOD_INT8, relu6_minmax=(0, 3.0, 0.9))
    found = quantize(bundle_copy, "digits", tools=script.tools()).record
    assert found.winner.name == "replaced relu6 int8 minmax"
    config = read_config(bundle_copy)
    assert (config.arch.activation, config.deployed) == ("relu6", "onnx-int8")
    assert not (bundle_copy / "model.tflite").exists()
    assert not (bundle_copy / "features.onnx").exists()
    assert_files_are_known(bundle_copy)
    images = np.zeros((1, config.preprocess.resolution, config.preprocess.resolution, 1), np.uint8)
    check_export(load_module(bundle_copy), Predictor(bundle_copy, format="onnx"), images)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), BudgetError])
def test_whatever_ends_a_climb_the_bundle_is_as_it_was(bundle_copy, error):
    before = contents(bundle_copy)
    script = Scripted(**FP32, **GOOD_INT8)
    limit = None
    if error is BudgetError:
        limit = 1e-6
    else:
        script.answer = lambda *arguments: (_ for _ in ()).throw(error)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        quantize(bundle_copy, "digits", tools=script.tools(), train=False, max_latency_ms=limit)
    assert contents(bundle_copy) == before
    assert (bundle_copy / ".ladder").exists() is (error is not BudgetError)  # an interrupted search resumes


def test_a_data_set_of_a_program_serves_a_copy_too(bundle_copy, tmp_path):
    tools = Scripted(**FP32, **GOOD_INT8).tools()
    with pytest.raises(BudgetError, match="unchanged"):  # searched, not refused for having no path
        quantize(
            bundle_copy, read_dataset("digits"), tools=tools, train=False, out=tmp_path / "copy", max_latency_ms=1e-6
        )


def test_a_copy_leaves_the_bundle_alone(bundle_copy, tmp_path):
    before, out = contents(bundle_copy), tmp_path / "new" / "copy"
    quantize(bundle_copy, "digits", tools=Scripted(**FP32, **GOOD_INT8).tools(), train=False, out=out)
    assert contents(bundle_copy) == before
    assert read_config(out).deployed == "onnx-int8"
    assert_files_are_known(out)
    assert (out / "model.safetensors").is_file()
    assert sorted(path.name for path in out.parent.iterdir()) == ["copy"]
    with pytest.raises(InputError, match="--out must be a new or empty folder"):
        quantize(bundle_copy, "digits", tools=Scripted(**FP32).tools(), out=out)


def test_the_command_prints_every_step_and_says_what_predicts_now(bundle_copy, run_cli, monkeypatch):
    script = Scripted(**FP32, silu_minmax=(40, 1.5, 1), silu_entropy=(0, 1.5, 1))
    monkeypatch.setattr("effnet.jobs.quantize.api.tools_of", lambda runtime, **_: script.tools())
    done = run_cli("quantize", bundle_copy, "digits", "--set", "quantize.train=false")
    assert done.code == 0, done.err
    assert "int8 minmax" in done.out
    assert "refused" in done.out
    assert "now predicts with onnx-int8" in done.out
    assert "Layers were not ranked by sensitivity to quantization: int8 meets the accuracy" in done.out
    missed = run_cli("quantize", bundle_copy, "digits", "--set", "quantize.train=false", "--max-latency-ms", "0.000001")
    assert missed.code == 3
    assert "the nearest:" in missed.err
    assert run_cli("quantize", bundle_copy, "digits", "--max-size-mb", "-1").code == 2
