"""Where a network looked: which maps are shown, with what beside them, and what cannot be explained."""

import dataclasses
import shutil

import numpy as np
import pytest
import several_outputs
from bundles import make_bundle
from PIL import Image
from several_outputs import random_images

import effnet
from effnet.bundle.config import read_config, read_digests, read_maps, write_config, write_digests
from effnet.errors import BundleError, ImageError, InputError
from effnet.jobs.explain.api import NEIGHBOURS, Explainer
from effnet.report.explanation.page import MOST_IMAGES
from effnet.runtimes.write import without_classifier
from effnet.system.lock import alone_in
from effnet.tasks.costs import Costs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier of ten digits, with maps and embeddings."""
    folder = make_bundle(tmp_path_factory.mktemp("explain") / "digits", threshold=0.0)
    effnet.export(folder, maps=True)
    effnet.export(folder, features=True)
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain-several")
    several_outputs.write_several(folder, ["onnx"], maps=True)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "some <b>class"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def test_a_class_is_shown_against_the_mean_and_against_the_second(made, images):
    found = effnet.explain(made, images[:3])
    predictor = effnet.load(made)
    pixels = np.stack([predictor.prepare(path) for path in images[:3]])
    rows, maps = predictor.outputs_and_maps(pixels)
    for one, row, map_, image in zip(found, rows, maps, pixels, strict=True):
        first, second = np.argsort(-row)[:2]
        best, contrast = one.shown
        assert one.answer.labels[0] == best.title == str(first)
        assert contrast.title == f"{first} rather than {second}"
        np.testing.assert_allclose(best.map, map_[first] - map_.mean(0), atol=1e-5)
        np.testing.assert_allclose(contrast.map, map_[first] - map_[second], atol=1e-5)
        np.testing.assert_array_equal(one.image, image)


def test_the_contrast_adds_up_to_the_odds_of_the_two_classes(made, images):
    """Mean of the contrast + difference of the biases = log(p1 / p2): what softmax makes of two logits."""
    (found,) = effnet.explain(made, images[0])
    config = read_config(made)
    bias = effnet.load_module(made).classifier.bias.detach().numpy() / config.temperature
    first, second = (config.class_names.index(label) for label in found.answer.labels)
    odds = np.log(found.answer.probabilities[0] / found.answer.probabilities[1])
    assert found.shown[1].map.mean() + bias[first] - bias[second] == pytest.approx(odds, abs=1e-4)


def test_another_class_can_be_asked_for(made, images):
    (found,) = effnet.explain(made, images[0], output="7")
    assert found.shown[0].title == "7"
    assert found.shown[1].title.startswith("7 rather than ")
    with pytest.raises(InputError, match=r"must be a class of the bundle; got 'sevn'"):
        effnet.explain(made, images[0], output="sevn")


def test_the_answer_is_explained_where_costs_make_it_another_than_the_most_probable(made, images, tmp_path):
    (plain,) = effnet.explain(made, images[0])
    copy = shutil.copytree(made, tmp_path / "costs")
    second = plain.answer.labels[1]
    miss = tuple(1e4 if name == second else 1.0 for name in read_config(made).class_names)
    config = dataclasses.replace(read_config(copy), costs=Costs(miss=miss, false=(1.0,) * 10))
    write_config(config, copy)
    write_digests(copy, read_digests(made), maps=read_maps(made))
    (found,) = effnet.explain(copy, images[0])
    assert found.answer.labels[0] == second != plain.answer.labels[0]
    assert found.shown[0].title == second


def test_each_output_has_its_maps_and_each_tag_its_own(several):
    pixels = random_images(read_config(several), 2)
    for one in Explainer(several).explain(pixels):
        kinds = [(shown.output, shown.contrast) for shown in one.shown]
        assert kinds == [("gender", False), ("gender", True), ("year", False), *[("tags", False)] * 3,
                         ("pool", False), ("pool", True)]  # fmt: skip
    maps = effnet.load(several).maps(pixels)
    (year,) = Explainer(several, output="year").explain(pixels)[0].shown
    np.testing.assert_allclose(year.map, maps[0, 2] * 3.0, rtol=1e-5)  # in years
    tags = Explainer(several, output="tags").explain(pixels)[0].shown
    assert {shown.title for shown in tags} == {"sea", "sun", "trees"}
    with pytest.raises(InputError, match=r"must be an output of the bundle; got 'yaer'.*did you mean 'year'"):
        Explainer(several, output="yaer")


def test_the_page_shows_each_image_and_escapes_its_name(made, images, tmp_path):
    out = tmp_path / "page.html"
    effnet.explain(made, images[:4], out=out)
    text = out.read_text()
    assert text.count("<section>") == 4
    assert text.count("data:image/jpeg;base64,") == 4 * 3
    assert "some &lt;b&gt;class" in text
    assert "<b>class" not in text
    assert "2 x 2 values" in text
    assert "no probability" in text
    assert "http" not in text  # it loads nothing


def test_the_most_similar_images_are_shown(made, images, tmp_path, run_cli):
    index = tmp_path / "near.npz"
    assert run_cli("embed", made, images[0].parent, "--out", index).code == 0
    (found,) = effnet.explain(made, images[3], index=index, out=tmp_path / "page.html")
    assert len(found.neighbours) == NEIGHBOURS
    assert found.neighbours[0].path == str(images[3])
    assert found.neighbours[0].cosine == pytest.approx(1, abs=1e-5)
    assert [near.cosine for near in found.neighbours] == sorted((n.cosine for n in found.neighbours), reverse=True)
    assert (tmp_path / "page.html").read_text().count("data:image") == 3 + NEIGHBOURS
    assert effnet.explain(made, images[3])[0].neighbours == ()
    copy = shutil.copytree(made, tmp_path / "copy")
    shutil.copyfile(index, copy / "nearest.npz")
    assert effnet.explain(copy, images[3])[0].neighbours[0].path == str(images[3])


def test_a_similar_image_that_is_gone_is_only_named(made, images, tmp_path):
    vectors = effnet.load(made).embed(images[:2])
    np.savez(tmp_path / "near.npz", paths=np.array(["/gone/cat/a.png", "x"]), vectors=vectors.astype(np.float16))
    effnet.explain(made, images[0], index=tmp_path / "near.npz", out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "cat/a.png" in text
    assert text.count("data:image") == 3


@pytest.mark.parametrize(
    "arrays",
    [
        {"paths": np.array(["a"]), "vectors": np.zeros((1, 3), np.float32)},
        {"paths": np.array(["a", "b"]), "vectors": np.zeros((1, 192), np.float32)},
        {"paths": np.array(["a"]), "vectors": np.full((1, 192), np.nan, np.float32)},
        {"paths": np.array([1]), "vectors": np.zeros((1, 192), np.float32)},
        {"paths": np.array([object()]), "vectors": np.zeros((1, 192), np.float32)},
        {"vectors": np.zeros((1, 192), np.float32)},
    ],
)
def test_an_index_of_anything_else_is_refused(made, arrays, tmp_path):
    np.savez(tmp_path / "near.npz", **arrays)
    with pytest.raises(InputError, match=r"`effnet embed BUNDLE TRAINING_IMAGES --out .*near.npz` writes it"):
        Explainer(made, index=tmp_path / "near.npz")
    (tmp_path / "near.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="must be a file of `effnet embed`"):
        Explainer(made, index=tmp_path / "near.npz")


def test_what_cannot_be_explained_says_why(tmp_path, images):
    folder = make_bundle(tmp_path / "plain")
    with pytest.raises(BundleError, match=r"`effnet export .*plain --maps --to onnx` writes it"):
        effnet.explain(folder, images[0])
    with pytest.raises(BundleError, match="returns activation maps"):
        effnet.explain(folder, images[0], format="onnx")
    write_config(without_classifier(read_config(folder)), folder)
    with pytest.raises(BundleError, match="a model needs a classifier to be explained"):
        effnet.explain(folder, images[0])


def test_a_bundle_of_embeddings_has_no_answer_to_explain(tmp_path, images):
    folder = make_bundle(tmp_path / "vectors")
    write_config(dataclasses.replace(read_config(folder), task="embedding"), folder)
    with pytest.raises(InputError, match="this bundle returns embeddings: explain a bundle that `effnet zeroshot`"):
        effnet.explain(folder, images[0])


def test_an_export_with_maps_is_found_whatever_is_deployed(made, tmp_path, images):
    copy = shutil.copytree(made, tmp_path / "copy")
    effnet.export(copy, to=["litert"], maps=True)
    effnet.export(copy)  # model.onnx has none now
    explainer = Explainer(copy)
    assert explainer.predictor.format.name == "litert"
    assert explainer.places == (2, 2)


def test_a_damaged_image_leaves_no_page(made, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImageError):
        effnet.explain(made, tmp_path / "bad.png", out=tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png"]


def test_the_command_prints_places_and_goes_on_after_a_damaged_image(made, images, tmp_path, run_cli):
    folder = tmp_path / "images"
    shutil.copytree(images[0].parent, folder)
    (folder / "05.png").write_bytes(b"no image")
    ran = run_cli("explain", made, folder, "--out", tmp_path / "page.html")
    assert ran.code == 2
    assert "1 image was not readable" in ran.err
    assert ran.out.count(".png") == 11 * 2
    assert "rather than" in ran.out
    assert (tmp_path / "page.html").read_text().count("<section>") == 11
    ran = run_cli("explain", made, images[0], "--format", "json")
    assert ran.code == 0
    assert '"strongest"' in ran.out


def test_bad_places_for_the_page_are_refused_before_anything_is_computed(made, images, tmp_path, run_cli):
    for out, said in (("page.pdf", "ends in .html"), ("no/page.html", "a folder that exists")):
        ran = run_cli("explain", made, images[0], "--out", tmp_path / out)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert said in ran.err
    with alone_in(tmp_path / "page.html"):
        ran = run_cli("explain", made, images[0], "--out", tmp_path / "page.html")
    assert ran.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_very_many_images_shows_the_first(made, tmp_path, images, monkeypatch):
    monkeypatch.setattr("effnet.report.explanation.page.MOST_IMAGES", 5)
    assert MOST_IMAGES == 500
    effnet.explain(made, images, out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<section>") == 5
    assert "The first 5 of 12 images." in text


def test_images_of_one_channel_and_of_none_at_all(made):
    (found,) = effnet.explain(made, np.zeros((20, 30), np.uint8))
    assert found.image.shape == (16, 16, 1)
    assert effnet.explain(made, []) == []
    assert dataclasses.fields(found)
