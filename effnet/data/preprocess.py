"""Preprocess a decoded image to a network's input, with Pillow and numpy only, so that it is the same everywhere."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from PIL import Image

from effnet.data.clips.record import Clip
from effnet.data.images.loaded import Loaded
from effnet.data.sound.record import Sound
from effnet.data.sound.spectrogram import middle_window
from effnet.data.view.letterbox import letterbox
from effnet.data.view.resample import RESAMPLING, Box, Interpolation, from_images, resample, to_images
from effnet.data.view.value_range import ValueRange
from effnet.errors import DataError, nearest, shown

Mode = Literal["center", "squash", "pad", "corner"]

_MODES = ("center", "squash", "pad", "corner")
# Limits for the side of the input, also before the centre crop, and for its bytes. Published networks take at most
# 800 x 800 x 3.
MAX_SIDE, MAX_BYTES = 4_096, 2**27
# Pixels are scaled to 0..1: beyond these limits, normalised values lose all precision in fp32.
_LARGEST_MEAN, _LEAST_STD, _LARGEST_STD = 1e4, 1e-4, 1e4
# Pixels of the input per pixel of an image: more would blur any.
_LARGEST_SCALE = 64
# Most pixels of an image that is resized as a whole; Pillow keeps four bytes of each.
_MOST_PIXELS = 2**24
# Reach of a resampling kernel in pixels of the enlarged image: lanczos' is the widest, plus one for rounding.
_WIDEST_KERNEL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """The preprocessing of an image to an input of `resolution` x `resolution` pixels, or of `height` x `resolution`.

    `crop` is the fraction of the resized sides that is kept, in mode "center" of the shorter one; the modes "pad"
    and "corner" show the whole image, in the middle and at the top left, and allow only 1. A height is for "corner"
    alone, and so is a `scale`, the pixels of the input per pixel of an image that is shown in windows of this size, not
    whole. `mean` and `std` are per channel, for pixels scaled to 0..1. `value_range` gives the values for black and
    white in images with more than 8 bits, and `sound` says how sounds become images. With `clip`
    the images are frames of clips, which answer together. Raises DataError for a value
    out of range.
    """

    resolution: int
    crop: float = 0.875
    mode: Mode = "center"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    value_range: ValueRange | None = None
    sound: Sound | None = None
    clip: Clip | None = None
    height: int = 0
    scale: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.resolution, int) or isinstance(self.resolution, bool) or self.resolution < 1:
            raise DataError(f"resolution must be a whole number of at least 1, received {shown(self.resolution)}")
        if not _is_number(self.crop) or not 0 < self.crop <= 1:
            raise DataError(f"crop must be above 0 and at most 1, received {shown(self.crop)}")
        if self.resolution > MAX_SIDE or self.resolution / self.crop >= MAX_SIDE + 1:
            raise DataError(
                f"resolution / crop must be at most {MAX_SIDE:,} pixels, received {shown(self.resolution)} / "
                f"{self.crop:g}"
            )
        _check_name("mode", self.mode, _MODES)
        if self.mode in ("pad", "corner") and self.crop != 1:
            raise DataError(f"crop must be 1 in mode {self.mode}, which shows the whole image; received {self.crop!r}")
        if type(self.height) is not int or not 0 <= self.height <= MAX_SIDE or (self.height and self.mode != "corner"):
            raise DataError(
                f"height must be a whole number up to {MAX_SIDE:,}, and 0 (a square) but in mode corner; received "
                f"{shown(self.height)} in mode {self.mode}"
            )
        if (
            not _is_number(self.scale)
            or not 0 <= self.scale <= _LARGEST_SCALE
            or (self.scale and self.mode != "corner")
        ):
            raise DataError(
                f"scale must be a number from 0 to {_LARGEST_SCALE}, and 0 but in mode corner; received "
                f"{shown(self.scale)} in mode {self.mode}"
            )
        _check_name("interpolation", self.interpolation, tuple(RESAMPLING))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or not values or not all(_is_number(v) for v in values):
                raise DataError(f"{name} must be a tuple with a finite number per channel, received {shown(values)}")
        if len(self.mean) != len(self.std):
            raise DataError(f"mean and std must be of one length, received {len(self.mean)} and {len(self.std)}")
        if min(self.std) <= 0:
            raise DataError(f"std must be above 0 in every channel, received {shown(self.std)}")
        if max(map(abs, self.mean)) > _LARGEST_MEAN:
            raise DataError(f"mean must lie within {_LARGEST_MEAN:g} of 0, received {shown(self.mean)}")
        if min(self.std) < _LEAST_STD or max(self.std) > _LARGEST_STD:
            raise DataError(f"std must lie in {_LEAST_STD:g}..{_LARGEST_STD:g}, received {shown(self.std)}")
        if self.value_range is not None and self.value_range.channels not in (None, self.channels):
            raise DataError(
                f"a value range of {self.value_range.channels} channels must have as many as mean, {self.channels}"
            )
        if self.sound is not None and self.channels != 1:
            raise DataError(f"a spectrogram has 1 channel, received mean and std of {self.channels}")
        if (size := self.channels * math.floor(self.resolution / self.crop) ** 2) > MAX_BYTES:
            raise DataError(f"an image must have at most {MAX_BYTES:,} values before it is cropped, received {size:,}")

    @property
    def size(self) -> tuple[int, int]:
        """The height and the width of the input, in pixels."""
        return self.height or self.resolution, self.resolution

    @property
    def channels(self) -> int:
        """The number of input channels."""
        return len(self.mean)

    @property
    def fill(self) -> tuple[int, ...]:
        """The mean colour as pixel values 0..255, the padding of mode "pad"."""
        return tuple(min(255, max(0, math.floor(255 * value + 0.5))) for value in self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict that from_dict reads back."""
        values = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        for name in ("height", "scale"):
            if not values[name]:
                del values[name]
        for name in ("value_range", "sound", "clip"):  # 8-bit images need none
            found = getattr(self, name)
            if found is None:
                del values[name]
            else:
                values[name] = found.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Read the result of to_dict; raise DataError for an unknown or missing key, or an invalid value."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise DataError(
                    f"preprocessing has the keys {', '.join(known)}, received {shown(key)}{nearest(str(key), known)}"
                )
        if "resolution" not in values:
            raise DataError("preprocessing must have the key resolution, in pixels")
        lists = {key: tuple(values[key]) for key in ("mean", "std") if isinstance(values.get(key), list)}
        records = {"value_range": ValueRange.from_dict, "sound": Sound.from_dict, "clip": Clip.from_dict}
        read = {name: of(values[name]) for name, of in records.items() if values.get(name) is not None}
        return cls(**{**values, **lists, **read})


