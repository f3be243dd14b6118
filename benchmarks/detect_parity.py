"""`python -m benchmarks.detect_parity`: every EfficientDet against effdet 0.4.1 with the same random weights.

Raw outputs of D0 and Lite0 whole, of the others with one cell and one repeat, at 128 or 256 pixels; names and shapes of
all arrays of the whole networks; anchors at the published sizes; the loss and its parts; detections after suppression.
The figure is the largest difference of an output as a part of its largest value.

It needs effdet: pip install --no-deps effdet==0.4.1 (beside timm and omegaconf).
"""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.harness import finish, options
from effnet.arch.catalog import DETECTORS, EFFDETS_OWN, get_spec
from effnet.arch.decoders.record import Detector
from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_
from effnet.data.annotated.objects import BOTTOM, CLASS, COLUMNS, LEFT, NORMAL, STATE
from effnet.nn.dense import build_dense
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.record import Detections
from effnet.tasks.boxes.whole import decoder_of
from effnet.training.detection.anchor_loss import AnchorLoss
from effnet.weights.schemes import foreign_shapes, to_effnet

GOAL = 1e-4
WHOLE = ("efficientdet_d0", "efficientdet_lite0")
NAMES = (*DETECTORS, *(f"effdet/{name}" for name in EFFDETS_OWN))
# Soft suppression is compared on one class: effdet moves others to where float32 is too coarse for their overlaps.
_GOALS = {"anchors_px": 1e-4, "loss": 1e-5, "boxes_px": 0.01, "scores": 1e-5, "soft_scores": 1e-4}
# effdet keeps 5,000 candidates; its suppression would take most of the time.
_CLASSES, _IMAGES, _CANDIDATES, _TIE = 5, 2, 300, 2e-3
# The means and standard deviations of the logits and the codes that are decoded.
_SCALES = ((-6.0, 2.0), (0.0, 0.3))


def main() -> None:
    """Compare all networks, and print each difference."""
    args = options(__doc__ or "", n=len(NAMES))
    effdet = peers.import_effdet()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {"outputs": [], **{key: [] for key in _GOALS}}
    for name in NAMES[: args.n]:
        peer, spec = peer_of(effdet, name)
        row = compare(effdet, peer, spec)
        row["anchors_px"] = anchor_difference(effdet, name)
        for key, value in row.items():
            found[key].append(value)
        arrays = name_differences(effdet, name)
        print(f"{name}: " + ", ".join(f"{key} {value:.2g}" for key, value in row.items()) + f"; arrays {arrays}")
        if arrays:
            raise SystemExit(f"{name} must have effdet's arrays; {arrays} differ")
    missed = {key: max(found[key]) for key, goal in _GOALS.items() if max(found[key]) > goal}
    if missed:
        raise SystemExit(f"the other differences must be at most {_GOALS}; got {missed}")
    finish(
        "detect_parity", args, figure=max(found["outputs"]), goal=GOAL, unit="of the largest output", better="lower",
        samples=found,
        details={"networks": list(NAMES[: args.n]), "effdet": effdet.version.__version__, "goals": _GOALS},
    )  # fmt: skip


def config_of(effdet: ModuleType, name: str) -> Any:
    """Return effdet's configuration of effnet's network of this name."""
    own = name.startswith("effdet/")
    return effdet.config.get_efficientdet_config(name.removeprefix("effdet/") if own else f"tf_{name}")


def peer_of(effdet: ModuleType, name: str) -> tuple[nn.Module, ArchSpec]:
    """Return effdet's network with random weights, small unless it is in WHOLE, and its spec."""
    spec, config = get_spec(name, num_classes=_CLASSES), config_of(effdet, name)
    decoder = spec.decoder
    assert isinstance(decoder, Detector)
    side = 2 ** max(7, decoder.neck.max_level)
    config.image_size, config.num_classes = (side, side), _CLASSES
    if name not in WHOLE:
        config.fpn_cell_repeats = config.box_class_repeats = 1
        decoder = Detector(
            neck=dataclasses.replace(decoder.neck, cells=1), head=dataclasses.replace(decoder.head, repeats=1)
        )
    peer: nn.Module = effdet.EfficientDet(config, pretrained_backbone=False)
    draw_weights_(peer, side)
    return peer, dataclasses.replace(spec, resolution=side, decoder=decoder)


