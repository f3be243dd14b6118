"""The recipe of a training run, as one frozen tree of values; recipe_file.py reads and writes it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from effnet.errors import InputError
from effnet.training.recipe.augment import Augment
from effnet.training.recipe.boxes import Boxes
from effnet.training.recipe.checks import (
    MOST,
    check_above_zero,
    check_choice,
    check_from_zero,
    check_integers,
    check_positive,
    check_range,
    check_shares,
)
from effnet.training.recipe.kept import Kept
from effnet.training.recipe.masks import Masks

OptimizerName = Literal["adamw", "sgd", "rmsprop_tf", "lamb"]
ScheduleName = Literal["cosine", "one_cycle", "constant", "step", "exponential"]
LossName = Literal["cross_entropy", "bce"]
TagLoss = Literal["bce", "asl"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Recompute = Literal["none", "stages"]
BalanceMethod = Literal["none", "adjust", "sample", "weight"]

_STAGE_INTEGERS = {"resolution": 8, "micro_batch": 0}
_MOST_STAGES = 100
# Lin et al. 2017 went up to 5.
_MOST_GAMMA = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Epochs, batches, learning rate, precision and memory.

    A step uses `batch_size` images over all processes, at most `micro_batch` of them at once on one device (0: its
    whole share). `lr` is the peak; with an `lr_batch` it applies to batches of that size and scales with batch_size.
    `clip_norm` is the maximum norm of a step's gradient, 0 for no clipping. `ema_decay` is the decay of the exponential
    moving average of the weights per step, 0 for no average; it is updated every `ema_every` steps, by as much as in
    that many single steps (average.py). `patience` is for early stopping: the number of epochs without a better
    validation result after which training stops, 0 for never. `precise_norms` is the number of images from which the
    BatchNorm statistics are recomputed before each validation, 0 for none. `sync_norms` computes BatchNorm statistics
    over all processes.
    `fused` lets a CPU train with effnet's own kernels, if it has a compiler for them. `recompute` stages (activation
    checkpointing) keeps only the outputs of stages, and recomputes the rest in the backward pass.

    For pretrained weights: `layer_decay` is the factor of the learning rate from one stage to the one before it,
    `frozen_stages` is the number of the first stages that are not trained, nor is the stem before them, `frozen_norms`
    keeps the BatchNorm statistics (those of the backbone, if the network has a decoder), and `start_counts` validates
    the initial weights as the first result, so that training never returns worse ones.

    `last_counts` keeps the weights of the last epoch rather than of the best one: validation then chooses nothing.
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
    frozen_stages: int = 0
    frozen_norms: bool = False
    sync_norms: bool = False
    precise_norms: int = 0
    precision: Precision = "auto"
    fused: bool = True
    recompute: Recompute = "none"
    start_counts: bool = False
    last_counts: bool = False
    keep_checkpoints: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 2, "ema_every": 1, "keep_checkpoints": 1}
        zero = ("micro_batch", "lr_batch", "patience", "precise_norms", "seed", "frozen_stages")
        check_integers(self, "train", least | dict.fromkeys(zero, 0))
        check_positive(self, "train", "lr")
        check_from_zero(self, "train", "clip_norm")
        check_shares(self, "train", "ema_decay")
        check_above_zero(self, "train", "layer_decay")
        check_choice("train.precision", self.precision, get_args(Precision))
        check_choice("train.recompute", self.recompute, get_args(Recompute))

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Regularisation and initialisation of the network: `drop_path` is the rate of the last block.

    `norm_momentum` is the BatchNorm momentum as torch defines it. `zero_classifier` initialises the classifier with
    zeros, so that all classes are equally likely, which suits few classes; else it is initialised as published if the
    network is trained from scratch.
    """

    dropout: float = 0.1
    drop_path: float = 0.0
    norm_momentum: float = 0.1
    zero_classifier: bool = True

    def __post_init__(self) -> None:
        check_shares(self, "model", "dropout", "drop_path")
        check_above_zero(self, "model", "norm_momentum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """The optimiser.

    `momentum` is beta 1 of AdamW and LAMB, `decay` beta 2 of those and the decay of RMSProp's mean square.
    `decay_vectors` applies the weight decay to biases too, never to BatchNorm. sgd and rmsprop_tf couple it with the
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
        check_choice("optimizer.name", self.name, get_args(OptimizerName))
        check_shares(self, "optimizer", "momentum", "decay")
        check_positive(self, "optimizer", "eps")
        check_from_zero(self, "optimizer", "weight_decay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate schedule, relative to its peak.

    A linear warm-up from `warmup_from` over the share `warmup` of all steps or, if not 0, over `warmup_epochs`, but at
    most half of the run; then `cosine` (half a cosine down to `final`), `constant`, `step` or `exponential` (times
    `decay_rate` every `decay_epochs` since the beginning of the run, in steps or continuously). `one_cycle` rises
    from a 25th of the peak and falls to `final` on half cosines (Smith 2018, as in torch).
    """

    name: ScheduleName = "cosine"
    warmup: float = 0.15
    warmup_epochs: float = 0.0
    warmup_from: float = 0.0
    final: float = 0.01
    decay_epochs: float = 2.4
    decay_rate: float = 0.97

    def __post_init__(self) -> None:
        check_choice("schedule.name", self.name, get_args(ScheduleName))
        check_shares(self, "schedule", "warmup", "warmup_from")
        check_from_zero(self, "schedule", "warmup_epochs")
        check_range(self, "schedule", 1e-3, MOST, "decay_epochs")
        check_above_zero(self, "schedule", "decay_rate")
        check_range(self, "schedule", 0, 1, "final")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss.

    `bce` is binary cross-entropy of each class on its own. With a `teacher`, a bundle's folder, the loss is the
    weighted mean of the label loss and the knowledge distillation loss at `temperature` (Hinton et al. 2015), the
    latter with `teacher_weight`. `feature_weight` is the weight of attention transfer between feature maps (Zagoruyko &
    Komodakis 2017), 0 for none. With `teacher_views` only that many views of each image are drawn, in turn, and the
    teacher's logits for them are cached, so that it runs once per view; 0 draws new views each epoch.

    `focal_gamma` above 0 turns cross-entropy into the focal loss (Lin et al. 2017, eq. 4): a class's term shrinks by
    (1 - its probability)^gamma, so that images that are already right count for less. 0 is cross-entropy.

    For several outputs: `tags` is the loss of tags, bce or the asymmetric loss asl (Ridnik et al. 2021, eq. 7, with
    gamma- 4, gamma+ 0 and a margin of 0.05), which suits many rare tags. `weights` are those of the outputs, such as
    "gender=2,year=0.5"; the others have 1.
    """

    name: LossName = "cross_entropy"
    label_smoothing: float = 0.1
    focal_gamma: float = 0.0
    teacher: str = ""
    teacher_weight: float = 0.5
    temperature: float = 1.0
    feature_weight: float = 0.0
    teacher_views: int = 0
    tags: TagLoss = "bce"
    weights: str = ""

    def __post_init__(self) -> None:
        check_choice("loss.name", self.name, get_args(LossName))
        check_choice("loss.tags", self.tags, get_args(TagLoss))
        check_shares(self, "loss", "label_smoothing")
        check_positive(self, "loss", "temperature")
        check_from_zero(self, "loss", "feature_weight")
        check_range(self, "loss", 0, 1, "teacher_weight")
        check_range(self, "loss", 0, _MOST_GAMMA, "focal_gamma")
        check_integers(self, "loss", {"teacher_views": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The correction of class imbalance; `none` leaves the class frequencies in the predictions.

    `adjust` removes strength * log(frequency) from the logits (logit adjustment, Menon et al. 2021, eq. 9 and 10),
    `sample` oversamples rare classes, `weight` gives them more weight in the loss. One method, not two: together they
    would correct twice. At `strength` 1 all classes count alike; at 0.5 frequencies count by their square root.
    """

    method: BalanceMethod = "none"
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_choice("balance.method", self.method, get_args(BalanceMethod))
        check_above_zero(self, "balance", "strength")

    @property
    def removed(self) -> float:
        """The share of the log frequencies that is removed from the predictions: the strength, or 0 for none."""
        return 0.0 if self.method == "none" else self.strength


NOT_BALANCED = Balance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of progressive training (Tan & Le 2021, section 4), with its `share` of the epochs relative to others.

    A field that is None is as in the rest of the recipe; `resolution` None is the network's own.
    """

    share: float = 1.0
    resolution: int | None = None
    micro_batch: int | None = None
    dropout: float | None = None
    magnitude: float | None = None
    mixup: float | None = None
    cutmix: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "stages", "share")
        given = {name for name in self.__slots__ if getattr(self, name) is not None}
        check_integers(self, "stages", {name: least for name, least in _STAGE_INTEGERS.items() if name in given})
        check_shares(self, "stages", *given & {"dropout"})
        check_range(self, "stages", 0, 30, *given & {"magnitude"})
        check_from_zero(self, "stages", *given & {"mixup", "cutmix"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings of a training run; the defaults suit small networks and few images."""

    name: str = "small_data"
    train: Train = field(default_factory=Train)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    balance: Balance = field(default_factory=Balance)
    kept: Kept = field(default_factory=Kept)
    boxes: Boxes = field(default_factory=Boxes)
    masks: Masks = field(default_factory=Masks)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if self.loss.name == "bce" and self.loss.focal_gamma:
            raise InputError("loss.focal_gamma changes cross_entropy, but loss.name is bce; set one of them")
        if self.loss.name == "bce" and self.balance.method in ("adjust", "weight"):
            raise InputError(
                f"balance.method {self.balance.method} changes cross_entropy, but loss.name is bce; give sample, which "
                "suits every loss, or loss.name cross_entropy"
            )
        if len(self.stages) > _MOST_STAGES:
            raise InputError(f"a recipe must have at most {_MOST_STAGES} stages; got {len(self.stages)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-able data, every field written out."""
        return dataclasses.asdict(self) | {"stages": [dataclasses.asdict(stage) for stage in self.stages]}
