"""Map a data set's labels to a bundle's class numbers, and choose the images to evaluate the bundle on."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.split_file import SplitRecord, read_split
from effnet.data.annotated.objects import joined_targets
from effnet.data.corrections import corrected_again
from effnet.data.datasets import DataLike, Dataset, Split, check_options, list_source, split_listing, to_split
from effnet.data.groups import with_groups
from effnet.data.inspection.leaks import find_leaks, fingerprint_of, marks_of, sample_of_marks
from effnet.data.labels import CLASSES, LabelKind
from effnet.data.several.outputs import SEVERAL, OutputSpec, as_several, outputs_of, placed
from effnet.data.several.values import KIND_WORDS
from effnet.data.sources.source import Listing
from effnet.errors import DataError, InputError, nearest
from effnet.weights.class_names import wnid_names

PARTS = ("train", "val", "test", "all")

_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """Labelled images to evaluate a bundle on: their part, a sentence that describes it, and the leaked ones.

    Leaked images (`effnet.data.inspection.leaks`) are named.
    """

    split: Split
    part: str
    sentence: str
    leaked: tuple[str, ...] = ()


def choose_images(
    data: DataLike,
    *,
    folder: str | os.PathLike[str],
    config: ModelConfig,
    part: str | None = None,
    seed: int | None = None,
    group_by: str = "",
) -> Chosen:
    """Return the images of `data` to evaluate the bundle `folder` on, with labels as numbered in its `config`.

    If the bundle was fitted on these data, they are split as they were then, and the test split is the default. If not,
    nothing is split and all images are the default, unless `seed` says to split them as a fit with that seed would.

    Raises:
        DataError: the data have a class that the model does not know, or not this part.
    """
    check_options(seed=seed or 0, channels=None)
    if part is not None and part not in PARTS:
        raise InputError(f"the part must be one of {', '.join(PARTS)}; got {part!r}{nearest(part, PARTS)}")
    if group_by and seed is None:
        raise InputError("--group-by is for a split with --seed N; the bundle has the grouping of its own data")
    record = read_split(folder)
    listing = list_for(data, config, record)
    if seed is not None:
        dataset = split_listing(with_groups(listing, group_by=group_by), seed=seed, channels=config.preprocess.channels)
        found = _part_of(dataset, part or "test", config)
        what = _what(part or "test", found)
        sentence = f"Of these data, split with seed {seed}, {what} {_are(part or 'test')} scored."
        return Chosen(split=found, part=part or "test", sentence=sentence, leaked=find_leaks(dataset).names)
    if record is not None and record.fingerprint == fingerprint_of(listing):
        dataset = _split_again(listing, record, channels=config.preprocess.channels)
        found = _part_of(dataset, part or "test", config)
        sentence = f"The bundle was fitted on these data: {_what(part or 'test', found)} {_are(part or 'test')} scored."
        leaked = record.leaked_names(listing)
        return Chosen(split=found, part=part or "test", sentence=sentence, leaked=leaked)
    return _as_given(listing, part or "all", config, record)


def read_as_fitted(data: DataLike, *, folder: str | os.PathLike[str], config: ModelConfig) -> Dataset:
    """Return the data set split as the bundle's own if it is the same data, otherwise with the same seed.

    Raises the DataErrors of `read_dataset`.
    """
    record = read_split(folder)
    listing = list_for(data, config, record)
    channels = config.preprocess.channels
    if record is not None and record.fingerprint == fingerprint_of(listing):
        dataset = _split_again(listing, record, channels=channels)
    else:
        dataset = split_listing(with_groups(listing), seed=config.split_seed or 0, channels=channels)
    preprocess = config.preprocess
    mirror_safe = dataset.mirror_safe and preprocess.sound is None
    return replace(dataset, value_range=preprocess.value_range, sound=preprocess.sound, mirror_safe=mirror_safe)


def split_record(dataset: Dataset, *, folder: str | os.PathLike[str] | None = None) -> SplitRecord:
    """Return the record of a data set's split for split.json: the bundle's if of the same data, else a new one."""
    listing = dataset.listed
    if listing is None:
        raise DataError("the data set must be one that effnet has read; it has no listing")
    fingerprint = fingerprint_of(listing)
    record = None if folder is None else read_split(folder)
    if record is not None and record.fingerprint == fingerprint:
        return record
    return SplitRecord(
        seed=dataset.seed,
        fingerprint=fingerprint,
        group_by=listing.group_by,
        joined=tuple(tuple(map(listing.relative, g.names)) for g in listing.groups if g.kind != "group"),
        leaked=tuple(map(listing.relative, find_leaks(dataset).names)),
        seen=sample_of_marks(marks_of((dataset.train, dataset.val), dataset.class_names, dataset.label_kind)),
        outputs=listing.outputs,
        corrections=listing.corrections,
    )


def list_for(data: DataLike, config: ModelConfig, record: SplitRecord | None) -> Listing:
    """Return the listing of data for a bundle; its own outputs choose the columns of a manifest.

    If these are the data that the bundle was fitted on, the corrections of their labels are made again.
    """
    names = config.class_names if config.arch.decoder else ()
    listing = list_source(
        data, outputs=_outputs_of_bundle(config, record), of_model=True, task=config.task, class_names=names
    )
    if record is not None and record.corrections:
        right = corrected_again(listing, record.corrections)
        if fingerprint_of(right) == record.fingerprint:
            return right
    return as_several(listing) if config.specs else listing


def _outputs_of_bundle(config: ModelConfig, record: SplitRecord | None) -> tuple[str, ...]:
    """Return the words that choose a bundle's own outputs in a manifest; empty for the column `label`."""
    if config.specs:
        return tuple(f"{KIND_WORDS[spec.kind]}:{spec.name}" for spec in config.specs)
    return () if record is None else record.outputs


