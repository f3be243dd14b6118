"""find: the nearest images, exactly, from an index that only follows the files that changed."""

import os
import shutil
import subprocess
import sys
import zipfile

import captioned
import numpy as np
import pytest
from bundles import make_bundle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import effnet
from effnet.errors import BundleError, InputError
from effnet.jobs.find.search import nearest_rows
from effnet.words.kept import open_space

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("find")
    captioned.write_captioned(folder / "data")
    words, weights = captioned.write_glove(folder / "glove.txt"), captioned.write_backbone(folder / "backbone")
    effnet.align(folder / "data" / "captions.csv", text="title", words=words, weights=weights, out=folder / "aligned")
    return folder


@pytest.fixture
def folder(place, tmp_path):
    """A copy of the images, of which two are in a folder of their own."""
    copy = shutil.copytree(place / "data" / "images", tmp_path / "images")
    (copy / "deep").mkdir()
    for name in ("red-shirt-0.png", "blue-shoe-0.png"):
        shutil.move(copy / name, copy / "deep" / name)
    return copy


@pytest.fixture(scope="module")
def model(place):
    return effnet.load(place / "aligned")


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 60), st.integers(1, 4)), elements=st.integers(-2, 2)),
    st.integers(1, 70),
)
def test_the_nearest_rows_are_those_of_a_sort_of_all_cosines(vectors, top):
    """Small whole numbers give equal cosines, of which the earlier row comes first."""
    query = np.arange(1, vectors.shape[1] + 1, dtype=np.float32)
    rows, cosines = nearest_rows(vectors, query, top=top)
    order = sorted(range(len(vectors)), key=lambda row: (-float(vectors[row] @ query), row))[:top]
    assert rows.tolist() == order
    assert cosines.tolist() == [float(vectors[row] @ query) for row in order]
    halves, _ = nearest_rows(vectors.astype(np.float16), query, top=top)
    assert halves.tolist() == order


def test_a_text_finds_the_images_of_the_largest_cosines(place, model, folder):
    found = effnet.find(model, folder, "red shirt", top=20)
    paths = sorted(map(str, folder.rglob("*.png")))
    space, _ = open_space(place / "aligned")
    cosines = model.embed(paths) @ space.one("red shirt")
    order = np.argsort(-cosines, kind="stable")[:20]
    assert [hit.path for hit in found.hits] == [paths[row] for row in order]
    np.testing.assert_allclose([hit.cosine for hit in found.hits], cosines[order], atol=1e-5)
    assert all("red" in os.path.basename(hit.path) for hit in found.hits[:10])
    assert (found.images, found.computed) == (len(paths), len(paths))


def test_an_image_finds_itself_first(model, folder):
    path = folder / "green-shoe-3.png"
    found = effnet.find(model, folder, image=path, top=3)
    assert found.hits[0].path == str(path)
    assert found.hits[0].cosine == pytest.approx(1, abs=1e-5)
    same = effnet.find(model, folder, image=Image.open(path), top=3)
    assert same.hits == found.hits


