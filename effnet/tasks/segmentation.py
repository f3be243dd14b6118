"""Segmentation: each pixel of an image has one of several classes."""

from effnet.data.annotated.masks.labels import MASKS
from effnet.tasks.detection import check_finite
from effnet.tasks.masks.whole import segment_image
from effnet.tasks.task import Figure, Output, Task

MASK = Output(
    name="mask",
    activation="none",
    meaning="the logit of each class in each cell of the image",
    titled="a segmenter",
)

TASK = Task(
    name="segmentation",
    title="segmentation",
    labels=MASKS,
    output=MASK,
    figure=Figure(key="miou", title="mIoU"),
    figure_drop=0.01,
    check=check_finite,
    answer=segment_image,
    whole=segment_image,
    several=(MASK,),
    learning="effnet.training.segmentation.learning",
    scoring="effnet.measurement.segmentation.evaluate",
    reporting="effnet.report.segmentation.section",
)
