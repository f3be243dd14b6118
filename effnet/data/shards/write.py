"""Write a data set as WebDataset shards with an index, all or nothing."""

import io
import itertools
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from effnet.data.datasets import Dataset, Split
from effnet.data.images.decode import IMAGE_SUFFIXES, image_header
from effnet.data.images.opening import FORMAT_SUFFIXES
from effnet.data.inspection.findings import SPLITS
from effnet.data.several.outputs import SEVERAL, to_values
from effnet.data.shards.file import Shard
from effnet.data.shards.index import FORMAT
from effnet.data.shards.tar import MAX_IMAGE_BYTES
from effnet.data.sources.names import INDEX
from effnet.data.sources.source import Skipped, encoded, refuse_if_strict, source_name
from effnet.errors import DataError, ImageError
from effnet.system.cache import Progress, file_digest
from effnet.system.files import read_bytes
from effnet.system.lock import alone_in
from effnet.system.text import printable

DEFAULT_SHARD_MB = 100.0

_USUAL_SUFFIXES = {"JPEG": "jpg", "TIFF": "tif", "PPM": "ppm", "JPEG2000": "jp2"}
_LONGEST_STEM = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The written shards, and the files that were skipped."""

    shards: tuple[Shard, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    key: str
    suffix: str
    data: bytes
    label_suffix: str
    label: bytes

    @property
    def size_bytes(self) -> int:
        """The size in a tar file: headers of image and label, and contents in whole blocks."""
        return 2 * tarfile.BLOCKSIZE + _in_blocks(self.data) + _in_blocks(self.label)


def _in_blocks(data: bytes) -> int:
    return -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def write_shards(
    dataset: Dataset,
    out: str | os.PathLike[str],
    *,
    shard_mb: float | None = None,
    per_shard: int | None = None,
    seed: int = 0,
    strict: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write train-000000.tar and so on, val and test, and effnet-shards.json into the folder `out`.

    The label of an image is in KEY.cls, those of several outputs are in KEY.json: {"label": {"gender": "Women"}}.
    A shard is closed before it exceeds `shard_mb` (10^6 bytes, 100 by default), or after `per_shard` images. Files
    are copied unchanged, arrays become PNG or, with other channels, .npy. The order of images is random, from `seed`;
    the same images give the same bytes. `progress` counts images. Files without a valid image header are skipped; with
    strict they are errors.

    Raises:
        DataError: the labels are boxes or masks, or `out` is not empty, cannot be written to or its disk is full; no
            incomplete files are left then.
    """
    if not dataset.label_kind.classes and dataset.label_kind is not SEVERAL:
        raise DataError(
            f"shards hold classes or several outputs; these data are for {dataset.task}: `effnet fit` reads their "
            "files directly"
        )
    limits = _limits(shard_mb, per_shard)
    out = Path(os.path.realpath(out))
    # Beside `out`, so that one rename moves it.
    scratch = out.with_name(f".{out.name}.part")
    try:
        with alone_in(out):
            _refuse_in_use(out)
            shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
            scratch.mkdir(parents=True)
            try:
                written = _write_all(dataset, scratch, limits=limits, seed=seed, progress=progress)
                refuse_if_strict(written.skipped, strict=strict)
                os.replace(scratch, out)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"OUT must be a writable folder, but {printable(out)} is not ({error.strerror}); no incomplete files were "
            "left"
        ) from error
    return written


def _limits(shard_mb: float | None, per_shard: int | None) -> tuple[float, float]:
    """Return the maximum bytes and the maximum number of images of a shard."""
    if shard_mb is not None and per_shard is not None:
        raise DataError("give --shard-mb or --per-shard, not both")
    if per_shard is not None:
        if per_shard < 1:
            raise DataError(f"a shard must hold at least 1 image, received {per_shard}")
        return float("inf"), per_shard
    size_mb = DEFAULT_SHARD_MB if shard_mb is None else shard_mb
    if not 0 < size_mb < float("inf"):
        raise DataError(f"the size of a shard must be positive, received {size_mb} MB")
    return size_mb * 1e6, float("inf")


