"""Read DICOM files with pydicom, an optional package that is imported only here."""

import math
import os
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from effnet.data.images.limits import BYTES_PER_PIXEL, MAX_BYTES, MAX_WHOLE_FILE, check_pixels
from effnet.errors import ImageError, MissingExtraError, shown

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})
"""The usual suffixes; many files have none, or end in a number."""

# The preamble, and the magic bytes behind it.
_PREAMBLE, _MAGIC = 128, b"DICM"
START_BYTES = _PREAMBLE + len(_MAGIC)
"""The first bytes of a file that `is_dicom` needs."""

_DIRECTORY = "1.2.840.10008.1.3.10"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED.decode(), _BIG_ENDIAN})
_TAGS = {
    "PatientID": 0x00100020, "SamplesPerPixel": 0x00280002, "PhotometricInterpretation": 0x00280004,
    "PlanarConfiguration": 0x00280006, "NumberOfFrames": 0x00280008, "Rows": 0x00280010, "Columns": 0x00280011,
    "BitsAllocated": 0x00280100, "BitsStored": 0x00280101, "HighBit": 0x00280102, "PixelRepresentation": 0x00280103,
    "WindowCenter": 0x00281050, "WindowWidth": 0x00281051, "RescaleIntercept": 0x00281052, "RescaleSlope": 0x00281053,
    "VOILUTFunction": 0x00281056, "ModalityLUTSequence": 0x00283000, "PixelData": 0x7FE00010,
}  # fmt: skip
_INFLATED_TOGETHER = 2**24
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomHeader:
    """The header of a DICOM image.

    `channels` are the frames of a grey image, or the three colours. `kind` is the type of the values once rescaled:
    "float32" if the file says how to rescale them. `window` is the file's own window, as the values for black and
    white, or None.
    """

    height: int
    width: int
    channels: int
    frames: int
    samples: int
    kind: str
    photometric: str
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: bool
    slope: float
    intercept: float
    syntax: str
    window: tuple[float, float] | None = None

    @property
    def inverted(self) -> bool:
        """Whether small values are white."""
        return self.photometric == "MONOCHROME1"

    @property
    def mirror(self) -> float:
        """The sum of a value and its inverse, rescaled."""
        least, most = (
            (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)
        )
        return self.slope * (least + most) + 2 * self.intercept

    @property
    def bytes_needed(self) -> float:
        """The memory that reading takes: the file, its numbers, and the pixels."""
        values = self.height * self.width * self.frames * self.samples
        return values * (2 * self.allocated / 8 + 8) + self.height * self.width * BYTES_PER_PIXEL


def is_dicom(start: bytes) -> bool:
    """Return whether a file with these first bytes is DICOM."""
    return start[_PREAMBLE:START_BYTES] == _MAGIC


def may_be_dicom(path: str) -> bool:
    """Return whether a file without an image's suffix is DICOM, which many are: its beginning says so."""
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1][1:]
    if (suffix and not suffix.isdigit()) or name.upper() == "DICOMDIR":
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(START_BYTES))
    except OSError:
        return False


def dicom_header(stream: BinaryIO) -> DicomHeader:
    """Return the header of a DICOM file; raise ImageError if it has no image that is read, or is damaged."""
    return _header(_Tags(stream, pixels=False))


def dicom_values(stream: BinaryIO) -> np.ndarray:
    """Return the values [height, width, channels], rescaled, with small values dark.

    Raises ImageError as `dicom_header` does, for too few pixels, and for a compression that no package here reads.
    """
    tags = _Tags(stream, pixels=True)
    header = _header(tags)
    values = _native(tags, header) if header.syntax in _NATIVE else _decompressed(tags, header)
    if header.kind == "float32":
        values = (values * header.slope + header.intercept).astype(np.float32)
    if header.inverted:
        values = (header.mirror - values.astype(np.float64)).astype(values.dtype)
    return values


def patient_of(path: str) -> str:
    """Return the PatientID of a DICOM file, or an empty string if it has none or is damaged.

    Raises MissingExtraError without pydicom.
    """
    read_partial = _pydicom().filereader.read_partial
    try:
        with open(path, "rb") as file:
            if not is_dicom(file.read(START_BYTES)):
                return ""
            file.seek(0)
            _check_deflated(file)
            found = read_partial(file, stop_when=lambda tag, *_: tag > _TAGS["PatientID"])
            return _text(found, "PatientID")
    except MissingExtraError:
        raise
    except Exception:  # inspection reports a damaged file
        return ""


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.filereader
    except ImportError as error:
        raise MissingExtraError("pydicom", "medical") from error
    return pydicom


