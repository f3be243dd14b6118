"""What trains with torch is what a bundle computes without it."""

import numpy as np
import pytest
import torch

from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.words.locked import train_on_features, validated
from effnet.training.words.towers import MOST_SCALE, TableText, TextTower, Towers, padded
from effnet.words.encoder import Table
from effnet.words.space import Space, whitening
from effnet.words.tokens import WordTokens
from effnet.words.tower import Tower

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = [f"w{number}" for number in range(30)]
TEXTS = ["w1 w2", "w29", "w3 w4 w5 w6 w7 unknown", "unknown", "w0 " * 20]


def test_a_text_tower_without_torch_gives_the_vectors_of_the_torch_module():
    torch.manual_seed(0)
    module = TextTower(len(WORDS), width=10, channels=16, heads=4, longest=8).eval()
    for parameter in module.parameters():  # norms and biases too
        parameter.data.normal_(std=0.3)
    tokens = WordTokens(WORDS)
    found = Tower(tokens, module.arrays(), heads=4).encode(TEXTS)
    assert found.known.tolist() == [True, True, True, False, True]
    assert not found.vectors[3].any()
    with torch.no_grad():
        expected = module(torch.from_numpy(padded(tokens.ids(TEXTS), longest=8))).numpy()
    np.testing.assert_allclose(found.vectors[found.known], expected[found.known], atol=1e-5)


def test_padding_changes_no_vector():
    torch.manual_seed(0)
    module = TextTower(len(WORDS), width=10, channels=16, heads=2, longest=8).eval()
    ids = torch.tensor([[3, 4, -1, -1, -1]])
    torch.testing.assert_close(module(ids), module(ids[:, :2]), atol=1e-6, rtol=0)


def test_weights_of_tokens_are_folded_into_the_table():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(WORDS), 6)).astype(np.float32)
    mean, matrix = whitening(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strength=1.0)
    module, tokens = TableText(vectors, mean, matrix), WordTokens(WORDS)
    module.log_weight.data = torch.from_numpy(rng.normal(size=len(WORDS)).astype(np.float32))
    space = Space(encoder=Table(tokens, module.folded()), mean=mean, matrix=matrix)
    found = space.vectors(TEXTS)
    expected = module(torch.from_numpy(padded(tokens.ids(TEXTS), longest=64))).detach().numpy()
    np.testing.assert_allclose(found.vectors[found.known], expected[found.known], atol=1e-5)


def make_pairs(count, rng):
    """Return features of 8 numbers, and the words that say which of them are large."""
    features = (rng.random((count, 8)) < 0.4).astype(np.float32)
    numbers = [np.flatnonzero(row) if row.any() else np.array([8]) for row in features]
    return features + rng.normal(0, 0.05, features.shape).astype(np.float32), padded(numbers, longest=9)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_tower_from_scratch_learns_which_words_belong_to_which_features(loss):
    rng = np.random.default_rng(0)
    features, texts = make_pairs(400, rng)
    val_features, val_texts = make_pairs(100, rng)
    torch.manual_seed(0)
    towers = Towers(torch.nn.Linear(8, 16), TextTower(9, width=16, channels=16, heads=2, longest=9), loss=loss)
    before = validated(towers, val_features, val_texts)
    recipe = with_values(Recipe(), {"train.epochs": 25, "train.batch_size": 64, "train.lr": 1e-2})
    told = []
    best = train_on_features(
        towers, features, texts, val_features=val_features, val_texts=val_texts, recipe=recipe,
        told=lambda *row: told.append(row),
    )  # fmt: skip
    assert before < 0.15 < 0.6 < best
    assert best == max(rank for _, _, rank in told) == pytest.approx(validated(towers, val_features, val_texts))
    assert [epoch for epoch, _, _ in told] == list(range(1, 26))
    assert towers.scale <= MOST_SCALE


def test_training_that_makes_it_worse_returns_the_initial_weights():
    rng = np.random.default_rng(0)
    features, texts = make_pairs(40, rng)
    torch.manual_seed(0)
    towers = Towers(torch.nn.Linear(8, 16), TextTower(9, width=16, channels=16, heads=2, longest=9), loss="clip")
    state = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    recipe = with_values(Recipe(), {"train.epochs": 1, "train.batch_size": 40, "train.lr": 1e-9})
    noise = rng.permutation(40)
    train_on_features(towers, features[noise], texts, val_features=features, val_texts=texts, recipe=recipe)
    for name, tensor in towers.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=1e-6, rtol=0)
