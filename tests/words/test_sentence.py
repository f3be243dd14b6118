"""A sentence encoder: an ONNX file that turns tokens into vectors, with its tokenizer."""

import captioned
import numpy as np
import pytest

from effnet.errors import WeightsError
from effnet.words.read import open_words

pytest.importorskip("tokenizers")
pytest.importorskip("onnx")


def unit(row):
    return row / np.linalg.norm(row)


def row_of(word):
    return captioned.vectors()[captioned.vocabulary().index(word)]


def test_the_vectors_of_tokens_are_averaged_without_the_padding(tmp_path):
    words = open_words(captioned.write_encoder(tmp_path / "encoder"))
    found = words.encoder.encode(["red shirt", "white", "a photo of a blue shoe", "xylophone", ""])
    assert (words.kind, words.encoder.width) == ("sentence", captioned.WIDTH)
    assert found.known.tolist() == [True, True, True, False, False]
    assert not found.vectors[3:].any()
    np.testing.assert_allclose(found.vectors[0], unit(row_of("red") + row_of("shirt")), atol=1e-5)
    np.testing.assert_allclose(found.vectors[1], unit(row_of("white")), atol=1e-5)


def test_a_pooled_output_is_taken_as_it_is(tmp_path):
    found = open_words(captioned.write_encoder(tmp_path / "encoder", pooled=True)).encoder.encode(["red shirt"])
    np.testing.assert_allclose(found.vectors[0], unit(row_of("red")), atol=1e-5)


def test_another_network_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="whose inputs are among"):
        open_words(captioned.write_encoder(tmp_path / "other", inputs=("input_ids", "pixels")))
    with pytest.raises(WeightsError, match="must return finite vectors"):
        open_words(captioned.write_encoder(tmp_path / "broken", broken=True))
    folder = captioned.write_encoder(tmp_path / "cut")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:100])
    with pytest.raises(WeightsError):
        open_words(folder)
