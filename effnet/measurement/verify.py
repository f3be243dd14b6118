"""Check an exported file against its source module on the same images."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effnet.arch.decoders.record import Detector
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import normalize
from effnet.errors import BudgetError, BundleError, EffnetError
from effnet.measurement.detection.matching import overlaps
from effnet.nn.dense import DenseNetwork
from effnet.nn.network import Network
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import features_beside
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.whole import LEAST_SCORE, decoder_of
from effnet.tasks.task import Output, parted

Outputs = Mapping[str, np.ndarray]

# Float rounding errors, summed over a few hundred layers, stay well below this.
TOLERANCE = 1e-3
# Between an fp16 embedding and the eager one: their angle stays below 2.6 degrees.
_LEAST_COSINE = 0.999
_EAGER_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCheck:
    """The difference of two runtimes: the largest difference of a value, and the share of images that agree.

    Of a classifier they are those of a probability, and of equal top classes. Differences of a number are in units of
    its output's scale. Images agree if each output has the same top class, or the same tags above 0.5; a number counts
    if there is nothing else, and agrees within the tolerance. Of a detector, `agreement` is the share of the objects
    that both find, of a segmenter that of the places with the same class.
    """

    images: int
    max_difference: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesCheck:
    """The largest difference between the embeddings of two runtimes.

    `relative_error` is the length of the difference as a share of the embedding's length, `cosine` the least cosine.
    """

    images: int
    relative_error: float
    cosine: float

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-able data."""
        return asdict(self)


def check_export(module: torch.nn.Module, predictor: Predictor, images: np.ndarray) -> ExportCheck:
    """Run `images`, uint8 [batch, R, R, C], through the eager module and through the predictor's export.

    Raises EffnetError as `compare` does.
    """
    return compare(eager_outputs(module, predictor.config, images), predictor, images)


def eager_outputs(module: torch.nn.Module, config: ModelConfig, images: np.ndarray) -> np.ndarray:
    """Return float32 [batch, outputs] of the eager module for uint8 [batch, R, R, C], as its exports return them.

    The module's logits are raw; the config's temperatures are applied to them, as every export does itself.
    """
    module, outputs = module.to("cpu").eval(), config.file_outputs
    function = module.rows if isinstance(module, DenseNetwork) else module
    rows = _in_parts(function, config, images) / torch.as_tensor(config.temperatures, dtype=torch.float32)
    parts = rows.split([output.width for output in outputs], dim=1)
    return torch.cat([_answers(part, output) for part, output in zip(parts, outputs, strict=True)], dim=1).numpy()


def _answers(logits: Tensor, output: Output) -> Tensor:
    match output.activation:
        case "softmax":
            return logits.softmax(1)
        case "sigmoid":
            return logits.sigmoid()
    return output.mean + output.scale * logits


def eager_maps(network: Network, config: ModelConfig, images: np.ndarray) -> np.ndarray:
    """Return the eager network's activation maps, float32 [batch, columns, height, width], as `eager_outputs`."""
    network = network.to("cpu").eval()
    weight = network.classifier.weight / torch.as_tensor(config.temperatures, dtype=torch.float32).reshape(-1, 1)
    found = _in_parts(
        lambda pixels: torch.einsum("kc,bcyx->bkyx", weight, network.forward_features(pixels)), config, images
    )
    return found.numpy()


def compare_maps(eager: np.ndarray, predictor: Predictor, images: np.ndarray) -> None:
    """Raise an error unless the maps of the predictor's export are `eager`, the network's; see `compare`."""
    found, name = predictor.maps(images), predictor.format.name
    error, most = float(np.abs(found - eager).max()), TOLERANCE * max(1.0, float(np.abs(eager).max()))
    if predictor.format.precision == "fp32" and not error <= most:
        raise EffnetError(
            f"{name} must match the eager activation maps within {most:g}; they differ by {error:.2g} on {len(images)} "
            "images. This is a bug in effnet: please report it with the bundle's config.json"
        )


def eager_features(network: Network, config: ModelConfig, images: np.ndarray) -> np.ndarray:
    """Return the eager network's features, float32 [batch, channels], for uint8 [batch, R, R, C]."""
    network = network.to("cpu").eval()

    def features(pixels: Tensor) -> Tensor:
        return network.forward_head(network.forward_features(pixels), pre_logits=True)

    return _in_parts(features, config, images).numpy()


@torch.no_grad()
def _in_parts(function: Callable[[Tensor], Tensor], config: ModelConfig, images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)
    # The feature maps of all images at once would take more memory than training did.
    return torch.cat([function(part) for part in pixels.split(_EAGER_BATCH)])


