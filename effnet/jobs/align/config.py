"""The options of align: a field each. It imports nothing slow, as `effnet --help` reads it."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from effnet.errors import InputError
from effnet.progress import ignore
from effnet.system.options import option

if TYPE_CHECKING:
    from effnet.jobs.procedure import Procedure
    from effnet.planner.events import Listener

Loss = Literal["none", "siglip", "clip"]
Image = Literal["locked", "trained"]
Texts = Literal["locked", "weights", "transformer"]
Resize = Literal["", "center", "squash", "pad"]

OWN = "own"
"""The words of the captions themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignConfig:
    """The options of `align`."""

    PREFIX: ClassVar[str] = "align"

    data: str | os.PathLike[str] = field(kw_only=False)
    text: str = option("The column of the captions.", default=dataclasses.MISSING, main=True, metavar="COLUMN")
    words: str | os.PathLike[str] = option(
        "Vectors of words: a folder of a table (.safetensors) or of a sentence encoder (.onnx) and its tokenizer.json, "
        "GloVe's .txt, a .npy beside its vocabulary, or user/name on the hub; own: those of the captions.",
        default=dataclasses.MISSING,
        main=True,
        metavar="PATH|ID|own",
    )
    weights: str | os.PathLike[str] = option(
        "Pretrained weights: an id of `effnet models list`, a file or a bundle.",
        default=dataclasses.MISSING,
        main=True,
        metavar="ID|FILE|BUNDLE",
    )
    out: str | os.PathLike[str] = option(
        "Folder of the new bundle, new or empty.", default="effnet-aligned", main=True, metavar="DIR"
    )
    seed: int = option("Seed of the split and of training.", default=0, main=True)
    group_by: str = option(
        "Regular expression such as 'patient(\\d+)'; images whose paths match it with the same text stay in one split.",
        default="",
        main=True,
        metavar="PATTERN",
    )
    loss: Loss = option(
        "How pairs are learnt: none solves for a linear map on frozen features; siglip and clip train.", default="none"
    )
    image: Image = option("With a loss: whether the network is trained, or its last layer alone.", default="locked")
    texts: Texts = option(
        "With a loss: what is trained of the texts: nothing, a weight for each token of a table, or a transformer.",
        default="locked",
    )
    resolution: int | None = option("Input resolution in pixels; by default that of the weights.")
    resize: Resize = option(
        "How images become square: center (crop), squash or pad; by default as the weights' preprocessing does.",
        default="",
        metavar="center|squash|pad",
    )
    copy_words: bool = option("Copy the words into the bundle; if false, `find` needs --words.", default=True)
    settings: Mapping[str, Any] = field(default_factory=dict)
    listener: "Listener" = ignore
    procedure: "Procedure | None" = None

    def __post_init__(self) -> None:
        for name, known in (("loss", Loss), ("image", Image), ("texts", Texts), ("resize", Resize)):
            if getattr(self, name) not in known.__args__:  # type: ignore[attr-defined]
                choices = ", ".join(filter(None, known.__args__))  # type: ignore[attr-defined]
                raise InputError(f"align.{name} must be one of {choices}; got {getattr(self, name)!r}")
        if self.loss == "none" and (self.image, self.texts) != ("locked", "locked"):
            raise InputError("without a loss nothing is trained; set align.loss=siglip or align.loss=clip")
        if self.loss == "none" and self.settings:
            raise InputError(f"the recipe's {next(iter(self.settings))} needs training; set align.loss=siglip or clip")
        if os.fspath(self.words) == OWN and self.texts != "transformer":
            raise InputError("--words own has no vectors yet: set align.loss=clip and align.texts=transformer")
        if not self.copy_words and self.texts != "locked":
            raise InputError("what is learnt of the texts must lie in the bundle: leave out align.copy_words=false")
