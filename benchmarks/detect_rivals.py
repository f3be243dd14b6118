"""torchvision's SSDlite and FCOS, and effdet's EfficientDet-Lite0, trained on annotated images for some minutes.

They are the peers' own heads, matching, losses and post-processing, torchvision's augmentation, on the same real Lite0
backbone that effnet starts from, so that all begin with the same weights of classification; there are none of COCO, for
either side. As in torchvision's references: SGD with momentum, a warm-up and a cosine, which here follows the clock and
ends with the minutes. The statistics of the backbone's BatchNorm stay, since batches are small. The last weights, or
those of one of the checks before them, are kept by their AP on the validation images.

`python -m benchmarks.detect_rivals ssdlite PATH --minutes 1` trains one and prints what it finds.
"""

import argparse
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.detect_rivals_networks import BACKBONE, MOMENTUM, Kind, made
from effnet.data.annotated.objects import BOTTOM, CLASS, LEFT, NORMAL, STATE, present, to_annotated
from effnet.data.annotated.record import Annotated
from effnet.data.datasets import Dataset, Split, loaded_image, read_dataset
from effnet.data.images.decode import Decoding
from effnet.data.preprocess import Preprocess
from effnet.data.view.letterbox import fit_image
from effnet.data.view.resample import resample
from effnet.errors import ImageError
from effnet.measurement.detection.figures import figures
from effnet.measurement.detection.matching import match
from effnet.measurement.detection.score import score
from effnet.tasks.boxes.record import Detections
from effnet.training.detection.validated import most_detections

CHECKS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The parts of the time after which the validation images are looked at, beside the end."""
_SCALES = (0.6, 1.6)
_WARM_UP, _LARGEST_GRADIENT, _TOGETHER = 0.05, 10.0, 8
_TITLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """COCO's AP and AP50 on the test images in percent, the seconds of training, and its epochs."""

    ap: float
    ap50: float
    seconds: float
    epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """The learning rate of a batch of 16, the part of it that the pretrained backbone gets, and the weight decay."""

    lr: float
    backbone: float
    decay: float


RECIPES = {
    "ssdlite": _Recipe(lr=0.03, backbone=0.1, decay=4e-5),
    "fcos": _Recipe(lr=0.01, backbone=1.0, decay=1e-4),
    "effdet": _Recipe(lr=0.02, backbone=1.0, decay=4e-5),  # automl's 0.08 of a batch of 64
}
Sample = tuple[Tensor, np.ndarray]


def train_rival(kind: Kind, dataset: Dataset, *, minutes: float, seed: int, side: int = 320) -> Rival:
    """Train a detector of torchvision on `dataset.train` for `minutes`, and return its result on `dataset.test`."""
    start = time.perf_counter()
    every = (split.labels for split in (dataset.train, dataset.val, dataset.test))
    most = most_detections([to_annotated(target) for labels in every for target in labels])
    if kind == "ssdlite":
        most = max(300, most)  # torchvision's own number
    vision = peers.import_torchvision_detection(most=most)
    torch.manual_seed(seed)
    model, preprocess, norms = made(vision, kind, dataset, side, most)
    samples = list(_samples(dataset.train, preprocess, 2 * side))
    transform = transform_of(vision, kind, preprocess, side, mirror=dataset.mirror_safe)
    val = _held_out(dataset.val, kind, preprocess, side)
    best, best_ap, checks = model.state_dict(), -1.0, [*CHECKS, 1.0]

    def check(done: float) -> None:
        nonlocal best, best_ap
        if not checks or done < checks[0]:
            return
        while checks and done >= checks[0]:
            checks.pop(0)
        ap = _validation_ap(model, kind, val, dataset)
        print(f"{kind}: {done:.0%} of the time, AP {ap:.1f} on the validation images", flush=True)
        if ap >= best_ap:
            best, best_ap = copy.deepcopy(model.state_dict()), ap

    batches = _Batches(vision, samples, transform, size=8, shift=int(kind == "ssdlite"))
    epochs = _train(model, norms, batches, RECIPES[kind], start=start, seconds=60 * minutes, check=check)
    model.load_state_dict(best)
    seconds = time.perf_counter() - start
    test = _held_out(dataset.test, kind, preprocess, side)
    found = score(
        [truth for _, _, truth in test], detections(model, kind, test), dataset.class_names, input_size=(side, side)
    )
    return Rival(ap=100 * found.ap, ap50=100 * found.ap50, seconds=seconds, epochs=epochs)


