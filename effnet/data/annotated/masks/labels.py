"""Labels that are masks: the class of each pixel of an image; their text in a listing, and what they are as targets.

The label of an image is a JSON object: `mask`, the path of a file, or `png`, the base64 of one in memory; the `kind` of
its codes, `codes` by the names of the classes, `ignored` codes, and `pixels`, the number of each class and of those
ignored. As targets they are an array of objects, [images]: masks are read when they are needed.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from effnet.data.annotated.masks.codes import IGNORE, MOST_CLASSES, MaskCode
from effnet.data.annotated.masks.folder import MaskSet
from effnet.data.annotated.masks.read import count_pixels, draw_mask, read_mask
from effnet.data.annotated.record import AnnotatedSet, notes_of
from effnet.data.images.decode import ImageHeader, image_header
from effnet.data.labels import LabelKind, Names, class_name
from effnet.data.sources.source import Listing, Part, encoded, source_name
from effnet.errors import DataError
from effnet.system.text import brief, printable

if TYPE_CHECKING:
    from effnet.data.datasets import Split

# Fewer masks cannot be split into three parts.
_LEAST_SHARED = 3

BACKGROUND = "background"
"""The class of pixels where no object is, in masks that are drawn from objects."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskLabel:
    """The mask of one image: a file's path, or the bytes of a PNG file with class numbers.

    `pixels` are the number of each class, and of those ignored, int64 [classes + 1].
    """

    file: str | bytes
    code: MaskCode
    pixels: np.ndarray

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaskLabel) and (
            (self.file, self.code) == (other.file, other.code) and np.array_equal(self.pixels, other.pixels)
        )

    def __hash__(self) -> int:
        return hash((self.file, self.code))

    def read(self, image: ImageHeader) -> np.ndarray:
        """Return the class of each pixel, uint8 [height, width], of the image with this header; see `read_mask`."""
        if isinstance(self.file, str):
            return read_mask(self.file, self.code, image=image).classes
        classes = np.asarray(Image.open(io.BytesIO(self.file)))
        if classes.shape != (image.height, image.width):
            raise DataError(
                f"a mask must have its image's size, {image.width} x {image.height}; it has "
                f"{classes.shape[1]} x {classes.shape[0]}"
            )
        return classes


def header_of(split: "Split", index: int, image: np.ndarray) -> ImageHeader:
    """Return the header of image `index` of a split, whose pixels are `image`, upright; of a file with its rotation."""
    source = split.sources[index]
    if isinstance(source, np.ndarray):
        height, width, channels = image.shape
        return ImageHeader(width=width, height=height, channels=channels, format="", mode="")
    return image_header(encoded(source), name=source_name(source, ""))


def listing_of_masks(found: MaskSet, *, name: str, root: str = "") -> Listing:
    """Return images with masks as a listing, to be split and trained on; its notes are what the reader found."""
    code = found.code
    shared = {
        "kind": code.kind,
        "codes": dict(zip(code.class_names, code.codes, strict=True)),
        "ignored": list(code.ignored),
    }
    return Listing(
        name=name,
        parts={
            split: Part(
                sources=tuple(image.path for image in images),
                labels=tuple(_text({"mask": image.mask, **shared, "pixels": list(image.pixels)}) for image in images),
            )
            for split, images in found.parts.items()
        },
        notes=notes_of(found.findings),
        findings=found.findings,
        root=root,
        channels=3,
        class_names=code.class_names,
        label_kind=MASKS,
    )


def listing_of_drawn(found: AnnotatedSet, *, name: str, root: str = "", background: bool = True) -> Listing:
    """Return images with objects as a listing of the masks that `draw_mask` draws; class 0 is the background."""
    names = (BACKGROUND, *found.class_names) if background else found.class_names
    if len(set(names)) < len(names):
        raise DataError(f"no class of objects may be called {BACKGROUND}, the class of all other pixels; rename it")
    return Listing(
        name=name,
        parts={
            split: Part(
                sources=tuple(image.path for image in images),
                labels=tuple(label_of_mask(draw_mask(image, background=background), names) for image in images),
            )
            for split, images in found.parts.items()
        },
        notes=notes_of(found.findings),
        findings=found.findings,
        root=root,
        channels=3,
        class_names=names,
        label_kind=MASKS,
    )


