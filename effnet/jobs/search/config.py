"""The options of a search: those of fit, and its own. It imports nothing slow, as `effnet --help` reads it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from effnet.jobs.fit.config import DeviceConfig, HeadFeatures, Strategy
from effnet.system.options import option

Algorithm = Literal["auto", "surrogate", "evolution", "reinforce", "random", "grid", "assemble", "supernet"]
Objective = Literal["accuracy", "product", "absolute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig(DeviceConfig):
    """The options of `search`, as the user gave them."""

    VERB: ClassVar[str] = "search"
    FLAGS: ClassVar[tuple[str, ...]] = (
        "max_latency_ms", "minutes", "algorithm", "objective", "storage", "ray", "out", "resume",
    )  # fmt: skip
    # What a search decides by itself.
    strategy: ClassVar[Strategy] = "auto"
    head_features: ClassVar[HeadFeatures] = "last"
    trials: ClassVar[int] = 0

    minutes: float | None = option("Minutes from start to bundle; default: 60.")
    resume: bool = option("Continue the interrupted search in --out.", default=False, repeat=False, command=False)
    algorithm: Algorithm = option(
        "How networks are proposed; auto: assemble from pretrained weights if there are any, else surrogate.",
        default="auto",
    )
    objective: Objective = option(
        "What is maximised: accuracy, accuracy x (cost / budget)^w, or accuracy - |cost / budget - 1|.",
        default="accuracy",
    )
    exponent: float | None = option(
        "w of the objective; by default that of product is calibrated around the budget, and of absolute -0.07."
    )
    strict_paper: bool = option(
        "Train networks above the budget too, and leave them to the reward, as MnasNet's search did.", default=False
    )
    storage: str | None = option(
        "File, or postgresql:// URL for several machines, that workers of one search share.",
        metavar="FILE|URL", repeat=False,
    )  # fmt: skip
    ray: str | None = option(
        "Address of a Ray cluster, on each of whose nodes a worker is started.", metavar="ADDRESS",
        repeat=False, command=False,
    )  # fmt: skip
    trainings: int | None = option("Networks to train; by default as many as --minutes allow.")
    images: int | None = option("Training images of a short training; by default as many as --minutes allow.")
    base: str = option(
        "Network whose stages the search changes; auto: of the family that is best in short trainings.", default="auto",
        metavar="auto|NAME",
    )  # fmt: skip
