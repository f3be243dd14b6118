"""Import the projects that effnet is compared with, so that they work with any build of torch."""

import contextlib
import importlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import torch

from effnet.tasks.boxes.suppress import suppress

# A library's declarations live as long as the object that made them.
_DECLARED: list[torch.library.Library] = []


def import_timm() -> ModuleType:
    """Import timm, with its create_model and its transforms; raises ModuleNotFoundError if it is absent."""
    _declare_missing_operators()
    return _import("timm", "timm.data")


def import_torchvision() -> ModuleType:
    """Import torchvision, with models and transforms; raises ModuleNotFoundError if it is absent.

    If its compiled part does not match torch, operators such as nms and roi_align fail when called.
    """
    _declare_missing_operators()
    return _import("torchvision", "torchvision.models", "torchvision.transforms")


def import_torchvision_detection(*, most: int) -> ModuleType:
    """Import torchvision with its detectors and their transforms; raises ModuleNotFoundError if it is absent.

    If its compiled part does not match torch, effnet's equal suppression stands in, which stops at the `most` boxes of
    an image that a detector keeps of its result.
    """
    torchvision = import_torchvision()
    _import("torchvision", "torchvision.models.detection", "torchvision.transforms.v2", "torchvision.tv_tensors")
    if _DECLARED:
        torchvision.ops.boxes.batched_nms = partial(first_kept, most=most)
    return torchvision


def import_keras() -> ModuleType:
    """Import keras with torch as its backend; raises ModuleNotFoundError if it is absent."""
    os.environ["KERAS_BACKEND"] = "torch"
    keras = _import("keras", "keras.applications")
    if keras.backend.backend() != "torch":
        raise ImportError(f"keras must run on torch but was imported with {keras.backend.backend()} before")
    return keras


def import_effdet() -> ModuleType:
    """Import effdet, without compiling its functions; raises ModuleNotFoundError if it is absent.

    If torchvision's compiled part does not match torch, the same suppression is computed here.
    """
    _declare_missing_operators()
    torch.jit._state.disable()
    try:
        effdet = _import("effdet", "effdet.anchors", "effdet.bench", "effdet.config", "effdet.loss", "effdet.version")
    finally:
        torch.jit._state.enable()
    if _DECLARED:
        effdet.anchors.batched_nms = _batched_nms
    return effdet


def import_smp() -> ModuleType:
    """Import segmentation_models_pytorch; raises ModuleNotFoundError if it is absent."""
    _declare_missing_operators()
    return _import("segmentation_models_pytorch")


def first_kept(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float, *, most: int
) -> torch.Tensor:  # fmt: skip
    """Return the first `most` places that torchvision's batched_nms keeps."""
    kept = suppress(boxes.numpy(), scores.numpy(), idxs.numpy(), iou=iou_threshold, most=most)
    return torch.from_numpy(kept)


def suppress_first(effdet: ModuleType, most: int) -> None:
    """Let effdet's suppression end at the first `most` boxes if torchvision's compiled part is absent."""
    if effdet.anchors.batched_nms is _batched_nms:
        effdet.anchors.batched_nms = partial(first_kept, most=most)


def _batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:  # fmt: skip
    """Return the places that torchvision's batched_nms keeps, by its algorithm: within a class, one after the other."""
    sides = boxes[:, 2:] - boxes[:, :2]
    areas, kept = sides[:, 0] * sides[:, 1], []
    left = torch.argsort(scores, descending=True, stable=True)
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low, high = torch.maximum(boxes[first, :2], boxes[left, :2]), torch.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        over = shared / (areas[first] + areas[left] - shared) > iou_threshold
        left = left[~(over & (idxs[left] == idxs[first]))]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long)


def _import(name: str, *parts: str) -> ModuleType:
    with _quiet():
        module = importlib.import_module(name)
        for part in parts:
            importlib.import_module(part)
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _declare_missing_operators() -> None:
    """Declare torchvision's operators if its compiled part cannot be loaded.

    Its wheels are linked with CUDA. With a torch without CUDA they do not load, and importing torchvision fails,
    because it registers derivatives and shapes of undeclared operators. Any schema works: classification models and
    transforms never call them.
    """
    found = importlib.util.find_spec("torchvision")
    if _DECLARED or found is None or found.origin is None:
        return
    folder = Path(found.origin).parent
    if _loads(folder):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    sources = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("_*_registrations.py")))
    for operator in sorted({name for text in sources for name in re.findall(r'"torchvision::(\w+)"', text)}):
        library.define(f"{operator}(Tensor input) -> Tensor")
    _DECLARED.append(library)


def _loads(folder: Path) -> bool:
    for path in (folder / f"_C{suffix}" for suffix in (*EXTENSION_SUFFIXES, ".so", ".pyd")):
        if path.is_file():
            with contextlib.suppress(OSError):
                torch.ops.load_library(path)
                return True
    return False
