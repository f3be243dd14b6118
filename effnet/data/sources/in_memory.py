"""List images in memory: a program's arrays, the items of a map-style data set such as torch's, built-in digits."""

import importlib.util
import io
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from effnet.data.images.decode import Decoding, convert_pillow
from effnet.data.labels import CLASSES, LabelKind
from effnet.data.several.outputs import NamedLabels, read_labels
from effnet.data.sources.source import Listing, Part
from effnet.errors import DataError, ImageError, MissingExtraError

Labels = Sequence[int] | Sequence[str] | Sequence[Mapping[str, Any]] | np.ndarray
Arrays = np.ndarray | Sequence[np.ndarray]


@runtime_checkable
class MapStyle(Protocol):
    """A data set as torch.utils.data.Dataset defines it: item `index` is (image, label)."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Return an image and its label."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryImage:
    """An image that `load` returns as uint8 [H, W, C] for its `index`."""

    load: Callable[[int], np.ndarray] = field(repr=False)
    index: int
    table: str

    @property
    def name(self) -> str:
        """The table and the index, as in arrays/train[17]."""
        return f"{self.table}[{self.index}]"

    @property
    def block(self) -> int:
        """The number 0: all of the memory is available."""
        return 0

    def read(self) -> bytes:
        """Return the image as a .npy file; raise ImageError if the program's data set cannot give it."""
        try:
            pixels = self.load(self.index)
        except Exception as error:  # of the user's code
            raise ImageError(f"{self.name}: {type(error).__name__}: {error}") from error
        stream = io.BytesIO()
        np.save(stream, pixels, allow_pickle=False)
        return stream.getvalue()


def list_arrays(
    parts: dict[str, tuple[Arrays, Labels]],
    *,
    class_names: Sequence[str] | None,
    name: str,
    label_kind: LabelKind = CLASSES,
) -> Listing:
    """Return the listing of arrays by split, "" if they are not split; see `Dataset.from_arrays`.

    Raises DataError if images, labels and class names do not match.
    """
    parts = {split: (images, _labels_of(labels)) for split, (images, labels) in parts.items()}
    every: list[Any] = [labels for _, labels in parts.values()]
    found = _read(every, class_names, label_kind)
    listed = {}
    for (split, (images, labels)), read in zip(parts.items(), found.texts, strict=True):
        if len(images) != len(labels):
            raise DataError(f"there must be a label for each image; got {len(images)} images and {len(labels)} labels")
        digest = 0
        for index in range(len(images)):
            image = np.ascontiguousarray(_checked(images[index], index))
            digest = zlib.crc32(image.data, zlib.crc32(str(image.shape).encode(), digest))
        # The name holds a hash of the content, so that changed images are other images.
        table = _table(f"{name}-{digest:08x}", split)
        load = _ArrayImages(images)
        listed[split] = _part(load, len(images), read, table=table)
    return _listing(name, listed, found)


def _labels_of(labels: Labels) -> list[Any]:
    """Return labels as a list; those that are arrays, such as masks, may differ in size."""
    if any(isinstance(label, np.ndarray) and label.ndim for label in labels):
        return list(labels)
    found: list[Any] = np.asarray(labels).tolist()
    return found


def list_items(parts: dict[str, MapStyle], *, class_names: Sequence[str] | None, name: str) -> Listing:
    """Return the listing of map-style data sets by split, "" if they are not split; see `Dataset.from_torch`.

    Raises DataError if an image cannot be used, or if labels and class names do not match.
    """
    labels = {split: _labels(items) for split, items in parts.items()}
    told = next((names for items in parts.values() if (names := _told_names(items))), None)
    found = _read(list(labels.values()), class_names or told, CLASSES)
    listed = {}
    for (split, items), read in zip(parts.items(), found.texts, strict=True):
        load, count, table = _ItemImages(items), len(items), _table(name, split)
        if any(not np.array_equal(load(index), load(index)) for index in _some(count)):
            raise DataError(
                f"the images of {name} must be the same each time they are read; they are not: leave augmentation out "
                "of its transform, effnet augments them"
            )
        listed[split] = _part(load, count, read, table=table)
    return _listing(name, listed, found)


def _read(labels: list[Any], class_names: Sequence[str] | None, kind: LabelKind) -> NamedLabels:
    """Return the labels of a program; mappings are labels of several outputs."""
    if kind is CLASSES and any(isinstance(label, Mapping) for some in labels for label in some):
        return read_labels(labels, class_names)
    names, texts = kind.read(labels, class_names)
    return NamedLabels(kind=kind, names=names, texts=texts)


def _listing(name: str, parts: dict[str, Part], labels: NamedLabels) -> Listing:
    return Listing(
        name=name,
        parts=parts,
        class_names=labels.names,
        channels=_channels(parts),
        label_kind=labels.kind,
        outputs=labels.outputs,
    )


