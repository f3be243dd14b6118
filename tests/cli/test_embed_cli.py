"""embed: vectors of the images that can be read, in one file, whole or not at all."""

import numpy as np
import pytest
from bundles import make_bundle
from messages import refused
from PIL import Image

import effnet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("embed") / "bundle")
    effnet.export(folder, features=True)
    return folder


def test_paths_and_vectors_are_written(run_cli, bundle, images, tmp_path):
    ran = run_cli("embed", bundle, images, "--out", tmp_path / "v.npz")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"wrote {tmp_path / 'v.npz'}: 7 embeddings of 192 numbers\n"
    with np.load(tmp_path / "v.npz") as found:  # without a pickle
        paths, vectors = found["paths"].tolist(), found["vectors"]
    assert paths == sorted(str(path) for path in images.rglob("*.png"))
    np.testing.assert_allclose(vectors, effnet.load(bundle).embed(paths), atol=1e-6)
    ran = run_cli("embed", bundle, images, "--out", tmp_path / "raw.npz", "--raw")
    with np.load(tmp_path / "raw.npz") as found:
        raw = found["vectors"]
    np.testing.assert_allclose(raw, effnet.load(bundle).embed(paths, normalized=False), rtol=1e-5)


def test_more_images_than_a_batch_keep_their_order(run_cli, bundle, tmp_path):
    folder, rng = tmp_path / "many", np.random.default_rng(0)
    folder.mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "05.png").write_bytes(b"damaged")
    ran = run_cli("embed", bundle, folder, "--out", tmp_path / "v.npz")
    assert ran.code == 2
    assert "05.png: it is not an image" in ran.err
    assert ran.err.endswith("1 image was not readable\n")
    with np.load(tmp_path / "v.npz") as found:
        paths, vectors = found["paths"].tolist(), found["vectors"]
    assert [path[-6:-4] for path in paths] == [f"{i:02d}" for i in range(20) if i != 5]
    np.testing.assert_allclose(vectors, effnet.load(bundle).embed(paths), atol=1e-5)


def test_nothing_is_written_where_nothing_can_be_read(run_cli, bundle, tmp_path):
    (tmp_path / "x.png").write_bytes(b"damaged")
    assert run_cli("embed", bundle, tmp_path / "x.png", "--out", tmp_path / "v.npz").code == 2
    assert "embed needs at least one image; got none" in refused(
        run_cli("embed", bundle, "-", "--out", tmp_path / "v.npz")
    )
    assert not (tmp_path / "v.npz").exists()


def test_a_place_that_cannot_be_is_told_before_the_work(run_cli, bundle, images, tmp_path):
    assert "a file name that ends in .npz; got" in refused(
        run_cli("embed", bundle, images, "--out", tmp_path / "v.csv")
    )
    assert "must be a file in a writable folder" in refused(
        run_cli("embed", bundle, images, "--out", tmp_path / "no" / "v.npz")
    )
    (tmp_path / "d.npz").mkdir()
    assert "must be a file in a writable folder" in refused(
        run_cli("embed", bundle, images, "--out", tmp_path / "d.npz")
    )


def test_a_bundle_without_embeddings_says_how_to_make_them(run_cli, images, tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    ran = run_cli("embed", folder, images, "--out", tmp_path / "v.npz")
    assert f"`effnet export {folder} --features --to onnx` writes it" in refused(ran)
    ran = run_cli("export", folder, "--features")
    assert ran.code == 0
    assert ran.out.startswith(f"wrote {folder / 'features.onnx'}: embeddings of 64 random images differ by at most ")
    assert run_cli("embed", folder, images, "--out", tmp_path / "v.npz").code == 0