class _Tags:
    """The tags of a file that are needed, as their bytes: pydicom would warn of many that are not quite valid."""

    def __init__(self, stream: BinaryIO, *, pixels: bool) -> None:
        try:
            pydicom = _pydicom()
        except MissingExtraError as error:
            raise ImageError(f"it is DICOM: {error}") from error
        _check_deflated(stream)
        stream.seek(0)
        wanted = [tag for name, tag in _TAGS.items() if pixels or name != "PixelData"]
        try:
            self.dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, specific_tags=wanted)
            self.syntax = str(self.dataset.file_meta.get("TransferSyntaxUID", ""))
            self.media = str(self.dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"the DICOM file is damaged ({type(error).__name__}: {error}): export it again") from error

    def __contains__(self, name: str) -> bool:
        return _TAGS[name] in self.dataset

    def bytes(self, name: str) -> bytes:
        """Return the value of a tag as stored, empty if there is none."""
        return _value(self.dataset, name)

    def text(self, name: str) -> str:
        """Return a tag as text."""
        return _text(self.dataset, name)

    def whole(self, name: str, usual: int | None = None) -> int:
        """Return a tag as a whole number; `usual` if there is none."""
        data = self.bytes(name)
        if not data and usual is not None:
            return usual
        try:
            if name == "NumberOfFrames":
                return int(_text(self.dataset, name))
            return int(struct.unpack(">H" if self.syntax == _BIG_ENDIAN else "<H", data)[0])
        except (ValueError, struct.error) as error:
            found = shown(data[:16]) if data else "nothing"
            raise ImageError(f"its tag {name} must be a whole number; it is {found}: export it again") from error

    def real(self, name: str) -> float | None:
        """Return the first number of a tag, or None if there is none."""
        text = self.text(name).split("\\")[0].strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ImageError(f"its tag {name} must be a number; it is {shown(text)}: export it again")
        return value


def _value(dataset: Any, name: str) -> bytes:
    tag = _TAGS[name]
    if tag not in dataset:
        return b""
    value = dataset.get_item(tag).value
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()


def _text(dataset: Any, name: str) -> str:
    return _value(dataset, name).decode("utf-8", "replace").strip(" \0")


def _check_deflated(stream: BinaryIO) -> None:
    """Raise ImageError for a deflated file that is far too long once inflated."""
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    stream.seek(0)
    if size > MAX_WHOLE_FILE:
        raise ImageError(f"it must have at most {MAX_WHOLE_FILE:,} bytes; it has {size:,}: save it smaller")
    start = stream.read(START_BYTES + 2**12)
    stream.seek(0)
    # The group of the file's own tags begins with its length.
    if len(start) < START_BYTES + 12 or start[START_BYTES : START_BYTES + 4] != b"\2\0\0\0":
        return
    behind = START_BYTES + 12 + int.from_bytes(start[START_BYTES + 8 : START_BYTES + 12], "little")
    if _DEFLATED not in start[: min(behind, len(start))]:
        return
    stream.seek(behind)
    unpacker, packed, left = zlib.decompressobj(-zlib.MAX_WBITS), stream.read(), 2 * MAX_WHOLE_FILE
    stream.seek(0)
    try:
        while packed and left >= 0:
            left -= len(unpacker.decompress(packed, _INFLATED_TOGETHER))
            packed = unpacker.unconsumed_tail
    except zlib.error as error:
        raise ImageError(f"the DICOM file is damaged ({error}): export it again") from error
    if left < 0:
        raise ImageError(f"it must have at most {2 * MAX_WHOLE_FILE:,} bytes once inflated; it has more")


def _header(tags: _Tags) -> DicomHeader:
    if tags.media == _DIRECTORY:
        raise ImageError("it is a DICOMDIR, a list of files without an image: give the files")
    if "Rows" not in tags:
        raise ImageError("it is a DICOM file without an image")
    if "ModalityLUTSequence" in tags:
        raise ImageError("its values are given by a table (Modality LUT), which is not read: save them rescaled")
    samples, frames = tags.whole("SamplesPerPixel", 1), tags.whole("NumberOfFrames", 1)
    height, width = tags.whole("Rows"), tags.whole("Columns")
    photometric = tags.text("PhotometricInterpretation")
    _check_shape(height, width, frames, samples, photometric)
    allocated = tags.whole("BitsAllocated")
    stored = tags.whole("BitsStored", allocated)
    high = tags.whole("HighBit", stored - 1)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise ImageError(
            f"its values must have 8, 16 or 32 bits, all or some of them stored; it has BitsAllocated {allocated}, "
            f"BitsStored {stored} and HighBit {high}: export it again"
        )
    slope, intercept = tags.real("RescaleSlope"), tags.real("RescaleIntercept")
    signed = bool(tags.whole("PixelRepresentation", 0))
    kind = f"{'' if signed else 'u'}int{allocated}"
    plain = slope in (None, 1) and intercept in (None, 0)
    if not (allocated == 8 and not signed and plain) and (slope is not None or intercept is not None):
        kind = "float32"
    header = DicomHeader(
        height=height, width=width, channels=frames if samples == 1 else samples, frames=frames, samples=samples,
        kind=kind, photometric=photometric, allocated=allocated, stored=stored, high=high, signed=signed,
        planar=bool(tags.whole("PlanarConfiguration", 0)), slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0, syntax=tags.syntax,
    )  # fmt: skip
    header = replace(header, window=_window(tags, header))
    if header.bytes_needed > MAX_BYTES:
        raise ImageError(f"decoding it must take at most {MAX_BYTES / 1e6:,.0f} MB; it takes more: make it smaller")
    return header


