"""Determine the length of the clips of a data set, from some of its files."""

from dataclasses import replace

import numpy as np

from effnet.data.clips.frames import ClipFrame
from effnet.data.clips.reading import clip_seconds
from effnet.data.clips.record import Clip
from effnet.data.datasets import Dataset
from effnet.errors import DataError, ImageError

_SAMPLE, _LEAST_SECONDS = 64, 0.01


def with_clip(dataset: Dataset) -> Dataset:
    """Return the data set with the median length of its clips; unchanged if it has none.

    Raises DataError if none can be read, MissingExtraError without the package that reads them.
    """
    clips = {source.path: source.count for source in dataset.train.sources if isinstance(source, ClipFrame)}
    if not clips:
        return dataset
    paths, seconds, reason = list(clips), [], ""
    for place in np.random.default_rng(0).permutation(len(paths))[:_SAMPLE]:
        try:
            seconds.append(clip_seconds(paths[place]))
        except ImageError as error:
            reason = reason or str(error)
    if not seconds:
        raise DataError(f"a data set must have clips that can be read, but none of the sampled can; one is {reason}")
    middle = max(_LEAST_SECONDS, round(sorted(seconds)[len(seconds) // 2], 3))
    return replace(dataset, clip=Clip(seconds=middle, frames=clips[paths[0]]))
