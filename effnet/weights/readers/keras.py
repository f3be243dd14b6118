"""Keras' files: HDF5 as Keras 2 and Keras 3 write it, and the .keras archive around it."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from effnet.bundle.declared import MAX_BYTES, MAX_GROWTH, Declared, check_declared
from effnet.errors import WeightsError
from effnet.weights.readers.hdf5_format import Dataset, Group, Hdf5File

KERAS_MEMBER = "model.weights.h5"

_MAX_OBJECTS = 100_000

# Keras 3 numbers the variables of a layer; their number tells the kind of layer.
_NUMBERED = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    3: ("mean", "variance", "count"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A data set of a file, the names that lead to it, and the group that it lies in."""

    dataset: Dataset
    path: tuple[str, ...]
    parent: Group


def read_hdf5(source: BinaryIO, *, file_bytes: int, where: object) -> dict[str, np.ndarray]:
    """Return the floating-point arrays of a Keras file by `LAYER/WEIGHT`; counters and seeds are left out.

    Keras 2 stores `LAYER/.../kernel:0`; Keras 3 stores `layers/KIND/vars/0`, with the layer's name as an attribute.
    Raises WeightsError if it names no layers, is not HDF5 as Keras writes it, or declares more than a
    file of `file_bytes` bytes can contain; ValueError or struct.error if it is damaged.
    """
    file = Hdf5File(source, where)
    path: tuple[str, ...] = ()
    root = file.open(file.root, path="its root")
    if isinstance(root, Group) and "model_weights" in root.members:
        root, path = file.open(root.members["model_weights"], path="model_weights"), ("model_weights",)
    if not isinstance(root, Group):
        raise ValueError("it has no groups")
    found = list(_datasets(file, root, path, where=where))
    declared = (
        Declared(name="/".join(one.path), shape=one.dataset.shape, itemsize=one.dataset.dtype.itemsize) for one in found
    )
    check_declared(declared, file_bytes=file_bytes, where=where)
    return {_key(one, where=where): file.numbers(one.dataset) for one in found}


def _datasets(file: Hdf5File, root: Group, path: tuple[str, ...], *, where: object) -> Iterator[_Found]:
    """Yield every data set once: shared layers have several paths, and groups may form cycles."""
    waiting, seen = [(root, path)], {file.root}
    for group, path in waiting:  # which grows
        for name, place in group.members.items():
            if place in seen:
                continue
            seen.add(place)
            if len(seen) > _MAX_OBJECTS:
                raise WeightsError(f"{where} must hold at most {_MAX_OBJECTS:,} objects; save the weights alone")
            item = file.open(place, path="/".join((*path, name)))
            if isinstance(item, Group):
                waiting.append((item, (*path, name)))
            elif item is not None:
                yield _Found(item, (*path, name), group)


def _key(found: _Found, *, where: object) -> str:
    """Return `LAYER/WEIGHT` for one dataset of a Keras file."""
    *_, layer, part = ("", *found.path)
    if not part.isdecimal():
        return f"{layer}/{part.removesuffix(':0')}"
    name, names = found.parent.name, _NUMBERED.get(len(found.parent.members), ())
    if layer != "vars" or not name or len(part) > 1 or int(part) >= len(names):
        raise WeightsError(
            f"{where} must hold the names of its layers; /{'/'.join(found.path)} has none; save it with Keras 3.4 or "
            "newer, or with model.save_weights('NAME.h5') of Keras 2"
        )
    return f"{name}/{names[int(part)]}"


def read_keras_archive(file: BinaryIO, archive: zipfile.ZipFile, *, where: object) -> dict[str, np.ndarray]:
    """Return the arrays of a .keras archive, opened from `file`, by `LAYER/WEIGHT`; read nothing else in it.

    Raises the errors of `read_hdf5`, and those of zipfile if it is damaged.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    info, most = archive.getinfo(KERAS_MEMBER), min(MAX_BYTES, MAX_GROWTH * file_bytes)
    if info.file_size > most:
        raise WeightsError(
            f"{where} must hold the weights that it declares; {KERAS_MEMBER} in it has {info.file_size:,} bytes, and "
            f"at most {most:,} are read from {file_bytes:,}; save it with Keras again"
        )
    with archive.open(info) as member:
        content = member.read(info.file_size)
    return read_hdf5(io.BytesIO(content), file_bytes=file_bytes, where=where)