@torch.no_grad()
def draw_weights_(network: nn.Module, side: int) -> None:
    """Draw the weights of a network, and statistics of its BatchNorms near those of noise, but all different."""
    generator = torch.Generator().manual_seed(0)

    def draw(like: Tensor, mean: float, std: float) -> Tensor:
        return torch.empty_like(like).normal_(mean, std, generator=generator)

    def settle(norm: nn.Module, args: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(args[0], (0, 2, 3))
        # The channels of a layer share a spread: exact statistics would magnify roundings from layer to layer.
        spread = variance.mean().clamp(min=1e-6)
        norm.running_mean.copy_(mean * 0.2 + draw(mean, 0, 0.3) * spread.sqrt())
        norm.running_var.copy_(spread * (1 + draw(mean, 0, 0.2)).clamp(0.5, 2))

    for name, parameter in network.named_parameters():
        if name.endswith("edge_weights"):
            parameter.copy_(draw(parameter, 0.7, 0.6))  # some are negative, which count as 0
        elif parameter.ndim > 1:
            parameter.copy_(draw(parameter, 0, (2 / parameter[0].numel()) ** 0.5))
        else:
            parameter.copy_(draw(parameter, 1.0 if name.endswith("weight") else 0.0, 0.2))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    network.eval()(torch.randn(_IMAGES, 3, side, side, generator=generator))
    for hook in hooks:
        hook.remove()


def copied(peer: nn.Module, spec: ArchSpec, *, scheme: Any = "effdet") -> nn.Module:
    """Return effnet's network with the weights of a peer's, read by their names."""
    arrays = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    network = build_dense(spec, seed=0)
    load_arrays_(network, to_effnet(arrays, spec, scheme=scheme, where=spec.name), where=spec.name)
    return network.eval()


@torch.no_grad()
def compare(effdet: ModuleType, peer: nn.Module, spec: ArchSpec) -> dict[str, float]:
    """Return how far apart outputs, losses and detections are."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(_IMAGES, 3, *spec.input_size, generator=generator)
    theirs, ours = peer.eval()(images), copied(peer, spec)(images)
    rows = {"scores": flat(theirs[0], spec.num_classes), "boxes": flat(theirs[1], 4)}
    row = {"outputs": max(((ours[key] - rows[key]).abs().max() / rows[key].abs().max()).item() for key in rows)}
    row["loss"] = loss_difference(effdet, peer, theirs, rows, spec)
    return row | detection_differences(effdet, peer, theirs, spec)


def flat(maps: list[Tensor], columns: int) -> Tensor:
    """Return effdet's maps of all levels as rows [batch, places, columns]."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, columns) for each in maps], dim=1)


def loss_difference(
    effdet: ModuleType, peer: nn.Module, theirs: Any, rows: dict[str, Tensor], spec: ArchSpec
) -> float:  # fmt: skip
    """Return the relative difference of the losses on random objects; effdet's classes begin at 1, its boxes at y."""
    rng, side = np.random.default_rng(2), spec.resolution
    targets = torch.zeros(_IMAGES, 6, COLUMNS)
    low = rng.uniform(0, 0.6 * side, (_IMAGES, 6, 2))
    boxes = np.concatenate((low, low + rng.uniform(0.1 * side, 0.4 * side, low.shape)), axis=2)
    targets[..., LEFT : BOTTOM + 1] = torch.from_numpy(boxes)
    targets[..., CLASS] = torch.from_numpy(rng.integers(0, spec.num_classes, (_IMAGES, 6)))
    targets[..., STATE] = NORMAL
    labeler = effdet.anchors.AnchorLabeler(effdet.anchors.Anchors.from_config(peer.config), spec.num_classes)
    wanted = labeler.batch_label_anchors(targets[..., [LEFT + 1, LEFT, BOTTOM, BOTTOM - 1]], targets[..., CLASS] + 1)
    whole, _, _ = effdet.loss.DetectionLoss(peer.config)(*theirs, *wanted)
    priors = effdet.anchors.Anchors.from_config(peer.config).boxes[:, [1, 0, 3, 2]]
    found = AnchorLoss()(rows["boxes"], rows["scores"], targets, priors)
    return (abs(found - whole) / whole).item()


def detection_differences(effdet: ModuleType, peer: nn.Module, theirs: Any, spec: ArchSpec) -> dict[str, float]:
    """Return how far apart boxes, in pixels, and scores are, after hard and, of one class, after soft suppression.

    The outputs are scaled as those of a trained network are: random ones have many scores of exactly 1.
    """
    found = {"boxes_px": 0.0, "scores": 0.0, "soft_scores": 0.0}
    logits, codes = (
        [each * (spread / maps[0].std()) + mean for each in maps]
        for maps, (mean, spread) in zip(theirs, _SCALES, strict=True)
    )  # fmt: skip
    boxes, scores = flat(codes, 4), flat(logits, spec.num_classes)
    raw = effdet.bench._post_process(
        logits, codes, len(codes), spec.num_classes, max_detection_points=_CANDIDATES
    )  # fmt: skip
    priors = effdet.anchors.Anchors.from_config(peer.config).boxes
    decoder = spec.decoder
    assert isinstance(decoder, Detector)
    hard = effdet.bench._batch_detection(_IMAGES, raw[0], raw[1], priors, raw[2], raw[3])
    for number in range(_IMAGES):
        best = scores[number, :, 0].topk(_CANDIDATES)
        one = best.values[:, None], boxes[number, best.indices], priors, best.indices, torch.zeros_like(best.indices)
        soft = effdet.anchors.generate_detections(*one, None, None, soft_nms=True)
        for rows, classes, softly in ((hard[number], spec.num_classes, False), (soft, 1, True)):
            ours = detect(
                boxes[number].numpy(), scores[number, :, :classes].numpy(), decoder_of(decoder, spec.input_size),
                threshold=1e-9, iou=0.5, candidates=_CANDIDATES, soft=softly,
            )  # fmt: skip
            apart = detections_apart(ours, rows.numpy())
            key = "soft_scores" if softly else "scores"
            found[key] = max(found[key], apart["scores"])
            found["boxes_px"] = max(found["boxes_px"], apart["boxes_px"])
    return found


def detections_apart(ours: Detections, rows: np.ndarray) -> dict[str, float]:
    """Return how far boxes and scores are from effdet's rows, each from the nearest box of its class.

    Equal scores may come in another order, and so the last of all may be others.
    """
    rows = rows[rows[:, 4] > ours.scores.min() + _TIE]
    away = np.abs(ours.boxes[None] - rows[:, None, :4]).max(2)
    # effdet counts classes from 1.
    away[ours.classes[None] != rows[:, None, 5] - 1] = np.inf
    nearest = away.argmin(1)
    return {"boxes_px": float(away.min(1).max()), "scores": float(np.abs(ours.scores[nearest] - rows[:, 4]).max())}


def anchor_difference(effdet: ModuleType, name: str) -> float:
    """Return the largest difference of an anchor's side at the published size, in pixels."""
    spec = get_spec(name)
    decoder = spec.decoder
    assert isinstance(decoder, Detector)
    priors = effdet.anchors.Anchors.from_config(config_of(effdet, name)).boxes.numpy()[:, [1, 0, 3, 2]]
    places = np.arange(len(priors))
    found = decoder_of(decoder, spec.input_size)(np.zeros((len(places), 4), np.float32), places)
    return float(np.abs(found - priors).max())


def name_differences(effdet: ModuleType, name: str) -> int:
    """Return how many arrays of the whole network differ in name or shape."""
    with torch.device("meta"):
        peer = effdet.EfficientDet(config_of(effdet, name), pretrained_backbone=False)
    arrays = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
    theirs = {(key, shape) for key, shape in arrays.items() if not key.endswith("num_batches_tracked")}
    return len(theirs ^ set(foreign_shapes(get_spec(name), "effdet").items()))


if __name__ == "__main__":
    main()
