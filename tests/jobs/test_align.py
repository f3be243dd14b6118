"""align: images and captions of colours meet in one space, and a bundle keeps it."""

import json
import shutil

import captioned
import numpy as np
import pytest
import safetensors.numpy

import effnet
from effnet.bundle.config import read_config
from effnet.data.manifests.captioned import read_captions
from effnet.errors import BundleError, DataError, EffnetError, InputError
from effnet.jobs.align.job import RECORD
from effnet.tasks.embedding import TASK
from effnet.words.kept import FOLDER, open_space, read_record

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of captioned images, words and a backbone."""
    folder = tmp_path_factory.mktemp("captioned")
    captioned.write_captioned(folder / "data")
    captioned.write_glove(folder / "glove.txt")
    captioned.write_table(folder / "table")
    captioned.write_backbone(folder / "backbone")
    return folder


def align(place, out, **options):
    given = {"text": "title", "words": place / "glove.txt", "weights": place / "backbone", "out": out}
    return effnet.align(place / "data" / "captions.csv", **given | options)


@pytest.fixture(scope="module")
def aligned(place, one_thread):
    return align(place, place / "aligned")


def test_colours_are_found_by_their_captions(aligned):
    test = aligned.test
    assert test.images == test.candidates == 29
    # Of 16 kinds of images, several of each: the numbers in captions are not to be seen.
    assert test.recall_at_10 > 0.9 > 2 * test.chance
    assert any("29 images" in text or "few" in text for text in aligned.warnings)


def test_the_task_has_its_modules():
    assert {TASK.module(name).__name__ for name in ("learning", "scoring", "reporting")} == {
        "effnet.training.words.learning", "effnet.measurement.retrieval", "effnet.report.retrieval",
    }  # fmt: skip


def test_the_bundle_is_whole_and_says_what_it_is(aligned, place):
    folder = aligned.folder
    config = read_config(folder)
    assert (config.task, config.output.name) == ("embedding", "embedding")
    assert config.class_names == tuple(map(str, range(captioned.WIDTH)))
    record = json.loads((folder / RECORD).read_text())
    assert record["test"]["recall_at_10"] == aligned.test.recall_at_10
    assert record["pairs"] == {"train": 134, "val": 29, "test": 29}
    words = read_record(folder)
    assert (words.kind, words.source, words.width) == ("table", "glove.txt", captioned.WIDTH)
    assert list(words.source_sha256) == ["glove.txt"]
    card = (folder / "README.md").read_text()
    assert "held-out images" in card
    assert words.source_sha256["glove.txt"] in card
    assert not list(folder.glob("*.part")) + list(folder.glob("backbone*"))


def test_the_last_layer_is_the_map_and_its_outputs_are_embeddings(aligned, place):
    paths = sorted((place / "data" / "images").glob("*.png"))[:20]
    model = effnet.load(aligned.folder)
    rows = model.embed(paths)
    assert rows.shape == (20, captioned.WIDTH)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.stack(model.predict(paths)), rows, atol=1e-6)
    raw = model.embed(paths, normalized=False)
    state = safetensors.numpy.load_file(aligned.folder / "model.safetensors")
    headless = effnet.load_module(aligned.folder)
    import torch

    images = np.stack([model.prepare(path) for path in paths])
    pixels = torch.from_numpy((images / 255 - np.array(model.config.preprocess.mean)) / model.config.preprocess.std)
    with torch.no_grad():
        maps = headless.forward_features(pixels.permute(0, 3, 1, 2).float())
        features = headless.forward_head(maps, pre_logits=True).numpy()
    expected = features @ state["classifier.weight"].T + state["classifier.bias"]
    np.testing.assert_allclose(raw, expected, atol=1e-4)


def test_images_may_be_seen_whole(place, tmp_path):
    found = align(place, tmp_path / "out", resize="pad")
    assert read_config(found.folder).preprocess.mode == "pad"
    assert found.test.recall_at_10 > 0.9


def test_words_of_any_kind_make_the_same_space(aligned, place, tmp_path):
    other = align(place, tmp_path / "out", words=place / "table")
    assert other.test == aligned.test
    one, two = (open_space(found.folder)[0].vectors(["red shirt", "white"]) for found in (aligned, other))
    np.testing.assert_allclose(one.vectors, two.vectors, atol=5e-3)


def test_a_sentence_encoder_is_copied_into_the_bundle(aligned, place, tmp_path):
    words = captioned.write_encoder(tmp_path / "encoder")
    found = align(place, tmp_path / "out", words=words)
    assert found.test.recall_at_10 > 0.9
    assert {path.name for path in (found.folder / FOLDER).iterdir()} == {
        "model.onnx", "tokenizer.json", "space.safetensors", "words.json",
    }  # fmt: skip
    shutil.rmtree(words)
    space, record = open_space(found.folder)
    assert (record.kind, space.vectors(["red shirt", "xylophone"]).known.tolist()) == ("sentence", [True, False])
    with pytest.raises(InputError, match="needs a table of words; --words is a sentence encoder"):
        align(place, tmp_path / "other", words=captioned.write_encoder(words), loss="clip", texts="weights")


def test_words_that_the_bundle_does_not_hold_are_given_again_and_checked(place, tmp_path):
    found = align(place, tmp_path / "out", words=place / "table", copy_words=False)
    assert {path.name for path in (found.folder / FOLDER).iterdir()} == {"words.json", "space.safetensors"}
    with pytest.raises(InputError, match=r"was aligned with table .* does not hold these words: give --words PATH"):
        open_space(found.folder)
    space, _ = open_space(found.folder, words=place / "table")
    held, _ = open_space(align(place, tmp_path / "held", words=place / "table").folder)
    assert np.array_equal(space.vectors(["red shirt"]).vectors, held.vectors(["red shirt"]).vectors)
    wider = captioned.write_table(tmp_path / "wider", width=20)
    with pytest.raises(InputError, match=r"--words must be those of the bundle, of width 12; .* has width 20"):
        open_space(found.folder, words=wider)
    others = captioned.write_table(tmp_path / "others")
    rows = np.ones((len(captioned.vocabulary()) + 1, captioned.WIDTH), np.float16)
    safetensors.numpy.save_file({"x": rows}, others / "table.safetensors")
    with pytest.raises(InputError, match=r"must be those that the bundle was aligned with, table; .* another SHA-256"):
        open_space(found.folder, words=others)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda folder: (folder / "vectors.safetensors").unlink(), "it is missing: copy the folder words whole"),
        (lambda folder: (folder / "space.safetensors").write_bytes(b"x"), "another file or damaged"),
        (lambda folder: (folder / "words.json").write_text("{"), "must be JSON"),
        (lambda folder: (folder / "words.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "words.json").write_text('{"format": 9}'), "upgrade effnet"),
        (shutil.rmtree, "with its folder words"),
    ],
)
def test_damaged_words_are_refused_in_one_line(aligned, tmp_path, damage, said):
    copy = shutil.copytree(aligned.folder, tmp_path / "copy")
    damage(copy / FOLDER)
    with pytest.raises(BundleError, match=said) as caught:
        open_space(copy)
    assert "\n" not in str(caught.value)


def test_captions_of_other_scripts_are_counted_and_left_out(place, tmp_path):
    rows = [(path, title, "") for path, title, _ in captions(place)]
    rows[:20] = [
        (path, "红色 衬衫" if place_ % 2 else "قميص أحمر", "") for place_, (path, _, _) in enumerate(rows[:20])
    ]
    captioned.write_rows(place / "data" / "mixed.csv", rows)
    found = effnet.align(
        place / "data" / "mixed.csv", text="title", words=place / "glove.txt", weights=place / "backbone",
        out=tmp_path / "out",
    )  # fmt: skip
    (note,) = (note for note in found.notes if "have no word" in note)
    assert note.startswith("20 of 192 captions have no word that --words knows, such as ")


def captions(place):
    return [line.split(",") for line in (place / "data" / "captions.csv").read_text().splitlines()[1:]]


def test_empty_captions_are_counted_and_left_out(place):
    rows = [(path, "" if number < 7 else title, "") for number, (path, title, _) in enumerate(captions(place))]
    path = captioned.write_rows(place / "data" / "gaps.csv", rows)
    found = read_captions(path, text="title")
    assert "7 of 192 rows have no caption in title and were left out." in found.notes
    assert sum(len(split) for split in (found.train, found.val, found.test)) == 185


def foreign(place):
    rows = [(path, "红色 衬衫", "") for path, _, _ in captions(place)]
    captioned.write_rows(place / "data" / "foreign.csv", rows)
    return {"data": "foreign.csv"}, DataError, "are the words of another language"


def all_empty(place):
    captioned.write_rows(place / "data" / "empty.csv", [(path, "", "") for path, _, _ in captions(place)])
    return {"data": "empty.csv"}, DataError, "the column title is empty in all of its 192 rows"


def few(place):
    captioned.write_rows(place / "data" / "few.csv", [tuple(row) for row in captions(place)[:5]])
    return {"data": "few.csv"}, DataError, "at least 2 captions"


@pytest.mark.parametrize(
    "make",
    [
        foreign,
        all_empty,
        few,
        lambda place: ({"text": "titel"}, DataError, "did you mean 'title'"),
        lambda place: ({"text": "path"}, DataError, "--text must name the column of the captions"),
        lambda place: ({"words": place / "absent"}, InputError, "--words must be a folder"),
        lambda place: ({"words": "own"}, InputError, "--words own has no vectors yet"),
        lambda place: ({"texts": "weights"}, InputError, "without a loss nothing is trained"),
        lambda place: ({"loss": "hinge"}, InputError, "align.loss must be one of none, siglip, clip; got 'hinge'"),
        lambda place: ({"resize": "fold"}, InputError, "align.resize must be one of center, squash, pad; got 'fold'"),
        lambda place: ({"settings": {"train.lr": 1.0}}, InputError, "the recipe's train.lr needs training"),
        lambda place: ({"loss": "clip", "settings": {"train.lrr": 1.0}}, InputError, "did you mean 'lr'"),
        lambda place: ({"weights": place / "absent.pth"}, EffnetError, "there must be a file of weights"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(place, tmp_path, make):
    options, kind, said = make(place)
    data = place / "data" / options.pop("data", "captions.csv")
    given = {"text": "title", "words": place / "glove.txt", "weights": place / "backbone", "out": tmp_path / "out"}
    with pytest.raises(kind, match=said) as caught:
        effnet.align(data, **given | options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_stays_as_it_is(place, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="must be new or empty"):
        align(place, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


QUICK = {"train.epochs": 3, "train.batch_size": 32}


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "siglip"},
        {"loss": "clip", "texts": "weights"},
        {"loss": "clip", "texts": "transformer", "words": "own", "settings": QUICK | {"train.epochs": 25}},
        {"loss": "siglip", "texts": "transformer", "settings": QUICK},
    ],
    ids=["map", "weights", "own", "transformer"],
)
def test_training_on_features_makes_a_bundle_whose_words_are_the_trained_ones(place, tmp_path, options, aligned):
    found = align(place, tmp_path / "out", **{"settings": QUICK} | options)
    if "transformer" not in options.values():  # it starts from the map, whose best epoch counts
        assert found.test.recall_at_10 >= aligned.test.recall_at_10 - 0.1
    if options.get("words") == "own":
        assert found.test.recall_at_10 > 2 * found.test.chance
    space, record = open_space(found.folder)
    assert record.kind == ("tower" if "transformer" in options.values() else "table")
    dataset = read_captions(place / "data" / "captions.csv", text="title")
    again = effnet.evaluate(effnet.load(found.folder), dataset.test)
    assert again.recall_at_10 == pytest.approx(found.test.recall_at_10, abs=1e-6)
    assert space.vectors(["red shirt"]).known.all()


@pytest.mark.parametrize("texts", ["locked", "weights"])
def test_the_whole_network_is_trained_with_its_texts(place, tmp_path, texts, aligned):
    found = align(
        place, tmp_path / "out", loss="siglip", image="trained", texts=texts,
        settings={"train.epochs": 2, "train.batch_size": 32, "train.lr": 1e-3, "train.fused": False},
    )  # fmt: skip
    assert found.test.recall_at_10 >= aligned.test.recall_at_10 - 0.15
    assert not (found.folder / "run").exists()
    record = json.loads((found.folder / RECORD).read_text())
    assert record["recipe"]["train"]["epochs"] == 2
    dataset = read_captions(place / "data" / "captions.csv", text="title")
    again = effnet.evaluate(effnet.load(found.folder), dataset.test)
    assert again.recall_at_10 == pytest.approx(found.test.recall_at_10, abs=0.04)


def test_pairs_have_no_mixup(place, tmp_path):
    settings = {"augment.mixup": 0.2, "train.fused": False}
    with pytest.raises(InputError, match=r"have no augment\.mixup"):
        align(place, tmp_path / "out", loss="siglip", image="trained", settings=settings)


def test_captions_are_not_learnt_without_words(place, tmp_path):
    dataset = read_captions(place / "data" / "captions.csv", text="title")
    with pytest.raises(EffnetError, match="effnet align"):
        effnet.train(dataset, model="b0", resolution=16, epochs=1, out=tmp_path / "out")
