"""Read the size, number and depth of the frames of an AV1 stream from its headers.

Sources: AV1 bitstream specification, 5.3 (OBUs), 5.5 (sequence header) and 5.9.2 (frame header); dav1d 1.5.
"""

from dataclasses import dataclass

from effnet.errors import ImageError

_HEADER_BYTES = 512
_SEQUENCE, _FRAMES = 1, frozenset({3, 6, 7})
_SWITCH_FRAME = 3
# dav1d keeps eight references, the frame that it decodes and the one that it returned.
_MOST_FRAMES = 10
# Bytes per pixel that dav1d keeps besides the planes: motion vectors, segments, filters.
_EXTRA_BYTES = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    width: int
    height: int
    largest: int
    pixel_bytes: float
    has_grain: bool
    is_reduced: bool
    time_bits: int
    chooses_tools: bool
    has_tools: bool
    chooses_motion: bool
    id_bits: int


class _Bits:
    """Reads the bits of an OBU, most significant first; raises ValueError after the last."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("an OBU ends early")
        return self._value >> self._left & ((1 << count) - 1)


def count_parts(budget: list[int], number: int = 1) -> None:
    """Subtract parts of a file from the number that it may have; raise ImageError if none is left."""
    budget[0] -= number
    if budget[0] < 0:
        raise ImageError(
            "an AVIF or HEIC file must have at most 100,000 boxes, extents and OBUs; it has more: save it again"
        )


def measure_stream(stream: bytes | memoryview, budget: list[int]) -> tuple[int, int, float]:
    """Return the largest area of a stream's frames, the number kept at once, and the bytes per pixel of one.

    Raises ImageError as `count_parts` does, ValueError for a header that ends early.
    """
    sequence, area, frames, pixel_bytes, grain = None, 0, 0, 0.0, False
    place = 0
    while place < len(stream):
        count_parts(budget)
        head = stream[place]
        kind, place = head >> 3 & 15, place + (2 if head & 4 else 1)
        size = len(stream) - place
        if head & 2:
            size, place = _leb128(stream, place)
        if size > len(stream) - place:
            break  # the decoder stops here too
        bits = _Bits(bytes(stream[place : place + min(size, _HEADER_BYTES)]))
        place += size
        if kind == _SEQUENCE:
            sequence = _read_sequence(bits)
            area, grain = max(area, sequence.width * sequence.height), grain or sequence.has_grain
            pixel_bytes = max(pixel_bytes, sequence.pixel_bytes)
        elif kind in _FRAMES and sequence:
            frames += 1
            if _has_own_size(bits, sequence):  # dav1d does not compare it with the sequence's
                area = max(area, sequence.largest)
    return area, min(max(frames, 1), _MOST_FRAMES) + grain, pixel_bytes


def _leb128(stream: bytes | memoryview, place: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = stream[place + index] if place + index < len(stream) else 0
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    return value, place + index + 1


def _read_sequence(bits: _Bits) -> _Sequence:
    """Return the contents of a sequence header (5.5.1 to 5.5.3)."""
    profile, _, is_reduced = bits(3), bits(), bits()
    time_bits = 0
    if is_reduced:
        bits(5)
    else:
        time_bits = _skip_operating_points(bits)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    width, height = bits(width_bits) + 1, bits(height_bits) + 1
    id_bits = 0
    if not is_reduced and bits():
        id_bits = bits(4) + 2
        id_bits += bits(3) + 1
    bits(3)
    chooses_tools, has_tools, chooses_motion = True, True, True
    if not is_reduced:
        bits(4)
        has_order = bits()
        bits(2 * has_order)
        chooses_tools = bool(bits())
        has_tools = chooses_tools or bool(bits())
        chooses_motion = bool(has_tools and bits())
        bits(1 if has_tools and not chooses_motion else 0)
        bits(3 * has_order)
    bits(3)
    depth = 10 if bits() else 8
    if profile == 2 and depth == 10 and bits():
        depth = 12
    samples = _read_samples(bits, profile, depth)
    return _Sequence(
        width=width,
        height=height,
        largest=1 << width_bits + height_bits,
        pixel_bytes=samples * (2 if depth > 8 else 1) + _EXTRA_BYTES,
        has_grain=bool(bits()),
        is_reduced=bool(is_reduced),
        time_bits=time_bits,
        chooses_tools=chooses_tools,
        has_tools=has_tools,
        chooses_motion=chooses_motion,
        id_bits=id_bits,
    )


def _skip_operating_points(bits: _Bits) -> int:
    """Return the number of bits of a shown frame's presentation time."""
    time_bits = delay_bits = has_model = 0
    if bits():
        bits(64)
        is_even = bits()
        if is_even:
            zeros = 0
            while zeros < 32 and not bits():
                zeros += 1
            bits(zeros if zeros < 32 else 0)
        has_model = bits()
        if has_model:
            delay_bits = bits(5) + 1
            bits(32 + 5)
            time_bits = 0 if is_even else bits(5) + 1
            bits(5 if is_even else 0)
    has_display = bits()
    for _ in range(bits(5) + 1):
        bits(12)
        level = bits(5)
        bits(1 if level > 7 else 0)
        if has_model and bits():
            bits(2 * delay_bits + 1)
        if has_display and bits():
            bits(4)
    return time_bits


def _read_samples(bits: _Bits, profile: int, depth: int) -> float:
    """Return the number of samples per pixel; stop before the film grain flag (5.5.2)."""
    is_grey = profile != 1 and bits()
    colours = (bits(8), bits(8), bits(8)) if bits() else ()
    if is_grey:
        bits()
        return 1
    if colours == (1, 13, 0):  # plain sRGB
        bits()
        return 3
    bits()
    wide = 0 if profile == 1 else 1
    high = 1 if profile == 0 else 0
    if profile == 2 and depth == 12:
        wide = bits()
        high = bits() if wide else 0
    bits(2 if wide and high else 0)
    bits()
    return 1 + 2 / (1 + wide) / (1 + high)


def _has_own_size(bits: _Bits, sequence: _Sequence) -> bool:
    """Return whether a frame's header overrides the sequence's size (5.9.2)."""
    if sequence.is_reduced or bits():
        return False
    kind, is_shown = bits(2), bits()
    bits(sequence.time_bits if is_shown else 1)
    if not (kind == _SWITCH_FRAME or (kind == 0 and is_shown)):
        bits()
    bits()
    has_tools = bits() if sequence.chooses_tools else sequence.has_tools
    bits(1 if has_tools and sequence.chooses_motion else 0)
    bits(sequence.id_bits)
    return kind == _SWITCH_FRAME or bool(bits())
