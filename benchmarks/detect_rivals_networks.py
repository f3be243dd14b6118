"""Detectors of torchvision and effdet on the pretrained Lite0 that effnet starts from, which `detect_rivals` trains."""

from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

import effnet
from benchmarks.detect_rivals_effdet import EffdetRival
from benchmarks.harness import shared
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess

BACKBONE = ("backbone.parts.0.", "backbone.parts.1.", "backbone.body.", "network.backbone.")
"""The names of pretrained parameters begin with one of these."""
MOMENTUM = 0.03
"""The momentum of the statistics of SSDlite's own BatchNorms."""
Kind = Literal["ssdlite", "fcos", "effdet"]
# torchvision's FCOS has 256 channels, with which a CPU pays for few epochs.
_FCOS_CHANNELS = 96


def made(
    vision: ModuleType, kind: Kind, dataset: Dataset, side: int, most: int
) -> tuple[nn.Module, Preprocess, list[nn.BatchNorm2d]]:
    """Return a detector of `most` objects on the pretrained backbone, its preprocessing, the backbone's BatchNorms."""
    backbone = effnet.create_model(shared("weights", "tf_efficientnet_lite0_headless.safetensors"), num_classes=0)
    norms = [each for each in backbone.modules() if isinstance(each, nn.BatchNorm2d)]
    preprocess = backbone.preprocess
    if kind == "effdet":
        rival = EffdetRival(len(dataset.class_names), side, most, mean=preprocess.mean, std=preprocess.std)
        own = [each for each in rival.network.backbone.modules() if isinstance(each, nn.BatchNorm2d)]
        return rival.to(memory_format=torch.channels_last), preprocess, own
    # As torchvision fine-tunes by default: the first two strides keep their weights.
    for part in (backbone.stem, *backbone.stages[:2]):
        part.requires_grad_(False)
    normal = {"image_mean": list(preprocess.mean), "image_std": list(preprocess.std)}
    make = _ssdlite if kind == "ssdlite" else _fcos
    model = make(vision, backbone, len(dataset.class_names), side, most, normal)
    batch_images = model.transform.batch_images
    # Convolutions are fastest on a CPU with the channels last.
    model.transform.batch_images = lambda *args, **options: batch_images(*args, **options).contiguous(
        memory_format=torch.channels_last
    )
    return model.to(memory_format=torch.channels_last), preprocess, norms


class _SsdliteFeatures(nn.Module):
    """Feature maps as torchvision takes them of MobileNetV3: the first expansion of stride 32, the last, and extras."""

    def __init__(self, backbone: Any, extra_block: Callable[..., nn.Module], norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        number = next(i for i, stage in enumerate(backbone.stages) if i > 3 and stage[0].depthwise.conv.stride[0] == 2)
        first, *others = backbone.stages[number]
        self.parts = nn.ModuleList(
            [
                nn.Sequential(backbone.stem, *backbone.stages[:number], first.expand),
                nn.Sequential(first.depthwise, first.project, *others, *backbone.stages[number + 1 :], backbone.head),
                extra_block(backbone.head.conv.out_channels, 512, norm),
                extra_block(512, 256, norm),
                extra_block(256, 256, norm),
                extra_block(256, 128, norm),
            ]
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = OrderedDict()
        for number, part in enumerate(self.parts):
            found[str(number)] = x = part(x)
        return found


def _ssdlite(
    vision: ModuleType, backbone: Any, classes: int, side: int, most: int, normal: dict[str, Any]
) -> nn.Module:
    """Return ssdlite320_mobilenet_v3_large with another backbone; its class 0 is the background."""
    detection = vision.models.detection

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, eps=0.001, momentum=MOMENTUM)

    features = _SsdliteFeatures(backbone, detection.ssdlite._extra_block, norm)
    for extra in features.parts[2:]:
        detection.ssdlite._normal_init(extra)
    channels = detection._utils.retrieve_out_channels(features, (side, side))
    boxes = detection.anchor_utils.DefaultBoxGenerator([[2, 3] for _ in channels], min_ratio=0.2, max_ratio=0.95)
    head = detection.ssdlite.SSDLiteHead(channels, boxes.num_anchors_per_location(), classes + 1, norm)
    found: nn.Module = detection.ssd.SSD(
        features, boxes, (side, side), classes + 1, head=head, score_thresh=0.001, nms_thresh=0.55,
        detections_per_img=most, topk_candidates=max(300, 5 * most), **normal,
    )  # fmt: skip
    return found


def _fcos(vision: ModuleType, backbone: Any, classes: int, side: int, most: int, normal: dict[str, Any]) -> nn.Module:
    """Return torchvision's FCOS with a pyramid of five levels, P3 to P7."""
    detection, fpn = vision.models.detection, vision.ops.feature_pyramid_network
    body = nn.Sequential(OrderedDict(stem=backbone.stem, **{f"s{i}": each for i, each in enumerate(backbone.stages)}))
    taps = {"s2": 40, "s4": 112, "s6": 320}
    pyramid = detection.backbone_utils.BackboneWithFPN(
        body, {name: str(number) for number, name in enumerate(taps)}, list(taps.values()), _FCOS_CHANNELS,
        extra_blocks=fpn.LastLevelP6P7(_FCOS_CHANNELS, _FCOS_CHANNELS),
    )  # fmt: skip
    found: nn.Module = detection.fcos.FCOS(
        pyramid, classes, min_size=side, max_size=side, score_thresh=0.01, detections_per_img=most,
        topk_candidates=max(1000, 5 * most), **normal,
    )  # fmt: skip
    return found