def test_a_bundle_with_features_finds_by_image_and_not_by_text(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(images / f"{number}.png")
    with pytest.raises(BundleError, match="--features"):
        effnet.find(bundle, images, image=images / "2.png")
    effnet.export(bundle, features=True)
    vectors = effnet.load(bundle).embed(sorted(images.glob("*.png")))
    found = effnet.find(bundle, images, image=images / "2.png", top=2)
    order = np.argsort(-(vectors @ vectors[2]))[:2]
    assert [hit.path for hit in found.hits] == [str(images / f"{row}.png") for row in order]
    with pytest.raises(InputError, match="is a bundle of image classification: give --image FILE"):
        effnet.find(bundle, images, "a cat")


def test_only_changed_images_are_embedded_again(model, folder):
    first = effnet.find(model, folder, "blue")
    assert effnet.find(model, folder, "blue").computed == 0
    shutil.copy(folder / "pink-shoe-1.png", folder / "copy.png")  # the same bytes: nothing to compute
    shutil.move(folder / "deep" / "red-shirt-0.png", folder / "moved.png")
    assert effnet.find(model, folder, "blue").computed == 0
    os.utime(folder / "pink-shoe-2.png", (1, 1))  # another time, the same bytes
    (folder / "pink-shoe-3.png").unlink()
    Image.fromarray(captioned.draw("blue", "shirt", np.random.default_rng(5))).save(folder / "pink-shoe-4.png")
    found = effnet.find(model, folder, "blue", top=1000)
    assert (found.computed, found.images) == (1, first.images)
    fresh = effnet.find(model, folder, "blue", top=1000, index=folder.parent / "fresh.npz")
    assert fresh.computed == fresh.images - 1  # two files of the same bytes are computed once
    assert [hit.path for hit in found.hits] == [hit.path for hit in fresh.hits]


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def no_zip(path):
    path.write_bytes(b"not an index")


def compressed(path):
    with np.load(path) as held:
        np.savez_compressed(path, **held)


def pickled(path):
    with np.load(path) as held:
        arrays_ = dict(held)
    np.savez(path, **arrays_ | {"vectors": np.array([{}] * len(arrays_["vectors"]), dtype=object)})


def without_rows(path):
    with np.load(path) as held:
        arrays_ = dict(held)
    np.savez(path, **arrays_ | {"vectors": arrays_["vectors"][:-1]})


def not_unit(path):
    with np.load(path) as held:
        arrays_ = dict(held)
    np.savez(path, **arrays_ | {"vectors": arrays_["vectors"] * 3})


@pytest.mark.parametrize(
    "damage", [truncated, flipped, no_zip, compressed, pickled, without_rows, not_unit], ids=lambda f: f.__name__
)
def test_a_damaged_index_is_made_again_and_said(model, folder, damage):
    before = effnet.find(model, folder, "white")
    damage(before.index)
    found = effnet.find(model, folder, "white")
    assert found.hits == before.hits
    assert (found.computed, found.notes) == (
        before.images,
        (f"The index {before.index} is damaged: it is made again.",),
    )
    assert zipfile.is_zipfile(found.index)
    assert effnet.find(model, folder, "white").notes == ()


def test_the_index_of_another_model_is_not_used(place, model, folder, tmp_path):
    index = tmp_path / "index.npz"
    effnet.find(model, folder, "white", index=index)
    words = place / "glove.txt"
    other = effnet.align(
        place / "data" / "captions.csv", text="title", words=words, weights=place / "backbone", seed=4,
        out=tmp_path / "other",
    )  # fmt: skip
    found = effnet.find(other.folder, folder, "white", index=index)
    assert found.computed == found.images
    assert "is of another model" in found.notes[0]
    # By default each model has an index of its own.
    assert effnet.find(model, folder, "white").index != effnet.find(other.folder, folder, "white").index


def test_a_folder_that_cannot_be_written_to_is_searched_all_the_same(model, folder, monkeypatch):
    from effnet.jobs.find import api

    def fails(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(api, "write_index", fails)
    found = effnet.find(model, folder, "white")
    assert found.index is None
    assert "cannot be written: name a file with --index" in found.notes[0]
    assert found.hits


def test_unreadable_images_are_named_and_left_out(model, folder):
    (folder / "broken.png").write_bytes(b"no image")
    found = effnet.find(model, folder, "white", top=1000)
    ((path, reason),) = found.unreadable
    assert path == str(folder / "broken.png")
    assert reason
    assert path not in {hit.path for hit in found.hits}


def test_the_page_shows_thumbnails_and_escapes_names(model, folder, tmp_path):
    evil = folder / "<img src=x onerror=alert(1)>&.png"
    shutil.copy(folder / "white-shirt-1.png", evil)
    found = effnet.find(model, folder, "white <b>", top=3, out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<figure>") == text.count("data:image/jpeg;base64,") == 3
    assert "white &lt;b&gt;" in text
    assert "<b>" not in text
    assert "onerror=alert(1)>&.png" not in text
    assert f"{found.hits[0].cosine:.3f}" in text
    assert "http" not in text


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "find takes a text or an image"),
        ({"text": "red", "image": "x.png"}, "find takes a text or an image"),
        ({"text": "  "}, "the text must have words"),
        ({"text": "蓝色"}, "must have a word that the bundle's words know; got '蓝色'"),
        ({"text": "red", "top": 0}, "top must be at least 1"),
        ({"text": "red", "out": "page.pdf"}, "--out must be a file name that ends in .html"),
        ({"text": "red", "out": "/no/such/folder/page.html"}, "in a writable folder"),
    ],
)
def test_bad_questions_are_refused_before_anything_is_computed(model, folder, options, said):
    with pytest.raises(InputError, match=said):
        effnet.find(model, folder, **options)
    assert not list(folder.glob(".effnet-index*"))


def test_a_folder_without_images_is_refused(model, tmp_path):
    (tmp_path / "empty").mkdir()
    for place_, said in ((tmp_path / "empty", "there must be images"), (tmp_path / "absent", "must be a folder")):
        with pytest.raises(InputError, match=said):
            effnet.find(model, place_, "red")


def test_it_needs_no_torch(place, folder):
    program = (
        "import sys, effnet\n"
        f"found = effnet.find({str(place / 'aligned')!r}, {str(folder)!r}, 'red shirt', top=3)\n"
        "assert len(found.hits) == 3\n"
        "print([name for name in ('torch', 'onnx', 'safetensors', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
