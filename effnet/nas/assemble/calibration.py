"""The calibration images of a search: to fit alternatives in closed form, and others to score them."""

import torch
from torch import Tensor

from effnet.arch.layers import output_side
from effnet.arch.spec import ArchSpec
from effnet.compression.norm_statistics import sample_batches
from effnet.compression.recovery import network_of
from effnet.compression.subject import Subject
from effnet.data.datasets import Split
from effnet.errors import DataError
from effnet.nas.assemble.library import Images
from effnet.nas.assemble.score import logits_of

_FIT_SHARE, _BATCH = 0.8, 32
# The memory for the feature maps between two parts, of all images.
_MOST_BYTES = 1.5e9


def calibration(student: Subject, teacher: Subject, split: Split, *, count: int, seed: int) -> Images:
    """Return at most `count` images of a split, preprocessed for the student, with the teacher's logits.

    Both see the same images, each preprocessed for it. 80 % are to fit weights, 20 % to score: on images that weights
    were fitted to, every alternative looks better than it is.
    """
    shown = _images(student, split, count=min(count, _most_images(student.config.arch)), seed=seed)
    if len(shown) < 2:
        raise DataError(f"a search needs at least 2 training images to fit and to score; got {len(shown)}")
    cut = min(len(shown) - 1, max(1, round(_FIT_SHARE * len(shown))))
    same = student.config.preprocess == teacher.config.preprocess
    taught = shown if same else _images(teacher, split, count=len(shown), seed=seed)
    logits = logits_of(network_of(teacher), taught.split(_BATCH))
    return Images(
        fit=shown[:cut].split(_BATCH),
        fit_logits=logits[:cut],
        score=shown[cut:].split(_BATCH),
        score_logits=logits[cut:],
    )


def _images(subject: Subject, split: Split, *, count: int, seed: int) -> Tensor:
    batches = sample_batches(split, subject.config.preprocess, seed=seed, count=count)
    return torch.cat([batch.images for batch in batches])


def _most_images(spec: ArchSpec) -> int:
    """Return how many images' largest maps between parts, before and after one of them, fit into the memory."""
    elements = spec.stem.channels * output_side(spec.resolution, spec.stem.stride) ** 2
    return max(_BATCH, int(_MOST_BYTES / (2 * 4 * elements)))