def transform_of(
    vision: ModuleType, kind: Kind, preprocess: Preprocess, side: int, *, mirror: bool
) -> Callable[..., Any]:
    """Return torchvision's augmentation: of SSD crops by overlap, of FCOS crops at several scales; colours of SSD."""
    v2 = vision.transforms.v2
    if kind == "ssdlite":
        parts = [v2.RandomIoUCrop(), v2.Resize((side, side), antialias=True)]
    else:
        crop = v2.RandomCrop((side, side), pad_if_needed=True, fill=preprocess.fill)
        parts = [v2.ScaleJitter((side, side), scale_range=_SCALES, antialias=True), crop]
    parts += [v2.RandomHorizontalFlip(0.5)] * mirror
    parts += [v2.RandomPhotometricDistort(p=0.5), v2.SanitizeBoundingBoxes(min_size=2)]
    found: Callable[..., Any] = v2.Compose([*parts, v2.ToDtype(torch.float32, scale=True)])
    return found


class _Batches:
    """Random batches, epoch after epoch, in the form of torchvision's detectors."""

    def __init__(
        self, vision: ModuleType, samples: Sequence[Sample], transform: Callable[..., Any], *, size: int, shift: int
    ) -> None:
        self.vision, self.samples, self.transform, self.shift = vision, samples, transform, shift
        self.size = min(size, len(samples))

    def __len__(self) -> int:
        return len(self.samples) // self.size

    def __iter__(self) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
        order = torch.randperm(len(self.samples)).tolist()
        for first in range(0, len(self) * self.size, self.size):
            pairs = [self._one(*self.samples[index]) for index in order[first : first + self.size]]
            yield [image for image, _ in pairs], [target for _, target in pairs]

    def _one(self, image: Tensor, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = self.vision.tv_tensors
        boxes = torch.from_numpy(rows[:, LEFT : BOTTOM + 1].astype(np.float32))
        target = {
            "boxes": tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[-2:]),
            "labels": torch.from_numpy(rows[:, CLASS].astype(np.int64)) + self.shift,
        }
        shown, target = self.transform(tensors.Image(image), target)
        return shown.as_subclass(Tensor), {name: each.as_subclass(Tensor) for name, each in target.items()}


