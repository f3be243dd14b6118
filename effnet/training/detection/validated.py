"""The result of a detector on held-out images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from effnet.data.annotated.record import Annotated
from effnet.data.preprocess import Preprocess
from effnet.measurement.detection.figures import by_class, figures
from effnet.measurement.detection.matching import match
from effnet.measurement.detection.score import nothing_sentence
from effnet.system.text import percent
from effnet.tasks.boxes.candidates import Decode, detect
from effnet.tasks.boxes.record import Detections
from effnet.tasks.boxes.whole import decoder_of
from effnet.training.detection.head import Answers, Heads
from effnet.training.detection.inputs import Shown
from effnet.training.detection.views import padded
from effnet.training.device import to_input
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.input.own import Lazy
from effnet.training.recipe.schema import Recipe

# Of more classes each AP50 is too much to say. An AP50 below the second is nearly nothing, and wants a reason.
_NAMED_CLASSES, _NOTHING = 8, 0.05
# Candidates below this score change no figure visibly.
_LEAST_SCORE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxesValidated:
    """The validation result: the mean loss, COCO's AP and AP50, the AP50 of each class, None if it has no objects.

    `why` is a sentence on why nearly nothing is found, empty if something is.
    """

    loss: float
    ap: float
    ap50: float
    by_class: tuple[float | None, ...]
    why: str = ""

    @property
    def figures(self) -> Mapping[str, float]:
        """AP and AP50, as in metrics.jsonl."""
        return {"val_ap": self.ap, "val_ap50": self.ap50}

    @property
    def words(self) -> str:
        """The figures, of few classes the AP50 of each in their order, and why nearly nothing is found."""
        each = ", ".join("-" if value is None else percent(value) for value in self.by_class)
        some = f" ({each})" if 1 < len(self.by_class) <= _NAMED_CLASSES else ""
        why = f"; {self.why[0].lower()}{self.why[1:].rstrip('.')}" if self.why else ""  # more follows on the line
        return f"AP {percent(self.ap)}, AP50 {percent(self.ap50)}{some}{why}"

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a better detector: the AP, then minus the loss."""
        return self.ap, -self.loss

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return no images."""
        return {}


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, Sequence[Shown]]],
    preprocess: Preprocess,
    device: torch.device,
    ranks: Ranks = ALONE,
    *,
    num_classes: int,
    kept: Lazy | None = None,
) -> BoxesValidated:
    """Return the result of `model`, in evaluation mode, on the batches of `effnet.training.detection.inputs`.

    With `kept` feature maps, batches hold their rows instead of images. Each process of `ranks` gives batches of its
    own, perhaps none; all get the joint result.
    """
    model.eval()
    heads = Heads(model)
    truths: list[Annotated] = []
    found: list[Detections] = []
    losses = torch.zeros(2, dtype=torch.float64)
    most = 100
    for images, shown in batches:
        most = max(most, most_detections([own.truth for own in shown]))
        if kept is None:
            answers, size = Answers.of(model(to_input(images, preprocess, device))), preprocess.size
        else:
            answers, size = kept.get().answers(model, images, device), kept.get().size
        head = heads.at_size(*size, device=device)
        targets = torch.from_numpy(padded([own.targets for own in shown])).to(device)
        losses += torch.tensor([float(head.loss(answers, targets)) * len(shown), len(shown)], dtype=torch.float64)
        truths += [own.truth for own in shown]
        found += [
            detections_in(boxes, scores, own, decode=decoder_of(heads.decoder, size), most=most)
            for boxes, scores, own in zip(*answers.to_numpy(), shown, strict=True)
        ]
    ranks.meet()
    every = [pair for some in ranks.gather(list(zip(truths, found, strict=True))) for pair in some]
    loss, images_seen = ranks.total(losses).tolist()
    return _validated(every, loss / max(1.0, images_seen), num_classes)


def detections_in(boxes: np.ndarray, scores: np.ndarray, shown: Shown, *, decode: Decode, most: int) -> Detections:
    """Return the objects found in an image, in its pixels, from the raw boxes [n, 4] and logits [n, classes]."""
    own = detect(boxes, scores, decode, threshold=_LEAST_SCORE, most=most)
    found = shown.place.to_image(own.boxes.astype(np.float64))
    inside = (found[:, 2:] > found[:, :2]).all(1)  # not in the padding alone
    return Detections(boxes=found[inside], scores=own.scores[inside], classes=own.classes[inside])


def most_detections(truths: Sequence[Annotated]) -> int:
    """Return the number of detections of an image that count: COCO's 100, or more if an image has more objects."""
    return max([100, *(100 * math.ceil(len(truth.boxes) / 100) for truth in truths)])


def _validated(pairs: Sequence[tuple[Annotated, Detections]], loss: float, num_classes: int) -> BoxesValidated:
    truths, found = [truth for truth, _ in pairs], [own for _, own in pairs]
    matches = match(truths, found, num_classes=num_classes, max_detections=most_detections(truths))
    own = figures(matches)
    ap50 = own.ap50 or 0.0
    return BoxesValidated(
        loss=loss,
        ap=own.ap or 0.0,
        ap50=ap50,
        by_class=tuple(each.ap50 for each in by_class(matches)),
        why=nothing_sentence(truths, found) if ap50 < _NOTHING else "",
    )
