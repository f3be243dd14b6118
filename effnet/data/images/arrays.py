"""Files that are read as arrays of numbers instead of Pillow's images: .npy, DICOM, bands of TIFF, and sounds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from effnet.data.images.dicom import START_BYTES as DICOM_BYTES
from effnet.data.images.dicom import dicom_header, dicom_values, is_dicom
from effnet.data.images.limits import BYTES_PER_PIXEL, check_pixels
from effnet.data.images.npy import is_npy, npy_header, npy_values, read_npy
from effnet.data.images.tiff import check_bands, find_bands, read_bands
from effnet.data.sound.reading import DECIBELS, bytes_needed, sound_format, sound_header, spectrogram_of
from effnet.data.sound.record import Sound
from effnet.data.view.value_range import ValueRange, to_uint8
from effnet.errors import ImageError

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayFile:
    """A file whose header has been read; `read` returns its pixels, `values` its values [..., channels] in pieces.

    `kind` is the type of the values, `window` the values for black and white that a DICOM file gives itself.
    If there are several `frames`, the channels are these and no colours. `width` of a sound is that of one window's
    spectrogram.
    """

    format: str
    height: int
    width: int
    channels: int
    kind: str
    mode: str
    bytes_needed: float
    read: Callable[[ValueRange | None], np.ndarray]
    values: Callable[[], Iterator[np.ndarray]]
    window: tuple[float, float] | None = None
    frames: int = 1


def find_array(stream: BinaryIO, *, channels: int | None = None, sound: Sound | None = None) -> ArrayFile | None:
    """Return the file if it is read as an array, None if it is left to Pillow; raise ImageError if it is damaged.

    `channels` are the requested ones, if known: pages of a TIFF file are bands only if there are as many. A sound needs
    the parameters of its spectrogram.
    """
    start = stream.read(DICOM_BYTES)
    stream.seek(0)
    if is_npy(stream):
        return _npy(stream)
    if is_dicom(start):
        return _dicom(stream)
    if format := sound_format(start):  # noqa: A001
        return _sound(stream, format, sound)
    if start[:4] in _TIFF:
        return _bands(stream, channels)
    return None


def _npy(stream: BinaryIO) -> ArrayFile:
    (height, width, channels), kind = npy_header(stream)

    def read(value_range: ValueRange | None) -> np.ndarray:
        stream.seek(0)
        return read_npy(stream, value_range=value_range)

    def values() -> Iterator[np.ndarray]:
        stream.seek(0)
        return npy_values(stream)

    return ArrayFile(
        format="NPY", height=height, width=width, channels=channels, kind=kind, mode="NPY", read=read, values=values,
        bytes_needed=height * width * max(channels + 2, BYTES_PER_PIXEL),
    )  # fmt: skip


def _dicom(stream: BinaryIO) -> ArrayFile:
    header = dicom_header(stream)

    def whole() -> np.ndarray:
        stream.seek(0)
        return dicom_values(stream)

    def read(value_range: ValueRange | None) -> np.ndarray:
        if value_range is not None and value_range.window and header.window is not None:
            low, high = header.window
            value_range = ValueRange(low=low, high=high)
        return _pixels(whole(), header.kind, value_range)

    return ArrayFile(
        format="DICOM", height=header.height, width=header.width, channels=header.channels, kind=header.kind,
        mode=header.photometric, bytes_needed=header.bytes_needed, read=read, values=lambda: iter([whole()]),
        window=header.window, frames=header.frames,
    )  # fmt: skip


def _bands(stream: BinaryIO, channels: int | None) -> ArrayFile | None:
    bands = find_bands(stream)
    if bands is None or not (bands.needed or bands.channels == channels):
        return None
    check_bands(bands)

    def whole() -> np.ndarray:
        stream.seek(0)
        return read_bands(stream, bands)

    return ArrayFile(
        format="TIFF", height=bands.height, width=bands.width, channels=bands.channels, kind=bands.kind,
        mode=f"{bands.channels} {'pages' if bands.pages else 'bands'}", bytes_needed=bands.bytes_needed,
        read=lambda value_range: _pixels(whole(), bands.kind, value_range), values=lambda: iter([whole()]),
    )  # fmt: skip


def _sound(stream: BinaryIO, format: str, sound: Sound | None) -> ArrayFile:  # noqa: A002
    if sound is None:
        raise ImageError("it is a sound, but the others, or those that the model was fitted on, are images")
    header = sound_header(stream)

    def whole() -> np.ndarray:
        stream.seek(0)
        return spectrogram_of(stream, sound)

    return ArrayFile(
        format=format, height=sound.mels, width=sound.frames, channels=1, kind=DECIBELS,
        mode=f"{header.rate:,} Hz {'mono' if header.channels == 1 else f'{header.channels} channels'}",
        bytes_needed=bytes_needed(header, sound),
        read=lambda value_range: _pixels(whole(), DECIBELS, value_range), values=lambda: iter([whole()]),
    )  # fmt: skip


def _pixels(values: np.ndarray, kind: str, value_range: ValueRange | None) -> np.ndarray:
    check_pixels(values.shape[1], values.shape[0])
    return values if values.dtype == np.uint8 else to_uint8(values, kind, value_range)