def label_of_mask(classes: np.ndarray, names: Sequence[str]) -> str:
    """Return the label of a mask in memory, integers [height, width]: classes from 0, or IGNORE."""
    if classes.ndim != 2 or classes.dtype.kind not in "ui" or not classes.size:
        raise DataError(f"a mask must be whole numbers [height, width]; got {classes.dtype} {list(classes.shape)}")
    known = classes[classes != IGNORE]
    if known.size and not 0 <= known.min() <= known.max() < len(names):
        raise DataError(
            f"the classes of a mask must be from 0 to {len(names) - 1}, or {IGNORE} where none is known; got "
            f"{known.min()} to {known.max()}"
        )
    stream = io.BytesIO()
    Image.fromarray(classes.astype(np.uint8)).save(stream, "PNG")
    pixels = count_pixels([classes.astype(np.uint8)], num_classes=len(names))
    codes = {name: number for number, name in enumerate(names)}
    png = base64.b64encode(stream.getvalue()).decode()
    return _text({"png": png, "kind": "index", "codes": codes, "ignored": [IGNORE], "pixels": pixels.tolist()})


def _text(label: Mapping[str, Any]) -> str:
    return json.dumps(label, ensure_ascii=False)


def to_targets(texts: Sequence[str], names: Names) -> np.ndarray:
    """Return the masks of images as an array of MaskLabel, [images]."""
    found = np.empty(len(texts), object)
    codes: dict[str, MaskCode] = {}  # one for all, as tables of codes are large
    for place, text in enumerate(texts):
        label = json.loads(text)
        key = _text({name: label[name] for name in ("kind", "codes", "ignored")})
        if key not in codes:
            by_name = label["codes"]
            codes[key] = MaskCode(
                kind=label["kind"],
                class_names=names,
                codes=tuple(by_name[name] for name in names),
                ignored=tuple(label["ignored"]),
            )
        file = label["mask"] if "mask" in label else base64.b64decode(label["png"])
        found[place] = MaskLabel(file=file, code=codes[key], pixels=np.array(label["pixels"], np.int64))
    return found


def to_text(target: MaskLabel, names: Names) -> str:
    """Return what a mask holds in words, such as "60 % land, 40 % water"."""
    total = target.pixels[:-1].sum()
    if not total:
        return "no class"
    order = np.argsort(-target.pixels[:-1], kind="stable")
    return ", ".join(f"{target.pixels[i] / total:.0%} {names[i]}" for i in order if target.pixels[i])


def _present(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the classes in each mask."""
    found = []
    for text in texts:
        label = json.loads(text)
        found.append(tuple(name for name, count in zip(label["codes"], label["pixels"], strict=False) if count))
    return found


def _strata(texts: Sequence[str]) -> list[str]:
    """Return the class of each mask that is in the fewest, as most hold the frequent ones; "" if few masks share it."""
    present = _present(texts)
    counts = Counter(name for names in present for name in names)
    rarest = [min(names, key=lambda name: (counts[name], name), default="") for names in present]
    shared = Counter(rarest)
    return [name if shared[name] >= _LEAST_SHARED else "" for name in rarest]


def _name(parts: Mapping[str, Part], order: Sequence[str], strict: bool) -> tuple[Names, list[str]]:
    """Return the classes in order, and a note on those that cannot be learnt."""
    train = parts.get("train")
    if train is None or not train.labels:
        raise DataError("there must be images with masks to train on; there are none")
    names = tuple(order) or tuple(json.loads(train.labels[0])["codes"])
    if len(names) < 2:
        raise DataError(
            f"masks must have at least 2 classes, such as {BACKGROUND} and another; they have {len(names)}: "
            f"{', '.join(map(printable, names))}. Is one of them taken for pixels to be ignored?"
        )
    learnt = {name for present in _present(train.labels) for name in present}
    absent = [name for name in names if name not in learnt]
    shown = ", ".join(map(printable, absent))
    if absent and strict:
        raise DataError(f"strict needs every class to have pixels in train, but these have none there: {shown}")
    return names, [f"These classes have no pixels in train and cannot be learnt: {shown}."] if absent else []


def _read(labels: Sequence[Sequence[Any]], names: Sequence[str] | None) -> tuple[Names, list[list[str]]]:
    """Return the labels that a program gives, arrays [height, width] of class numbers, as texts."""
    arrays = [[_checked(label) for label in some] for some in labels]
    if names is None:
        numbers = [int(each[each != IGNORE].max(initial=0)) for some in arrays for each in some]
        highest = max(numbers, default=0)
        if highest >= MOST_CLASSES:
            raise DataError(f"masks must have at most {MOST_CLASSES} classes; got a class {highest}")
        names = [str(number) for number in range(highest + 1)]
    order = tuple(class_name(str(name)) for name in names)
    return order, [[label_of_mask(each, order) for each in some] for some in arrays]


def _checked(label: Any) -> np.ndarray:
    found = np.asarray(label)
    if found.ndim != 2 or found.dtype.kind not in "ui":
        raise DataError(f"the label of an image must be its mask, whole numbers [height, width]; got {brief(label)}")
    return found


MASKS = LabelKind(
    task="segmentation",
    read=_read,
    name=_name,
    to_targets=to_targets,
    to_text=to_text,
    strata=_strata,
)
"""Labels that are masks: the class of each pixel."""
