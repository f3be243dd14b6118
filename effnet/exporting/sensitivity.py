"""Which layers int8 harms most: how much nearer to 32 bits the probabilities come where a layer stays float."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.arch.layers import named_layers
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError, MissingExtraError, SpecError
from effnet.exporting.onnx import to_onnx
from effnet.exporting.qdq_graph import to_qdq
from effnet.exporting.ranges import Ranges
from effnet.runtime.pipeline import Progress
from effnet.runtime.session import IMAGE, open_bytes

if TYPE_CHECKING:
    import onnx
    from matplotlib.figure import Figure

_BATCH = 8
_LEAST = 1e-9
_INK, _MUTED, _GRID, _BLUE, _VERMILLION = "#22303c", "#667380", "#dfe4e9", "#0072b2", "#d55e00"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """A layer, or the layers of a block together, and what keeping them float brings.

    `name` is a layer's or a block's; `layers` are the convolutions and linear layers that were kept float. `divergence`
    is the mean Kullback-Leibler divergence, in nats, of the int8 probabilities from those of 32 bits that is left then;
    `gain` is by how much less that is than with every layer in int8.
    """

    name: str
    layers: tuple[str, ...]
    divergence: float
    gain: float


def sensitivity(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    ranges: Ranges,
    images: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    worst_blocks: int = 3,
    threads: int = 0,
    progress: Progress | None = None,
) -> list[LayerSensitivity]:
    """Returns what every part of the network gains as float, the greatest gain first.

    Each block is kept float in turn; the `worst_blocks` that gain most are then told apart by layer, the others stand
    as a whole. `images` are uint8 [pictures, R, R, C], a few dozen; `weights` as they go into to_qdq, biases corrected.
    `progress` hears of networks run and in all. Raises SpecError for a network without a classifier.
    """
    if not spec.num_classes:
        raise SpecError(f"sensitivity compares probabilities, and {spec.name} has no classifier (num_classes = 0)")
    if not len(images):
        raise InputError("sensitivity needs at least one picture; got none")
    given: dict[str, Any] = {"mean": mean, "std": std, "resolution": resolution}
    blocks = blocks_of(spec)
    most = sum(sorted((len(layers) for layers in blocks.values()), reverse=True)[:worst_blocks])
    total, done = len(blocks) + most + 2, 0

    def run(model: "onnx.ModelProto") -> np.ndarray:
        nonlocal done
        found = _run(model, images, threads)
        done += 1
        if progress:
            progress(done, total)
        return found

    wanted = run(to_onnx(spec, weights, **given))

    def divergence(kept: tuple[str, ...]) -> float:
        return kl_divergence(wanted, run(to_qdq(spec, weights, ranges, float_layers=kept, **given)))

    whole = divergence(())

    def measure(name: str, layers: tuple[str, ...]) -> LayerSensitivity:
        left = divergence(layers)
        return LayerSensitivity(name=name, layers=layers, divergence=left, gain=whole - left)

    found = sorted((measure(name, layers) for name, layers in blocks.items()), key=lambda part: -part.gain)
    split = [part for part in found if len(part.layers) > 1][:worst_blocks]
    apart = [measure(layer, (layer,)) for part in split for layer in part.layers]
    if progress:
        progress(total, total)
    return sorted([*(part for part in found if part not in split), *apart], key=lambda part: -part.gain)


def blocks_of(spec: ArchSpec) -> dict[str, tuple[str, ...]]:
    """Returns the convolutions and linear layers of each block, by its name: stem, stages.0.0, ..., classifier."""
    found: dict[str, tuple[str, ...]] = {}
    for name, layer in named_layers(spec):
        if layer.op in ("conv", "linear"):
            parts = name.split(".")
            block = ".".join(parts[:3]) if parts[0] == "stages" else parts[0]
            found[block] = (*found.get(block, ()), name)
    return found


def kl_divergence(wanted: np.ndarray, found: np.ndarray) -> float:
    """Returns the mean divergence, in nats, of probabilities [pictures, classes] from those wanted."""
    p, q = np.maximum(wanted.astype(np.float64), _LEAST), np.maximum(found.astype(np.float64), _LEAST)
    return float((p * np.log(p / q)).sum(1).mean())


def _run(model: "onnx.ModelProto", images: np.ndarray, threads: int) -> np.ndarray:
    session = open_bytes(model.SerializeToString(), threads=threads)
    chunks = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    return np.concatenate([session.run(None, {IMAGE: chunk})[0] for chunk in chunks])


def save_sensitivity(found: Sequence[LayerSensitivity], path: Path, *, most: int = 24) -> None:
    """Draws the gains of the `most` sensitive parts as bars, into a .svg or .png as the path's suffix says."""
    figure = sensitivity_figure(found, most=most)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, format=path.suffix[1:], dpi=200, metadata=metadata, facecolor="white")


def sensitivity_figure(found: Sequence[LayerSensitivity], *, most: int = 24) -> "Figure":
    """Returns the bars of save_sensitivity, single layers vermillion, whole blocks blue; needs matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    shown = sorted(found, key=lambda part: -part.gain)[:most]
    figure = Figure(figsize=(6.6, 1.3 + 0.2 * len(shown)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    colours = [_VERMILLION if len(part.layers) == 1 else _BLUE for part in shown]
    places = range(len(shown))
    axes.barh(places, [part.gain for part in shown], color=colours, height=0.7, zorder=2)
    axes.set_yticks(places, [part.name for part in shown], fontsize=8, color=_INK)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.axvline(0, color=_INK, linewidth=0.8, zorder=3)
    axes.grid(axis="x", color=_GRID, linewidth=0.7, zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=_MUTED, labelsize=8)
    whole = shown[0].gain + shown[0].divergence if shown else 0.0
    axes.set_xlabel(
        f"divergence that keeping it float takes away, nats (all in int8: {whole:.3g})", color=_MUTED, fontsize=9
    )
    handles = [Patch(color=_VERMILLION, label="one layer"), Patch(color=_BLUE, label="a whole block")]
    axes.legend(handles=handles, loc="lower right", frameon=False, fontsize=8)
    return figure
