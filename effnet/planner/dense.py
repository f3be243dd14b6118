"""The detectors and segmenters that a plan chooses from: backbone x sides of the input x decoder x precision."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.decoders.usual import with_detector, with_segmenter
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.data.annotated.sizes import SIDES
from effnet.data.inspection.shapes import Shapes
from effnet.data.preprocess import Preprocess
from effnet.data.view.letterbox import fit_sides
from effnet.planner.pretrained import Offer
from effnet.planner.search import TrainingNeed
from effnet.planner.space import Candidate, in_precision, only_candidate

# Images whose aspect ratios, but for the outer tenths, are within this factor get an input of the median one.
_ONE_ASPECT = 1.5
# Inputs are at most this many times larger than the images.
_MOST_ENLARGED = 1.25
# A rule of thumb that only orders the candidates, in points of AP or mIoU: a halved side, a point of ImageNet top-1,
# a doubled width of the decoder, a doubled width of a backbone that is trained from scratch.
_SIDE_POINTS, _TOP1_POINTS, _WIDTH_POINTS, _SCALE_POINTS = 10.0, 0.5, 1.0, 4.0
_UNKNOWN_TOP1 = 75.0
# Larger objects than this, in pixels of the input, are found no better in equal time: cards of 62 pixels (an input of
# 224) more surely than those of 107 (384) in one run of each, of which there is no record. Networks were pretrained at
# 224.
_LARGE_OBJECT = 64.0
_LOSSES: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.05, "bf16": 0.3, "w8": 0.2, "int8": 0.5}
# The widths of feature pyramids; EfficientDet's rise from 64 to 384.
_PYRAMIDS = (88, 64, 48)
# Backbones that are trained from scratch, by their phi.
_FAMILIES, _PHIS = ("lite0", "b0"), (1, 0, -1, -2, -4, -6, -8)
# The epochs that a network must be able to train.
_EPOCHS = 15


def dense_need(images: float, *, minutes: float, macs_per_second: float) -> TrainingNeed:
    """Return how large a network may be to train for enough epochs of `images` within `minutes`.

    Each second, training takes as many images as have `macs_per_second` in one inference.
    """
    most = 60 * minutes * macs_per_second / (_EPOCHS * images)
    reason = f"{_EPOCHS} epochs of {images:.0f} images must fit into {minutes:.3g} minutes"
    return TrainingNeed(images_per_second=0.0, most_macs=most, reason=reason)


def input_sizes(shapes: Shapes, *, longest: float) -> list[tuple[int, int]]:
    """Return the heights and widths of inputs for images of these shapes, the largest first.

    `longest` is the median longer side of the images. They have the images' aspect ratio if that is one, else they are
    square.
    """
    alike = shapes.high <= _ONE_ASPECT * shapes.low
    width, height = (round(1000 * shapes.median), 1000) if alike else (1, 1)
    sides = [side for side in SIDES if side <= max(SIDES[0], _MOST_ENLARGED * longest)]
    return [fit_sides(height, width, longer=side) for side in reversed(sides)]


def list_dense(
    offers: Sequence[Offer],
    *,
    task: str,
    num_classes: int,
    channels: int,
    sizes: Sequence[tuple[int, int]],
    precisions: Sequence[Precision],
    object_share: float | None = None,
) -> list[Candidate]:
    """Return every network for `task` on the backbones of `offers`, the one that promises most first.

    Without offers the backbones are those that are trained from scratch. `object_share` is the typical side of an
    object, as a share of the longer side of its image; inputs in which that is large gain nothing from more pixels.
    """
    longest = SIDES[-1] if object_share is None else _LARGE_OBJECT / object_share
    found: list[tuple[float, Candidate]] = []
    for backbone, preprocess, source, family, phi, points in _backbones(offers, channels):
        for height, width in sizes:
            own = dataclasses.replace(backbone.lineage, resolution=width)
            shaped = dataclasses.replace(
                backbone, resolution=width, height=0 if height == width else height, lineage=own
            )
            for spec, more in _decoded(shaped, task, num_classes):
                total = cost(spec)
                candidate = Candidate(
                    spec=spec, family=family, phi=phi, cost=total, size_mb=total.weight_bytes("fp32") / 1e6,
                    weights=source, preprocess=_whole_view(spec, preprocess),
                )  # fmt: skip
                expected = points + more + _SIDE_POINTS * math.log2(min(max(height, width), longest) / SIDES[-1])
                found += [(expected - _LOSSES[p], in_precision(candidate, p)) for p in precisions]
    return [c for _, c in sorted(found, key=lambda pair: (-pair[0], pair[1].cost.macs, pair[1].spec.name))]


def named_dense(network: ArchSpec, *, task: str) -> Candidate:
    """Return the candidate of a network for `task` that the user named; a backbone gets the decoder of `list_dense`."""
    if network.decoder is None:
        network, _ = next(_decoded(network, task, network.num_classes))
    view = _fresh_view(network.resolution, network.in_channels)
    return dataclasses.replace(only_candidate(network), preprocess=_whole_view(network, view))


def _whole_view(spec: ArchSpec, preprocess: Preprocess) -> Preprocess:
    """Return the preprocessing that shows whole images, at the top left of the network's input."""
    return dataclasses.replace(
        preprocess, resolution=spec.resolution, height=spec.height, mode="corner", crop=1.0, interpolation="bilinear"
    )


def _fresh_view(resolution: int, channels: int) -> Preprocess:
    """Return the preprocessing of networks that are trained from scratch."""
    half = (0.5,) * channels
    return Preprocess(resolution=resolution, mean=half, std=half)


def _backbones(offers: Sequence[Offer], channels: int) -> Iterator[tuple[ArchSpec, Preprocess, str, str, float, float]]:
    """Yield each backbone: its network, preprocessing, weights, family, phi, and what it promises."""
    for offer in offers:
        promised = _TOP1_POINTS * (offer.top1 or _UNKNOWN_TOP1)
        yield offer.spec, offer.preprocess, offer.source, offer.family, 0.0, promised
    for family in () if offers else _FAMILIES:
        base = dataclasses.replace(get_spec(family, in_channels=channels), padding="symmetric")
        view = _fresh_view(base.resolution, channels)
        for phi in _PHIS:
            yield scale(base, phi=phi), view, "", family, float(phi), _SCALE_POINTS * phi / 2


def _decoded(backbone: ArchSpec, task: str, num_classes: int) -> Iterator[tuple[ArchSpec, float]]:
    """Yield the backbone with each decoder, and the points that the decoder is worth."""
    if task == "detection":
        for channels in _PYRAMIDS:
            spec = with_detector(backbone, num_classes, channels=channels)
            yield _named(spec, f"detector {channels}"), _WIDTH_POINTS * math.log2(channels / _PYRAMIDS[0])
        return
    yield _named(with_segmenter(backbone, num_classes, kind="unet"), "U-Net"), 0.5
    yield _named(with_segmenter(backbone, num_classes, kind="pyramid"), "pyramid"), 0.0


def _named(spec: ArchSpec, note: str) -> ArchSpec:
    return dataclasses.replace(spec, lineage=dataclasses.replace(spec.lineage, note=note))