def _train(
    model: nn.Module,
    norms: Sequence[nn.BatchNorm2d],
    batches: _Batches,
    recipe: _Recipe,
    *,
    start: float,
    seconds: float,
    check: Callable[[float], None],
) -> int:
    """Train until `seconds` have passed since `start`; return the epochs begun."""
    peak = recipe.lr * batches.size / 16
    known = {each for name, each in model.named_parameters() if name.startswith(BACKBONE)}
    groups = [
        ([each for each in model.parameters() if each.requires_grad and (each in known) == old], peak * share)
        for old, share in ((False, 1.0), (True, recipe.backbone))
    ]
    optimizer = torch.optim.SGD(
        [{"params": own, "lr": lr} for own, lr in groups], momentum=0.9, weight_decay=recipe.decay
    )
    fresh = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d) and each not in norms]
    begun, losses, step, epochs, told = time.perf_counter(), [], 0, 0, 0
    while True:
        epochs += 1
        for images, targets in batches:
            done = (time.perf_counter() - begun) / (seconds - (begun - start))
            check(done)
            if int(_TITLES * done) > told:
                told = int(_TITLES * done)
                print(f"{done:.0%}, epoch {epochs}, step {step}: loss {np.mean(losses):.3f}", flush=True)
                losses = []
            if done >= 1:
                return epochs
            warm = min(1.0, done / _WARM_UP)
            for group, (_, lr) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * done))
            model.train()
            for norm in norms:
                norm.eval()
            for norm in fresh:  # the plain mean of the first steps: a run of few steps must not keep the initial values
                norm.momentum = max(MOMENTUM, 1 / (step + 1))
            loss = sum(model(images, targets).values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for own, _ in groups:
                nn.utils.clip_grad_norm_(own, _LARGEST_GRADIENT)
            optimizer.step()
            losses.append(loss.item())
            step += 1


def _samples(split: Split, preprocess: Preprocess, most: int) -> Iterator[Sample]:
    """Yield the readable images, uint8 [C, H, W] of at most `most` pixels a side, and the objects to be learnt."""
    for image, rows in _decoded(split, preprocess):
        share = min(1.0, most / max(image.shape[:2]))
        sides = {"height": max(1, round(image.shape[0] * share)), "width": max(1, round(image.shape[1] * share))}
        shrunk = resample(image, interpolation="bicubic", **sides)
        rows = present(rows)
        rows = rows[rows[:, STATE] == NORMAL].copy()
        rows[:, LEFT : BOTTOM + 1] *= np.tile(np.array(shrunk.shape[1::-1]) / image.shape[1::-1], 2)
        yield torch.from_numpy(shrunk.transpose(2, 0, 1).copy()), rows


def _decoded(split: Split, preprocess: Preprocess) -> Iterator[Sample | Any]:
    decoding = Decoding(channels=preprocess.channels)
    for index in range(len(split)):
        try:
            with loaded_image(split, index, decoding) as found:
                yield np.array(found), split.labels[index]
        except ImageError as error:
            print(f"left out: {error}", flush=True)


def _held_out(split: Split, kind: Kind, preprocess: Preprocess, side: int) -> list[tuple[np.ndarray, Any, Annotated]]:
    """Return whole images, uint8 [side, side, C], a function of their boxes to those of the image, and the objects.

    SSD squeezes an image into the square, FCOS keeps its proportions.
    """
    found = []
    for image, rows in _decoded(split, preprocess):
        height, width = image.shape[:2]
        if kind == "ssdlite":
            shown = resample(image, width=side, height=side, interpolation="bilinear")
            scale = np.tile(np.array([width, height]) / side, 2)
            back: Callable[[np.ndarray], np.ndarray] = lambda boxes, scale=scale: boxes * scale  # noqa: E731
        else:
            shown, place = fit_image(image, input_height=side, input_width=side, fill=preprocess.fill)
            back = place.to_image
        found.append((shown, back, to_annotated(rows, size=(width, height))))
    return found


@torch.no_grad()
def detections(model: nn.Module, kind: Kind, images: Sequence[tuple[np.ndarray, Any, Annotated]]) -> list[Detections]:
    """Return the objects that a detector finds in `_held_out` images, in pixels of the original images."""
    model.eval()
    found = []
    for first in range(0, len(images), _TOGETHER):
        some = images[first : first + _TOGETHER]
        pixels = [torch.from_numpy(shown.transpose(2, 0, 1).copy()).float() / 255 for shown, _, _ in some]
        for own, (_, back, _) in zip(model(pixels), some, strict=True):
            boxes = back(own["boxes"].double().numpy())
            inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
            classes = own["labels"].numpy() - int(kind == "ssdlite")
            found.append(Detections(boxes=boxes[inside], scores=own["scores"].numpy()[inside], classes=classes[inside]))
    return found


def _validation_ap(model: nn.Module, kind: Kind, val: Sequence[Any], dataset: Dataset) -> float:
    truths = [truth for _, _, truth in val]
    if not truths:
        return 0.0
    found = detections(model, kind, val)
    classes = len(dataset.class_names)
    matches = match(truths, found, num_classes=classes, max_detections=most_detections(truths))
    return 100 * (figures(matches).ap or 0.0)


def main() -> None:
    """Train one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(RECIPES))
    parser.add_argument("data", help="annotated images")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--lr", type=float, help="another learning rate of a batch of 16")
    args = parser.parse_args()
    if args.lr:
        RECIPES[args.kind] = dataclasses.replace(RECIPES[args.kind], lr=args.lr)
    dataset = read_dataset(args.data, seed=args.seed)
    print(train_rival(args.kind, dataset, minutes=args.minutes, seed=args.seed, side=args.side))


if __name__ == "__main__":
    main()
