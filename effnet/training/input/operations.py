"""Augmentation operations: Pillow's, on whole batches of uint8, each image with a value of its own.

Images are uint8 [batch, channels, height, width] on any device; every function returns new ones. If Pillow has
the operation, pixels equal Pillow's up to one level of rounding. Images with other than three channels are processed
channel by channel; if a grey image is needed, it is the mean of the channels.

They are our own because kornia 0.9's brightness adds and its contrast leaves out the mean, while the policies were
searched with Pillow's, which scale and blend; its shears are 180 times the published value, in degrees; and its
policies draw one operation for the whole batch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# The fill value outside the image (google/automl, efficientnetv2/autoaugment.py, replace_value).
GREY = 128

Operation = Callable[[Tensor, Tensor], Tensor]


def operate(images: Tensor, name: str, values: Tensor) -> Tensor:
    """Return `images` after the named operation, with `values` float32 [batch] on the same device."""
    return OPERATIONS[name](images, values)


def _identity(images: Tensor, values: Tensor) -> Tensor:
    return images.clone()


def _invert(images: Tensor, values: Tensor) -> Tensor:
    return 255 - images


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` bits of every pixel; 8 or more keep all."""
    kept = bits.clamp(0, 8).to(torch.int32)
    masks = 256 - torch.bitwise_left_shift(torch.ones_like(kept), 8 - kept)
    return images & _each(masks.to(torch.uint8))


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images < _each(threshold), images, 255 - images)


def _solarize_add(images: Tensor, addition: Tensor) -> Tensor:
    """Make the darker half lighter.

    Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py, solarize_add.
    """
    added = (images + _each(addition)).clamp_(0, 255).to(torch.uint8)
    return torch.where(images < 128, added, images)


def _autocontrast(images: Tensor, values: Tensor) -> Tensor:
    """Stretch every channel to 0..255."""
    pixels = images.flatten(2)
    low, high = pixels.amin(2, keepdim=True).int(), pixels.amax(2, keepdim=True).int()
    levels = torch.arange(256, dtype=torch.int32, device=images.device)
    spread = high - low
    table = torch.where(spread > 0, (levels - low) * 255 // spread.clamp(min=1), levels)
    return _look_up(images, table)


def _equalize(images: Tensor, values: Tensor) -> Tensor:
    """Give every channel a flat histogram, through a table of 256 levels."""
    levels = images.flatten(2).long()
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    highest = images.flatten(2).amax(2, keepdim=True).long()
    step = (counts.sum(2, keepdim=True) - counts.gather(2, highest)) // 255
    below = counts.cumsum(2) - counts
    table = (below + step // 2) // step.clamp(min=1)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return _look_up(images, table)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images[:, :1, :1, :1]), images, factor)


def _color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; images without three channels have no colour to change."""
    return _blend(_grey(images), images, factor) if images.shape[1] == 3 else images.clone()


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    mean = grey.flatten(1).sum(1) / grey[0].numel()
    return _blend(_each((mean + 0.5).floor()), images, factor)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed image, Pillow's SMOOTH; the outermost pixels stay."""
    if min(images.shape[-2:]) < 3:
        return images.clone()
    pixels = images.float()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = ((around + 4 * pixels[:, :, 1:-1, 1:-1]) / 13 + 0.5).floor_()
    return _blend(smooth, images, factor)


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counterclockwise around the centre."""
    cosine, sine = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
    height, width = images.shape[-2:]
    across = width / 2 * (1 - cosine) + height / 2 * sine
    down = height / 2 * (1 - cosine) - width / 2 * sine
    return _affine(images, cosine, -sine, across, sine, cosine, down)


def _shear_x(images: Tensor, shear: Tensor) -> Tensor:
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    return _affine(images, one, shear, zero, zero, one, zero)


def _shear_y(images: Tensor, shear: Tensor) -> Tensor:
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    return _affine(images, one, zero, zero, shear, one, zero)


def _translate_x(images: Tensor, share: Tensor) -> Tensor:
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return _affine(images, one, zero, share * images.shape[3], zero, one, zero)


def _translate_y(images: Tensor, share: Tensor) -> Tensor:
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return _affine(images, one, zero, zero, zero, one, share * images.shape[2])


def _affine(images: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """Return the affine transform that samples (a x + b y + c, d x + e y + f), in pixels; bilinear, as Pillow's.

    The published policies took the nearest pixel (TensorFlow's) or bilinear and bicubic by chance (timm's).
    """
    height, width = images.shape[-2:]
    # From pixels to grid_sample's -1..1, which end at the images' edges: x = (u + 1) width / 2.
    across = torch.stack([a, b * (height / width), a + b * (height / width) + 2 * c / width - 1], 1)
    down = torch.stack([d * (width / height), e, d * (width / height) + e + 2 * f / height - 1], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=False)
    # Zeros are sampled outside the images: pixels are shifted so that 0 is grey.
    moved = functional.grid_sample(images.float().sub_(GREY), grid, align_corners=False)
    return moved.add_(GREY + 0.5).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return the grey image, [batch, 1, height, width], as Pillow's mode L rounds it."""
    if images.shape[1] != 3:
        return images.float().mean(1, keepdim=True).round_()
    red, green, blue = images.int().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 2**15) >> 16  # ITU-R 601-2 in 16 bits


def _blend(base: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Return base + factor (images - base), clipped to 0..255 and rounded down."""
    return torch.lerp(base.float(), images.float(), _each(factor)).clamp_(0, 255).to(torch.uint8)


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Return every pixel's entry in its channel's table, integers [batch, channels, 256] clipped to 0..255."""
    pixels = images.flatten(2).long()
    return table.clamp(0, 255).to(torch.uint8).gather(2, pixels).view(images.shape)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
