"""The options of fit and train: a field each. It imports nothing slow, as `effnet --help` reads it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from effnet.errors import InputError
from effnet.progress import ignore
from effnet.runtimes.registry import DEFAULT, runnable
from effnet.system.options import exact, option
from effnet.system.text import brief

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec
    from effnet.data.datasets import DataLike
    from effnet.data.inspection.shapes import Resize
    from effnet.data.view.value_range import Asked as AskedRange
    from effnet.jobs.procedure import Procedure
    from effnet.planner.events import Listener
    from effnet.planner.target import Wanted
    from effnet.training.recipe.schema import Recipe

PathLike = str | os.PathLike[str]
Strategy = Literal["auto", "head", "finetune", "scratch"]
HeadFeatures = Literal["auto", "last", "all"]
UnlabelledMethod = Literal["auto", "noisy_student", "freematch"]
TaskName = Literal["auto", "classify", "detect", "segment"]
TASKS: Mapping[str, str] = {
    "auto": "auto", "classify": "classification", "detect": "detection", "segment": "segmentation",
}  # fmt: skip
"""The task of the data by the word that asks for it."""

_MOST_POWER = 10.0
_NAMES = f"{', '.join(runnable()[:-1])} or {runnable()[-1]}"


def _amount(text: str) -> float:
    from effnet.measurement.budget import parse_amount

    return parse_amount(text)


def _cost(text: str) -> str:
    from effnet.tasks.costs import check_cost

    return check_cost(text)


def _batch(text: str) -> int | str:
    if text == "auto":
        return text
    # No batch size has this many digits.
    if not text.isdecimal() or len(text) > 20:
        raise InputError(f"fit.batch must be a whole number of images, or auto; got {brief(text)}")
    return int(text)


def read_powers(text: str) -> tuple[float, float, float]:
    """Return alpha, beta and gamma from text such as 1.2,1.1,1.15; raise InputError for anything else."""
    try:
        alpha, beta, gamma = (float(word) for word in text.split(","))
    except ValueError:
        alpha = beta = gamma = 0.0
    if not all(1 <= value <= _MOST_POWER for value in (alpha, beta, gamma)):
        raise InputError(
            f"fit.powers must be three numbers from 1 to {_MOST_POWER:g}, such as 1.2,1.1,1.15; got {brief(text)}"
        )
    return alpha, beta, gamma


def _powers(value: tuple[float, float, float]) -> str:
    return ",".join(map(exact, value))


def _words(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _range(value: "AskedRange") -> str:
    if isinstance(value, str):
        return value
    pairs = value if isinstance(value[0], tuple) else (value,)
    return ";".join(",".join(map(exact, pair)) for pair in pairs)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """The options that fit and train share. Those of both are set as fit.NAME: `train` is a section of recipes."""

    PREFIX: ClassVar[str] = "fit"

    data: "DataLike" = field(kw_only=False)
    epochs: int | None = option("Training epochs.", main=True)
    minutes: float | None = option(
        "Minutes from start to bundle, instead of --epochs; default: 10 minutes of training.", main=True
    )
    out: PathLike | None = option(
        "Folder of the finished bundle; effnet-NAME by default.", main=True, metavar="DIR", repeat=False, command=False
    )
    resume: bool = option(
        "Continue the interrupted fit in --out.", default=False, main=True, repeat=False, command=False
    )
    outputs: str | Sequence[str] = option(
        "Columns of a manifest to learn, such as gender,year; default: label:NAME, tags:NAME, number:NAME and label.",
        default="", main=True, metavar="A,B,...", write=_words,
    )  # fmt: skip
    seed: int | None = option("Seed of split, weights and augmentation; default: the recipe's, or 0.", main=True)
    channels: int | None = option("Input channels; by default detected from the data.")
    strict: bool = option("Fail if a file cannot be used.", default=False)
    report_images: bool = option("Show misclassified test images in report.html.", default=True, repeat=False)
    group_by: str = option(
        "Regular expression such as 'patient(\\d+)'; images whose paths match it with the same text stay in one split.",
        default="", metavar="PATTERN",
    )  # fmt: skip
    resize: "Resize" = option(
        "How images become square: center (crop), squash, pad, or auto (by aspect ratio).",
        default="auto", metavar="auto|center|squash|pad",
    )  # fmt: skip
    value_range: "AskedRange" = option(
        "Values of black and white in images of more than 8 bits; auto: chosen from DATA; window: that of each DICOM "
        "file.",
        default="auto", metavar="LOW,HIGH|auto", write=_range,
    )  # fmt: skip
    sound: str = option(
        "Parameters of the spectrograms of sounds, such as seconds=3,mels=80,rate=16000; the others follow from DATA.",
        default="", metavar="NAME=VALUE,...",
    )  # fmt: skip
    balance: str | None = option(
        "Balance rare classes: adjust (logits), sample (oversampling), weight (in the loss), none.",
        metavar="adjust|sample|weight|none", repeat=False,  # a resumed fit repeats the recipe's field that it sets
    )  # fmt: skip
    cost: str = option(
        "Costs of wrong answers, which decide: miss:NAME=COST, false:NAME=COST, or several; each is 1 by default.",
        default="", metavar="miss:NAME=COST,...", read=_cost, write=str,
    )  # fmt: skip
    settings: Mapping[str, Any] | None = None
    listener: "Listener" = ignore
    procedure: "Procedure | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig(JobConfig):
    """The options that fit and search share: the device, its budget, and how a finished network is proven."""

    batch: ClassVar[None] = None  # the recipe decides

    max_latency_ms: float | None = option("Maximum median latency of one image in the runtime, in ms.", main=True)
    max_params: float | None = option("Maximum number of parameters, such as 1M.", metavar="COUNT", read=_amount)
    max_macs: float | None = option(
        "Maximum multiply-accumulates (MACs) of one image, such as 50M.", main=True, metavar="COUNT", read=_amount
    )
    max_size_mb: float | None = option("Maximum size of the model's file, in 10^6 bytes.", main=True)
    max_memory_mb: float | None = option(
        "Maximum peak memory of the model beyond the idle runtime, in 10^6 bytes; image decoding comes on top.",
        main=True,
    )
    runtime: str = option(f"Inference runtime of the device: {_NAMES}.", default=DEFAULT, main=True, metavar="NAME")
    precision: "Wanted" = option(
        "Precision of the exported model; auto tries int8 if a budget is set.",
        default="auto", main=True, metavar="auto|fp32|fp16|bf16|w8|int8",
    )  # fmt: skip
    device: PathLike | None = option(
        "Profile of the target device, written there by `effnet profile`.", main=True, metavar="FILE"
    )
    weights: PathLike = option(
        "Pretrained weights to start from; see `effnet models list`.",
        default="auto", main=True, metavar="ID|FILE|auto|none",
    )  # fmt: skip
    model: str = option("Architecture of --weights FILE, if it cannot be inferred.", default="", metavar="NAME")
    threads: int = option("Threads of the runtime on the device.", default=1)
    max_drop: float = option("Maximum accuracy drop from quantization, in percentage points.", default=0.5)
    coverage: float | None = option('Share of images to answer, such as 0.95; the others are "unknown".')
    max_error: float | None = option(
        'Abstain ("unknown") so that at most this share of answers is wrong, such as 0.01.'
    )
    unknown_from: PathLike | None = option(
        "Images of none of the classes, to measure how many are rejected.", metavar="DIR"
    )
    unknown_score: str = option(
        'Score that says "unknown"; auto chooses by leaving each class out in turn.',
        default="probability", metavar="auto|probability|energy|react|knn|mahalanobis|sum",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig(DeviceConfig):
    """The options of `fit`, as the user gave them; `jobs.fit.job` checks and completes them."""

    VERB: ClassVar[str] = "fit"

    task: "TaskName" = option(
        "What to learn: classify, detect (boxes), segment (masks), or auto: what DATA are annotated with.",
        default="auto", main=True, metavar="auto|classify|detect|segment",
    )  # fmt: skip
    corrections: PathLike | None = option(
        "File of right labels, and of images to leave out, that the page of `effnet serve` wrote.",
        main=True, metavar="FILE",
    )  # fmt: skip
    recipe: "Recipe | PathLike | None" = option(
        "How to fine-tune, such as robust: the fields in which a recipe differs from the defaults; see effnet recipes.",
        metavar="NAME|FILE", repeat=False, command=False,  # its fields are repeated
    )  # fmt: skip
    unlabelled: PathLike | None = option(
        "Folder of images without labels to learn from as well.", main=True, metavar="DIR"
    )
    unlabelled_method: UnlabelledMethod = option(
        "How: noisy_student, freematch, or auto: freematch for at most 5 training images a class.", default="auto"
    )
    unlabelled_rounds: int = option("Students of noisy_student, each of the one before: 1 or 2.", default=1)
    strategy: Strategy = option(
        "What to train; head is a linear probe; auto fine-tunes if that pays off.", default="auto"
    )
    head_features: HeadFeatures = option(
        "What a head on pretrained weights reads: last (feature map, pooled), all (later stages too), or auto: all, "
        "where nothing else is trained and it is not worse on the validation images.",
        default="auto",
    )
    search: Literal["off", "auto"] = option(
        "auto: search the architecture, as effnet search does, if --minutes and images allow it.", default="off"
    )
    powers: tuple[float, float, float] | None = option(
        "Depth, width and resolution of scaled networks grow by these powers; effnet models scale --grid finds them.",
        metavar="A,B,G", read=read_powers, write=_powers,
    )  # fmt: skip
    trials: int | None = option(
        "Networks to train briefly before choosing one (successive halving); default: 8 if --minutes >= 30, 0 for "
        "detectors and segmenters."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(JobConfig):
    """The options of `train`: one network and its recipe, without a budget."""

    VERB: ClassVar[str] = "train"
    # What fit decides by its options.
    weights: ClassVar[str] = "none"
    strategy: ClassVar[Strategy] = "scratch"
    head_features: ClassVar[HeadFeatures] = "last"
    threads: ClassVar[int] = 1
    trials: ClassVar[int] = 0

    model: "PathLike | ArchSpec" = option(
        "A network's name, a bundle, or a spec as JSON.", default="b0", main=True, metavar="NAME|DIR|FILE"
    )
    resolution: int | None = option(
        "Input resolution, in pixels; by default the network's own.", main=True, repeat=False
    )
    recipe: "Recipe | PathLike | None" = option(
        "A name from `effnet recipes`, a JSON file, or a .py file that defines recipe(spec); it is run.",
        main=True, metavar="NAME|FILE", repeat=False,  # a resumed training repeats every field
    )  # fmt: skip
    batch: int | Literal["auto"] | None = option(
        "Batch size; auto keeps it and finds the largest micro-batch in memory.", metavar="N|auto", read=_batch
    )
