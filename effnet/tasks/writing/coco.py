"""Predictions as COCO's results, which pycocotools' `loadRes` reads, and the images and categories they refer to.

Source: cocodataset.org, "Results format".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effnet.data.annotated.formats.coco import CocoNumber, read_numbers
from effnet.errors import DataError, nearest
from effnet.system.records import to_data
from effnet.system.text import brief, printable
from effnet.tasks.boxes.record import Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoIds:
    """The numbers of images, by their file names, and of categories, by the place of their class."""

    images: Mapping[str, CocoNumber]
    categories: tuple[CocoNumber, ...]
    _by_name: dict[str, list[CocoNumber]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, number in self.images.items():
            self._by_name.setdefault(_parts(name)[-1], []).append(number)

    def of_image(self, path: str) -> CocoNumber:
        """Return the number of an image, whose path may begin with more or with fewer folders than its file name.

        Raises DataError if there is none, or more than one.
        """
        parts = _parts(path)
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if name in self.images:
                return self.images[name]
        found = self._by_name.get(parts[-1], [])
        if len(found) == 1:
            return found[0]
        raise DataError(
            f"every image must be one of the COCO annotations; {printable(path)} is {'several' if found else 'none'}"
        )


def read_ids(annotations: str, class_names: Sequence[str]) -> CocoIds:
    """Return the numbers of a COCO file of annotations; raise DataError if a class is none of its categories."""
    images, categories = read_numbers(annotations)
    for name in class_names:
        if name not in categories:
            raise DataError(
                f"{printable(annotations)} must have a category of every class; it has none called {brief(name)}"
                f"{nearest(name, list(categories))}"
            )
    return CocoIds(images=images, categories=tuple(categories[name] for name in class_names))


def numbered(paths: Sequence[str], class_names: Sequence[str]) -> CocoIds:
    """Return numbers from 1 for images and for classes, for `coco_images`."""
    images = {name: number for number, name in enumerate(dict.fromkeys("/".join(_parts(path)) for path in paths), 1)}
    return CocoIds(images=images, categories=tuple(range(1, len(class_names) + 1)))


def coco_results(found: Detections, *, path: str, ids: CocoIds) -> Iterator[dict[str, Any]]:
    """Yield the objects of one image as COCO's results; a box is left, top, width, height in pixels."""
    image = ids.of_image(path)
    for box, score, number in zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True):
        left, top, right, bottom = box
        yield {
            "image_id": image,
            "category_id": ids.categories[number],
            "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
            "score": round(score, 6),
        }


def coco_images(
    sizes: Mapping[str, tuple[int, int]],
    class_names: Sequence[str],
    *,
    ids: CocoIds,
    results: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the COCO data set to which results belong, with these as its annotations: labels, as a first guess.

    `sizes` are width and height by path.
    """
    data: dict[str, Any] = to_data(
        {
            "info": {},
            "images": [
                {"id": ids.of_image(path), "file_name": "/".join(_parts(path)), "width": width, "height": height}
                for path, (width, height) in sizes.items()
            ],
            "categories": [
                {"id": number, "name": name} for number, name in zip(ids.categories, class_names, strict=True)
            ],
            "annotations": [
                {"id": number, "area": round(row["bbox"][2] * row["bbox"][3], 3), "iscrowd": 0, **row}
                for number, row in enumerate(results, 1)
            ],
        }
    )
    return data


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")] or [path]
