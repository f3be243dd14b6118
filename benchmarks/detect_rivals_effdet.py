"""effdet's EfficientDet-Lite0 with its anchors, losses and post-processing, which `detect_rivals` trains.

It needs effdet: pip install --no-deps effdet==0.4.1 (beside timm and omegaconf).
"""

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.harness import shared

NAME = "tf_efficientdet_lite0"
# Parts of a backbone of classification that a detector has no place for.
_HEAD = ("conv_head.", "bn2.")


class EffdetRival(nn.Module):
    """EfficientDet-Lite0 in the form of torchvision's detectors: losses by name in training, else boxes an image."""

    def __init__(self, classes: int, side: int, most: int, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        effdet = peers.import_effdet()
        peers.suppress_first(effdet, most)
        config = effdet.config.get_efficientdet_config(NAME)
        config.image_size, config.num_classes, config.max_det_per_image = (side, side), classes, most
        self.network = effdet.EfficientDet(config, pretrained_backbone=False)
        pretrained = load_file(shared("weights", "tf_efficientnet_lite0_headless.safetensors"))
        known = {name: each for name, each in pretrained.items() if not name.startswith(_HEAD)}
        self.network.backbone.load_state_dict(known)
        # As torchvision's rivals: the first two strides keep their weights.
        for name, each in self.network.backbone.named_parameters():
            each.requires_grad_(not name.startswith(("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")))
        self.train_bench = effdet.bench.DetBenchTrain(self.network)
        self.predict_bench = effdet.bench.DetBenchPredict(self.network)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Return `{"loss": ...}` in training; else boxes [N, 4], scores [N] and labels [N] of each image."""
        batch = (torch.stack(images) - self.mean) / self.std
        batch = batch.contiguous(memory_format=torch.channels_last)
        if targets is not None:
            order = [1, 0, 3, 2]  # effdet's boxes begin with y, and its classes with 1
            target = {
                "bbox": [each["boxes"][:, order].as_subclass(Tensor).float() for each in targets],
                "cls": [each["labels"].as_subclass(Tensor) + 1 for each in targets],
            }
            found = self.train_bench(batch, target)
            return {"loss": found["loss"]}
        rows = self.predict_bench(batch)
        return [{"boxes": own[:, :4], "scores": own[:, 4], "labels": own[:, 5].long() - 1} for own in rows]
