"""Turn annotations as written into those that a detector can learn from, and report every irregularity."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.masks.shapes import Polygons, Shape, area_of, box_of, pixels_of, rle_of
from effnet.data.annotated.record import Annotated, AnnotatedSet, Findings
from effnet.data.annotated.upright import turn_boxes, turn_mask, turn_points
from effnet.data.images.decode import ImageHeader, image_header
from effnet.errors import DataError, ImageError, nearest
from effnet.system.text import printable

# A box may reach so far beyond its image, in pixels, without a finding: tools round differently.
_ROUNDING = 1.0
# Coordinates between 0 and 1 beyond this are pixels: no box reaches that far beyond its image.
_FAR = 2.0
# One box in so many may lie between 0 and 1 in a set of pixels.
_FEW = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RawObject:
    """An object as written at `place`: `box` is left, top, right, bottom, None if only `shape` is given."""

    place: str
    name: str
    box: tuple[float, float, float, float] | None
    shape: Shape | None = None
    area: float | None = None
    difficult: bool = False
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """An image and its objects as written; `width` and `height` are those of the annotation, None if it has none.

    One that is not `annotated` counts as an image without objects.
    """

    path: str
    objects: Sequence[RawObject]
    annotated: bool = True
    width: int | None = None
    height: int | None = None


def settle(
    parts: Mapping[str, Iterable[RawImage]],
    *,
    kind: str,
    class_names: Sequence[str] = (),
    normalised: bool = False,
    findings: Findings | None = None,
) -> AnnotatedSet:
    """Return the images with valid boxes in pixels, and all findings.

    `kind` is the format. `class_names` are the declared classes; if there are none, the classes are those of the
    objects, sorted. If `normalised`, coordinates are shares of the image's sides, else pixels.

    Raises:
        DataError: there is no image, or coordinates of both units are mixed; the message names two places.
    """
    found = Findings() if findings is None else findings
    listed = {name: list(images) for name, images in parts.items()}
    raw = [image for images in listed.values() for image in images]
    if not raw:
        raise DataError(_nothing(found))
    scaled = _unit(raw, normalised, found)
    names = tuple(class_names) or tuple(sorted({o.name for image in raw for o in image.objects}))
    places = {name: i for i, name in enumerate(names)}
    settled = {
        name: tuple(
            image for one in images if (image := _settle_image(one, places, scaled=scaled, found=found)) is not None
        )
        for name, images in listed.items()
    }
    result = AnnotatedSet(format=kind, parts={n: p for n, p in settled.items() if p}, class_names=names)
    if not result.parts:
        raise DataError(_nothing(found))
    _report_test_only(result, found)
    return AnnotatedSet(format=kind, parts=result.parts, class_names=names, findings=found.all())


def _nothing(found: Findings) -> str:
    why = " ".join(f"{f.sentence} The first: {printable(f.examples[0])}." for f in found.all()[:3])
    return f"the annotations must hold at least one image that can be read; {why or 'they hold none'}"


def _unit(raw: Sequence[RawImage], normalised: bool, found: Findings) -> bool:
    """Return whether coordinates are shares of the sides; raise DataError if there are both units."""
    shares, pixels = [], []
    for image in raw:
        for thing in image.objects:
            if thing.box is None or not all(map(math.isfinite, thing.box)):
                continue
            low, high = min(thing.box), max(thing.box)
            if high > _FAR or low < -_FAR:
                pixels.append(thing)
            elif low >= 0 and high <= 1 and not all(value == int(value) for value in thing.box):
                shares.append(thing)
    if not normalised and _FEW * len(shares) <= len(pixels):
        shares = []  # they are boxes smaller than a pixel, which every large set has
    if shares and pixels:
        raise DataError(
            f"boxes must be in one unit, but {len(shares):,} have coordinates between 0 and 1 and {len(pixels):,} "
            f"have coordinates in pixels. {printable(shares[0].place)}: {_shown(shares[0])}; "
            f"{printable(pixels[0].place)}: {_shown(pixels[0])}. Write all in one unit"
        )
    odd = pixels if normalised else shares
    for thing in odd:
        found.add_("pixels" if normalised else "normalised", f"{thing.place}: {_shown(thing)}")
    return normalised != bool(odd)


def _shown(thing: RawObject) -> str:
    return "no box" if thing.box is None else f"({', '.join(f'{value:.6g}' for value in thing.box)})"


def _settle_image(image: RawImage, places: Mapping[str, int], *, scaled: bool, found: Findings) -> Annotated | None:
    try:
        header = image_header(image.path)
    except ImageError as error:
        found.add_("damaged image", str(error))
        return None
    turned = _turned(image, header, found)
    if not image.objects:
        found.add_("no objects" if image.annotated else "no annotation", image.path)
    kept = [t for thing in image.objects if (t := _known(thing, places, found)) is not None]
    shapes = [_settle_shape(thing, header, scaled, turned, found) for thing in kept]
    boxes = np.array([_box(thing, shape) for thing, shape in zip(kept, shapes, strict=True)]).reshape(-1, 4)
    given = np.array([thing.box is not None for thing in kept], bool)
    if scaled:
        boxes[given] *= (header.width, header.height) * 2
    if turned:
        boxes[given] = turn_boxes(boxes[given], header)
    boxes, usable = _checked(boxes, [thing.place for thing in kept], header, found)
    usable &= _first(boxes, kept, usable, found)
    things = [thing for thing, use in zip(kept, usable, strict=True) if use]
    masks = tuple(shape for shape, use in zip(shapes, usable, strict=True) if use)
    return Annotated(
        path=image.path,
        width=header.width,
        height=header.height,
        boxes=boxes[usable],
        classes=np.array([places[thing.name] for thing in things], np.int64),
        difficult=_flags("difficult", things, found),
        crowd=_flags("crowd", things, found),
        areas=np.array([_area(*each) for each in zip(things, masks, boxes[usable], strict=True)], np.float64),
        shapes=masks if any(mask is not None for mask in masks) else (),
        places=tuple(thing.place for thing in things),
    )


def _turned(image: RawImage, header: ImageHeader, found: Findings) -> bool:
    """Return whether the boxes are those of the image as stored, without its EXIF rotation."""
    said, upright = (image.width, image.height), (header.width, header.height)
    if header.orientation == 1:
        if None not in said and said != upright and 0 not in said:
            found.add_("other size", f"{image.path} is {upright[0]} x {upright[1]}, not {said[0]} x {said[1]}")
        return False
    if header.orientation >= 5 and said == upright[::-1] != upright:
        found.add_("rotated boxes", image.path)
        return True
    found.add_("rotated", image.path)
    return False


def _known(thing: RawObject, places: Mapping[str, int], found: Findings) -> RawObject | None:
    """Return the object if it has a class that is declared, and a finite box or a mask."""
    if thing.name not in places:
        found.add_("unknown class", f"{thing.place}: {thing.name!r}{nearest(thing.name, places)}")
        return None
    if thing.box is None:
        valid = thing.shape is not None
    else:
        valid = all(map(math.isfinite, thing.box)) and max(map(abs, thing.box)) < 2**31
    if not valid:
        found.add_("invalid", f"{thing.place}: {_shown(thing)}")
    return thing if valid else None


def _settle_shape(thing: RawObject, header: ImageHeader, scaled: bool, turned: bool, found: Findings) -> Shape | None:
    """Return the mask of an object in pixels of the upright image, None if it has none that can be used."""
    shape = thing.shape
    if isinstance(shape, Polygons) and not scaled and not turned:
        return shape
    if isinstance(shape, Polygons):
        side = np.array([header.width, header.height] if scaled else [1, 1], np.float64)
        parts = tuple(turn_points(part * side, header) if turned else part * side for part in shape.parts)
        return Polygons(parts=parts)
    if shape is None:
        return None
    height, width = (header.width, header.height) if turned else (header.height, header.width)
    if (shape.height, shape.width) != (height, width):
        found.add_(
            "mask size",
            f"{thing.place}: the mask has {shape.width} x {shape.height} pixels, the image {width} x {height}",
        )
        return None
    return rle_of(turn_mask(pixels_of(shape, height=height, width=width), header)) if turned else shape


def _box(thing: RawObject, shape: Shape | None) -> tuple[float, float, float, float]:
    if thing.box is not None:
        return thing.box
    return (shape and box_of(shape)) or (0.0, 0.0, 0.0, 0.0)  # empty, which is reported


def _checked(
    boxes: np.ndarray, places: Sequence[str], header: ImageHeader, found: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes in order and within the image, and which of them can be used, bool [n]."""
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    side = np.array([header.width, header.height], np.float64)
    empty = (low >= high).any(1)
    swapped = (boxes[:, :2] > boxes[:, 2:]).any(1) & ~empty
    outside = ((high <= 0) | (low >= side)).any(1) & ~empty
    clipped = ((low < -_ROUNDING) | (high > side + _ROUNDING)).any(1) & ~empty & ~outside
    tiny = (high - low < 1).all(1) & ~empty & ~outside
    kinds = {"swapped": swapped, "empty": empty, "outside": outside, "clipped": clipped, "tiny": tiny}
    for kind, which in kinds.items():
        for i in np.flatnonzero(which).tolist():
            text = ", ".join(f"{value:.6g}" for value in boxes[i])
            found.add_(kind, f"{places[i]}: ({text}) in {header.width} x {header.height}")
    within = np.concatenate((np.clip(low, 0, side), np.clip(high, 0, side)), axis=1)
    return within, ~empty & ~outside