def compare(eager: np.ndarray, predictor: Predictor, images: np.ndarray) -> ExportCheck:
    """Compare the predictor's export with `eager`, the module's outputs [batch, outputs].

    An fp32 file computes the same: raises EffnetError if a value differs by more than 1e-3, or by more than that
    share of the largest of its output. Reduced precision rounds, and only the accuracy on images like the data shows
    its cost (`effnet.measurement.acceptance`); here its outputs must be finite: raises BudgetError otherwise, and
    BundleError if the eager network's own outputs are not finite.
    """
    _check_numbers(eager, predictor)
    exported, outputs = predictor.outputs(images), predictor.config.file_outputs
    name, precision = predictor.format.name, predictor.format.precision
    if precision != "fp32" and not np.isfinite(exported).all():
        raise BudgetError(
            f"{name} must output finite numbers; it does not on {_not_finite(exported)} of {len(images)} images: "
            f"the network's numbers do not fit {precision}. Choose a format of higher precision"
        )
    edges = np.cumsum([output.width for output in outputs])[:-1]
    pairs = zip(outputs, np.split(eager, edges, axis=1), np.split(exported, edges, axis=1), strict=True)
    found = [_compared(output, *pair) for output, *pair in pairs]
    for output, part in zip(outputs, found, strict=True):
        if precision == "fp32" and not part.difference <= part.tolerance:
            raise EffnetError(
                f"the exported file must match the eager {output.name} within {part.tolerance:g}; it differs by "
                f"{part.difference:.2g} on {len(images)} images. This is a bug in effnet: please report it with the "
                "bundle's config.json"
            )
    if any(output.shape for output in outputs):  # objects or masks
        same = same_in_images(parted(eager, outputs), parted(exported, outputs), predictor.config)
        return ExportCheck(images=len(images), max_difference=max(part.difference for part in found), agreement=same)
    named = [part.agrees for output, part in zip(outputs, found, strict=True) if output.activation != "none"]
    agrees = np.stack(named or [part.agrees for part in found])
    return ExportCheck(
        images=len(images),
        max_difference=max(part.difference for part in found),
        agreement=float(agrees.all(0).mean()),
    )


def same_in_images(first: Outputs, second: Outputs, config: ModelConfig) -> float:
    """Return the share of the objects that both outputs have, or of the places with the same class in both.

    Objects are the same if they are of one class, and overlap by half of their union at least; those below the
    bundle's threshold do not count.
    """
    if "mask" in first:
        return float((first["mask"].argmax(1) == second["mask"].argmax(1)).mean())
    decoder = config.arch.decoder
    assert isinstance(decoder, Detector)
    decode, least = decoder_of(decoder, config.preprocess.size), config.threshold or LEAST_SCORE
    same = total = 0
    for parts in zip(first["boxes"], first["scores"], second["boxes"], second["scores"], strict=True):
        ours, theirs = (detect(*pair, decode, threshold=least) for pair in (parts[:2], parts[2:]))
        total += len(ours) + len(theirs)
        shares = overlaps(ours.boxes.astype(np.float64), theirs.boxes.astype(np.float64), np.zeros(len(theirs), bool))
        fits = (shares >= 0.5) & (ours.classes[:, None] == theirs.classes[None])
        same += int(fits.any(1).sum() + fits.any(0).sum())
    return same / total if total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Compared:
    """One output: its largest difference, how large that may be, and which images agree, bool [images]."""

    difference: float
    tolerance: float
    agrees: np.ndarray


def _compared(output: Output, eager: np.ndarray, exported: np.ndarray) -> _Compared:
    """Compare one output's values [images, width]."""
    differences = np.abs(eager - exported) / output.scale
    largest = float(np.abs((eager - output.mean) / output.scale).max())
    # The sum with a large mean rounds in fp32.
    rounding = 2 * float(np.finfo(np.float32).eps) * abs(output.mean) / output.scale
    tolerance = TOLERANCE * max(1.0, largest) + rounding
    match output.activation:
        case "softmax":
            agrees = eager.argmax(1) == exported.argmax(1)
        case "sigmoid":
            agrees = ((eager >= 0.5) == (exported >= 0.5)).all(1)
        case "none":
            agrees = differences.max(1) <= tolerance
    return _Compared(difference=float(differences.max()), tolerance=tolerance, agrees=agrees)


def compare_features(eager: np.ndarray, predictor: Predictor, images: np.ndarray) -> FeaturesCheck:
    """Compare the predictor's embeddings with `eager`, the network's features [batch, channels].

    In fp32 they are the same: raises EffnetError if one differs by more than 1e-3 of its length. Raises BudgetError if
    an fp16 embedding has a cosine below 0.999 with the eager one, BundleError if the eager network's outputs are not
    finite.
    """
    _check_numbers(eager, predictor)
    target = features_beside(predictor.format)
    name, precision = target.name, target.precision
    truth, found = eager.astype(np.float64), predictor.features(images).astype(np.float64)
    lengths = np.linalg.norm(truth, axis=1)
    # An all-zero eager embedding, possible after a last ReLU, must be all zero here too.
    errors = np.linalg.norm(found - truth, axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    products = lengths * np.linalg.norm(found, axis=1)
    cosines = np.where(products > 0, (truth * found).sum(1) / np.where(products > 0, products, 1), errors == 0)
    error, cosine = float(errors.max()), min(1.0, float(cosines.min()))
    if precision != "fp32":
        if not cosine >= _LEAST_COSINE:
            raise BudgetError(
                f"{name} must keep the direction of every embedding, a cosine of {_LEAST_COSINE}; the least of "
                f"{len(images)} is {cosine:.4g}. Choose an fp32 format"
            )
    elif not error <= TOLERANCE:
        raise EffnetError(
            f"{name} must match the eager embeddings within {TOLERANCE} of their length; one differs by {error:.2g}. "
            "This is a bug in effnet: please report it with the bundle's config.json"
        )
    return FeaturesCheck(images=len(images), relative_error=error, cosine=cosine)


def _check_numbers(eager: np.ndarray, predictor: Predictor) -> None:
    if not np.isfinite(eager).all():
        raise BundleError(
            f"a network must output finite numbers; with the weights of {predictor.folder} it does not on "
            f"{_not_finite(eager)} of {len(eager)} images: train it again with a lower learning rate"
        )


def _not_finite(rows: np.ndarray) -> int:
    return int((~np.isfinite(rows)).any(1).sum())
