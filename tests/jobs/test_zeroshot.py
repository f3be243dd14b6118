"""zeroshot: an ordinary classifier that answers as the cosines do."""

import json

import captioned
import numpy as np
import pytest
from bundles import make_bundle

import effnet
from effnet.bundle.config import read_config
from effnet.errors import InputError
from effnet.jobs.zeroshot import read_classes
from effnet.words.kept import open_space
from effnet.words.space import class_vectors

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("red shirt", "blue shoe", "white", "brown shoe", "black")


@pytest.fixture(scope="module")
def place(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("zeroshot")
    captioned.write_captioned(folder / "data")
    words, weights = captioned.write_glove(folder / "glove.txt"), captioned.write_backbone(folder / "backbone")
    effnet.align(folder / "data" / "captions.csv", text="title", words=words, weights=weights, out=folder / "aligned")
    return folder


@pytest.fixture(scope="module")
def images(place):
    return sorted(map(str, (place / "data" / "images").glob("*.png")))


@pytest.mark.parametrize("templates", [("{}",), ("{}", "a photo of a {}", "{} shoe {}")])
def test_its_answers_are_those_of_the_cosines_on_every_image(place, images, tmp_path, templates):
    found = effnet.zeroshot(place / "aligned", ",".join(CLASSES), out=tmp_path / "out", templates=templates)
    space, record = open_space(place / "aligned")
    rows = []
    for name in CLASSES:  # the mean of normalised vectors, normalised
        vectors = np.stack([space.one(template.replace("{}", name)) for template in templates])
        rows.append(vectors.mean(0) / np.linalg.norm(vectors.mean(0)))
    cosines = effnet.load(place / "aligned").embed(images) @ np.stack(rows).T
    expected = [CLASSES[place_] for place_ in cosines.argmax(1)]
    assert [answer.label for answer in effnet.load(found.folder).predict(images)] == expected
    assert len(set(expected)) > 3
    raw = effnet.load(place / "aligned").embed(images, normalized=False) @ np.stack(rows).T
    softmax = np.exp(record.scale * raw - (record.scale * raw).max(1, keepdims=True))
    prepared = np.stack([effnet.load(found.folder).prepare(path) for path in images])
    np.testing.assert_allclose(
        effnet.load(found.folder).probabilities(prepared), softmax / softmax.sum(1, keepdims=True), atol=1e-3
    )


def test_it_is_an_ordinary_bundle_for_every_export(place, images, tmp_path):
    found = effnet.zeroshot(place / "aligned", CLASSES, out=tmp_path / "out")
    config = read_config(found.folder)
    assert (config.task, config.class_names, config.arch.num_classes) == ("classification", CLASSES, len(CLASSES))
    effnet.export(found.folder, to=["onnx-fp16", "litert"])
    expected = [answer.label for answer in effnet.load(found.folder).predict(images)]
    answers = effnet.load(found.folder, format="litert").predict(images)
    assert [answer.label for answer in answers] == expected
    assert "No" not in (found.folder / "README.md").read_text()[:2]


def test_classes_may_be_described_by_texts(place, images, tmp_path):
    texts = {"dark": ["black shirt", "black shoe"], "light": ["white shirt", "white shoe", "yellow"], "red": []}
    (tmp_path / "classes.json").write_text(json.dumps(texts))
    found = effnet.zeroshot(place / "aligned", tmp_path / "classes.json", out=tmp_path / "out")
    assert found.class_names == ("dark", "light", "red")
    space, _ = open_space(place / "aligned")
    vectors = class_vectors(space, texts)
    cosines = effnet.load(place / "aligned").embed(images) @ vectors.T
    expected = [found.class_names[row] for row in cosines.argmax(1)]
    assert [answer.label for answer in effnet.load(found.folder).predict(images)] == expected
    dark = [label for label, path in zip(expected, images, strict=True) if "black" in path]
    assert dark.count("dark") > 0.8 * len(dark)


def test_labelled_images_calibrate_it_and_score_it(place, tmp_path):
    rows = [line.split(",") for line in (place / "data" / "captions.csv").read_text().splitlines()[1:]]
    names = list(captioned.COLOURS)
    pairs = [(path, title.split()[0].lower()) for path, title, _ in rows]
    # Some labels are wrong, so that high confidences are too high.
    pairs = [(path, names[number % 8] if number % 7 == 0 else name) for number, (path, name) in enumerate(pairs)]
    data = captioned.write_rows(place / "data" / "colours.csv", pairs, header=("path", "label"))
    found = effnet.zeroshot(place / "aligned", names, out=tmp_path / "out", data=data)
    plain = effnet.zeroshot(place / "aligned", names, out=tmp_path / "plain")
    score, usual = (effnet.evaluate(effnet.load(one.folder), data) for one in (found, plain))
    assert found.accuracy == score.accuracy == usual.accuracy > 0.7
    assert score.sureness.nll < usual.sureness.nll
    assert "is fitted to them" in found.notes[0]
    assert "not calibrated" in plain.notes[0]


@pytest.mark.parametrize(
    "classes, said",
    [
        ("red", "there must be 2 to 10,000 classes"),
        ("", "a class must have a name of its own"),
        ("red,,blue", "a class must have a name of its own"),
        ("red, red", "another has this name"),
        ("red,蓝色", "'蓝色' has none: rename it"),
        (["red", 3], "a class must be a text"),
        ({"one": ["red"], "two": ["red"]}, "'one' and 'two' have the same vector"),
        ({"one": ["蓝色"], "two": ["red"]}, "'one' has none: rename it"),
        ("absent.json", "cannot be read"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(place, tmp_path, classes, said):
    with pytest.raises(InputError, match=said) as caught:
        effnet.zeroshot(place / "aligned", classes, out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_templates_must_have_a_place_for_the_name(place, tmp_path):
    with pytest.raises(InputError, match=r"a template must hold \{\}"):
        effnet.zeroshot(place / "aligned", CLASSES, out=tmp_path / "out", templates=("a photo",))


def test_another_bundle_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match=r"the task of .* is classification"):
        effnet.zeroshot(bundle, CLASSES, out=tmp_path / "out")


def test_names_are_split_at_commas_and_read_from_json(tmp_path):
    assert read_classes("boat, bird ,garbage truck") == {"boat": (), "bird": (), "garbage truck": ()}
    (tmp_path / "c.json").write_text('{"a": "one text", "b": ["x", "y"]}')
    assert read_classes(tmp_path / "c.json") == {"a": ("one text",), "b": ("x", "y")}
