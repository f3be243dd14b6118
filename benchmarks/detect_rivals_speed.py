"""effdet's EfficientDet-Lite0 in ONNX Runtime with effdet's own post-processing: what `detect_speed` compares with.

It needs effdet: pip install --no-deps effdet==0.4.1 (beside timm and omegaconf).
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks import peers
from effnet.runtimes.onnxruntime.session import open_session

NAME = "tf_efficientdet_lite0"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Export:
    """An exported detector: `path` is its ONNX file, float32."""

    path: Path
    session: onnxruntime.InferenceSession
    image: np.ndarray
    effdet: ModuleType
    config: object
    anchors: Tensor

    def run(self) -> Tensor:
        """Return what is found in one image, [1, 100, 6]: left, top, right, bottom, score and class."""
        bench, config = self.effdet.bench, self.config
        maps = [torch.from_numpy(each) for each in self.session.run(None, {"image": self.image})]
        levels = config.num_levels  # type: ignore[attr-defined]
        # As DetBenchPredict.forward does.
        found = bench._post_process(
            maps[:levels], maps[levels:], levels, config.num_classes,  # type: ignore[attr-defined]
            max_detection_points=config.max_detection_points,  # type: ignore[attr-defined]
        )  # fmt: skip
        detections: Tensor = bench._batch_detection(
            1, found[0], found[1], self.anchors, found[2], found[3],
            max_det_per_image=config.max_det_per_image,  # type: ignore[attr-defined]
            soft_nms=config.soft_nms,  # type: ignore[attr-defined]
        )  # fmt: skip
        return detections


class _Flat(nn.Module):
    """The maps of all levels, first the classes, then the boxes, as one tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        classes, boxes = self.network(image)
        return (*classes, *boxes)


def export_effdet(path: Path, *, side: int = 320, num_classes: int = 6) -> Export:
    """Write effdet's EfficientDet-Lite0 with random weights to `path` through torch.onnx, and open it on one thread.

    effdet takes the best 5,000 candidates, whatever their scores, so random weights cost much as trained ones do. Its
    suppression ends at the 100 boxes that are kept if torchvision's compiled part, which goes on, does not match torch.
    """
    effdet = peers.import_effdet()
    torch.manual_seed(0)
    config = effdet.config.get_efficientdet_config(NAME)
    config.image_size, config.num_classes = (side, side), num_classes
    network = effdet.EfficientDet(config, pretrained_backbone=False).eval()
    peers.suppress_first(effdet, config.max_det_per_image)
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        torch.onnx.export(
            _Flat(network).eval(),
            (image,),
            str(path),
            input_names=["image"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return Export(
        path=path, session=open_session(path, threads=1), image=image.numpy(), effdet=effdet, config=config,
        anchors=effdet.anchors.Anchors.from_config(config).boxes,
    )  # fmt: skip
