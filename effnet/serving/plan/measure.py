"""Measure what one engine needs for an image of a bundle: to decode it, and to run it in batches."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.errors import InputError
from effnet.runtimes.predictor import Predictor
from effnet.serving.images import prepared_image, upright_image
from effnet.serving.plan.simulate import Service
from effnet.serving.settings import Settings
from effnet.serving.versions.version import Source, best_batch, blank
from effnet.system.files import read_bytes

_RUNS = 30
# HTTP, parsing and writing of one request, beside the engine's work: assumed, there is no record of it yet.
_OTHER_SECONDS = 0.001
_SIZE = (1024, 768)


def measured(source: Source, settings: Settings, *, image: Path | None = None) -> Service:
    """Return the times of one thread for `image`, by default a made-up JPEG of 1024 x 768, and the source's model.

    Raises InputError if the image cannot be read.
    """
    predictor = Predictor(source.folder.resolve(), threads=1, format=settings.use)
    data, preprocess = _data(image), predictor.config.preprocess
    whole = predictor.config.task_record.whole is not None
    decode = upright_image if whole else prepared_image
    first = decode(data, preprocess, max_pixels=settings.max_pixels)
    run: dict[int, list[float]] = {}
    if whole:
        run[1] = _times(lambda: predictor.answer_in(first, threshold=None))
    else:
        largest, _ = best_batch(predictor, most=settings.max_batch)
        for size in (1 << power for power in range(largest.bit_length())):
            images = blank(predictor, size)
            run[size] = _times(lambda images=images: predictor.outputs(images))  # type: ignore[misc]
    return Service(
        decode=_times(lambda: decode(data, preprocess, max_pixels=settings.max_pixels)), run=run, other=_OTHER_SECONDS
    )


def _times(work: Callable[[], object]) -> list[float]:
    work()
    found = []
    for _ in range(_RUNS):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found


def _data(image: Path | None) -> bytes:
    if image is not None:
        try:
            return read_bytes(image, limit_bytes=10**8)
        except OSError as error:
            raise InputError(
                f"--set serve.plan_image must be an image that can be read; {image}: {error.strerror}"
            ) from error
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).resize(_SIZE, Image.Resampling.BICUBIC).save(file, format="JPEG", quality=90)
    return file.getvalue()