def numbered(split: Split, class_names: Sequence[str], config: ModelConfig, *, kind: LabelKind = CLASSES) -> Split:
    """Return a split with labels numbered as in `config`; `class_names` are its current ones, `kind` what they are.

    A class may differ in case or separators (Golden_Retriever), or be the WordNet id of ImageNet's class (n02099601).
    Several outputs are found by their names; one that the data lack is unknown, one that the model lacks is left out.
    Raises DataError for a class that the model does not know, and for labels of another task than the model's.
    """
    if kind.task != config.task:
        raise DataError(f"the labels must be those of the model's task, {config.task}; they are of {kind.task}")
    if kind is SEVERAL:
        labels = _matched(split.labels, outputs_of(class_names), config.specs)
    elif kind.classes:
        labels = np.array(_numbers(class_names, config.class_names, what="class"), dtype=np.int64)[split.labels]
    else:
        return split
    return Split(sources=split.sources, labels=labels)


def _numbers(names: Sequence[str], own: Sequence[str], *, what: str) -> list[int]:
    """Return the number of each name among the model's own; raise DataError for one that it does not know."""
    known = {name: number for number, name in enumerate(own)}
    if any(_WORDNET_ID.fullmatch(name) for name in set(names) - known.keys()):
        known |= {wnid: known[name] for wnid, name in wnid_names().items() if name in known}
    plain = _plain_names(own)
    numbers = [known.get(name, plain.get(_plain(name), -1)) for name in names]
    for name, number in zip(names, numbers, strict=True):
        if number < 0:
            several = "classes" if what.startswith("class") else "tags"
            raise DataError(f"the model has no {what} {name!r}{nearest(name, known)}; it has {len(own)} {several}")
    return numbers


