"""The verb align: learn the map from image features to the vectors of captions, and keep it as a bundle."""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import ModelConfig, write_text
from effnet.bundle.config_fields import Origin
from effnet.data.datasets import Dataset, Split
from effnet.data.manifests.captioned import read_captions
from effnet.errors import DataError, InputError
from effnet.jobs.align.config import OWN, AlignConfig
from effnet.jobs.align.keep import keep_words
from effnet.jobs.new_bundle import new_bundle, write_bundle
from effnet.measurement.classification.calibration import fit_temperature
from effnet.measurement.retrieval import RetrievalScore, score, warnings_about
from effnet.planner.events import Counted, Said
from effnet.report.cards.words import aligned_card, retrieval_sentence
from effnet.system.machine import versions
from effnet.system.options import takes
from effnet.tasks.embedding import TASK
from effnet.training.distributed.ranks import Ranks, joined
from effnet.training.distributed.team import follow, lead
from effnet.training.transfer.features import extract, make_extractor
from effnet.training.transfer.ridge import Map, fit_map
from effnet.weights.adapt import Arrays
from effnet.weights.pretrained import Pretrained, adapted, load_backbone
from effnet.words.encoder import Encoded, Encoder, Remembered
from effnet.words.read import Words, open_words
from effnet.words.space import Space
from effnet.words.tokens import WordTokens, split_words

RECORD = "align.json"
PARTS = ("train", "val", "test")
# With fewer captions than this a warning says that thousands are needed.
_FEW = 1000
# The scale of the logits is fitted among this many captions, as among that many classes, and lies in 1..400.
_CHOICES, _SCALED = 20, 20.0
_OWN_WIDTH, _MOST_OWN_WORDS = 128, 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignResult:
    """The aligned bundle's folder, its retrieval on the test pairs, and what users must know first."""

    folder: Path
    test: RetrievalScore
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Images with captions of known words, of one part: `features` float32 [pairs, channels] belong to `captions`."""

    split: Split
    features: np.ndarray
    captions: tuple[str, ...]


@takes(AlignConfig)
def align(config: AlignConfig) -> AlignResult:
    """Learn the map from image features to the vectors of their captions, and write a bundle of both.

    `data` is a manifest of images whose column `text` holds captions: thousands of one domain. `words` turn texts into
    vectors (effnet.words.read.open_words); `weights` are pretrained (effnet.weights.pretrained.load_pretrained).

    By default the network stays as it is, and a linear map on its features is solved for; the validation pairs choose
    its penalty. With a `loss`, "siglip" or "clip", it is the start of training: of the last layer alone or of the whole
    network (`image`), and of nothing, a weight for each token, or a transformer of two layers (`texts`); `settings` are
    fields of the recipe. If torchrun started several processes, they train the network together. The bundle's output is
    `embedding`; it holds the words, or what they are, and the results are in align.json.

    Raises DataError for captions that cannot be used, WeightsError for weights or words that cannot, InputError if
    `out` is in use; then nothing is left behind.
    """
    with joined() as ranks:
        if not ranks.main:
            return AlignResult(**follow(ranks))
        found = lead(ranks, lambda: _align(config, ranks))
        return AlignResult(**found)


def _align(config: AlignConfig, ranks: Ranks) -> dict[str, Any]:
    """Return the fields of the result."""
    listener, folder = config.listener, Path(config.out)
    dataset = read_captions(config.data, text=config.text, seed=config.seed, group_by=config.group_by)
    words = _words(config, dataset)
    dataset, notes = _known_only(dataset, words.encoder)
    notes = (*dataset.notes, *notes)
    if dataset.skipped:
        notes += (f"{len(dataset.skipped):,} images were left out: {dataset.skipped[0].reason}.",)
    for note in notes:
        listener(Said(text=note))
    found = _pretrained(config, dataset, width=words.encoder.width)
    with new_bundle(folder) as beside:
        parts = _features(found, dataset, beside, config)
        state, space, facts = _learn(config, found, dataset, words, parts, beside, ranks)
        val, test = (_embeddings(state, found, parts[name], space, beside, config) for name in PARTS[1:])
        result = score(*test)
        record = keep_words(beside, words, space, scale=_scale(*val), copied=config.copy_words)
        name = Path(os.path.realpath(folder)).name
        warnings = tuple(warnings_about(result, dataset, balanced=False)) + _few(parts)
        learnt = (*notes, facts["sentence"], *warnings)
        write_bundle(
            beside,
            _config(config, found, width=space.encoder.width),
            state,
            card=lambda made: aligned_card(made, record, result, folder=name, notes=learnt),
        )
        told = facts | {"notes": notes, "warnings": warnings, "test": result.to_dict()}
        told |= {"pairs": {name: len(parts[name].captions) for name in PARTS}, "scale": record.scale}
        write_text(beside / RECORD, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    listener(Said(text=retrieval_sentence(result)))
    return {"folder": folder, "test": result, "notes": notes, "warnings": warnings}


def _words(config: AlignConfig, dataset: Dataset) -> Words:
    """Return the words; those of the captions themselves have vectors of zeros, as a transformer learns its own."""
    if os.fspath(config.words) != OWN:
        words = open_words(config.words)
        if words.kind != "table" and config.texts != "locked":
            raise InputError(f"align.texts={config.texts} needs a table of words; --words is a sentence encoder")
        slow = words.kind == "sentence"
        return dataclasses.replace(words, encoder=Remembered(words.encoder)) if slow else words
    counts: dict[str, int] = {}
    for caption in dataset.train.labels:
        for word in set(split_words(str(caption).lower())):
            counts[word] = counts.get(word, 0) + 1
    often = sorted((word for word, count in counts.items() if count > 1), key=lambda word: (-counts[word], word))
    tokens = WordTokens(often[:_MOST_OWN_WORDS])
    return Words(kind="table", encoder=_Own(tokens), source="the words of its captions", sha256={}, files=())


class _Own(Encoder):
    """The words of captions, before a transformer has learnt their vectors."""

    def __init__(self, tokens: WordTokens) -> None:
        self.tokens, self.width = tokens, _OWN_WIDTH

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return vectors of which only `known` says something."""
        known = np.array([len(numbers) > 0 for numbers in self.tokens.ids(texts)], dtype=bool)
        return Encoded(vectors=np.zeros((len(known), self.width), np.float32), known=known)


