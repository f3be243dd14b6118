"""Several outputs through the jobs: train, fit, export, quantize, prune, distil, evaluate, predict.

An image's brightness, its stripes and its dots are a class, tags and a number: each can be learnt from pixels.
"""

import dataclasses
import json

import numpy as np
import pytest
from procedures import UNTIMED

import effnet
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.bundle.config import read_config
from effnet.data.several.outputs import placed
from effnet.errors import InputError
from effnet.measurement.answers import predict_split, right_answers
from effnet.tasks.several import right_answers as right

SIDE, LEVELS = 16, ("dark", "grey", "light")


def draw(count, *, seed=0, known=1.0):
    """Return grey images, and their labels of which a share is known."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        level, bars, dot = rng.integers(3), rng.random(2) < 0.5, rng.uniform(0, 1)
        image = np.full((SIDE, SIDE), 50.0 + 60 * level)
        image[::4, :] += 50 * bars[0]
        image[:, ::4] -= 40 * bars[1]
        image[SIDE // 2 :, : SIDE // 2] *= 1 - 0.5 * dot
        images.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
        label = {
            "level": LEVELS[level],
            "bars": [name for name, on in zip(("across", "down"), bars, strict=True) if on],
            "shade": 100 * dot,
        }
        labels.append({name: value for name, value in label.items() if rng.random() < known} or label)
    return np.stack(images), labels


@pytest.fixture(scope="module")
def dataset():
    return effnet.Dataset.from_arrays(*draw(360, known=0.8), name="cards")


def network(columns):
    return ArchSpec(
        lineage=Lineage(base="tiny"),
        num_classes=columns,
        in_channels=1,
        resolution=SIDE,
        stem=StemSpec(channels=8),
        stages=(
            stage("mbconv", repeats=1, out_channels=8, in_channels=8, expand_ratio=2),
            stage("mbconv", repeats=1, out_channels=16, in_channels=8, expand_ratio=2, stride=2),
        ),
        head_channels=32,
        activation="relu6",
    )


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("several") / "bundle"
    return effnet.train(
        dataset, model=network(len(dataset.class_names)), epochs=14, out=out, procedure=UNTIMED,
        settings={"train.lr": 0.01, "augment.flip": False, "augment.view": "none", "loss.weights": "shade=3"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(trained):
    return effnet.load(trained.folder)


def test_every_output_is_learnt_and_scored(dataset, trained, model):
    assert dataset.task == "several"
    rows, indices = predict_split(model, dataset.test)
    targets, specs = dataset.test.labels[indices], model.config.specs
    shares = {}
    for place, found in zip(placed(specs), np.split(right(rows, targets, specs=specs), [1, 3], axis=1), strict=True):
        shares[place.spec.name] = (found == 1).sum() / (found >= 0).sum()
    assert min(shares.values()) > 0.7, shares
    assert trained.report.test.figure > 0.6


def test_the_bundle_says_what_each_output_is(trained):
    level, bars, shade = read_config(trained.folder).specs
    assert (level.kind, level.classes) == ("one", LEVELS)
    assert (bars.kind, bars.classes, len(bars.thresholds)) == ("many", ("across", "down"), 2)
    assert (shade.kind, round(shade.mean / 10), round(shade.scale / 10)) == ("number", 5, 3)
    declared = json.loads((trained.folder / "config.json").read_text())["outputs"]
    assert [(o["name"], o["shape"]) for o in declared] == [("level", [3]), ("bars", [2]), ("shade", [1])]


def test_an_answer_has_every_output(model):
    images, labels = draw(40, seed=5)
    answers = model.predict(list(images))
    pairs = list(zip(answers, labels, strict=True))
    assert np.mean([answer["level"].label == label["level"] for answer, label in pairs]) > 0.8
    assert set(answers[0]) == {"level", "bars", "shade"}
    assert set(answers[0]["bars"].probabilities) == {"across", "down"}
    error = np.mean([abs(answer["shade"] - label["shade"]) for answer, label in pairs])
    assert error < 18  # the median is off by 25


def test_its_runs_are_listed_and_compared_by_the_mean_score(trained, tmp_path, run_cli):
    (run,) = effnet.runs(trained.folder)
    test = trained.report.test
    assert (run.test_figure, run.val_figure) == (test.mean_score, run.figures["val_mean_score"])
    assert f" {test.mean_score:.2%} " in run_cli("runs", "list", trained.folder).out
    page = effnet.compare([trained.folder], out=tmp_path / "page.html").page.read_text()
    assert "mean score of the outputs" in page
    assert "accuracy" not in page.lower()


def test_the_page_and_the_card_say_each_output(trained):
    page, card = ((trained.folder / name).read_text() for name in ("report.html", "README.md"))
    for text in (page, card):
        assert f"over 3 outputs on the {trained.report.test.images} test images" in text
        assert all(name in text for name in ("level", "bars", "shade"))
    assert "data:image/png;base64," in page


def test_int8_keeps_each_output_and_a_file_that_ruins_one_is_refused(dataset, trained, tmp_path):
    found = effnet.quantize(trained.folder, dataset, out=tmp_path / "int8", max_drop=10, train=False, procedure=UNTIMED)
    split = dataset.test
    before = right_answers(effnet.load(trained.folder), split)
    after = right_answers(effnet.load(found.folder), split)
    for cells in (before.T, after.T):
        assert all((column == 1).sum() / (column >= 0).sum() > 0.6 for column in cells)


@pytest.mark.elsewhere
def test_a_pruned_network_and_a_student_keep_the_outputs(dataset, trained, tmp_path):
    pruned = effnet.prune(
        trained.folder, dataset, out=tmp_path / "pruned", macs=0.7, round_to=2, epochs=2, procedure=UNTIMED
    )
    config = read_config(pruned.folder)
    assert config.specs[2].mean == read_config(trained.folder).specs[2].mean
    assert effnet.evaluate(effnet.load(pruned.folder), dataset.test).figure > 0.5
    student = effnet.train(
        dataset, model=network(len(dataset.class_names)), epochs=1, out=tmp_path / "student", procedure=UNTIMED,
        settings={"loss.teacher": str(trained.folder), "loss.teacher_weight": 1.0},
    )  # fmt: skip
    assert np.isfinite(student.report.training.epochs[-1].loss)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss.name": "bce"}, "loss.name must be cross_entropy"),
        ({"loss.focal_gamma": 2}, "loss.focal_gamma must be 0"),
        ({"balance.method": "sample"}, "balance.method must be none or adjust"),
        ({"loss.weights": "leve=2"}, "did you mean 'level'"),
    ],
)
def test_settings_that_several_outputs_do_not_have_are_refused(settings, said, dataset, tmp_path):
    with pytest.raises(InputError, match=said):
        effnet.train(
            dataset, model=network(len(dataset.class_names)), epochs=1, out=tmp_path / "no", settings=settings,
            procedure=UNTIMED,
        )  # fmt: skip
    assert not (tmp_path / "no" / "config.json").exists()


def test_a_search_is_for_classifiers(dataset, tmp_path):
    with pytest.raises(InputError, match="the task of these data is several outputs: use effnet fit"):
        effnet.search(dataset, max_macs=1e6, minutes=1, out=tmp_path / "no", procedure=dataclasses.replace(UNTIMED))
