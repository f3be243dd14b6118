"""Keras' files: HDF5 as Keras 2 and Keras 3 write it, and the .keras archive around it.

HDF5 can say that numbers lie in any other file of this machine: in external storage, virtual data sets, external
links. Keras writes none of these, nor compresses, so that what does is not read.
"""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from effnet.errors import WeightsError
from effnet.weights.declared import MAX_BYTES, MAX_GROWTH, Declared, check_declared

MAGIC = b"\x89HDF\r\n\x1a\n"
KERAS_MEMBER = "model.weights.h5"

_MAX_OBJECTS = 100_000
_MAX_NAME_BYTES = 1000
_MAX_NUMBER_BYTES = 8
_PLAIN_LAYOUTS = ("COMPACT", "CONTIGUOUS", "CHUNKED")

# Keras 3 numbers the variables of a layer; how many there are tells which kind of layer it is.
_NUMBERED = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    3: ("mean", "variance", "count"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A data set of a file, the names that lead to it, and the group that it lies in."""

    dataset: Any
    path: tuple[str, ...]
    parent: Any


def read_hdf5(source: BinaryIO, *, file_bytes: int, where: object) -> dict[str, np.ndarray]:
    """Returns the floating-point arrays of a Keras file by `LAYER/WEIGHT`; counters and seeds are left out.

    Keras 2 stores `LAYER/.../kernel:0`; Keras 3 stores `layers/KIND/vars/0`, with the layer's name as an attribute.
    Raises WeightsError where it names no layers, has its numbers elsewhere or declares more than `file_bytes`, the
    size of the file, can stand for; whatever h5py raises where it is damaged.
    """
    import h5py

    with h5py.File(source, "r") as file:
        root, path = file, ()
        if "model_weights" in file:
            root, path = _item(file, "model_weights", where=where), ("model_weights",)
        if not isinstance(root, h5py.Group):
            raise WeightsError(f"{where} must have the layers of a network in model_weights; save it with Keras anew")
        found = [one for one in _datasets(root, path, where=where) if one.dataset.dtype.kind == "f"]
        check_declared((_declared(one, where=where) for one in found), file_bytes=file_bytes, where=where)
        return {_key(one, where=where): one.dataset[()] for one in found}


def _item(group: Any, name: str, *, where: object) -> Any:
    """Returns what lies in a group under `name`; a link to elsewhere is never followed."""
    import h5py

    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise WeightsError(
            f"{where} must hold its arrays itself; {name[:80]} is a link to elsewhere, which Keras does not write; "
            "save it with Keras anew"
        )
    return group[name]


def _datasets(root: Any, path: tuple[str, ...], *, where: object) -> Iterator[_Found]:
    """Yields every data set once, whatever ways lead to it: shared layers have several, and groups may go round."""
    import h5py

    waiting, seen = [(root, path)], {h5py.h5o.get_info(root.id).addr}
    while waiting:
        group, path = waiting.pop(0)
        for name in group:
            item = _item(group, name, where=where)
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MAX_OBJECTS:
                raise WeightsError(f"{where} must hold at most {_MAX_OBJECTS:,} objects; save the weights alone")
            if isinstance(item, h5py.Group):
                waiting.append((item, (*path, name)))
            elif isinstance(item, h5py.Dataset):
                yield _Found(item, (*path, name), group)


def _declared(found: _Found, *, where: object) -> Declared:
    """Returns what a data set asks for; raises WeightsError where its numbers lie elsewhere, or are computed."""
    import h5py

    dataset, name = found.dataset, "/".join(found.path)
    layouts = [getattr(h5py.h5d, layout) for layout in _PLAIN_LAYOUTS]
    settings = dataset.id.get_create_plist()
    if settings.get_layout() not in layouts or settings.get_external_count():
        raise WeightsError(
            f"{where} must hold its arrays itself; {name} has its numbers in another file, which Keras does not write; "
            "save it with Keras anew"
        )
    if settings.get_nfilters():
        raise WeightsError(
            f"{where} must hold its arrays as Keras writes them; {name} is compressed or filtered; save it with Keras "
            "anew"
        )
    chunk = dataset.chunks or ()
    declared = Declared(name=name, shape=dataset.shape or (), itemsize=dataset.dtype.itemsize)
    sizes = [Declared(name=name, shape=shape, itemsize=declared.itemsize) for shape in (declared.shape, chunk)]
    if dataset.shape is None or dataset.dtype.itemsize > _MAX_NUMBER_BYTES or dataset.dtype.shape:
        raise WeightsError(f"{where}: {name} must be an array of numbers; got {str(dataset.dtype)[:40]}")
    if dataset.id.get_storage_size() < declared.size_bytes:
        raise WeightsError(
            f"{where} must hold the numbers that it declares; {name} lacks some; get it again, or save it anew"
        )
    return max(sizes, key=lambda size: size.size_bytes)


def _key(found: _Found, *, where: object) -> str:
    """Returns `LAYER/WEIGHT` for one dataset of a Keras file."""
    *_, layer, part = ("", *found.path)
    if not part.isdecimal():
        return f"{layer}/{part.removesuffix(':0')}"
    name, names = _layer_name(found.parent), _NUMBERED.get(len(found.parent), ())
    if layer != "vars" or name is None or int(part) >= len(names):
        raise WeightsError(
            f"{where} must carry the names of its layers; /{'/'.join(found.path)} has none; save it with Keras 3.4 or "
            "newer, or with model.save_weights('NAME.h5') of Keras 2"
        )
    return f"{name}/{names[int(part)]}"


def _layer_name(group: Any) -> str | None:
    """Returns the attribute `name` of a group where it is one short text."""
    if "name" not in group.attrs:
        return None
    attribute = group.attrs.get_id("name")
    if attribute.shape != () or attribute.get_storage_size() > _MAX_NAME_BYTES or attribute.dtype.kind not in "SO":
        return None
    name = group.attrs["name"]
    name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return name if isinstance(name, str) and len(name) <= _MAX_NAME_BYTES else None


def read_keras_archive(file: BinaryIO, archive: zipfile.ZipFile, *, where: object) -> dict[str, np.ndarray]:
    """Returns the arrays of a .keras archive, opened from `file`, by `LAYER/WEIGHT`, and reads nothing else in it.

    Raises what `read_hdf5` does, and whatever zipfile raises where it is damaged.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    info, most = archive.getinfo(KERAS_MEMBER), min(MAX_BYTES, MAX_GROWTH * file_bytes)
    if info.file_size > most:
        raise WeightsError(
            f"{where} must hold the weights that it declares; {KERAS_MEMBER} in it has {info.file_size:,} bytes, and "
            f"at most {most:,} are read from {file_bytes:,}; save it with Keras anew"
        )
    with archive.open(info) as member:
        content = member.read(info.file_size)
    return read_hdf5(io.BytesIO(content), file_bytes=file_bytes, where=where)