def _known_only(dataset: Dataset, encoder: Encoder) -> tuple[Dataset, tuple[str, ...]]:
    """Return the data set without the captions of which no word is known, and a note that counts them."""
    kept: dict[str, Any] = {}
    left = total = 0
    example = ""
    for name in PARTS:
        split = getattr(dataset, name)
        known = encoder.encode([str(caption) for caption in split.labels]).known
        left, total = left + int((~known).sum()), total + len(known)
        if not example and not known.all():
            example = str(split.labels[int(np.argmin(known))])
        kept[name] = Split(sources=tuple(split.sources[i] for i in np.flatnonzero(known)), labels=split.labels[known])
        if len(kept[name]) < 2:
            raise DataError(
                f"each of train, val and test must have at least 2 captions with a word that --words knows; {name} has "
                f"{len(kept[name])} of {len(known)}"
                + (f", and {example[:40]!r} has none: are the words of another language?" if example else "")
            )
    note = f"{left:,} of {total:,} captions have no word that --words knows, such as {example[:40]!r}: left out."
    return dataclasses.replace(dataset, **kept), (note,) if left else ()


def _pretrained(config: AlignConfig, dataset: Dataset, *, width: int) -> Pretrained:
    found = load_backbone(os.fspath(config.weights))
    if config.resize and config.resize != found.preprocess.mode:
        crop = found.preprocess.crop if config.resize == "center" else 1.0
        prepared = dataclasses.replace(found.preprocess, mode=config.resize, crop=crop)
        found = dataclasses.replace(found, preprocess=prepared)
    resolution = config.resolution or found.preprocess.resolution
    return adapted(found, num_classes=width, in_channels=dataset.channels, resolution=resolution)


