"""Words of every kind are read, and what is no words is refused."""

import json
import os

import captioned
import numpy as np
import pytest
from hub_server import serving_hub

from effnet.errors import EffnetError, WeightsError
from effnet.words.read import open_words

pytest.importorskip("tokenizers")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def of(*words):
    """Return the mean vector of words of the table, of length 1."""
    names = captioned.vocabulary()
    rows = captioned.vectors().astype(np.float16).astype(np.float32)
    return unit(np.mean([rows[names.index(word)] for word in words], axis=0, keepdims=True))[0]


def write_npy(folder):
    np.save(folder / "glove.npy", captioned.vectors())
    (folder / "glove.txt").write_text("\n".join(captioned.vocabulary()) + "\n")
    return folder / "glove.npy"


@pytest.fixture(params=["table", "glove", "header", "npy"])
def words(request, tmp_path):
    if request.param == "table":
        return open_words(captioned.write_table(tmp_path / "table"))
    if request.param == "npy":
        return open_words(write_npy(tmp_path))
    path = captioned.write_glove(tmp_path / "glove.txt")
    if request.param == "header":
        path.write_text(f"{len(captioned.vocabulary())} {captioned.WIDTH}\n{path.read_text()}")
    return open_words(path)


def test_a_text_is_the_mean_of_its_words(words):
    found = words.encoder.encode(["Red shirt", "a photo of a blue shoe", "black"])
    assert found.known.all()
    expected = np.stack([of("red", "shirt"), of("a", "photo", "of", "a", "blue", "shoe"), of("black")])
    np.testing.assert_allclose(found.vectors, expected, atol=1e-3)
    assert words.kind == "table"
    assert all(len(digest) == 64 for digest in words.sha256.values())


def test_unknown_words_count_for_nothing(words):
    found = words.encoder.encode(["xylophone", "", "   ", "蓝色 衬衫", "قميص", "xylophone red"])
    assert found.known.tolist() == [False] * 5 + [True]
    assert not found.vectors[:5].any()
    np.testing.assert_allclose(found.vectors[5], of("red"), atol=1e-3)


def test_bytes_of_a_tokenizer_are_no_words(tmp_path):
    """Llama's tokenizer gives the bytes of a letter that it does not have."""
    from tokenizers import Tokenizer, models

    folder = captioned.write_table(tmp_path / "table")
    vocabulary = {"<unk>": 0, "▁": 1, "red": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    import safetensors.numpy

    safetensors.numpy.save_file({"x": np.ones((len(vocabulary), 4), np.float32)}, folder / "table.safetensors")
    assert open_words(folder).encoder.encode(["蓝", "ق"]).known.tolist() == [False, False]


def test_words_of_the_hub_are_downloaded(tmp_path, monkeypatch):
    from huggingface_hub import constants

    folder = captioned.write_table(tmp_path / "table")
    with serving_hub() as hub:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        hub.files["me/words"] = {
            "model.safetensors": (folder / "table.safetensors").read_bytes(),
            "tokenizer.json": (folder / "tokenizer.json").read_bytes(),
        }
        found = open_words("me/words")
        assert found.source == "hub:me/words"
        np.testing.assert_allclose(found.encoder.encode(["red"]).vectors[0], of("red"), atol=1e-3)
        with pytest.raises(WeightsError, match=r"me/none/model\.safetensors cannot be downloaded"):
            open_words("me/none")


def test_without_the_network_the_hub_is_not_asked():
    with pytest.raises(WeightsError, match="me/words is not downloaded yet, and HF_HUB_OFFLINE forbids the network"):
        open_words("me/words")


def no_tokenizer(folder):
    (captioned.write_table(folder / "t") / "tokenizer.json").unlink()
    return folder / "t"


def wrong_tokenizer(folder):
    (captioned.write_table(folder / "t") / "tokenizer.json").write_text(json.dumps({"model": 3}))
    return folder / "t"


def few_rows(folder):
    import safetensors.numpy

    captioned.write_table(folder / "t")
    safetensors.numpy.save_file({"x": np.ones((3, 4), np.float32)}, folder / "t" / "table.safetensors")
    return folder / "t"


def several_tables(folder):
    import safetensors.numpy

    captioned.write_table(folder / "t")
    arrays = {name: np.ones((30, 4), np.float32) for name in ("x", "y")}
    safetensors.numpy.save_file(arrays, folder / "t" / "table.safetensors")
    return folder / "t"


def infinite(folder):
    import safetensors.numpy

    captioned.write_table(folder / "t")
    safetensors.numpy.save_file({"x": np.full((30, 4), 1e20, np.float32)}, folder / "t" / "table.safetensors")
    return folder / "t"


def cut(folder):
    path = captioned.write_table(folder / "t") / "table.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    return folder / "t"


def ragged(folder):
    path = captioned.write_glove(folder / "glove.txt")
    path.write_text(path.read_text() + "last 1.0 2.0\n")
    return path


def no_numbers(folder):
    (folder / "glove.txt").write_text("red one two\nblue three four\n")
    return folder / "glove.txt"


def prose(folder):
    (folder / "glove.txt").write_text("once\nupon\n")
    return folder / "glove.txt"


def pickled(folder):
    np.save(folder / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "x.txt").write_text("red\n")
    return folder / "x.npy"


def no_vocabulary(folder):
    np.save(folder / "x.npy", captioned.vectors())
    return folder / "x.npy"


def pipe(folder):
    os.mkfifo(folder / "x.txt")
    return folder / "x.txt"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    "make, said",
    [
        (no_tokenizer, "there must be a tokenizer.json beside"),
        (wrong_tokenizer, "must be a tokenizer.json of the package tokenizers"),
        (few_rows, "must have a row for each of the 27 tokens of its tokenizer; it has 3"),
        (several_tables, "must hold one table"),
        (infinite, "must hold finite numbers"),
        (cut, "must be a safetensors file"),
        (ragged, "word 27: a line must be a word and 12 numbers; this one has 2"),
        (no_numbers, "could not convert"),
        (prose, "must have a word and its numbers on each line"),
        (pickled, "must be an array of numpy"),
        (no_vocabulary, "there must be a vocabulary beside"),
        (pipe, "it is not a regular file"),
        (empty_folder, "--words must be a folder of tokenizer.json"),
        (lambda folder: folder / "absent.txt", "there is no "),
    ],
)
def test_what_is_no_words_is_refused_in_one_line(tmp_path, make, said):
    with pytest.raises(EffnetError, match=said) as caught:
        open_words(make(tmp_path))
    assert "\n" not in str(caught.value)