def resize_and_crop(image: np.ndarray | Loaded, preprocess: Preprocess) -> np.ndarray:
    """Return uint8 [R, R, C] from uint8 [H, W, C], an array or a Loaded image; R is the resolution.

    Mode "center" resizes the shorter side to floor(R / crop), antialiased, "squash" both sides; then crops the centre.
    "pad" resizes the longer side to R, the other in proportion, and fills the rest with the mean colour; "corner" does
    so for an input of any sides, and puts the image at the top left, as `data.letterbox` describes.
    An image that already has the size to resize to is not resampled. Of a sound's spectrogram the middle window is
    resized.

    Source: timm.data.transforms_factory.transforms_imagenet_eval; torchvision Resize(int) and CenterCrop.
    """
    _check_image(image)
    if preprocess.sound is not None:
        assert isinstance(image, np.ndarray)  # a spectrogram
        image = middle_window(image, preprocess.sound)
    resolution, interpolation = preprocess.resolution, preprocess.interpolation
    shorter = math.floor(resolution / preprocess.crop)
    if preprocess.mode == "squash":
        whole = resample(image, width=shorter, height=shorter, interpolation=interpolation)
        return _center(whole, resolution)
    if preprocess.mode == "pad":
        longer = max(image.shape[:2])
        height, width = (max(1, resolution * side // longer) for side in image.shape[:2])
        whole = resample(image, width=width, height=height, interpolation=interpolation)
        return on_canvas(whole, top=-_middle(height, resolution), left=-_middle(width, resolution), like=preprocess)
    if preprocess.mode == "corner":
        place = letterbox(*image.shape[:2], input_height=preprocess.size[0], input_width=resolution)
        whole = resample(image, width=place.inner_width, height=place.inner_height, interpolation=interpolation)
        return on_canvas(whole, top=0, left=0, like=preprocess)
    return _resize_and_center(image, shorter=shorter, resolution=resolution, interpolation=interpolation)


def normalize(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return float32 (images / 255 - mean) / std of the same shape, from uint8 [..., C]."""
    if images.dtype != np.uint8 or images.ndim == 0 or images.shape[-1] != preprocess.channels:
        raise DataError(
            f"images must be uint8 [..., {preprocess.channels}], received {images.dtype} {list(images.shape)}"
        )
    scaled = images.astype(np.float32)
    scaled /= np.float32(255)
    scaled -= np.asarray(preprocess.mean, np.float32)
    scaled /= np.asarray(preprocess.std, np.float32)
    return scaled


def random_resized_crop(
    image: np.ndarray,
    *,
    resolution: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.35, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """Return uint8 [R, R, C]: a random part of the image's area and aspect ratio, resized.

    Source: torchvision.transforms.RandomResizedCrop.get_params (ten tries, then the centre).
    """
    _check_image(image)
    height, width = image.shape[:2]
    box = random_box(height, width, rng=rng, scale=scale, ratio=ratio)
    return resample(image, width=resolution, height=resolution, interpolation=interpolation, box=box)


def on_canvas(image: np.ndarray, *, top: int, left: int, like: Preprocess) -> np.ndarray:
    """Return the image padded with the mean colour to uint8 [height, width, C], the size of the input."""
    if image.shape[2] != like.channels:
        raise DataError(f"padding needs an image of {like.channels} channels, received {image.shape[2]}")
    canvas = np.empty((*like.size, like.channels), np.uint8)
    canvas[:] = like.fill
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def random_shift(
    image: np.ndarray,
    *,
    resolution: int,
    rng: np.random.Generator,
    max_shift: float = 0.1,
    max_rotate_degrees: float = 10.0,
    max_zoom: float = 0.1,
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """Return uint8 [R, R, C]: the centred image, slightly shifted, rotated and zoomed, its border replicated.

    For small images and those that mirroring changes, such as digits. `max_shift` is a fraction of the side.
    """
    _check_image(image)
    square = _resize_and_center(image, shorter=resolution, resolution=resolution, interpolation=interpolation)
    angle = math.radians(rng.uniform(-max_rotate_degrees, max_rotate_degrees))
    zoom = 1 + rng.uniform(-max_zoom, max_zoom)
    shift_x, shift_y = rng.uniform(-max_shift, max_shift, size=2) * resolution
    # The maximum distance at which an output corner reads outside the square, plus the width of a bicubic kernel.
    margin = math.ceil(resolution * (math.sqrt(0.5) / (1 - max_zoom) - 0.5 + max_shift)) + 2
    padded = np.pad(square, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    cosine, sine, middle = math.cos(angle) / zoom, math.sin(angle) / zoom, resolution / 2
    affine = (
        cosine,
        sine,
        middle + margin + shift_x - (cosine + sine) * middle,
        -sine,
        cosine,
        middle + margin + shift_y - (cosine - sine) * middle,
    )
    # Pillow's transform does not support lanczos.
    resampling = RESAMPLING["bicubic" if interpolation == "lanczos" else interpolation]
    size = (resolution, resolution)
    images = [p.transform(size, Image.Transform.AFFINE, affine, resampling) for p in to_images(padded)]
    return from_images(images)


def random_flip(image: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 [H, W, C], mirrored left to right with probability one half."""
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


def _resize_and_center(
    image: np.ndarray | Loaded, *, shorter: int, resolution: int, interpolation: Interpolation
) -> np.ndarray:
    height, width = image.shape[:2]
    if width <= height:
        new_width, new_height = shorter, int(shorter * height / width)
    else:
        new_width, new_height = int(shorter * width / height), shorter
    if new_width * new_height <= max(_MOST_PIXELS, width * height):
        return _center(resample(image, width=new_width, height=new_height, interpolation=interpolation), resolution)
    # A strip one pixel wide would become gigabytes when enlarged whole, so only the kept part is computed, in two
    # passes, horizontal then vertical, as Pillow enlarges a whole image: each pass rounds and clips overshoots.
    left, across = _middle(new_width, resolution), width / new_width
    top, down = _middle(new_height, resolution), height / new_height
    first, last = top * down, (top + resolution) * down
    start, stop = max(0, math.floor(first) - _WIDEST_KERNEL), min(height, math.ceil(last) + _WIDEST_KERNEL)
    part = resample(
        image[start:stop],
        width=resolution,
        height=stop - start,
        interpolation=interpolation,
        box=(left * across, 0, (left + resolution) * across, stop - start),
    )
    box = (0, first - start, resolution, last - start)
    return resample(part, width=resolution, height=resolution, interpolation=interpolation, box=box)


def _middle(side: int, resolution: int) -> int:
    return round((side - resolution) / 2.0)


def _center(image: np.ndarray, resolution: int) -> np.ndarray:
    top, left = _middle(image.shape[0], resolution), _middle(image.shape[1], resolution)
    return np.ascontiguousarray(image[top : top + resolution, left : left + resolution])


def random_box(
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(0, height - box_height + 1))
            left = int(rng.integers(0, width - box_width + 1))
            return (left, top, left + box_width, top + box_height)
    box_width, box_height = width, height
    if width / height < ratio[0]:
        box_height = max(1, min(height, round(width / ratio[0])))
    elif width / height > ratio[1]:
        box_width = max(1, min(width, round(height * ratio[1])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return (left, top, left + box_width, top + box_height)


def _check_image(image: np.ndarray | Loaded) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise DataError(f"an image must be uint8 [height, width, channels], received {image.dtype} {list(image.shape)}")


def _check_name(field: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise DataError(
            f"{field} must be one of {', '.join(known)}, received {shown(value)}{nearest(str(value), known)}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
