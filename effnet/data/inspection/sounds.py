"""Determine the parameters of the spectrograms of a data set of sounds, from the headers of some of its files."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.images.opening import open_stream
from effnet.data.sound.reading import SoundHeader, sound_header
from effnet.data.sound.record import MOST_FFT, SOUND_SUFFIXES, Sound, read_asked_sound, suited_sound
from effnet.data.sound.spectrogram import has_bands, mel_bands
from effnet.data.sources.source import Source, encoded, source_name
from effnet.errors import DataError, ImageError, InputError, MissingExtraError

_SUFFIXES = frozenset().union(*SOUND_SUFFIXES.values())
# Headers that are read.
_SAMPLE = 256


def with_sound(dataset: Dataset, asked: str | Sound = "") -> Dataset:
    """Return the data set with the parameters of its spectrograms, unchanged if it holds more images than sounds.

    The kind with fewer files cannot be decoded then, and inspection names these. `asked` sets some of the parameters,
    as in "seconds=3,mels=80"; the others follow from the training files. Raises DataError if no sound can be read,
    InputError for parameters that are not usable.
    """
    sources = dataset.train.sources
    if 2 * sum(map(is_sound, sources)) <= len(sources):
        if asked:
            raise InputError("fit.sound is for sounds; these data are images: leave it out")
        return dataset
    found = asked if isinstance(asked, Sound) else _suited(sources, read_asked_sound(asked))
    note = (
        f"Sounds become spectrograms: {found.seconds:g} s at {found.rate:,} Hz, {found.mels} mel bands up to "
        f"{found.high_hz:g} Hz, {found.frames:,} columns; training draws windows, evaluation takes the middle one, and "
        "nothing is mirrored."
    )
    return replace(dataset, sound=found, channels=1, mirror_safe=False, notes=(*dataset.notes, note))


def is_sound(source: Source) -> bool:
    """Return whether the name of a file is that of a sound."""
    return os.path.splitext(source_name(source, ""))[1].lower() in _SUFFIXES


def _suited(sources: Sequence[Source], asked: dict[str, Any]) -> Sound:
    headers, reason = [], ""
    sounds = [source for source in sources if is_sound(source)]
    for place in np.random.default_rng(0).permutation(len(sounds))[:_SAMPLE]:
        try:
            headers.append(_header(sounds[place]))
        except (ImageError, OSError) as error:
            reason = reason or f"{source_name(sounds[place], '')}: {error}"
            if isinstance(error.__cause__, ImportError):
                raise MissingExtraError("soundfile", "audio") from error
    if not headers:
        raise DataError(f"a data set must have sounds that can be read, but none of the sampled can; one is {reason}")
    try:
        found = suited_sound([header.rate for header in headers], [header.seconds for header in headers], asked)
        while "fft" not in asked and found.fft < MOST_FFT and not has_bands(found):
            found = replace(found, fft=2 * found.fft)
        _ = mel_bands(found)
        return found
    except DataError as error:
        raise InputError(str(error)) from error


def _header(source: Source) -> SoundHeader:
    assert not isinstance(source, np.ndarray)
    with open_stream(encoded(source)) as stream:
        return sound_header(stream)
