"""Features of a frozen backbone, computed once in ONNX Runtime and cached on disk by the images' content."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.data.clips.frames import by_clip
from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess, random_flip, resize_and_crop
from effnet.data.sound.spectrogram import random_window
from effnet.data.view.crop import random_view
from effnet.data.view.evaluation import eval_image_at
from effnet.errors import DataError, ImageError, WeightsError
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.session import IMAGE, open_session
from effnet.runtimes.pipeline import Progress, run_images
from effnet.system.array_cache import load_arrays, open_store, save_arrays
from effnet.system.cache import cache_folder
from effnet.system.machine import usable_cores
from effnet.tasks.task import FEATURES
from effnet.weights.folding import Arrays, fold_norms

CACHE_LIMIT_BYTES = 10**9
# Raise this when the decoding, resizing or augmentation of images changes.
_FORMAT = 3
# Images per write to the cache: an interrupted run resumes after the last write.
_SAVED_TOGETHER = 4096
# Augmentation for a linear probe is mild: it can only weight the frozen features, not learn new ones.
_MIN_AREA = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """A backbone as an ONNX file, from images to features [channels]; `key` identifies its function."""

    path: Path
    preprocess: Preprocess
    channels: int
    key: bytes
    mirror: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features [images, channels] of the images at `indices` of a split; unreadable images are absent."""

    values: np.ndarray
    indices: np.ndarray
    computed: int


def make_extractor(
    spec: ArchSpec, state: Arrays, preprocess: Preprocess, path: Path, *, mirror: bool = True
) -> Extractor:
    """Write the backbone of `spec`, without its classifier, to `path`; `state` is keyed by effnet's names.

    `mirror` says that a mirrored image keeps its class, so that random views may be mirrored.
    """
    headless = replace(spec, num_classes=0)
    model = to_onnx(
        headless,
        fold_norms(headless, state),
        mean=preprocess.mean,
        std=preprocess.std,
        resolution=preprocess.resolution,
    )
    write_onnx(model, path, durable=False)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16)
    # Decoding, resizing and arithmetic depend on these packages.
    versions = [metadata.version(name) for name in ("pillow", "onnxruntime")]
    digest.update(repr((_FORMAT, versions, preprocess.to_dict(), mirror, _MIN_AREA)).encode())
    return Extractor(
        path=path, preprocess=preprocess, channels=spec.feature_channels, key=digest.digest(), mirror=mirror
    )


def extract(
    extractor: Extractor,
    split: Split,
    *,
    view: int = 0,
    folder: Path | None = None,
    limit_bytes: int = CACHE_LIMIT_BYTES,
    progress: Progress | None = None,
) -> Features:
    """Return the features of every readable image of `split`.

    View 0 is the image as preprocessed for evaluation; every other number is a random view, the same for the same
    image. Results are cached in `folder` (effnet's cache folder by default), up to `limit_bytes`. Raises DataError if
    no image can be read, WeightsError if a feature is not finite.
    """
    keys = _keys(extractor, split, view)
    store = open_store((folder or cache_folder()) / "features.sqlite")
    try:
        known = load_arrays(store, {key for key in keys if key is not None}, length=extractor.channels)
        num_cached = len(known)
        for fresh in _compute(extractor, split, keys, known, view=view, progress=progress):
            save_arrays(store, fresh, limit_bytes=limit_bytes)
            known |= fresh
    finally:
        if store is not None:
            store.close()
    indices = [i for i, key in enumerate(keys) if key in known]
    if not indices:
        raise DataError("features need at least one image that can be read; none can")
    values = np.stack([known[key] for key in keys if key is not None and key in known])
    return Features(values=values, indices=np.array(indices), computed=len(known) - num_cached)


def over_clips(features: Features, split: Split) -> Features:
    """Return the mean of the features of each clip's frames, with the index of its first; unchanged without clips."""
    clips = by_clip(split.sources, features.indices.tolist())
    if clips is None:
        return features
    values = np.stack([features.values[clip].mean(0) for clip in clips])
    return replace(features, values=values, indices=features.indices[[clip[0] for clip in clips]])


def _keys(extractor: Extractor, split: Split, view: int) -> list[bytes | None]:
    """Return for each image a key of its content, view and backbone; None if it is unreadable."""

    def key(index: int) -> bytes | None:
        source = split.sources[index]
        digest = hashlib.blake2b(extractor.key + view.to_bytes(4, "little"), digest_size=16)
        try:
            if isinstance(source, str):
                if not Path(source).is_file():  # opening a named pipe would block
                    return None
                digest.update(Path(source).read_bytes())
            elif isinstance(source, np.ndarray):
                digest.update(repr(source.shape).encode() + source.tobytes())
            else:
                digest.update(source.read())
        except (OSError, ImageError):
            return None
        return digest.digest()

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(key, range(len(split))))


def _compute(
    extractor: Extractor,
    split: Split,
    keys: Sequence[bytes | None],
    known: Mapping[bytes, np.ndarray],
    *,
    view: int,
    progress: Progress | None,
) -> Iterator[dict[bytes, np.ndarray]]:
    """Yield the features of the images whose keys are not cached, a few thousand at a time."""
    todo: dict[int, bytes] = {}
    seen = set(known)
    for index, key in enumerate(keys):
        if key is not None and key not in seen:
            todo[index] = key
            seen.add(key)
    if not todo:
        return
    session, indices = open_session(extractor.path, threads=1), list(todo)
    for start in range(0, len(indices), _SAVED_TOGETHER):
        rows, found = run_images(
            indices[start : start + _SAVED_TOGETHER],
            prepare=lambda index: _view(extractor, split, index, todo[index], view),
            compute=lambda images: session.run([FEATURES.name], {IMAGE: images})[0],
            workers=usable_cores(),
            progress=lambda done, _, start=start: progress(start + done, len(indices)) if progress else None,  # type: ignore[misc]
        )
        if not np.isfinite(rows).all():
            raise WeightsError("the backbone must output finite features, but some are not: its weights are damaged")
        yield {todo[index]: row for index, row in zip(found, rows, strict=True)}


def _view(extractor: Extractor, split: Split, index: int, key: bytes, view: int) -> np.ndarray:
    preprocess = extractor.preprocess
    with eval_image_at(split, index, preprocess) as image:
        if view == 0:
            return resize_and_crop(image, preprocess)
        rng = np.random.default_rng(int.from_bytes(key, "little"))
        if preprocess.sound is not None:
            return resize_and_crop(random_window(image, preprocess.sound, rng=rng), preprocess)
        image = random_view(image, preprocess, rng=rng, scale=(_MIN_AREA, 1.0), interpolation=preprocess.interpolation)
    return random_flip(image, rng=rng) if extractor.mirror else image