def _check_shape(height: int, width: int, frames: int, samples: int, photometric: str) -> None:
    if min(height, width, frames) < 1:
        raise ImageError(f"a DICOM image must have pixels; it has {frames} frames of {width} x {height}")
    check_pixels(width, height)
    known = _GREY if samples == 1 else _COLOURS if samples == 3 else ()
    if photometric not in known:
        raise ImageError(
            f"its pixels must be {', '.join(sorted(_GREY))}, RGB or YBR; they are {shown(photometric)} with {samples} "
            "samples: save them as one of these"
        )
    if samples > 1 and frames > 1:
        raise ImageError(f"a DICOM file must hold one image in colour, or frames in grey; it has {frames} in colour")


def _window(tags: _Tags, header: DicomHeader) -> tuple[float, float] | None:
    """Return the values for black and white by the file's first window, for the values as `dicom_values` gives them.

    Source: DICOM PS3.3, C.11.2.1.2 (LINEAR) and C.11.2.1.3 (LINEAR_EXACT, also used for SIGMOID).
    """
    center, width = tags.real("WindowCenter"), tags.real("WindowWidth")
    if center is None or width is None or header.samples > 1:
        return None
    if tags.text("VOILUTFunction") in ("", "LINEAR"):
        center, width = center - 0.5, width - 1
    if not width > 0:
        return None
    low, high = center - width / 2, center + width / 2
    return (header.mirror - high, header.mirror - low) if header.inverted else (low, high)


def _native(tags: _Tags, header: DicomHeader) -> np.ndarray:
    """Return the values of a file that is not compressed, [height, width, channels]."""
    count = header.height * header.width * header.frames * header.samples
    data = tags.bytes("PixelData")
    if header.photometric == "YBR_FULL_422":
        raise ImageError("its colours are stored as YBR_FULL_422, which is read only compressed: save them as RGB")
    if len(data) < count * header.allocated // 8:
        raise ImageError(
            f"its pixels must take {count * header.allocated // 8:,} bytes; there are {len(data):,}: the file is "
            "truncated, or its header is wrong"
        )
    order = ">" if header.syntax == _BIG_ENDIAN else "<"
    raw = np.frombuffer(data, f"{order}u{header.allocated // 8}", count)
    if header.samples == 1:
        values = raw.reshape(header.frames, header.height, header.width)
    elif header.planar:
        values = raw.reshape(header.samples, header.height, header.width)
    else:
        values = raw.reshape(header.height, header.width, header.samples).transpose(2, 0, 1)
    values = _stored_bits(values.astype(f"u{header.allocated // 8}"), header)
    if header.photometric == "YBR_FULL":
        from pydicom.pixels import convert_color_space

        return np.asarray(convert_color_space(values.transpose(1, 2, 0), "YBR_FULL", "RGB"))
    return np.ascontiguousarray(values.transpose(1, 2, 0))


def _stored_bits(values: np.ndarray, header: DicomHeader) -> np.ndarray:
    """Return unsigned integers without the bits that are no part of the value, in the header's own type."""
    above = header.allocated - 1 - header.high
    signed = values << above
    if header.signed:
        signed = signed.view(f"i{header.allocated // 8}")
    return signed >> (header.allocated - header.stored)


def _decompressed(tags: _Tags, header: DicomHeader) -> np.ndarray:
    """Return the values of a compressed file, [height, width, channels], by a plugin of pydicom."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    uid = UID(tags.syntax)
    try:
        decoder = get_decoder(uid)
    except NotImplementedError as error:
        private = "a private compression" if uid.is_private else "no compression of images that is known"
        raise ImageError(f"its transfer syntax {shown(tags.syntax)} is {private}: save it uncompressed") from error
    if not decoder.is_available:
        needs = " or ".join(line.partition(" - requires ")[2] or line for line in decoder.missing_dependencies)
        raise ImageError(
            f"it is compressed as {uid.name}, for which a package of pydicom's is missing: install {needs}, or save it "
            "uncompressed"
        )
    try:
        values = np.asarray(decoder.as_array(tags.dataset)[0])
    except Exception as error:  # each plugin raises its own
        why = " ".join(str(error).split())  # a line for each plugin
        raise ImageError(f"its pixels cannot be decompressed ({why}): save it again") from error
    shape = (header.frames, header.height, header.width) if header.samples == 1 else (header.height, header.width, 3)
    if values.size != np.prod(shape) or values.dtype.itemsize * 8 != header.allocated:
        raise ImageError(f"its pixels must be {list(shape)}; decompressed they are {list(values.shape)}: save it again")
    values = values.reshape(shape)
    return values if header.samples > 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
