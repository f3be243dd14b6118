"""A new task is one record and its functions: the mean brightness of an image, which effnet does not know.

It is trained, selected, exported, predicted, evaluated and reported like classification.
"""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import toy_task
from procedures import UNTIMED

import effnet
from effnet.bundle.config import read_config
from effnet.data.datasets import load_image
from effnet.errors import BundleError, DataError, InputError
from effnet.report.text import percent
from effnet.tasks import registry

SIDE = 8


@pytest.fixture(scope="module", autouse=True)
def known():
    """Register the task for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_TASKS", dict(registry._TASKS))
        registry.register(toy_task.TASK)
        yield


def draw(count, *, seed=0):
    """Return grey images of any brightness, and that brightness."""
    rng = np.random.default_rng(seed)
    level, noise = rng.uniform(20, 235, (count, 1, 1)), rng.normal(0, 8, (count, SIDE, SIDE))
    images = np.clip(level + noise, 0, 255).astype(np.uint8)
    return images, images.mean((1, 2)) / 255


@pytest.fixture(scope="module")
def dataset():
    return effnet.Dataset.from_arrays(*draw(240), label_kind=toy_task.TASK.labels, name="lights")


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    from effnet.arch.lineage import Lineage
    from effnet.arch.spec import ArchSpec, StemSpec, stage

    spec = ArchSpec(
        lineage=Lineage(base="tiny"),
        num_classes=1,
        in_channels=1,
        resolution=SIDE,
        stem=StemSpec(channels=8),
        stages=(stage("mbconv", repeats=1, out_channels=8, in_channels=8, expand_ratio=2),),
        head_channels=16,
    )
    out = tmp_path_factory.mktemp("toy") / "bundle"
    return effnet.train(dataset, model=spec, epochs=20, settings={"train.lr": 0.02}, out=out, procedure=UNTIMED)


@pytest.fixture(scope="module")
def model(trained):
    return effnet.load(trained.folder)


def test_its_targets_are_numbers_that_are_split_and_kept(dataset):
    _, truth = draw(240)
    assert dataset.task == toy_task.NAME
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (168, 36, 36)
    assert dataset.train.labels.dtype == np.float32
    order = np.argsort(truth)
    every = np.sort(np.concatenate([split.labels for split in (dataset.train, dataset.val, dataset.test)]))
    np.testing.assert_array_equal(every, truth[order].astype(np.float32))


@pytest.mark.elsewhere
def test_training_selects_the_epoch_of_the_least_error_and_learns(trained):
    training, test = trained.report.training, trained.report.test
    errors = [epoch.figures["val_mean_error"] for epoch in training.epochs]
    assert training.best_epoch == 1 + int(np.argmin(errors))
    assert trained.test_figure == test.mean_error < 0.5 * test.guessing
    lines = (trained.folder / "run" / "attempt-1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["val_mean_error"] for line in lines] == errors


def test_the_bundle_and_its_file_declare_what_they_return(trained, model):
    config = json.loads((trained.folder / "config.json").read_text())
    assert (config["format"], config["task"]) == (2, toy_task.NAME)
    assert config["outputs"] == [{"name": toy_task.NAME, "shape": [1], "meaning": "0 (black) to 1 (white)"}]
    session = onnxruntime.InferenceSession(trained.folder / "model.onnx")
    assert [output.name for output in session.get_outputs()] == [toy_task.NAME]
    images, _ = draw(5, seed=1)
    (rows,) = session.run(None, {"image": images[..., None]})
    np.testing.assert_array_equal(model.outputs(images[..., None]), rows)
    assert not np.allclose(rows, 1)  # no softmax of a single number


def test_it_answers_and_is_evaluated_with_its_own_figure(trained, model, dataset):
    images, truth = draw(40, seed=2)
    found = model.predict(list(images))
    assert all(type(answer) is float for answer in found)
    assert np.abs(np.array(found) - truth).mean() < 0.5 * np.abs(truth - np.median(truth)).mean()
    score = effnet.evaluate(model, dataset)
    assert (score.images, score.figure) == (36, pytest.approx(trained.test_figure))
    strangers = effnet.Dataset.from_arrays(images, truth, label_kind=toy_task.TASK.labels)
    assert effnet.evaluate(model, strangers).images == 40
    with pytest.raises(InputError, match=r"a classifier returns probabilities; .* returns its mean_brightness"):
        model.probabilities(images[..., None])


def test_the_report_and_the_card_tell_its_figure_and_nothing_of_classes(trained):
    page, card = ((trained.folder / name).read_text() for name in ("report.html", "README.md"))
    error = f"{trained.test_figure:.3f}"
    for text in (page, card):
        assert f"tiny, 8 px is off by {error} on average on the 36 test images" in text
        assert "The median of the 36 test images would be off by" in text
        assert not {"accuracy", "probabilities", "classifier", "classes"} & set(text.lower().split())
    share = trained.report.test.mean_error / trained.report.test.guessing
    assert f"That is {percent(share)} of the error of the median." in page
    assert "pipeline_tag: image-feature-extraction\n" in card
    assert "\nmetrics:\n- mae\n---\n" in card
    assert "This is a light meter of the EfficientNet family." in card
    assert "in a program that has registered the task mean" in card
    assert "- Output `mean_brightness`: float32, `[batch, 1]`, 0 (black) to 1 (white)." in card
    assert "print(float(outputs[0]))" in card


def test_its_runs_are_listed_and_compared_by_its_figure(trained, tmp_path, run_cli):
    (run,) = effnet.runs(trained.folder)
    best = min(epoch.figures["val_mean_error"] for epoch in trained.report.training.epochs)
    assert run.figures == {"val_mean_error": best, "test_mean_error": trained.test_figure}
    unfinished = shutil.copytree(trained.folder / "run", tmp_path / "unfinished" / "run").parent
    (started,) = effnet.runs(unfinished)
    assert (started.task, started.val_figure, started.test_figure) == (toy_task.NAME, best, None)
    table = run_cli("runs", "list", trained.folder).out
    assert f" {best:.4g} " in table
    assert f" {trained.test_figure:.4g} " in table
    page = effnet.compare([trained.folder, unfinished], out=tmp_path / "page.html").page.read_text()
    assert "the best mean error on the validation images" in page
    assert "Test mean error" in page
    assert "accuracy" not in page.lower()


def test_it_is_exported_for_other_runtimes_and_precisions(trained, tmp_path):
    found = effnet.export(trained.folder, to=["onnx-fp16", "litert"], out=tmp_path / "out")
    images, _ = draw(8, seed=3)
    expected = effnet.load(trained.folder).predict(list(images))
    for name, exported in found.items():
        assert exported.check.max_difference < 1e-2
        other = effnet.load(tmp_path / "out", format=name).predict(list(images))
        np.testing.assert_allclose(other, expected, atol=1e-2)
    with pytest.raises(InputError, match=r"mean_brightness, does not say which are right"):
        effnet.export(trained.folder, to="onnx-int8", data="digits")
    for refused, name in [
        (lambda: effnet.quantize(trained.folder, "digits", out=tmp_path / "q"), "the search for int8"),
        (lambda: effnet.prune(trained.folder, "digits", out=tmp_path / "p"), "pruning"),
    ]:
        with pytest.raises(InputError, match=rf"{name} is for classifiers.*; this bundle's task is mean_brightness"):
            refused()


def test_where_it_says_which_answers_are_right_int8_is_judged_by_them(trained, dataset, tmp_path, monkeypatch):
    def right(rows, targets):
        return np.abs(rows[:, 0] - targets) < 0.05

    monkeypatch.setitem(registry._TASKS, toy_task.NAME, dataclasses.replace(toy_task.TASK, right=right))
    found = effnet.export(trained.folder, to=["onnx", "onnx-int8"], data=dataset, out=tmp_path / "out", max_drop=0.1)
    whole, int8 = found["onnx"], found["onnx-int8"]
    images = np.stack([load_image(dataset.test, index, channels=1) for index in range(36)])
    outputs = effnet.load(tmp_path / "out", format="onnx-int8").outputs(images)
    assert int8.scored == len(dataset.test) == 36
    assert int8.accuracy == right(outputs, dataset.test.labels).mean() > 0.9
    assert int8.judged.images == len(dataset.val)
    assert int8.judged.drop <= 0.1
    rows = effnet.bench(tmp_path / "out", data=dataset, rounds=1, seconds=0.01, stopwatch=UNTIMED.stopwatch).rows
    assert {row.format.name: row.quality.accuracy for row in rows} == {
        "onnx": whole.accuracy, "onnx-int8": int8.accuracy,
    }  # fmt: skip


@pytest.mark.parametrize(
    "options, said",
    [
        ({"weights": "auto"}, "weights must be none: only classifiers"),
        ({"weights": "none", "max_size_mb": 1}, "precision must be fp32"),
        ({"weights": "none", "coverage": 0.9}, "only classifiers abstain"),
        ({"weights": "none", "balance": "adjust"}, "only classes are balanced"),
        ({"weights": "none", "trials": 2}, "trials must be 0"),
    ],
)
def test_what_only_classifiers_have_is_refused(dataset, tmp_path, options, said):
    with pytest.raises(InputError, match=f"the task of these data is mean brightness; .*{said}"):
        effnet.fit(dataset, epochs=1, out=tmp_path / "out", **options)


def test_data_of_another_task_are_refused(trained, model):
    with pytest.raises(DataError, match=r"must be those of the model's task, mean_brightness; they are of classif"):
        effnet.evaluate(model, "digits")


def test_a_process_that_does_not_know_the_task_says_so(trained, monkeypatch):
    monkeypatch.delitem(registry._TASKS, "mean_brightness")
    with pytest.raises(
        BundleError,
        match=r"must be one of classification, several, embedding, detection, segmentation; got 'mean_brightness'; reg",
    ):
        read_config(trained.folder)


def test_a_name_belongs_to_one_task():
    with pytest.raises(InputError, match="mean_brightness is taken"):
        registry.register(dataclasses.replace(toy_task.TASK, title="another"))
    with pytest.raises(InputError, match="must name it as theirs; they name mean_brightness"):
        registry.register(dataclasses.replace(toy_task.TASK, name="other"))


def test_nothing_in_effnet_names_it():
    package = Path(effnet.__file__).parent
    found = subprocess.run(["grep", "-rnw", "--include=*.py", toy_task.NAME, package], capture_output=True, text=True)
    assert found.stdout == ""
