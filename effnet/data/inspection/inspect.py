"""Inspect a data set: counts, sizes, damaged files, duplicates and imbalance."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.images.decode import ImageHeader, decoded_image, fit_channels, image_header
from effnet.data.images.opening import FORMAT_SUFFIXES
from effnet.data.inspection.alike import Look, alike, look_at, look_reduction
from effnet.data.inspection.annotations import count_annotations
from effnet.data.inspection.clips import with_clip
from effnet.data.inspection.counts import FEW_IMAGES, SPLITS, ClassCount, count_outputs
from effnet.data.inspection.findings import DataReport, Duplicate, Spread, describe
from effnet.data.inspection.leaks import find_leaks, keep_together, names_of
from effnet.data.inspection.shapes import shapes_of
from effnet.data.inspection.sounds import with_sound
from effnet.data.inspection.values import Values, with_values
from effnet.data.sources.source import Group, Skipped, Source, encoded, source_name
from effnet.data.view.value_range import Asked, read_asked
from effnet.errors import DataError, ImageError
from effnet.system.text import printable

__all__ = ["DataReport", "describe", "inspect_and_join", "inspect_dataset"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    source: Source
    name: str
    split: str
    label: str
    target: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    item: _Item
    header: ImageHeader | None
    reason: str
    size_bytes: int
    look: Look | None = None


def inspect_dataset(
    dataset: Dataset,
    *,
    sample: int = 20_000,
    seed: int = 0,
    value_range: Asked = "auto",
    sound: str = "",
    progress: Progress | None = None,
) -> DataReport:
    """Decode every image, or a random sample of `sample` if there are more, and return a report.

    `value_range` is the lowest and the highest value of images with more than 8 bits, or "auto" to determine it;
    `sound` sets parameters of spectrograms, as in "seconds=3,mels=80".
    `progress` is called with the number done and the total. Arrays in memory are not decoded.

    Raises:
        DataError: not one image can be decoded, or no range suits all images.
    """
    dataset = with_clip(with_sound(dataset, sound))
    dataset, values = with_values(dataset, read_asked(value_range))
    findings = _examine_all(dataset, sample=sample, seed=seed, progress=progress)
    copies = _copies(dataset, findings)
    return _summarize(replace(dataset, groups=(*dataset.groups, *copies)), findings, copies, values)


def inspect_and_join(
    dataset: Dataset,
    *,
    sample: int = 20_000,
    seed: int = 0,
    value_range: Asked = "auto",
    sound: str = "",
    progress: Progress | None = None,
) -> tuple[Dataset, DataReport]:
    """Inspect a data set; return it with its value range and the parameters of its sounds, and the report.

    If effnet generated its split, it is split again so that copies (identical or nearly identical images, as far as
    the inspection decoded them) stay on one side. Raises DataError as `inspect_dataset` does.
    """
    dataset = with_clip(with_sound(dataset, sound))
    dataset, values = with_values(dataset, read_asked(value_range))
    findings = _examine_all(dataset, sample=sample, seed=seed, progress=progress)
    copies = _copies(dataset, findings)
    dataset = keep_together(dataset, copies)
    sides = {name: split for split in SPLITS for name in names_of(getattr(dataset, split))}
    moved = [
        replace(finding, item=replace(finding.item, split=sides.get(finding.item.name, finding.item.split)))
        for finding in findings
    ]
    return dataset, _summarize(dataset, moved, copies, values)


def _summarize(
    dataset: Dataset, findings: Sequence[_Finding], copies: Sequence[Group], values: Values | None
) -> DataReport:
    readable = [(f, f.header) for f in findings if f.header is not None]
    headers = [header for _, header in readable]
    unreadable = tuple(Skipped(path=f.item.name, reason=f.reason) for f in findings if f.header is None)
    if not headers:
        first = f"{printable(unreadable[0].path)}: {unreadable[0].reason}" if unreadable else "it is empty"
        raise DataError(f"the data set must have images that can be decoded, but none can; the first is {first}")
    items = {finding.item.name: finding.item for finding, _ in readable}
    duplicates = [_duplicate([items[name] for name in group.names], group) for group in copies]
    classes = _count_classes(dataset)
    in_train = [count.train for count in classes]
    num_images = sum(len(split) for split in (dataset.train, dataset.val, dataset.test))
    return DataReport(
        name=dataset.name,
        num_images=num_images,
        num_examined=len(findings),
        classes=classes,
        widths=_spread([header.width for header in headers]),
        heights=_spread([header.height for header in headers]),
        median_short_side=_spread([min(header.width, header.height) for header in headers]).median,
        shapes=shapes_of([(header.width, header.height) for header in headers]),
        modes=tuple(Counter(header.mode for header in headers).most_common()),
        channels=tuple(Counter(header.channels for header in headers).most_common()),
        unreadable=unreadable,
        wrong_suffixes=tuple(
            Skipped(path=finding.item.name, reason=f"it is {header.format}")
            for finding, header in readable
            if _has_wrong_suffix(finding.item, header)
        ),
        across_splits=tuple(d for d in duplicates if len(set(d.splits)) > 1),
        across_labels=tuple(d for d in duplicates if _differ([items[path] for path in d.paths])),
        imbalance=max(in_train) / max(1, min(in_train)) if in_train else 1.0,
        small_classes=tuple(count.name for count in classes if count.train < FEW_IMAGES),
        skipped=dataset.skipped,
        notes=dataset.notes,
        leaks=find_leaks(dataset),
        sound=dataset.sound,
        values=values,
        outputs=count_outputs(dataset),
        annotations=count_annotations(dataset),
    )


def _items(dataset: Dataset, *, sample: int, seed: int) -> list[_Item]:
    splits = [(name, getattr(dataset, name)) for name in SPLITS]
    places = [(name, split, index) for name, split in splits for index in range(len(split))]
    if len(places) > sample:
        chosen = np.random.default_rng(seed).choice(len(places), size=sample, replace=False)
        places = [places[i] for i in np.sort(chosen)]
    items = []
    for name, split, index in places:
        source = split.sources[index]
        items.append(
            _Item(
                source=source,
                name=source_name(source, f"{name}[{index}]"),
                split=name,
                target=split.labels[index],
                label=dataset.label_kind.to_text(split.labels[index], dataset.class_names),
            )
        )
    return items


def _examine_all(dataset: Dataset, *, sample: int, seed: int, progress: Progress | None) -> list[_Finding]:
    findings, items = [], _items(dataset, sample=sample, seed=seed)
    # Pillow releases the interpreter lock while decoding, so threads are enough. Large images wait for each other
    # (effnet.data.images.limits.ROOM) to limit memory.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for finding in pool.map(lambda item: _examine(item, dataset), items):
            findings.append(finding)
            if progress is not None:
                progress(len(findings), len(items))
    return findings


def _examine(item: _Item, dataset: Dataset) -> _Finding:
    decoding = replace(dataset.decoding, reduce=look_reduction)
    try:
        if not isinstance(item.source, np.ndarray):
            file = encoded(item.source)
            header = image_header(file, name=item.name, decoding=decoding)
            with decoded_image(file, decoding, name=item.name) as pixels:
                # The spectrograms of two steady sounds look alike.
                look = None if dataset.sound is not None else look_at(pixels)
            size_bytes = len(file) if isinstance(file, bytes) else os.stat(file).st_size
        else:
            height, width, stored = item.source.shape
            fit_channels(item.source[:1, :1], dataset.channels)
            header = ImageHeader(width=width, height=height, channels=stored, format="array", mode="array")
            size_bytes, look = item.source.nbytes, None
        return _Finding(item=item, header=header, reason="", size_bytes=size_bytes, look=look)
    except (ImageError, OSError) as error:
        reason = str(error).removeprefix(f"{printable(item.name)}: ")
        return _Finding(item=item, header=None, reason=reason, size_bytes=0)


def _copies(dataset: Dataset, findings: Sequence[_Finding]) -> tuple[Group, ...]:
    """Return the groups of identical content, and of similar looks; only files of equal size are hashed.

    Frames of clips are not compared: all that one camera films look alike. A clip stays on one side as a whole.
    """
    if dataset.clip is not None:
        return ()
    readable = [finding for finding in findings if finding.header is not None]
    by_size: dict[int, list[_Item]] = {}
    for finding in readable:
        by_size.setdefault(finding.size_bytes, []).append(finding.item)
    by_content: dict[bytes, list[str]] = {}
    for group in by_size.values():
        if len(group) > 1:
            for item in group:
                by_content.setdefault(_content_hash(item.source), []).append(item.name)
    equal = [Group(kind="identical", names=tuple(same)) for same in by_content.values() if len(same) > 1]
    # Of identical images the first is enough.
    extra = {name for group in equal for name in group.names[1:]}
    looks = [
        (finding.item.name, finding.look) for finding in readable if finding.look and finding.item.name not in extra
    ]
    similar = [
        Group(kind="similar", names=tuple(looks[index][0] for index in same))
        for same in alike([look for _, look in looks if look])
    ]
    return (*equal, *similar)


def _duplicate(items: Sequence[_Item], group: Group) -> Duplicate:
    return Duplicate(
        paths=group.names,
        splits=tuple(item.split for item in items),
        labels=tuple(item.label for item in items),
        similar=group.kind == "similar",
    )


def _differ(items: Sequence[_Item]) -> bool:
    """Return whether the targets of images differ in something known of both; boxes and masks by their words."""
    targets = [item.target for item in items]
    if np.ndim(targets[0]) > 1 or np.asarray(targets[0]).dtype == object:
        return len({item.label for item in items}) > 1
    rows = np.array(targets, np.float64).reshape(len(targets), -1)
    unknown = np.isnan(rows)
    return bool((np.where(unknown, np.inf, rows).min(0) < np.where(unknown, -np.inf, rows).max(0)).any())


def _content_hash(source: Source) -> bytes:
    if isinstance(source, str):
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    if not isinstance(source, np.ndarray):
        return hashlib.sha256(source.read()).digest()
    return hashlib.sha256(str(source.shape).encode() + source.tobytes()).digest()


def _count_classes(dataset: Dataset) -> tuple[ClassCount, ...]:
    """Return the number of images of each class; nothing for labels that are no classes."""
    if not dataset.label_kind.classes:
        return ()
    num_classes = len(dataset.class_names)
    counts = [np.bincount(getattr(dataset, name).labels, minlength=num_classes).tolist() for name in SPLITS]
    return tuple(
        ClassCount(name=name, train=train, val=val, test=test)
        for name, train, val, test in zip(dataset.class_names, *counts, strict=True)
    )


def _spread(values: Sequence[int]) -> Spread:
    return Spread(minimum=min(values), median=int(np.median(values)), maximum=max(values))


def _has_wrong_suffix(item: _Item, header: ImageHeader) -> bool:
    known = FORMAT_SUFFIXES.get(header.format)
    suffix = os.path.splitext(item.name)[1].lower()
    if not suffix and not isinstance(item.source, str):  # a row of a table has no suffix
        return False
    if header.format == "DICOM" and (not suffix or suffix[1:].isdigit()):  # as many of them are called
        return False
    return known is not None and suffix not in known
