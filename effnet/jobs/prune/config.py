"""The options of prune: a field each. It imports nothing slow, as `effnet --help` reads it."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from effnet.progress import Listener, ignore
from effnet.system.options import option, repeated

if TYPE_CHECKING:
    from effnet.arch.cost import Count
    from effnet.compression.importance import Method
    from effnet.compression.prune import Scope
    from effnet.data.datasets import DataLike
    from effnet.jobs.procedure import Procedure

DEFAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """The options of `prune`.

    `macs` or `params` is the share that stays; it is reached in `steps`, each followed by fine-tuning with the bundle
    `teacher` as teacher, or the original if that is empty. Training takes `epochs` in all or, if `minutes` is given, as
    many as fit into that time. If `activation` is set, the first step replaces the activation as well; then the share
    may be 1, with a single step.
    """

    PREFIX: ClassVar[str] = "prune"

    bundle: str | os.PathLike[str] = field(kw_only=False)
    data: "DataLike" = field(kw_only=False)
    out: str | os.PathLike[str] = option(
        "Folder of the pruned bundle, new or empty.",
        default=dataclasses.MISSING,
        main=True,
        metavar="DIR",
        repeat=False,
    )
    macs: float | None = option("Fraction of the MACs to keep; 0.5 by default.", main=True, repeat=False)
    params: float | None = option("Fraction of the parameters to keep, instead of --macs.", main=True, repeat=False)
    activation: str = option(
        "Replacement activation, relu6 or hard_swish; alone, it prunes nothing.",
        default="",
        main=True,
        metavar="relu6|...",
    )
    epochs: int | None = option("Training epochs in total; 20 by default.", main=True)
    minutes: float | None = option("Minutes of training, instead of --epochs.", main=True)
    seed: int = option("Seed of training.", default=0, main=True)
    resume: bool = option("Continue the interrupted run in --out.", default=False, main=True, repeat=False)
    method: "Method" = option(
        "Importance criterion: taylor uses data; l1, l2 and bn use weights.",
        default="taylor",
        metavar="taylor|l1|l2|bn",
    )
    scope: "Scope" = option(
        "One threshold for all stages, or the same share of each.", default="global", metavar="global|stage"
    )
    steps: int = option("Number of pruning steps; training follows each.", default=3)
    teacher: str | os.PathLike[str] = option(
        "Teacher of the distillation, of classifiers; by default the original.", default="", metavar="BUNDLE"
    )
    drop_blocks: bool = option("Allow whole blocks to be removed.", default=False)
    round_to: int | None = option("Pruned widths are a multiple of this; default: the vector width of this CPU.")
    threads: int = option("Threads of the runtime; 0: one per core.", default=1)
    listener: Listener = ignore
    procedure: "Procedure | None" = None

    @property
    def count(self) -> "Count":
        """The count that is reduced."""
        return "macs" if self.params is None else "params"

    @property
    def share(self) -> float:
        """The share of it that stays."""
        usual = 1.0 if self.activation else DEFAULT_SHARE
        return next((share for share in (self.params, self.macs) if share is not None), usual)

    @property
    def num_steps(self) -> int:
        """The number of steps."""
        return self.steps if self.share < 1 else 1

    @property
    def record(self) -> dict[str, Any]:
        """The options that a resumed run must repeat, for JSON."""
        return {"share": self.share, "count": self.count} | repeated(self) | {"teacher": os.fspath(self.teacher)}
