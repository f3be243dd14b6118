"""Training of the towers of align: on the features of a locked network, or the network itself."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.data.datasets import Dataset, Split
from effnet.jobs.align.config import AlignConfig
from effnet.jobs.align.job import Pairs, with_map
from effnet.nn.network import Network, build, fuse_
from effnet.planner.events import Said
from effnet.training.distributed.ranks import Ranks
from effnet.training.distributed.team import Training, train_together
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Augment, Optimizer, Recipe, Schedule, Train
from effnet.training.transfer.ridge import Map
from effnet.training.words.locked import train_on_features
from effnet.training.words.losses import pair_loss
from effnet.training.words.towers import Fixed, TableText, TextTower, Towers, padded
from effnet.weights.adapt import Arrays, has_folded_norms
from effnet.weights.pretrained import Pretrained
from effnet.words.encoder import Encoder, Table
from effnet.words.read import Words
from effnet.words.space import Space
from effnet.words.tokens import Tokens
from effnet.words.tower import Tower

# A caption's further tokens are left out.
_LONGEST = 64
_HEADS = (4, 2, 1)
_ENOUGH_FOR_STATISTICS = 5000


def tune(
    config: AlignConfig,
    found: Pretrained,
    dataset: Dataset,
    words: Words,
    parts: Mapping[str, Pairs],
    begin: Map | None,
    folder: Path,
    ranks: Ranks,
) -> tuple[Arrays, Space, dict[str, Any]]:
    """Return the trained network's state, the space of its texts, and sentences and figures about the training.

    It starts from the map `begin`, unless the texts get a new tower. `folder` is for the run, and removed.
    """
    recipe = _recipe(config, found, len(parts["train"].captions))
    torch.manual_seed(recipe.train.seed)
    text = _text_tower(config, words, begin)
    start = begin if config.texts != "transformer" else None
    labels = {name: _labels(text, words, begin, parts[name].captions) for name in ("train", "val")}
    if config.image == "locked":
        state, told = _on_features(config, found, parts, labels, text, start, recipe)
    else:
        network = build(
            found.spec, dropout=recipe.model.dropout, drop_path=recipe.model.drop_path, seed=recipe.train.seed
        )
        load_arrays_(network, with_map(found.state, start) if start else _drawn(found, recipe), where="the weights")
        towers = Towers(network, text, loss=config.loss)
        train, val = (Split(sources=parts[name].split.sources, labels=labels[name]) for name in ("train", "val"))
        state, told = _whole(
            config, found, dataclasses.replace(dataset, train=train, val=val), towers, recipe, folder, ranks
        )
        text = told.pop("text")
    space = _space(config, words, begin, text)
    what = {"locked": "its last layer", "trained": "the whole network"}[config.image]
    texts = {"locked": "", "weights": ", a weight for each token", "transformer": ", a transformer of the texts"}
    sentence = (
        f"{config.loss} on {what} of {found.spec.name}{texts[config.texts]}, {recipe.train.epochs} epochs in batches "
        f"of {recipe.train.batch_size}; words: {words.source}."
    )
    return state, space, {"sentence": sentence, "recipe": recipe.to_dict()} | told


def _recipe(config: AlignConfig, found: Pretrained, num_train: int) -> Recipe:
    if config.image == "locked":
        train = Train(epochs=30, batch_size=512, lr=1e-3, seed=config.seed)
        optimizer = Optimizer(weight_decay=0.02)
        return with_values(Recipe(name="align", train=train, optimizer=optimizer), config.settings)
    frozen = has_folded_norms(found.state, found.spec) or num_train < _ENOUGH_FOR_STATISTICS
    train = Train(
        epochs=8, batch_size=128, lr=3e-4, frozen_norms=frozen, start_counts=config.texts != "transformer",
        seed=config.seed,
    )  # fmt: skip
    recipe = Recipe(
        name="align",
        train=train,
        optimizer=Optimizer(weight_decay=0.02),
        schedule=Schedule(warmup=0.1),
        augment=Augment(min_area=0.5, interpolation=found.preprocess.interpolation),
    )
    return with_values(recipe, config.settings)


def _text_tower(config: AlignConfig, words: Words, begin: Map | None) -> nn.Module:
    if config.texts == "locked":
        return Fixed()
    tokens = _tokens(words)
    if config.texts == "weights":
        assert begin is not None
        assert isinstance(words.encoder, Table)
        return TableText(words.encoder.vectors, begin.mean, begin.matrix)
    width = words.encoder.width
    tower = TextTower(
        tokens.size, width=width, channels=width, heads=next(h for h in _HEADS if not width % h), longest=_LONGEST
    )
    if isinstance(words.encoder, Table):
        rows = torch.from_numpy(words.encoder.vectors[: tokens.size].astype(np.float32))
        tower.embed.weight.data.copy_(rows * (0.02 / rows.std()))  # at the size that the tower would draw
    return tower


def _tokens(words: Words) -> Tokens:
    return words.encoder.tokens  # type: ignore[attr-defined]


def _labels(text: nn.Module, words: Words, begin: Map | None, captions: tuple[str, ...]) -> np.ndarray:
    """Return captions as the text tower takes them: tokens, or vectors of the space."""
    if not isinstance(text, Fixed):
        return padded(_tokens(words).ids(captions), longest=_LONGEST)
    assert begin is not None
    return Space(encoder=words.encoder, mean=begin.mean, matrix=begin.matrix).vectors(captions).vectors


def _on_features(
    config: AlignConfig,
    found: Pretrained,
    parts: Mapping[str, Pairs],
    labels: Mapping[str, np.ndarray],
    text: nn.Module,
    start: Map | None,
    recipe: Recipe,
) -> tuple[Arrays, dict[str, Any]]:
    """Train the last layer and the text tower on the features of the locked network."""
    last = nn.Linear(found.spec.feature_channels, found.spec.num_classes)
    if start is not None:
        with torch.no_grad():
            last.weight.copy_(torch.from_numpy(start.weight))
            last.bias.copy_(torch.from_numpy(start.bias))
    towers = Towers(last, text, loss=config.loss)

    def told(epoch: int, loss: float, rank: float) -> None:
        line = f"epoch {epoch} of {recipe.train.epochs}: loss {loss:.4f}, mean reciprocal rank {rank:.4f}"
        config.listener(Said(text=line))

    best = train_on_features(
        towers,
        parts["train"].features,
        labels["train"],
        val_features=parts["val"].features,
        val_texts=labels["val"],
        recipe=recipe,
        told=told,
    )
    learnt = {f"classifier.{name}": value.detach().numpy() for name, value in last.named_parameters()}
    return dict(found.state) | learnt, {"val_mrr": best}


def _drawn(found: Pretrained, recipe: Recipe) -> Arrays:
    """Return the state with a last layer as it is drawn, for a space that nothing is known of yet."""
    torch.manual_seed(recipe.train.seed)
    last = nn.Linear(found.spec.feature_channels, found.spec.num_classes)
    return dict(found.state) | {f"classifier.{name}": p.detach().numpy() for name, p in last.named_parameters()}


def _whole(
    config: AlignConfig,
    found: Pretrained,
    dataset: Dataset,
    towers: Towers,
    recipe: Recipe,
    folder: Path,
    ranks: Ranks,
) -> tuple[Arrays, dict[str, Any]]:
    """Train the network, and the text tower if it is not locked, on every process."""
    assert isinstance(towers.image, Network)
    if recipe.train.fused and not torch.cuda.is_available() and ranks.size == 1:
        fuse_(towers.image)
    training = Training(
        model=towers,
        dataset=dataset,
        recipe=recipe,
        preprocess=found.preprocess,
        folder=folder,
        deadline_seconds=None,
        make_loss=pair_loss,
    )
    result = train_together(training, ranks, listener=config.listener)
    shutil.rmtree(folder, ignore_errors=True)
    best = result.model
    assert isinstance(best, Towers)
    row = result.history[result.best_epoch - 1] if result.best_epoch else {}
    told = {"best_epoch": result.best_epoch, "seconds": result.seconds, "text": best.text.cpu()}
    return state_arrays(best.image), told | ({"val_mrr": row["val_mrr"]} if row else {})


def _space(config: AlignConfig, words: Words, begin: Map | None, text: nn.Module) -> Space:
    """Return the space that the trained text tower computes."""
    encoder: Encoder = words.encoder
    if isinstance(text, TextTower):
        width = text.project.out_features
        encoder = Tower(_tokens(words), text.arrays(), heads=text.heads)
        return Space(encoder=encoder, mean=np.zeros(width, np.float32), matrix=np.eye(width, dtype=np.float32))
    assert begin is not None
    if isinstance(text, TableText):
        encoder = Table(_tokens(words), text.folded().astype(np.float16))
    return Space(encoder=encoder, mean=begin.mean, matrix=begin.matrix)
