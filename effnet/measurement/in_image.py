"""The answers of a detector or a segmenter to the images of a split, in its runtime."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from effnet.data.datasets import Split, loaded_image
from effnet.data.preprocess import resize_and_crop
from effnet.data.view.evaluation import eval_decoding
from effnet.errors import DataError, ImageError
from effnet.runtimes.predictor import Predictor
from effnet.system.machine import usable_cores
from effnet.tasks.task import parted

# Images on which the time outside the network is measured, and how often each.
_TIMED, _ROUNDS = 8, 5

LEAST_SCORE = 0.02
"""The least score of the objects from which precision and recall are computed; fewer change no figure visibly."""


def answers_on(
    predictor: Predictor, split: Split, *, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[int, np.ndarray, Any]]:
    """Yield the place, the upright pixels [height, width, channels] and the answer of each readable image of a split.

    Objects have a score of at least LEAST_SCORE, whatever the bundle's threshold. Raises DataError if no image can be
    read.
    """
    decoding = replace(eval_decoding(predictor.config.preprocess, warn=predictor.warn_once), reduce=None)

    def read(index: int) -> np.ndarray | None:
        try:
            with loaded_image(split, index, decoding) as image:
                return np.array(image)
        except ImageError:
            return None

    _ = predictor.engine
    count = 0
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="effnet-images") as pool:
        ahead = 2 * usable_cores()
        waiting = {index: pool.submit(read, index) for index in range(min(ahead, len(split)))}
        for index in range(len(split)):
            image = waiting.pop(index).result()
            if index + ahead < len(split):
                waiting[index + ahead] = pool.submit(read, index + ahead)
            if image is not None:
                count += 1
                yield index, image, predictor.answer_in(image, threshold=LEAST_SCORE)
            if progress:
                progress(index + 1, len(split))
    if not count:
        raise DataError("evaluation needs at least one readable image; there is none")


def outside_ms(predictor: Predictor, split: Split) -> float:
    """Return the time from the network's outputs to the objects or the mask of an image, in milliseconds.

    It is the median over images of the fastest of a few rounds, since other processes can only slow one down. It is
    part of every latency of a detector or a segmenter; decoding and resizing an image is not, as for a classifier.
    """
    config = predictor.config
    whole = config.task_record.whole
    assert whole is not None
    places = timed_places(split)
    few = Split(sources=[split.sources[i] for i in places], labels=split.labels[places])
    taken = []
    for _, image, _ in answers_on(predictor, few):
        known: list[dict[str, np.ndarray]] = []

        def compute(images: np.ndarray, known: list[dict[str, np.ndarray]] = known) -> dict[str, np.ndarray]:
            known.append(parted(predictor.outputs(images), config.file_outputs))
            return known[-1]

        whole(compute, image, config.arch, config.preprocess, threshold=config.threshold)
        rounds = []
        for _ in range(_ROUNDS):
            answer = partial(
                whole, partial(_next, iter(known)), image, config.arch, config.preprocess, threshold=config.threshold
            )
            rounds.append(seconds_of(answer) - seconds_of(partial(resize_and_crop, image, config.preprocess)))
        taken.append(min(rounds))
    return 1e3 * max(0.0, float(np.median(taken)))


def timed_places(split: Split) -> list[int]:
    """Return the places of the images of a split on which the time outside the network is measured."""
    return sorted({round(place) for place in np.linspace(0, len(split) - 1, _TIMED)})


def seconds_of(run: Callable[[], object]) -> float:
    """Return the time of a computation without that in which it waited for other processes."""
    start, began = time.perf_counter(), time.process_time()
    run()
    return min(time.perf_counter() - start, time.process_time() - began)


def _next(results: Iterator[dict[str, np.ndarray]], _images: np.ndarray) -> dict[str, np.ndarray]:
    return next(results)
