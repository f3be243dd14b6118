"""Images with annotated objects, as every reader returns them, and what was found on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from effnet.data.annotated.masks.shapes import Shape
from effnet.errors import DataError
from effnet.system.text import printable

_MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotated:
    """One image and its n objects; all coordinates are pixels of the upright image, after its EXIF orientation.

    `boxes` are float64 [n, 4]: left, top, right, bottom, within the image, never empty. `classes` are int64 [n], the
    places of their names. `difficult` and `crowd` are bool [n]: a difficult object need not be found, a crowd is one
    box around several. `areas` are float64 [n], of the masks if there are any, else of the boxes. `shapes` are their
    masks: one of each object or None, or empty if no object has one. `places` say where each object was read:
    "file, line 12".
    """

    path: str
    width: int
    height: int
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    shapes: tuple[Shape | None, ...] = ()
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        number = len(self.boxes)
        if self.boxes.shape != (number, 4):
            raise DataError(f"boxes must have the shape [n, 4]; got {list(self.boxes.shape)}")
        for name in ("classes", "difficult", "crowd", "areas"):
            if getattr(self, name).shape != (number,):
                raise DataError(f"{name} must have the shape [{number}]; got {list(getattr(self, name).shape)}")
        if len(self.shapes) not in (0, number):
            raise DataError(f"shapes must be one of each object, {number}, or none; got {len(self.shapes)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of irregularity in annotations: how often, a sentence with what was done, and the first places."""

    kind: str
    count: int
    sentence: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnotatedSet:
    """The images by given split ("train", "val", "test"), or under "" if there are none, and the classes in order.

    `format` is that of the annotations: "voc", "coco", "yolo" or "table"; `findings` are the irregularities.
    """

    format: str
    parts: Mapping[str, tuple[Annotated, ...]]
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def images(self) -> tuple[Annotated, ...]:
        """The images of all splits."""
        return tuple(image for part in self.parts.values() for image in part)

    def counts(self) -> dict[str, np.ndarray]:
        """Return the number of objects of each class by split, int64 [classes]."""
        number = len(self.class_names)
        return {
            name: np.bincount(np.concatenate([np.empty(0, np.int64), *(i.classes for i in part)]), minlength=number)
            for name, part in self.parts.items()
        }


@dataclass(slots=True)
class Findings:
    """Collects findings while annotations are read."""

    _counts: dict[str, int] = field(default_factory=dict)
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def add_(self, kind: str, place: str, count: int = 1) -> None:
        """Count a finding of a kind of `SENTENCES`, at a place such as "a.xml, line 3"."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(place)

    def all(self) -> tuple[Finding, ...]:
        """Return the findings in the order of `SENTENCES`."""
        return tuple(
            Finding(
                kind=kind,
                count=self._counts[kind],
                sentence=_sentence(kind, self._counts[kind]),
                examples=tuple(self._examples[kind]),
            )
            for kind in SENTENCES
            if kind in self._counts
        )


SENTENCES = {
    "unreadable": (
        "annotation file cannot be read and is not used",
        "annotation files cannot be read and are not used",
    ),
    "invalid": ("object has no valid box and is not used", "objects have no valid box and are not used"),
    "missing image": (
        "annotation is of an image that does not exist and is not used",
        "annotations are of images that do not exist and are not used",
    ),
    "damaged image": ("image cannot be decoded and is not used", "images cannot be decoded and are not used"),
    "annotated twice": (
        "image is annotated in two files; the first is used",
        "images are annotated in two files; the first is used",
    ),
    "not listed": (
        "annotation file is in no list of ImageSets and is not used",
        "annotation files are in no list of ImageSets and are not used",
    ),
    "other name": (
        "annotation file names another image than the one of its own name; the latter is used",
        "annotation files name other images than those of their own names; the latter are used",
    ),
    "no annotation": (
        "image has no annotation and counts as an image without objects",
        "images have no annotation and count as images without objects",
    ),
    "not annotated": (
        "image has no annotation file and is not used",
        "images have no annotation file and are not used",
    ),
    "no objects": ("image is annotated as without objects", "images are annotated as without objects"),
    "unknown class": (
        "object has a class that is not declared and is not used",
        "objects have classes that are not declared and are not used",
    ),
    "normalised": (
        "box has coordinates between 0 and 1 in a format of pixels; it was scaled to pixels",
        "boxes have coordinates between 0 and 1 in a format of pixels; they were scaled to pixels",
    ),
    "pixels": (
        "box has coordinates in pixels in a format of coordinates between 0 and 1; it is read as pixels",
        "boxes have coordinates in pixels in a format of coordinates between 0 and 1; they are read as pixels",
    ),
    "swapped": (
        "box has its right before its left, or its bottom above its top; they were swapped",
        "boxes have their right before their left, or their bottom above their top; they were swapped",
    ),
    "outside": ("box lies outside its image and is not used", "boxes lie outside their images and are not used"),
    "clipped": ("box reaches beyond its image and was clipped", "boxes reach beyond their images and were clipped"),
    "empty": ("box has no area and is not used", "boxes have no area and are not used"),
    "tiny": ("box is smaller than a pixel", "boxes are smaller than a pixel"),
    "duplicate": (
        "box repeats one of the same class in the same image and is not used",
        "boxes repeat one of the same class in the same image and are not used",
    ),
    "mask": (
        "object has a mask that cannot be used; its box is used",
        "objects have masks that cannot be used; their boxes are used",
    ),
    "mask size": (
        "object has a mask of another size than its image; its box is used",
        "objects have masks of another size than their images; their boxes are used",
    ),
    "unusable mask": (
        "image has a mask that cannot be used and is not used",
        "images have masks that cannot be used and are not used",
    ),
    "other size": (
        "image has another size than its annotation says; the boxes are used as they are",
        "images have another size than their annotations say; the boxes are used as they are",
    ),
    "rotated": (
        "image has an EXIF rotation; its boxes are those of the upright image",
        "images have an EXIF rotation; their boxes are those of the upright images",
    ),
    "rotated boxes": (
        "image has an EXIF rotation that its boxes do not have, by the size in its annotation; the boxes were rotated",
        "images have an EXIF rotation that their boxes do not have, by the size in their annotations; "
        "the boxes were rotated",
    ),
    "crowd": ("object is a crowd", "objects are crowds"),
    "difficult": ("object is marked as difficult", "objects are marked as difficult"),
    "test only": (
        "class has objects in val or test, and none in train",
        "classes have objects in val or test, and none in train",
    ),
}
"""Every kind of finding, with its sentence after the number 1 and after others."""


def _sentence(kind: str, count: int) -> str:
    return f"{count:,} {SENTENCES[kind][count != 1]}."


def describe(findings: tuple[Finding, ...]) -> list[str]:
    """Return the findings as plain lines for a terminal, each with its first places."""
    lines = []
    for finding in findings:
        lines.append(finding.sentence)
        lines += [f"  {printable(example)}" for example in finding.examples]
        lines += [f"  and {finding.count - len(finding.examples):,} more"] * (0 < len(finding.examples) < finding.count)
    return lines


def notes_of(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the sentences of findings, each with its first place."""
    return tuple(
        f"{each.sentence} The first: {printable(each.examples[0])}" if each.examples else each.sentence
        for each in findings
    )
