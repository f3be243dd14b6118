"""The names of ImageNet's classes: the first lemma of each WordNet synset, in the order that published weights use.

Source: WordNet 3.0; the order of ILSVRC 2012 (1000 classes), of Google's ImageNet-21k (21,843) and of timm's
ImageNet-12k (11,821), as timm and torchvision list them. Of COCO: the names of the ids 1 to 90 in the labels of 2014
(cocodataset.org), ten of which no image has.
"""

import gzip
from collections import Counter
from functools import cache
from pathlib import Path

BACKGROUND = "background"
_DATA = Path(__file__).with_name("data")


def class_names(num_classes: int) -> tuple[str, ...] | None:
    """Return the distinct class names of published weights with `num_classes` outputs, or None.

    1001 is ImageNet-1k with the background first. A lemma shared by several synsets is followed by the synset's id.
    """
    match num_classes:
        case 1000:
            return tuple(name for _, name in _imagenet_1k())
        case 1001:
            return (BACKGROUND, *(name for _, name in _imagenet_1k()))
        case 11821:
            return _distinct(tuple((wnid, lemma) for wnid, lemma, in_12k in _imagenet_21k() if in_12k))
        case 21843:
            return _distinct(tuple((wnid, lemma) for wnid, lemma, _ in _imagenet_21k()))
    return None


@cache
def coco_names() -> tuple[str, ...]:
    """Return the names of COCO's ids 1 to 90: output i of a detector is id i + 1."""
    return tuple((_DATA / "coco.txt").read_text(encoding="utf-8").splitlines())


def wnid_names() -> dict[str, str]:
    """Return the name of each synset by its WordNet id, such as n01440764; ImageNet-1k's own if it has one."""
    names = class_names(21843) or ()
    return {row[0]: name for row, name in zip(_imagenet_21k(), names, strict=True)} | dict(_imagenet_1k())


@cache
def _imagenet_1k() -> tuple[tuple[str, str], ...]:
    lines = (_DATA / "imagenet1k.tsv").read_text(encoding="utf-8").splitlines()
    return tuple((wnid, name) for wnid, name in (line.split("\t") for line in lines))


@cache
def _imagenet_21k() -> tuple[tuple[str, str, bool], ...]:
    """Return id, lemma and whether ImageNet-12k contains it, for each synset."""
    lines = gzip.decompress((_DATA / "imagenet21k.tsv.gz").read_bytes()).decode().splitlines()
    return tuple((wnid, lemma, mark == "12k") for wnid, lemma, mark in (line.split("\t") for line in lines))


def _distinct(rows: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    counts = Counter(lemma for _, lemma in rows)
    return tuple(lemma if counts[lemma] == 1 else f"{lemma} ({wnid})" for wnid, lemma in rows)