def list_digits() -> Listing:
    """Return the listing of scikit-learn's handwritten digits."""
    pixels, targets = _load_digits()
    images = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    notes = ["The images are scikit-learn's 1,797 handwritten digits, 8 x 8, grey."]
    if os.path.isdir("digits"):
        notes.insert(0, "The built-in digits are used; for the folder of that name write ./digits.")
    part = Part(sources=tuple(images), labels=tuple(str(target) for target in targets))
    return Listing(name="digits", parts={"": part}, notes=tuple(notes), mirror_safe=False, channels=1)


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels, from 0 to 16, and the labels of scikit-learn's digits."""
    try:
        package: Any = importlib.util.find_spec("sklearn")
        (folder,) = package.submodule_search_locations
    except (ImportError, AttributeError) as error:
        raise MissingExtraError("scikit-learn", "train") from error
    # The file is read without the package: importing that takes longer than planning and training a small network.
    path = Path(folder) / "datasets/data/digits.csv.gz"
    if path.is_file():
        table = np.loadtxt(path, delimiter=",")
        return table[:, :-1], table[:, -1].astype(int)
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _table(name: str, split: str) -> str:
    """Return the name of a split's images; a point in it would look like a file's suffix."""
    return f"{name.replace('.', '_')}{split and '/'}{split}"


def _part(load: Callable[[int], np.ndarray], count: int, labels: Sequence[str], *, table: str) -> Part:
    sources = tuple(MemoryImage(load=load, index=index, table=table) for index in range(count))
    return Part(sources=sources, labels=tuple(labels))


def _channels(parts: dict[str, Part]) -> int | None:
    """Return the channels of the first image; None without any, which `arrange` reports."""
    first = next((part.sources[0] for part in parts.values() if part.sources), None)
    return first.load(first.index).shape[2] if isinstance(first, MemoryImage) else None


@dataclass(frozen=True, slots=True)
class _ArrayImages:
    images: Arrays

    def __call__(self, index: int) -> np.ndarray:
        return _checked(self.images[index], index)


def _checked(image: Any, index: int) -> np.ndarray:
    """Return an array as uint8 [H, W, C]."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(
            f"images must be uint8 arrays [height, width] or [height, width, channels] with values 0 to 255; image "
            f"{index} is {got}: convert it"
        )
    return image if image.ndim == 3 else image[..., None]


@dataclass(frozen=True, slots=True)
class _ItemImages:
    items: MapStyle

    def __call__(self, index: int) -> np.ndarray:
        return _pixels(self.items[index][0], index)


def _pixels(image: Any, index: int) -> np.ndarray:
    """Return the image of an item as uint8 [H, W, C]: a Pillow image, an array, or a tensor [C, H, W]."""
    if isinstance(image, Image.Image):
        return convert_pillow(image, Decoding(channels=1 if image.mode in ("1", "L", "I;16") else 3))
    if isinstance(image, np.ndarray):
        return _checked(image, index)
    try:
        values = np.asarray(image)
    except Exception as error:
        raise DataError(f"image {index} must be a Pillow image, an array or a tensor on the CPU: {error}") from error
    values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    if values.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 1:
        values = np.rint(values * np.float32(255)).astype(np.uint8)
    if values.dtype != np.uint8:
        raise DataError(
            f"image {index} must be a Pillow image, an array, or a tensor [channels, height, width] of uint8 or of "
            f"0 to 1; got {type(image).__name__} of {values.dtype}: leave normalisation out of its transform"
        )
    return _checked(values, index)


def _labels(items: MapStyle) -> list[Any]:
    """Return every label: torchvision's `targets` if the items agree with them, else those of the items."""
    targets, count = getattr(items, "targets", None), len(items)
    if count and targets is not None and len(targets) == count:
        found = np.asarray(targets).tolist()
        if all(_label(items, index) == found[index] for index in _some(count)):
            return found
    return [_label(items, index) for index in range(count)]


def _label(items: MapStyle, index: int) -> Any:
    try:
        _, label = items[index]
        return _plain(label)
    except Exception as error:  # of the user's code
        raise DataError(
            f"item {index} of the data set must be (image, label); reading it fails: {type(error).__name__}: {error}"
        ) from error


def _some(count: int) -> set[int]:
    """Return the first, a middle and the last index."""
    return {0, count // 2, count - 1} if count else set()


def _plain(label: Any) -> Any:
    """Return a label as a number or text; an array or a tensor must hold one."""
    if isinstance(label, Mapping):
        return {name: value if isinstance(value, list | tuple) else _plain(value) for name, value in label.items()}
    return label if isinstance(label, str | int | set | frozenset) else np.asarray(label).tolist()


def _told_names(items: MapStyle) -> Sequence[str] | None:
    """Return torchvision's `classes`, if the data set has them."""
    found = getattr(items, "classes", None)
    return found if isinstance(found, list | tuple) and all(isinstance(name, str) for name in found) else None
