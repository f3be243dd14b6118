"""The options of pretrain: a field each. It imports nothing slow, as `effnet --help` reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from effnet.progress import ignore
from effnet.system.options import option

if TYPE_CHECKING:
    from effnet.jobs.procedure import Procedure
    from effnet.planner.events import Listener

PathLike = str | os.PathLike[str]
Method = Literal["simclr", "byol"]
Loss = Literal["decoupled", "nt_xent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """The options of `pretrain`."""

    PREFIX: ClassVar[str] = "pretrain"

    data: PathLike = field(kw_only=False)
    method: Method = option("What is learnt from two views of each image.", default="simclr", main=True)
    weights: PathLike = option(
        "Weights to begin with: an id of `effnet models list`, a file, a bundle, or none.",
        default="none", main=True, metavar="ID|FILE|none",
    )  # fmt: skip
    teacher: PathLike = option(
        "Larger weights whose similarities of images are learnt instead (SEED).",
        default="", main=True, metavar="ID|FILE",
    )  # fmt: skip
    probe: str = option(
        "Labelled images, as for fit, that judge the weights by a linear probe; they are not learnt.",
        default="", main=True, metavar="DATA",
    )  # fmt: skip
    epochs: int | None = option("Epochs; 10 by default.", main=True)
    minutes: float | None = option("Minutes of training, instead of --epochs.", main=True)
    out: PathLike = option(
        "Folder of the new bundle, which `fit --weights` takes.", default="effnet-pretrained", main=True,
        metavar="DIR", repeat=False,
    )  # fmt: skip
    resume: bool = option("Continue the interrupted run in --out.", default=False, main=True, repeat=False)
    seed: int = option("Seed of views and heads.", default=0, main=True)
    model: str = option("The network: without weights, or if their file does not say it.", default="", metavar="NAME")
    resolution: int | None = option("Input resolution in pixels; by default that of the weights.")
    loss: Loss = option("Loss of simclr; decoupled suits batches of 256 and less.", default="decoupled")
    temperature: float | None = option("Temperature of simclr; default: 0.1, or 0.5 for images below 64 pixels.")
    momentum: float = option("Share that the target of byol keeps at each step.", default=0.99)
    queued: int = option("Features of the teacher that each image is compared with.", default=65_536)
    min_area: float = option("Least share of an image in a view; raise it if objects are small.", default=0.2)
    strength: float = option("Strength of colour changes; 0 if colours tell the classes.", default=0.5)
    flip: bool = option("Whether views may be mirrored.", default=True)
    settings: Mapping[str, Any] = field(default_factory=dict)
    listener: "Listener" = ignore
    procedure: "Procedure | None" = None