def _first(boxes: np.ndarray, things: Sequence[RawObject], usable: np.ndarray, found: Findings) -> np.ndarray:
    """Return which boxes do not repeat an earlier one of the same class, bool [n]."""
    seen: dict[tuple[object, ...], str] = {}
    is_first = np.ones(len(boxes), bool)
    for i in np.flatnonzero(usable).tolist():
        key = (things[i].name, things[i].crowd, *np.round(boxes[i], 3).tolist())
        if key in seen:
            found.add_("duplicate", f"{things[i].place} repeats {seen[key]}")
            is_first[i] = False
        seen.setdefault(key, things[i].place)
    return is_first


def _flags(kind: str, things: Sequence[RawObject], found: Findings) -> np.ndarray:
    flags = np.array([getattr(thing, kind) for thing in things], bool)
    for i in np.flatnonzero(flags).tolist():
        found.add_(kind, things[i].place)
    return flags


def _area(thing: RawObject, shape: Shape | None, box: np.ndarray) -> float:
    if thing.area is not None and math.isfinite(thing.area) and thing.area > 0:
        return thing.area
    return area_of(shape) if shape is not None else float((box[2] - box[0]) * (box[3] - box[1]))


def _report_test_only(found_set: AnnotatedSet, found: Findings) -> None:
    counts = found_set.counts()
    if "train" not in counts:
        return
    for split in ("val", "test"):
        for place in np.flatnonzero((counts["train"] == 0) & (counts.get(split, counts["train"]) > 0)):
            found.add_("test only", f"{found_set.class_names[place]}: {counts[split][place]:,} objects in {split}")
