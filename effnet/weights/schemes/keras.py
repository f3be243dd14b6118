"""The names of Keras: a stage's number and a block's letter, `block2a_expand_conv/kernel`."""

import re
from collections.abc import Mapping

import numpy as np

from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.weights.schemes.shared import LayerNames, check_kinds, name_layers

_ENDS = {
    "stem.conv": "stem_conv",
    "stem.norm": "stem_bn",
    "head.conv": "top_conv",
    "head.norm": "top_bn",
    "classifier": "predictions",
}
_BLOCK = {
    "expand.conv": "expand_conv", "expand.norm": "expand_bn", "depthwise.norm": "bn",
    "se.reduce": "se_reduce", "se.expand": "se_expand", "project.conv": "project_conv",
    "project.norm": "project_bn", "conv": "project_conv", "norm": "project_bn",
}  # fmt: skip
_KINDS, _V2_KINDS = ("mbconv", "depthwise_separable"), ("fused_mbconv", "conv")
_NORMALISATION = re.compile(r"normalization(_\d+)?")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)


def layer_names(spec: ArchSpec) -> LayerNames:
    """Return the names of the layers in keras.applications; raises WeightsError if it has none."""
    check_kinds(spec, (*_KINDS, *_V2_KINDS), scheme="keras")
    # EfficientNetV2, the one with fused blocks, has another name for this layer.
    fused = any(block.kind in _V2_KINDS for block in spec.blocks)
    names = {**_BLOCK, "depthwise.conv": "dwconv2" if fused else "dwconv"}

    def name_block(stage: int, place: int, number: int, block: BlockSpec, rest: str) -> str:
        return f"block{stage + 1}{chr(ord('a') + place)}_{names[rest]}"

    return name_layers(spec, ends=_ENDS, name_block=name_block)


def plain_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays under the names that Keras 3 gives them, without those of the preprocessing layers.

    Keras 2 calls a depthwise kernel `depthwise_kernel`; the model's name may precede a layer's.
    """
    plain = {}
    for key, array in arrays.items():
        *_, layer, part = ("", *key.split("/"))
        if not _NORMALISATION.fullmatch(layer):
            plain[f"{layer}/{part.removesuffix(':0').replace('depthwise_kernel', 'kernel')}"] = array
    return plain


def pixel_statistics(arrays: Mapping[str, np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation, of pixels scaled to 0..1, of a file's own Normalization layer.

    None if it has none, or ImageNet's: published files hold the deviation in place of its square, which another
    layer makes up for. Without ImageNet's weights Keras leaves the mean at 0 and the variance at 1.
    """
    found = {}
    for key, array in arrays.items():
        *_, layer, part = ("", *key.split("/"))
        if _NORMALISATION.fullmatch(layer):
            found[part.removesuffix(":0")] = np.ravel(array).astype(float)
    mean, variance = found.get("mean"), found.get("variance")
    if mean is None or variance is None or mean.shape != variance.shape or not (variance > 0).all():
        return None
    if mean.shape == (3,) and np.allclose(mean, _IMAGENET_MEAN, atol=1e-3):
        return None
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