def _matched(labels: np.ndarray, given: Sequence[OutputSpec], own: Sequence[OutputSpec]) -> np.ndarray:
    """Return targets of the outputs `given`, float64 [images, target columns], as targets of the model's `own`."""
    found = {place.spec.name: place for place in placed(given)}
    targets = np.full((len(labels), sum(spec.target_width for spec in own)), np.nan)
    common = [(place, found[name]) for place in placed(own) if (name := place.spec.name) in found]
    if not common:
        names = ", ".join(spec.name for spec in own)
        raise DataError(f"the data must have one of the model's outputs, {names}; got {', '.join(found)}")
    for place, theirs in common:
        spec, values = place.spec, labels[:, theirs.targets]
        if spec.kind != theirs.spec.kind:
            wanted, got = KIND_WORDS[spec.kind], KIND_WORDS[theirs.spec.kind]
            raise DataError(f"the output {spec.name} must be of the model's kind, {wanted}; got {got}")
        what = f"{'tag' if spec.kind == 'many' else 'class'} of {spec.name}"
        numbers = np.array(_numbers(theirs.spec.classes, spec.classes, what=what), np.int64)
        if spec.kind == "one":
            known = ~np.isnan(values)
            targets[:, place.targets][known] = numbers[values[known].astype(np.int64)]
        elif spec.kind == "many":
            targets[:, place.targets] = np.where(np.isnan(values[:, :1]), np.nan, 0.0)
            targets[:, place.targets.start + numbers] = values
        else:
            targets[:, place.targets] = values
    return targets


def _plain_names(class_names: Sequence[str]) -> dict[str, int]:
    """Return the number of each class by its normalised name, without names shared by two classes."""
    counts = Counter(map(_plain, class_names))
    return {plain: i for i, name in enumerate(class_names) if counts[plain := _plain(name)] == 1}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def _split_again(listing: Listing, record: SplitRecord, *, channels: int) -> Dataset:
    """Return the data set split as in the bundle's fit; the record lists equal files, so none is opened."""
    grouped = with_groups(listing, group_by=record.group_by, equal=record.groups(listing))
    return split_listing(grouped, seed=record.seed, channels=channels)


def _part_of(dataset: Dataset, part: str, config: ModelConfig) -> Split:
    splits = [dataset.train, dataset.val, dataset.test] if part == "all" else [getattr(dataset, part)]
    return numbered(_merged(splits), dataset.class_names, config, kind=dataset.label_kind)


def _as_given(listing: Listing, part: str, config: ModelConfig, record: SplitRecord | None) -> Chosen:
    given = {name: found for name, found in listing.parts.items() if found.sources}
    if part != "all" and part not in given:
        has = f"their own parts are {', '.join(sorted(given))}" if "" not in given else "they are not split"
        raise DataError(
            f"the part {part} must be in the data, but {has}, and the bundle was not fitted on them; score all of them "
            "(--split all), or split them as a fit with that seed does (--seed 0)"
        )
    chosen = list(given.values()) if part == "all" else [given[part]]
    kind, class_names = listing.label_kind, config.class_names
    if kind.classes:
        class_names = tuple(sorted({label for found in chosen for label in found.labels}))
    elif kind is SEVERAL:
        class_names = listing.class_names
    merged = _merged([to_split(found, class_names, kind=kind) for found in chosen])
    split = numbered(merged, class_names, config, kind=kind)
    why = "" if record is None else "The bundle was fitted on other data: "
    what = _what(part, split)
    sentence = f"{why}{what if why else what[0].upper() + what[1:]} of these data {_are(part)} scored."
    if record is None and config.split_seed is not None:
        sentence += (
            " WARNING: the bundle has no split.json, so images that it was trained on may be among them; if it was "
            f"fitted on these data, --seed {config.split_seed} scores the test split."
        )
    known = set(record.seen).intersection(marks_of((merged,), class_names, kind)) if record else ()
    if record is not None and known:
        sentence += (
            f" WARNING: about {len(known) / len(record.seen):.0%} of the images that it was trained on are among them, "
            "so the accuracy is too high: the data were changed, renamed or packed since, or are a subset."
        )
    return Chosen(split=split, part=part, sentence=sentence)


def _merged(splits: Sequence[Split]) -> Split:
    sources = [source for split in splits for source in split.sources]
    return Split(sources=sources, labels=joined_targets([split.labels for split in splits]))


def _what(part: str, split: Split) -> str:
    return f"all {len(split):,} images" if part == "all" else f"the {part} split ({len(split):,} images)"


def _are(part: str) -> str:
    return "are" if part == "all" else "is"
