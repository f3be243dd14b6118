"""List the images of WebDataset shards: a folder, a pattern with braces, one file, or URLs of them."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from effnet.data.labels import CLASSES, class_name
from effnet.data.several.outputs import SEVERAL, NamedLabels, read_labels
from effnet.data.shards.cache import TOGETHER, cache_limit_bytes
from effnet.data.shards.file import Shard
from effnet.data.shards.index import locate
from effnet.data.shards.store import ShardMember, ShardStore, list_shard
from effnet.data.shards.tar import Member
from effnet.data.sources.names import INDEX, is_url
from effnet.data.sources.source import SPLIT_NAMES, Listing, Part
from effnet.errors import DataError, nearest
from effnet.system.cache import Progress
from effnet.system.text import printable


def list_shards(data: str, *, progress: Progress | None = None) -> Listing:
    """List the images of shards from their headers; remote shards are downloaded for it, once.

    Shards of a single split other than train, as for an evaluation, are a data set without splits.

    `progress` is called with the number of shards listed and the total.

    Raises:
        DataError: a shard is missing, damaged or without images, or a label is not one of the class names.
    """
    wanted, index = locate(data)
    splits = _check_splits(wanted)
    listed = list(_list_all(wanted, progress))
    store = ShardStore([shard for shard, _ in listed])
    split_here = "train" in splits or len(splits) > 1
    several = any(isinstance(member.label, dict) for _, members in listed for member in members)
    parts: dict[str, tuple[list[ShardMember], list[Any]]] = {}
    for number, (shard, members) in enumerate(listed):
        sources, labels = parts.setdefault(shard.split if split_here else "", ([], []))
        for member in members:
            labels.append(member.label if several else _class_of(member, shard, index.class_names))
            sources.append(
                ShardMember(store=store, block=number, member=member.name, offset=member.offset, size=member.size)
            )
    notes = [f"The images are in {len(listed)} shards."]
    if store.mixed:
        notes.append(
            f"They take more than {store.limit_bytes / 1e9:.3g} GB (EFFNET_SHARD_CACHE_GB), so each epoch mixes "
            f"{store.mixed} shards at a time."
        )
    texts = [labels for _, labels in parts.values()]
    found = NamedLabels(kind=CLASSES, names=(), texts=texts)
    if several:
        found = _several([[source.name for source in s] for s, _ in parts.values()], texts, index.class_names)
    return Listing(
        name=_data_name(data),
        parts={
            split: Part(sources=tuple(s), labels=tuple(read))
            for (split, (s, _)), read in zip(parts.items(), found.texts, strict=True)
        },
        notes=tuple(notes),
        mirror_safe=index.mirror_safe,
        mixed=store.mixed,
        class_names=found.names,
        label_kind=found.kind,
        outputs=found.outputs,
    )


def _several(places: list[list[str]], labels: list[list[Any]], class_names: tuple[str, ...] | None) -> NamedLabels:
    """Return labels of several outputs; raise DataError for one that is not in the index."""
    found = read_labels(labels, None, places=places)
    if class_names is None or found.kind is not SEVERAL:
        return found
    present = set(found.names)
    if unknown := sorted(present - set(class_names)):
        raise DataError(
            f"{places[0][0]}: the labels must be those of {INDEX}; {printable(unknown[0])} is not in it"
            f"{nearest(unknown[0], class_names)}"
        )
    return replace(found, names=tuple(name for name in class_names if name in present))


def _check_splits(shards: Sequence[Shard]) -> set[str]:
    splits = {shard.split for shard in shards}
    if "" in splits and len(splits) > 1:
        odd = next(shard.name for shard in shards if not shard.split)
        raise DataError(f"either all shards or none must be named after a split (train-000000.tar), but {odd} is not")
    return splits


def _list_all(shards: Sequence[Shard], progress: Progress | None) -> Iterator[tuple[Shard, tuple[Member, ...]]]:
    limit_bytes = cache_limit_bytes() if any(shard.remote for shard in shards) else 0
    with ThreadPoolExecutor(TOGETHER, thread_name_prefix="effnet-shards") as pool:
        futures = [pool.submit(list_shard, shard, limit_bytes=limit_bytes) for shard in shards]
        try:
            for done, future in enumerate(futures, start=1):
                shard, members = future.result()
                if shard.count and len(members) != shard.count:
                    raise DataError(
                        f"{shard.name} must hold {shard.count} images, as in its index; it holds {len(members)}: write "
                        "the shards again"
                    )
                yield shard, members
                if progress:
                    progress(done, len(shards))
        finally:
            for future in futures:
                future.cancel()


def _class_of(member: Member, shard: Shard, class_names: tuple[str, ...] | None) -> str:
    """Return the class name for a label; without class names a number is its own name."""
    label, place = member.label, f"{shard.name}/{printable(member.name)}"
    assert not isinstance(label, dict)
    if isinstance(label, str):
        name = class_name(label)
        if class_names is not None and name not in class_names:
            raise DataError(
                f"{place}: the label {printable(name)} is not a class of {INDEX}{nearest(name, class_names)}"
            )
        return name
    last = None if class_names is None else len(class_names) - 1
    if label < 0 or (last is not None and label > last):
        limits = "at least 0" if last is None else f"in 0..{last}, as {INDEX} has {last + 1} class names"
        raise DataError(f"{place}: the label must be {limits}; received {label}")
    return str(label) if class_names is None else class_names[label]


def _data_name(data: str) -> str:
    """Return the folder's name, or the first part of a pattern."""
    path = unquote(urlsplit(data).path) if is_url(data) else os.path.abspath(data)
    if path.endswith((".tar", INDEX)):
        stem = re.sub(r"[-_.]?\{.*|\.tar$|\.json$", "", os.path.basename(path))
        path = os.path.dirname(path) if SPLIT_NAMES.get(stem.lower()) or not stem or path.endswith(INDEX) else stem
    return os.path.basename(path.rstrip("/")) or "shards"
