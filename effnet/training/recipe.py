"""What a training run does, as one frozen tree of values; recipe_file.py reads and writes it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from effnet.data.preprocess import Interpolation
from effnet.errors import InputError, nearest
from effnet.system.bounds import MAX_BATCH, MAX_EPOCHS, MAX_SEED, MAX_SIDE, is_number
from effnet.system.text import brief

View = Literal["crop", "shift", "none"]
Policy = Literal[
    "none",
    "autoaugment",
    "autoaugment_imagenet",
    "autoaugment_cifar10",
    "randaugment",
    "randaugment_timm",
    "trivialaugment",
]
OptimizerName = Literal["adamw", "sgd", "rmsprop_tf", "lamb"]
ScheduleName = Literal["cosine", "one_cycle", "constant", "step", "exponential"]
LossName = Literal["cross_entropy", "bce"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Recompute = Literal["none", "stages"]
ErasingFill = Literal["mean", "colour", "noise"]

_STAGE_INTEGERS = {"resolution": 8, "micro_batch": 0}
# What no recipe has: beyond, numbers overflow, and loops over epochs and operations take for ever.
_LEAST, _MOST, _MOST_STAGES = 1e-30, 1e6, 100
_MOST_INTEGERS = {
    "epochs": MAX_EPOCHS,
    "seed": MAX_SEED,
    "resolution": MAX_SIDE,
    "num_ops": 100,
    "teacher_views": 10_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """How long, in what batches, how fast and how exactly.

    A step sees `batch_size` pictures over all processes, at most `micro_batch` of them at once on one device (0: all
    that are its share). `lr` is the peak; with an `lr_batch` it is meant for batches of that size and grows with
    batch_size. `clip_norm` is the longest that a gradient of a step may be, 0 for any. `ema_decay` is the share
    that the average of the weights keeps at a step, 0 for no average; it moves every `ema_every` steps, as far as in so
    many (average.py). `patience` is the number of epochs without a better validation result after which training
    stops, 0 for never. `precise_norms` is the number of pictures that the statistics of the norms are taken from anew
    before each validation, 0 for not at all.
    `fused` lets a CPU train through kernels of effnet's own, where it has a compiler for them. `recompute` stages keeps
    only what stages hand on, and computes the rest again in the backward pass.

    For weights that have learned already: `layer_decay` is the factor of the learning rate from one stage to the one
    before it, `frozen_norms` keeps the statistics of the norms, and `start_counts` makes the weights that training
    begins with its first result, so that it never returns worse ones.
    """

    epochs: int = 40
    batch_size: int = 64
    micro_batch: int = 0
    lr: float = 3e-3
    lr_batch: int = 0
    clip_norm: float = 2.0
    ema_decay: float = 0.998
    ema_every: int = 1
    patience: int = 0
    layer_decay: float = 1.0
    frozen_norms: bool = False
    sync_norms: bool = False
    precise_norms: int = 0
    precision: Precision = "auto"
    fused: bool = True
    recompute: Recompute = "none"
    start_counts: bool = False
    keep_checkpoints: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 2, "ema_every": 1, "keep_checkpoints": 1}
        zero = ("micro_batch", "lr_batch", "patience", "precise_norms", "seed")
        _check_integers(self, "train", least | dict.fromkeys(zero, 0))
        _check_positive(self, "train", "lr")
        _check_from_zero(self, "train", "clip_norm")
        _check_shares(self, "train", "ema_decay")
        _check_above_zero(self, "train", "layer_decay")
        _check_choice("train.precision", self.precision, get_args(Precision))
        _check_choice("train.recompute", self.recompute, get_args(Recompute))

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What training adds to the network: `drop_path` is the rate of the last block, `norm_momentum` torch's.

    `zero_classifier` begins with all classes equally likely, which suits a handful of them; else the classifier of a
    fresh network is drawn as published.
    """

    dropout: float = 0.1
    drop_path: float = 0.0
    norm_momentum: float = 0.1
    zero_classifier: bool = True

    def __post_init__(self) -> None:
        _check_shares(self, "model", "dropout", "drop_path")
        _check_above_zero(self, "model", "norm_momentum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """The rule that moves the weights.

    `momentum` is beta 1 of AdamW and LAMB, `decay` beta 2 of those and the decay of RMSProp's mean square.
    `decay_vectors` applies the weight decay to biases too, never to norms. SGD and rmsprop_tf couple it with the
    gradient; adamw and lamb do not.
    """

    name: OptimizerName = "adamw"
    momentum: float = 0.9
    decay: float = 0.99
    eps: float = 1e-8
    nesterov: bool = False
    weight_decay: float = 0.05
    decay_vectors: bool = False

    def __post_init__(self) -> None:
        _check_choice("optimizer.name", self.name, get_args(OptimizerName))
        _check_shares(self, "optimizer", "momentum", "decay")
        _check_positive(self, "optimizer", "eps")
        _check_from_zero(self, "optimizer", "weight_decay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate over the steps, relative to its peak.

    A linear rise from `warmup_from` over `warmup` of all steps or, where that is not 0, over `warmup_epochs`, though
    never more than half of the run; then `cosine` (half a cosine down to `final`), `constant`, `step` and `exponential`
    (times `decay_rate` every `decay_epochs` since the beginning of the run, at once or steadily). `one_cycle` rises
    from a 25th of the peak and falls to `final` on half cosines (Smith 2018, as torch has it).
    """

    name: ScheduleName = "cosine"
    warmup: float = 0.15
    warmup_epochs: float = 0.0
    warmup_from: float = 0.0
    final: float = 0.01
    decay_epochs: float = 2.4
    decay_rate: float = 0.97

    def __post_init__(self) -> None:
        _check_choice("schedule.name", self.name, get_args(ScheduleName))
        _check_shares(self, "schedule", "warmup", "warmup_from")
        _check_from_zero(self, "schedule", "warmup_epochs")
        _check_range(self, "schedule", 1e-3, _MOST, "decay_epochs")
        _check_above_zero(self, "schedule", "decay_rate")
        _check_range(self, "schedule", 0, 1, "final")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """How pictures vary from epoch to epoch.

    `view` crop is random resized cropping of at least `min_area` of the picture, shift a mild move, turn and zoom.
    `flip` mirrors at random. `rotation` is in degrees, `jitter` the spread of brightness, contrast and saturation.
    `erasing` is the share of pictures that lose a rectangle to the mean, one random colour or noise, `erasing_fill`.
    `mixup` and `cutmix` are the alpha of their beta distributions, 0 for off; where both are on, each batch takes one
    of them.

    `policy` applies published operations: autoaugment is the EfficientNets' v0, autoaugment_imagenet and
    autoaugment_cifar10 the paper's tables, randaugment the EfficientNets' and randaugment_timm timm's. RandAugment
    takes `num_ops` operations at `magnitude` (0 to 30; 10 is the end of AutoAugment's ranges) with spread
    `magnitude_std`; trivialaugment is the wide one.
    """

    view: View = "crop"
    min_area: float = 0.35
    flip: bool = True
    interpolation: Interpolation = "bicubic"
    rotation: float = 0.0
    jitter: float = 0.0
    policy: Policy = "none"
    num_ops: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.0
    erasing: float = 0.0
    erasing_fill: ErasingFill = "mean"
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("augment.view", self.view, get_args(View))
        _check_choice("augment.policy", self.policy, get_args(Policy))
        _check_choice("augment.interpolation", self.interpolation, get_args(Interpolation))
        _check_choice("augment.erasing_fill", self.erasing_fill, get_args(ErasingFill))
        _check_integers(self, "augment", {"num_ops": 1})
        _check_above_zero(self, "augment", "min_area")
        _check_shares(self, "augment", "jitter")
        _check_from_zero(self, "augment", "magnitude_std", "mixup", "cutmix")
        _check_range(self, "augment", 0, 30, "magnitude")
        _check_range(self, "augment", 0, 180, "rotation")
        _check_range(self, "augment", 0, 1, "erasing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is made small.

    `bce` asks of each class on its own whether it is there. With a `teacher`, a bundle's folder, the loss is a mean of
    the labels' and of the teacher's answers, softened by `temperature` (Hinton et al. 2015), the latter weighing
    `teacher_weight`. `feature_weight` adds where both look within the picture (Zagoruyko & Komodakis 2017), 0 for not
    at all. With `teacher_views` only so many views of each picture are drawn, in turn, and the teacher's answers to
    them are kept: it is run that often and no more; 0 draws new views each epoch.
    """

    name: LossName = "cross_entropy"
    label_smoothing: float = 0.1
    teacher: str = ""
    teacher_weight: float = 0.5
    temperature: float = 1.0
    feature_weight: float = 0.0
    teacher_views: int = 0

    def __post_init__(self) -> None:
        _check_choice("loss.name", self.name, get_args(LossName))
        _check_shares(self, "loss", "label_smoothing")
        _check_positive(self, "loss", "temperature")
        _check_from_zero(self, "loss", "feature_weight")
        _check_range(self, "loss", 0, 1, "teacher_weight")
        _check_integers(self, "loss", {"teacher_views": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of progressive training (Tan & Le 2021, section 4): `share` of the epochs relative to the other stages.

    What is None is as in the rest of the recipe; `resolution` None is the network's own.
    """

    share: float = 1.0
    resolution: int | None = None
    micro_batch: int | None = None
    dropout: float | None = None
    magnitude: float | None = None
    mixup: float | None = None
    cutmix: float | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "stages", "share")
        given = {name for name in self.__slots__ if getattr(self, name) is not None}
        _check_integers(self, "stages", {name: least for name, least in _STAGE_INTEGERS.items() if name in given})
        _check_shares(self, "stages", *given & {"dropout"})
        _check_range(self, "stages", 0, 30, *given & {"magnitude"})
        _check_from_zero(self, "stages", *given & {"mixup", "cutmix"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a training run does to a network; the defaults suit small networks and few pictures."""

    name: str = "small_data"
    train: Train = field(default_factory=Train)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if len(self.stages) > _MOST_STAGES:
            raise InputError(f"a recipe must have at most {_MOST_STAGES} stages; got {len(self.stages)}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as JSON-able data, every field written out."""
        return dataclasses.asdict(self) | {"stages": [dataclasses.asdict(stage) for stage in self.stages]}


def _check_integers(value: Any, group: str, least: dict[str, int]) -> None:
    for name, bound in least.items():
        got, most = getattr(value, name), _MOST_INTEGERS.get(name, MAX_BATCH)
        if type(got) is not int or got < bound:
            raise InputError(f"{group}.{name} must be an integer of at least {bound}; got {brief(got)}")
        if got > most:
            raise InputError(f"{group}.{name} must be at most {most}; got {brief(got)}")


def _check_positive(value: Any, group: str, *names: str) -> None:
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and got > 0):
            raise InputError(f"{group}.{name} must be positive and finite; got {brief(got)}")
        if not _LEAST <= got <= _MOST:
            raise InputError(f"{group}.{name} must lie in {_LEAST:g}..{_MOST:g}; got {brief(got)}")


def _check_from_zero(value: Any, group: str, *names: str) -> None:
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and got >= 0):
            raise InputError(f"{group}.{name} must be finite and at least 0; got {brief(got)}")
        if got > _MOST:
            raise InputError(f"{group}.{name} must be at most {_MOST:g}; got {brief(got)}")


def _check_shares(value: Any, group: str, *names: str) -> None:
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and 0 <= got < 1):
            raise InputError(f"{group}.{name} must lie in 0..1, 1 excluded; got {brief(got)}")


def _check_above_zero(value: Any, group: str, *names: str) -> None:
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and 0 < got <= 1):
            raise InputError(f"{group}.{name} must lie above 0 and be at most 1; got {brief(got)}")


def _check_range(value: Any, group: str, least: float, most: float, *names: str) -> None:
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and least <= got <= most):
            raise InputError(f"{group}.{name} must lie in {least:g}..{most:g}; got {brief(got)}")


def _check_choice(name: str, got: Any, known: tuple[str, ...]) -> None:
    if got not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got {brief(got)}{nearest(str(got), known)}")
