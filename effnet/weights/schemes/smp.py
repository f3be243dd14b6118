"""The names of segmentation_models_pytorch's U-Net, whose encoders are of three kinds.

- `smp`, efficientnet-b0: the names of lukemelas. It pads as TensorFlow does, but for images of the size that the
  encoder was published with: B0 alone is so padded "same", others in some layers only. Its skip at stride 16 is the
  first block of its stage, not the last.
- `smp_timm`, timm-efficientnet-b0 and timm-tf_efficientnet_lite0: timm's names; padding is always symmetric and the
  epsilon of BatchNorm 1e-5, for TensorFlow's weights too.
- `smp_tu`, tu-tf_efficientnet_lite0: timm's networks as they are; the first skip is the first stage, not the stem.

In decoders the epsilon is 1e-5. Source: segmentation_models_pytorch 0.6, encoders/ and decoders/unet.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.decoders.record import Segmenter, UNet
from effnet.arch.spec import ArchSpec, Padding
from effnet.errors import WeightsError
from effnet.weights.schemes import lukemelas, timm
from effnet.weights.schemes.shared import LayerNames, parametrised, refuse

EPSILON = 1e-5
"""BatchNorm's epsilon in decoders."""

CHANNELS = (256, 128, 64, 32, 16)
"""The widths of smp's default decoder."""

_ENCODERS = {"smp": "encoder", "smp_timm": "encoder", "smp_tu": "encoder.model"}
# The last convolution of the published network, which nothing reads.
_UNREAD = ("encoder._conv_head.", "encoder._bn1.", "encoder.conv_head.", "encoder.bn2.")
_PADDED_SAME, _EARLY = "b0", ((4, 8),)
_UNITS = {"first": "conv1", "second": "conv2"}
_PARTS = {"conv": "0", "norm": "1"}


def unet(backbone: ArchSpec, *, scheme: str, num_classes: int, channels: Sequence[int] = CHANNELS) -> ArchSpec:
    """Return smp's U-Net on this encoder, its side rounded up to a multiple of the stride, as smp demands."""
    known: dict[str, Padding] = {"smp": "same", "smp_timm": "symmetric"}
    padding = known.get(scheme, backbone.padding)
    decoder = UNet(
        channels=tuple(channels),
        separable=False,
        last_kernel=3,
        skips_stem=scheme != "smp_tu",
        activation="relu",
        early=_EARLY if scheme == "smp" and backbone.lineage.network == _PADDED_SAME else (),
    )
    stride = backbone.total_stride
    return dataclasses.replace(
        backbone,
        resolution=stride * -(-backbone.resolution // stride),
        head_channels=0,
        num_classes=num_classes,
        padding=padding,
        norm_epsilon=EPSILON,
        decoder=Segmenter(decoder=decoder),
    )


def check_encoder(spec: ArchSpec, *, where: str) -> None:
    """Raise WeightsError for an encoder of the scheme `smp` that is padded in a way of its own."""
    network = spec.lineage.network
    if network != _PADDED_SAME:
        raise WeightsError(
            f"{where} must have an encoder that pads all layers alike; smp pads some layers of efficientnet-{network} "
            f"as in an image of another size, which effnet does not: train timm-efficientnet-{network} or "
            f"efficientnet-{_PADDED_SAME} instead"
        )


def layer_names(spec: ArchSpec, scheme: str) -> LayerNames:
    """Return smp's names of the layers; raises WeightsError if it has none."""
    decoder = spec.decoder.decoder if isinstance(spec.decoder, Segmenter) else None
    if not isinstance(decoder, UNet) or decoder.separable or decoder.last_kernel != 3:
        raise refuse(scheme, "a network that is no U-Net of segmentation_models_pytorch")
    encoder = (lukemelas if scheme == "smp" else timm).layer_names(spec)
    return {name: _decoder_name(name) or f"{_ENCODERS[scheme]}.{encoder[name]}" for name, _ in parametrised(spec)}


def _decoder_name(name: str) -> str:
    words = name.split(".")
    if words[0] != "decoder":
        return ""
    if words[1] == "last":
        return "segmentation_head.0"
    return f"decoder.blocks.{words[1]}.{_UNITS[words[2]]}.{_PARTS[words[3]]}"


def plain_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays without those of the encoder's last convolution, which nothing reads."""
    return {key: array for key, array in arrays.items() if not key.startswith(_UNREAD)}


def epsilon(spec: ArchSpec, name: str, scheme: str) -> float:
    """Return the epsilon with which smp evaluates the BatchNorm of this name."""
    encoder = 1e-3 if scheme != "smp_timm" and spec.padding == "same" else EPSILON
    return EPSILON if name.startswith("decoder.") else encoder
