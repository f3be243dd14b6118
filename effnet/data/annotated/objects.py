"""Labels that are the objects in an image: their text in a listing, and their rows as targets.

The label of an image is a JSON object: its `size`, width and height in pixels, and its `objects`, each a list of the
class, left, top, right, bottom, its area in pixels, and its state. As targets they are float64 [images, m, COLUMNS],
m those of the image with the most; the rows that an image lacks have the class -1.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effnet.data.annotated.record import Annotated, AnnotatedSet, notes_of
from effnet.data.labels import LabelKind, Names, class_name
from effnet.data.sources.source import Listing, Part
from effnet.errors import DataError
from effnet.system.text import brief, printable

LEFT, TOP, RIGHT, BOTTOM, CLASS, STATE, AREA, WIDTH, HEIGHT = range(9)
"""The columns of a target: the box, its class, its state, its area, and the size of its image, in pixels."""

COLUMNS = 9

NORMAL, DIFFICULT, CROWD = 0, 1, 2
"""The states of an object; a difficult one and one of a crowd need not be found."""

_NONE = (0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0)


def label_of(image: Annotated, names: Sequence[str]) -> str:
    """Return the label of an annotated image as text."""
    states = np.where(image.crowd, CROWD, np.where(image.difficult, DIFFICULT, NORMAL)).tolist()
    rows = zip(image.classes.tolist(), image.boxes.tolist(), image.areas.tolist(), states, strict=True)
    objects = [[names[number], *box, area, state] for number, box, area, state in rows]
    return json.dumps({"size": [image.width, image.height], "objects": objects}, ensure_ascii=False)


def listing_of(found: AnnotatedSet, *, name: str, root: str = "") -> Listing:
    """Return annotated images as a listing, to be split and trained on; its notes are what the reader found."""
    return Listing(
        name=name,
        parts={
            split: Part(
                sources=tuple(image.path for image in images),
                labels=tuple(label_of(image, found.class_names) for image in images),
            )
            for split, images in found.parts.items()
        },
        notes=notes_of(found.findings),
        findings=found.findings,
        root=root,
        channels=3,
        class_names=found.class_names,
        label_kind=OBJECTS,
    )


def to_targets(texts: Sequence[str], names: Names) -> np.ndarray:
    """Return the objects of images, float64 [images, m, COLUMNS]; see above."""
    numbers = {name: number for number, name in enumerate(names)}
    rows = []
    for text in texts:
        label = json.loads(text)
        rows.append(
            [
                (*box, numbers[name], state, area, *label["size"])
                for name, *box, area, state in label["objects"]
                if name in numbers
            ]
        )
    most = max([1, *map(len, rows)])
    return np.array([own + [_NONE] * (most - len(own)) for own in rows], np.float64).reshape(-1, most, COLUMNS)


def classes_in(targets: np.ndarray) -> np.ndarray:
    """Return the class of every object of several targets [images, m, COLUMNS], int64 [objects]."""
    found = targets[..., CLASS]
    return found[found >= 0].astype(np.int64)


def joined_targets(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the targets of several splits as one array; those of objects get as many rows as the largest has."""
    most = max((part.shape[1] for part in parts if part.ndim == 3), default=0)
    filled = [
        np.concatenate((part, np.tile(np.array(_NONE), (len(part), most - part.shape[1], 1))), axis=1)
        if part.ndim == 3 and part.shape[1] < most
        else part
        for part in parts
    ]
    return np.concatenate(filled)


def to_text(target: np.ndarray, names: Names) -> str:
    """Return what is in an image in words, such as "2 queen, 1 ten"."""
    counts = np.bincount(present(np.asarray(target))[:, CLASS].astype(np.int64), minlength=len(names))
    return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True) if count) or "no objects"


def present(target: np.ndarray) -> np.ndarray:
    """Return the rows of a target [m, COLUMNS] that are objects."""
    return target[target[:, CLASS] >= 0]


def to_annotated(target: np.ndarray, *, path: str = "", size: tuple[int, int] | None = None) -> Annotated:
    """Return the objects of a target [m, COLUMNS] as an annotated image.

    `size` is its width and height, needed only for images without objects, which do not hold it.
    """
    rows = present(target)
    width, height = (int(rows[0, WIDTH]), int(rows[0, HEIGHT])) if len(rows) else size or (1, 1)
    return Annotated(
        path=path,
        width=width,
        height=height,
        boxes=rows[:, LEFT : BOTTOM + 1],
        classes=rows[:, CLASS].astype(np.int64),
        difficult=rows[:, STATE] == DIFFICULT,
        crowd=rows[:, STATE] == CROWD,
        areas=rows[:, AREA],
    )


def _strata(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the classes in each image; images without objects are alike."""
    return [tuple(sorted({row[0] for row in json.loads(text)["objects"]})) for text in texts]


def _name(parts: "Mapping[str, Part]", order: Sequence[str], strict: bool) -> tuple[Names, list[str]]:
    """Return the classes in order, and a note on those that cannot be learnt or measured."""
    classes = {split: set().union(*_strata(part.labels)) for split, part in parts.items()}
    learnt = classes.get("train", set())
    if not learnt:
        raise DataError(
            "images to train on must have objects, but none of these has any: are the annotations of another split?"
        )
    names = tuple(order) or tuple(sorted(set().union(*classes.values())))
    absent = [name for name in names if name not in learnt]
    shown = ", ".join(printable(name) for name in absent)
    if absent and strict:
        raise DataError(f"strict needs every class to have objects in train, but these have none there: {shown}")
    return names, [f"These classes have no objects in train and cannot be learnt: {shown}."] if absent else []


def _read(labels: Sequence[Sequence[Any]], names: Sequence[str] | None) -> tuple[Names, list[list[str]]]:
    """Return the labels that a program gives as texts: {"size": (width, height), "boxes": [n, 4], "labels": [n]}."""
    texts = [[_checked(label) for label in some] for some in labels]
    found = sorted(set().union(*(set().union(*_strata(some)) for some in texts if some)))
    order = tuple(class_name(name) for name in names) if names is not None else tuple(found)
    if unknown := [name for name in found if name not in order]:
        raise DataError(f"the label of an object must be one of class_names; got {printable(unknown[0])}")
    return order, texts


def _checked(label: Any) -> str:
    if not isinstance(label, Mapping) or not {"size", "boxes", "labels"} <= set(label):
        raise DataError(
            'the label of an image must be {"size": (width, height), "boxes": [n, 4], "labels": [n]}, boxes as left, '
            f"top, right, bottom in pixels; got {brief(label)}"
        )
    boxes = np.asarray(label["boxes"], np.float64).reshape(-1, 4)
    width, height = (int(side) for side in label["size"])
    inside = (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    if not inside or not (boxes[:, 2:] > boxes[:, :2]).all() or len(boxes) != len(label["labels"]):
        raise DataError(
            f"boxes must be left, top, right, bottom within the image of {width} x {height} pixels, with an area, and "
            f"as many as labels, {len(label['labels'])}; got {brief(boxes.tolist())}"
        )
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).tolist()
    named = [class_name(str(name)) for name in label["labels"]]
    objects = [[name, *box, area, NORMAL] for name, box, area in zip(named, boxes.tolist(), areas, strict=True)]
    return json.dumps({"size": [width, height], "objects": objects}, ensure_ascii=False)


OBJECTS = LabelKind(
    task="detection",
    read=_read,
    name=_name,
    to_targets=to_targets,
    to_text=to_text,
    strata=_strata,
)
"""Labels that are the objects in each image: their classes and boxes."""
