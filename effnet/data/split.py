"""Makes train, val and test out of what a listing gives: stratified, and the same for the same seed."""

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from effnet.data.decode import printable
from effnet.data.listing import Part
from effnet.errors import DataError

HELD_OUT = 0.15
"""The fraction of the pictures that become val, and again test, where the source does not give them."""


def stratified_split(labels: Sequence[str], *, seed: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns sorted int64 indices of each split: `names` are the held-out ones, the rest is "train".

    Every class gives about 15 % to each held-out split, at least one picture where it has enough; a class
    with one picture stays in train, and one with two gives to the last name. The order depends on the seed
    and on the class alone, so that adding a class leaves the others as they were.
    """
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    chosen: dict[str, list[int]] = {name: [] for name in ("train", *names)}
    for label, indices in groups.items():
        key = zlib.crc32(label.encode("utf-8", "surrogatepass"))
        shuffled = np.random.default_rng((seed, key)).permutation(indices).tolist()
        share = max(1, int(HELD_OUT * len(indices) + 0.5))
        for name in reversed(names):
            taken = min(share, len(shuffled) - 1)
            chosen[name].extend(shuffled[:taken])
            shuffled = shuffled[taken:]
        chosen["train"].extend(shuffled)
    return {name: np.array(sorted(indices), dtype=np.int64) for name, indices in chosen.items()}


def arrange(parts: dict[str, Part], *, seed: int) -> tuple[dict[str, Part], list[str]]:
    """Returns the parts "train", "val" and "test", and sentences that say how they came to be.

    Raises:
        DataError: there are too few pictures to hold any out.
    """
    given = {name: part for name, part in parts.items() if part.sources}
    share = f"{HELD_OUT:.0%}"
    train = given.get("", given.get("train"))
    if train is None:
        raise DataError(f"the split train must hold pictures, but only {', '.join(sorted(given)) or 'none'} has any")
    if "val" in given and "test" in given:
        return given, ["The splits train, val and test are used as given."]
    if "val" in given:
        carved = _carve(train, seed=seed, names=("val",))
        note = (
            f"There is no test split, so the given val is the held-out test, and {share} of train, "
            f"stratified with seed {seed}, became val."
        )
        return {**carved, "test": given["val"]}, [note]
    if "test" in given:
        carved = _carve(train, seed=seed, names=("val",))
        return {**carved, "test": given["test"]}, [
            f"There is no val split, so {share} of train, stratified with seed {seed}, became val."
        ]
    rest = f"{1 - 2 * HELD_OUT:.0%}"
    note = f"The pictures were split {rest} train, {share} val, {share} test, stratified with seed {seed}."
    return _carve(train, seed=seed, names=("val", "test")), [note]


def check_classes(parts: dict[str, Part], *, strict: bool) -> tuple[tuple[str, ...], list[str]]:
    """Returns the sorted class names and notes on the classes that are too small to be held out.

    Raises:
        DataError: fewer than two classes, or one without a picture in train; with strict, one with only 1.
    """
    counts = Counter(parts["train"].labels)
    absent = sorted({label for part in parts.values() for label in part.labels} - set(counts))
    if absent:
        shown = ", ".join(printable(name) for name in absent)
        raise DataError(f"every class must have pictures in train, but these have none there: {shown}")
    if len(counts) < 2:
        only = ", ".join(printable(name) for name in counts)
        raise DataError(
            f"at least two classes are needed, received {len(counts)} ({only}); "
            "add another class, or give the folder that holds the class folders"
        )
    small = sorted(name for name, count in Counter(_all_labels(parts)).items() if count < 2)
    if not small:
        return tuple(sorted(counts)), []
    shown = ", ".join(printable(name) for name in small)
    if strict:
        raise DataError(f"strict needs at least 2 pictures a class, but these have fewer: {shown}")
    return tuple(sorted(counts)), [
        f"Classes with fewer than 2 pictures are in train only and cannot be measured: {shown}."
    ]


def _all_labels(parts: dict[str, Part]) -> list[str]:
    return [label for part in parts.values() for label in part.labels]


def _carve(part: Part, *, seed: int, names: tuple[str, ...]) -> dict[str, Part]:
    indices = stratified_split(part.labels, seed=seed, names=names)
    for name in names:
        if not len(indices[name]):
            raise DataError(
                f"no class has enough pictures to hold some out for {name}: {len(part.sources)} pictures in "
                f"{len(set(part.labels))} classes; add pictures, at least {len(names) + 1} in a class"
            )
    return {
        name: Part(
            sources=tuple(part.sources[i] for i in chosen),
            labels=tuple(part.labels[i] for i in chosen),
        )
        for name, chosen in indices.items()
    }