def _features(found: Pretrained, dataset: Dataset, beside: Path, config: AlignConfig) -> dict[str, Pairs]:
    """Return the pairs of each part with the features of their images."""
    path = beside / "backbone.onnx"
    extractor = make_extractor(found.spec, found.state, found.preprocess, path)
    parts = {}
    for name in PARTS:
        split = getattr(dataset, name)

        def tell(done: int, total: int, name: str = name) -> None:
            config.listener(Counted(label=f"features of {name}", done=done, total=total))

        rows = extract(extractor, split, progress=tell)
        captions = tuple(str(caption) for caption in split.labels[rows.indices])
        readable = Split(sources=tuple(split.sources[i] for i in rows.indices), labels=split.labels[rows.indices])
        parts[name] = Pairs(split=readable, features=rows.values, captions=captions)
    path.unlink()
    if min(len(part.captions) for part in parts.values()) < 2:
        raise DataError("each of train, val and test must have at least 2 readable images; see `effnet data inspect`")
    return parts


def _learn(
    config: AlignConfig,
    found: Pretrained,
    dataset: Dataset,
    words: Words,
    parts: dict[str, Pairs],
    beside: Path,
    ranks: Ranks,
) -> tuple[Arrays, Space, dict[str, Any]]:
    """Return the network's state, the space of its texts, and how both were learnt."""
    begin = None
    facts: dict[str, Any] = {"loss": config.loss, "image": config.image, "texts": config.texts}
    if os.fspath(config.words) != OWN:
        encoded = {name: words.encoder.encode(parts[name].captions).vectors for name in PARTS[:2]}
        begin = fit_map(
            parts["train"].features, encoded["train"],
            val_features=parts["val"].features, val_texts=encoded["val"],
        )  # fmt: skip
        facts |= {"penalty": begin.penalty, "whitened": str(begin.whitened), "val_mrr": begin.val_mrr}
    if config.loss == "none":
        assert begin is not None
        sentence = f"A linear map on frozen features of {found.spec.name} to {words.source}, penalty {begin.penalty:g}."
        return with_map(found.state, begin), space_of(words.encoder, begin), facts | {"sentence": sentence}
    from effnet.jobs.align.tune import tune

    state, space, told = tune(config, found, dataset, words, parts, begin, beside / "run", ranks)
    return state, space, facts | told


def with_map(state: Arrays, learnt: Map) -> Arrays:
    """Return a network's state with a map as its last layer."""
    return dict(state) | {"classifier.weight": learnt.weight, "classifier.bias": learnt.bias}


def space_of(encoder: Encoder, learnt: Map) -> Space:
    """Return the space of texts to which a map leads."""
    return Space(encoder=encoder, mean=learnt.mean, matrix=learnt.matrix)


def _embeddings(
    state: Arrays, found: Pretrained, pairs: Pairs, space: Space, beside: Path, config: AlignConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings and the text vectors of pairs, float32 [pairs, width] each; the latter of length 1."""
    features = pairs.features
    if config.image == "trained":
        path = beside / "backbone.onnx"
        extractor = make_extractor(found.spec, state, found.preprocess, path)
        features = extract(extractor, pairs.split).values
        path.unlink()
    rows = features @ state["classifier.weight"].T + state["classifier.bias"]
    return rows, space.vectors(pairs.captions).vectors


def _scale(images: np.ndarray, texts: np.ndarray) -> float:
    """Return the factor of the logits, embedding · text, that makes the validation captions most likely."""
    size = min(_CHOICES, len(images))
    blocks = [slice(start, start + size) for start in range(0, len(images) - size + 1, size)]
    logits = np.concatenate([images[part] @ texts[part].T for part in blocks])
    return _SCALED / fit_temperature(_SCALED * logits, np.tile(np.arange(size), len(blocks)))


def _config(config: AlignConfig, found: Pretrained, *, width: int) -> ModelConfig:
    return ModelConfig(
        arch=dataclasses.replace(found.spec, num_classes=width, resolution=found.preprocess.resolution),
        preprocess=found.preprocess,
        class_names=tuple(map(str, range(width))),
        versions=versions(),
        split_seed=config.seed,
        origin=Origin(source=f"{Path(found.source).name}, aligned with captions"),
        task=TASK.name,
    )


def _few(parts: dict[str, Pairs]) -> tuple[str, ...]:
    count = len(parts["train"].captions)
    if count >= _FEW:
        return ()
    return (f"{count:,} captions are few: thousands of one's own domain are needed to find images by words.",)
