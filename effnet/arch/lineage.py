"""The origin of a network as facts, from which its names are made; no name is ever read back into facts."""

from dataclasses import dataclass, field
from typing import Any

from effnet.errors import SpecError, shown
from effnet.system.records import OPTIONAL

MAX_NAME_LENGTH = 200
_ACTIVATIONS = {"silu": "SiLU", "relu": "ReLU", "relu6": "ReLU6", "hard_swish": "hard-swish"}
_COUNTS = {"macs": "MACs", "params": "parameters"}


def _left_out(default: Any) -> Any:
    """Return a field that a file lacks if its value is the default."""
    return field(default=default, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The origin of a network: what it was made of, and the changes since.

    `base` is a name of the catalog, the id of published weights, or the network's own name; `network` is the catalog's
    short name of that network, empty if it has none, and `tag` the pretraining of the weights. `variant` is the
    activation with which it is trained, if that is not the base's; `scaled` describes the scaling, and `width` and
    `depth` are its factors (`depth` 1 if the width implies it). `resolution` was chosen for it, in pixels; `stride`,
    `expand` and `stages` are the total stride, the expansion ratio and the number of stages after shrinking, and `note`
    describes other changes. `activation` replaced another in the trained network. `kept` is the share of `kept_of` that
    a plan expects pruning to keep, and `pruned_macs` are the multiply-accumulates of a network that was pruned.

    >>> Lineage(base="b0", network="b0", scaled="phi 1").name
    'b0 phi 1'
    """

    base: str = "custom"
    network: str = _left_out("")
    tag: str = _left_out("")
    variant: str = _left_out("")
    scaled: str = _left_out("")
    width: float = _left_out(1.0)
    depth: float = _left_out(1.0)
    resolution: int | None = _left_out(None)
    stride: int | None = _left_out(None)
    expand: int | None = _left_out(None)
    stages: int | None = _left_out(None)
    note: str = _left_out("")
    activation: str = _left_out("")
    kept: float = _left_out(1.0)
    kept_of: str = _left_out("macs")
    pruned_macs: int | None = _left_out(None)

    def __post_init__(self) -> None:
        if not isinstance(self.base, str) or len(self.name) > MAX_NAME_LENGTH or not self.name.isprintable():
            raise SpecError(
                f"name must be printable text of at most {MAX_NAME_LENGTH} characters; got {shown(self.base)}"
            )

    @property
    def name(self) -> str:
        """The exact name, as exported files hold it."""
        parts = [self.base, self.variant, self.scaled]
        parts += [f"at {self.resolution}"] if self.resolution is not None else []
        parts += [f"stride {self.stride}"] if self.stride is not None else []
        parts += [f"expand {self.expand}"] if self.expand is not None else []
        parts += [f"first {self.stages} stages"] if self.stages is not None else []
        parts += [self.note]
        changes = [f"with {self.activation}"] if self.activation else []
        changes += [f"pruned to {self.kept:.0%} of {self.kept_of}"] if self.kept < 1 else []
        parts += [", ".join(changes)]
        parts += [f"pruned to {self.pruned_macs / 1e6:.3g}M MACs"] if self.pruned_macs is not None else []
        return " ".join(part for part in parts if part)

    def title(self, resolution: int) -> str:
        """Return the short name that people read, such as "V2-B0 x0.32, 16 px"; `resolution` is the network's."""
        head = _display(self.network) if self.network else self.base
        scaled = f"x{self.width:.2f}" if round(self.width, 2) != 1 else ""
        parts = [" ".join(part for part in (head, self.tag, scaled) if part)]
        parts += [f"depth x{self.depth:g}"] if self.depth != 1 else []
        parts += [f"{resolution} px"]
        parts += [f"stride {self.stride}"] if self.stride is not None else []
        parts += [f"expand {self.expand}"] if self.expand is not None else []
        parts += [f"{self.stages} stages"] if self.stages is not None else []
        parts += [self.note] if self.note else []
        activation = self.activation or self.variant
        parts += [_ACTIVATIONS.get(activation, activation)] if activation else []
        parts += [f"pruned to {self.kept:.0%} of {_COUNTS.get(self.kept_of, self.kept_of)}"] if self.kept < 1 else []
        parts += [f"pruned to {self.pruned_macs / 1e6:.3g}M MACs"] if self.pruned_macs is not None else []
        return ", ".join(parts)


def _display(network: str) -> str:
    """Return a short name of the catalog as people write it: V2-B0, EdgeTPU-S, EfficientDet-D0."""
    text = "-".join(part.capitalize() for part in network.split("_"))
    return text.replace("Edgetpu", "EdgeTPU").replace("Resnet", "ResNet").replace("Efficientdet", "EfficientDet")
