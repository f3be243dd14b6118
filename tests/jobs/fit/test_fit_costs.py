"""fit.cost: costs of wrong answers from the command line to the answers of the finished model."""

import json
import shutil

import numpy as np
import pytest
from messages import refused
from PIL import Image
from procedures import UNTIMED

import effnet
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.bundle.config import read_config, write_config
from effnet.bundle.names import CONFIG
from effnet.data.datasets import load_image
from effnet.errors import BundleError, InputError
from effnet.measurement.evaluate import evaluate
from effnet.report.html import render_card
from effnet.tasks.costs import Costs

NAMES = ("shade/dark", "shade/grey", "white")


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    images = np.clip(60 + 70 * labels[:, None, None] + rng.normal(0, 60, (150, 8, 8)), 0, 255).astype(np.uint8)
    return effnet.Dataset.from_arrays(images, [NAMES[label] for label in labels], name="shades")


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    spec = ArchSpec(
        lineage=Lineage(base="tiny"),
        num_classes=3,
        in_channels=1,
        resolution=8,
        stem=StemSpec(channels=8),
        stages=(stage("mbconv", repeats=1, out_channels=8, in_channels=8, expand_ratio=2),),
        head_channels=16,
    )
    out = tmp_path_factory.mktemp("costs") / "bundle"
    return effnet.train(
        dataset, model=spec, epochs=6, settings={"train.lr": 0.02}, out=out, procedure=UNTIMED, cost="miss:white=30"
    )


def test_the_model_answers_by_costs_and_its_probabilities_are_without_them(trained, dataset):
    model = effnet.load(trained.folder)
    assert model.config.costs == Costs(miss=(1, 1, 30), false=(1, 1, 1))
    images = [load_image(dataset.train, index, channels=1) for index in range(60)]
    found = model.predict(images)
    rows = model.outputs(np.stack([model.prepare(image) for image in images]))
    weighted = rows * [1, 1, 30]
    assert [answer.label for answer in found] == [NAMES[i] for i in weighted.argmax(1)]
    assert (weighted.argmax(1) != rows.argmax(1)).any()
    for answer, row in zip(found, rows, strict=True):
        assert dict(zip(answer.labels, answer.probabilities, strict=True)) == pytest.approx(
            dict(zip(NAMES, map(float, row), strict=True))
        )
        assert answer.parents == {"shade": pytest.approx(row[0] + row[1])}


def test_the_report_and_evaluate_say_the_cost(trained, dataset, run_cli, tmp_path):
    test = trained.report.test
    score = evaluate(effnet.load(trained.folder), dataset)
    assert score.cost == test.cost
    predicted, labels = np.array(test.confusion), np.arange(3)
    costs = np.array([1, 1, 30])[:, None] * (labels[:, None] != labels)
    assert test.cost.mean == pytest.approx((predicted * costs).sum() / test.images)
    assert [level.classes for level in test.levels] == [2]
    for number in range(4):
        folder = tmp_path / NAMES[number % 3].replace("/", "_")
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 60 + 70 * (number % 3), np.uint8)).save(folder / f"{number}.png")
    with (tmp_path / "data.csv").open("w") as file:
        file.write("path,label\nshade_dark/0.png,shade/dark\nshade_grey/1.png,shade/grey\nwhite/2.png,white\n")
    out = run_cli("evaluate", trained.folder, tmp_path / "data.csv").out
    assert "a mean cost of " in out
    assert "at level 1, of 2 classes" in out
    (found, *_) = json.loads(run_cli("predict", trained.folder, tmp_path / "white", "--format", "json").out)
    assert list(found["parents"]) == ["shade"]


def test_the_card_decides_as_the_model_does(trained, tmp_path):
    card = render_card(trained.report)
    code = card.split("```python\n")[1].split("```")[0]
    folder = shutil.copytree(trained.folder, tmp_path / "bundle")
    pixels = np.full((8, 8), 150, np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    printed = []
    scope = {"print": lambda *words: printed.append(words)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(code.replace("image.jpg", "image.png"), scope)
    (found,) = effnet.load(folder).predict(pixels)
    assert printed[0][0] == found.label
    assert printed[0][1] == pytest.approx(found.probabilities[0], abs=1e-6)


def test_a_resumed_training_and_an_export_keep_it(trained, tmp_path):
    assert "--set fit.cost=miss:white=30" in trained.report.command
    effnet.export(trained.folder, to="onnx-fp16", out=tmp_path / "out")
    assert read_config(tmp_path / "out").costs == read_config(trained.folder).costs


@pytest.mark.parametrize(
    "cost, said",
    [
        ("miss:whit=5", r"cost must name a class or tag of the data; got 'whit'; did you mean 'white'\?"),
        ("white=5", "cost must be miss:NAME=COST"),
        (5, "cost must be a text"),
    ],
)
def test_bad_costs_are_refused_before_training(dataset, tmp_path, cost, said):
    with pytest.raises(InputError, match=said):
        effnet.train(dataset, model="b0", epochs=1, out=tmp_path / "out", procedure=UNTIMED, cost=cost)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.onnx"))


def test_the_command_line_refuses_them_too(run_cli, tmp_path):
    assert "cost must be miss:NAME=COST" in refused(run_cli("train", "digits", "--set", "fit.cost=dog:5"))


@pytest.mark.parametrize(
    "costs",
    [
        5,
        {},
        {"miss": {}},
        {"miss": [1], "false": []},
        *({"miss": {name: cost}, "false": {}} for name, cost in [("pink", 2), ("white", 0), ("white", "2")]),
    ],
)
def test_a_damaged_config_is_refused(trained, tmp_path, costs):
    write_config(read_config(trained.folder), tmp_path)
    data = json.loads((tmp_path / CONFIG).read_text())
    assert data["costs"] == {"miss": {"white": 30.0}, "false": {}}
    (tmp_path / CONFIG).write_text(json.dumps(data | {"costs": costs}))
    with pytest.raises(BundleError, match="cost"):
        read_config(tmp_path)