def _refuse_in_use(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise DataError(f"OUT must be new or empty, but {printable(out)} is not; name another folder, or empty it")


def _write_all(
    dataset: Dataset, folder: Path, *, limits: tuple[float, float], seed: int, progress: Progress | None
) -> Written:
    skipped: list[Skipped] = []
    shards: list[Shard] = []
    total = sum(len(getattr(dataset, name)) for name in SPLITS)
    done = itertools.count(1)

    def tell() -> None:
        if progress:
            progress(next(done), total)

    for name in SPLITS:
        split = getattr(dataset, name)
        images = _images(split, _label_of(dataset), seed=seed, skipped=skipped, tell=tell)
        found = _write_split(images, folder, name, limits=limits)
        if not found:
            raise DataError(f"the split {name} must hold images, but none of its {len(split)} can be read")
        shards.extend(found)
    _write_index(dataset, shards, folder)
    return Written(shards=tuple(shards), skipped=tuple(skipped))


def _label_of(dataset: Dataset) -> Callable[[Any], tuple[str, bytes]]:
    """Return the function from a target to the suffix and the content of its file, KEY.cls or KEY.json."""
    if dataset.label_kind is not SEVERAL:
        return lambda target: ("cls", str(int(target)).encode())
    names = dataset.class_names
    return lambda target: ("json", json.dumps({"label": to_values(target, names)}, ensure_ascii=False).encode())


def _images(
    split: Split,
    label_of: Callable[[Any], tuple[str, bytes]],
    *,
    seed: int,
    skipped: list[Skipped],
    tell: Callable[[], None],
) -> Iterator[_Image]:
    """Yield the images of a split in random order: as few shards are read at a time, each should be a fair sample."""
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(split)).tolist()):
        tell()
        source = split.sources[index]
        name = source_name(source, "")
        try:
            data, suffix = _to_file(source) if isinstance(source, np.ndarray) else _file(encoded(source), name)
        except ImageError as error:
            skipped.append(Skipped(path=name, reason=str(error).removeprefix(f"{printable(name)}: ")))
            continue
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", os.path.splitext(os.path.basename(name))[0])[:_LONGEST_STEM].strip("_")
        key = f"{number:08d}-{stem}" if stem else f"{number:08d}"
        label_suffix, label = label_of(split.labels[index])
        yield _Image(key=key, suffix=suffix, data=data, label_suffix=label_suffix, label=label)


def _file(source: str | bytes, name: str) -> tuple[bytes, str]:
    """Return the unchanged bytes of a file, and its suffix, or the usual one of its format."""
    header = image_header(source, name=name)
    if isinstance(source, str):
        try:
            source = read_bytes(source, limit_bytes=MAX_IMAGE_BYTES)
        except OSError as error:
            raise ImageError(f"{printable(name)}: {(error.strerror or 'it cannot be read').lower()}") from error
    suffix = os.path.splitext(name)[1].lower()
    known = FORMAT_SUFFIXES.get(header.format, IMAGE_SUFFIXES)
    if suffix not in known:
        suffix = f".{_USUAL_SUFFIXES.get(header.format, header.format.lower())}"
    return source, suffix.removeprefix(".")


def _to_file(pixels: np.ndarray) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    if pixels.shape[2] not in (1, 3, 4):
        np.save(buffer, pixels, allow_pickle=False)
        return buffer.getvalue(), "npy"
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue(), "png"


def _write_split(images: Iterator[_Image], folder: Path, name: str, *, limits: tuple[float, float]) -> list[Shard]:
    shards: list[Shard] = []
    image = next(images, None)
    while image is not None:
        path, size, count = folder / f"{name}-{len(shards):06d}.tar", 0, 0
        with open(path, "xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                while image is not None and (not count or (size + image.size_bytes <= limits[0] and count < limits[1])):
                    _add(archive, f"{image.key}.{image.suffix}", image.data)
                    _add(archive, f"{image.key}.{image.label_suffix}", image.label)
                    size, count = size + image.size_bytes, count + 1
                    image = next(images, None)
            file.flush()
            os.fsync(file.fileno())
        shards.append(_finished(path, split=name, count=count))
    return shards


def _finished(path: Path, *, split: str, count: int) -> Shard:
    size, sha256 = path.stat().st_size, file_digest(path, "sha256")
    return Shard(location=str(path), name=path.name, split=split, size_bytes=size, count=count, sha256=sha256)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # no time, no owner: the same images give the same bytes
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _write_index(dataset: Dataset, shards: list[Shard], folder: Path) -> None:
    rows = [
        {"file": s.name, "split": s.split, "count": s.count, "size_bytes": s.size_bytes, "sha256": s.sha256}
        for s in shards
    ]
    data = {
        "format": FORMAT,
        "class_names": list(dataset.class_names),
        "mirror_safe": dataset.mirror_safe,
        "shards": rows,
    }
    with open(folder / INDEX, "x", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
