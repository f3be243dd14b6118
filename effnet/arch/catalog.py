"""Every named network: short names, timm's and torchvision's names, published accuracy."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from effnet.arch.families.resnet import RESNET_REPEATS, resnet_spec
from effnet.arch.families.v1 import EDGETPU_COEFFICIENTS, LITE_COEFFICIENTS, V1_COEFFICIENTS, v1_spec
from effnet.arch.families.v2 import V2_COEFFICIENTS, v2_spec
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """ImageNet-1k top-1 accuracy in percent, at a resolution in pixels, and where it was published."""

    top1: float
    resolution: int
    source: str


_PAPER = "arXiv 1905.11946v5, Table 2"
_TPU = "tensorflow/tpu, efficientnet/README"
_LITE = "tensorflow/tpu, efficientnet/lite/README"
_EDGETPU = "tensorflow/tpu, efficientnet/edgetpu/README"
_V2 = "google/automl, efficientnetv2/README"
_TORCHVISION = "torchvision, IMAGENET1K_V1"

# name: top-1 and where it was published.
_TOP1 = {
    "b0": (77.1, _PAPER), "b1": (79.1, _PAPER), "b2": (80.1, _PAPER), "b3": (81.6, _PAPER),
    "b4": (82.9, _PAPER), "b5": (83.6, _PAPER), "b6": (84.0, _PAPER), "b7": (84.3, _PAPER),
    "b8": (85.5, f"{_TPU} (AdvProp)"), "l2": (88.4, f"{_TPU} (NoisyStudent, with JFT-300M)"),
    "lite0": (75.1, _LITE), "lite1": (76.7, _LITE), "lite2": (77.6, _LITE), "lite3": (79.8, _LITE),
    "lite4": (81.5, _LITE),
    "edgetpu_s": (77.23, _EDGETPU), "edgetpu_m": (78.69, _EDGETPU), "edgetpu_l": (80.62, _EDGETPU),
    "v2_b0": (78.7, _V2), "v2_b1": (79.8, _V2), "v2_b2": (80.5, _V2), "v2_b3": (82.1, _V2),
    "v2_s": (83.9, _V2), "v2_m": (85.2, _V2), "v2_l": (85.7, _V2),
    "v2_xl": (87.2, f"{_V2} (with ImageNet-21k)"),
    "resnet18": (69.758, _TORCHVISION), "resnet34": (73.314, _TORCHVISION), "resnet50": (76.130, _TORCHVISION),
    "resnet101": (77.374, _TORCHVISION), "resnet152": (78.312, _TORCHVISION),
}  # fmt: skip

FAMILIES = {
    "EfficientNet": tuple(V1_COEFFICIENTS),
    "EfficientNet-Lite": tuple(LITE_COEFFICIENTS),
    "EfficientNet-EdgeTPU": tuple(EDGETPU_COEFFICIENTS),
    "EfficientNetV2": tuple(V2_COEFFICIENTS),
    "ResNet": tuple(RESNET_REPEATS),
}
NAMES: tuple[str, ...] = tuple(name for names in FAMILIES.values() for name in names)

_EDGE_SHORT = {"es": "edgetpu_s", "em": "edgetpu_m", "el": "edgetpu_l"}
# timm trains and tests these two at sizes of its own; the official ones are 280 and 300.
_TIMM_RESOLUTION = {"lite3": 300, "lite4": 380}


def short_name(name: str) -> str:
    """Return the name of this network in NAMES, such as v2_s for tf_efficientnetv2_s; raise SpecError if unknown."""
    return _resolve(name)[0]


def published(name: str) -> Published | None:
    """Return the published accuracy of a named network, or None."""
    short, _ = _resolve(name)
    if short not in _TOP1:
        return None
    top1, source = _TOP1[short]
    return Published(top1=top1, resolution=_official(short).resolution, source=source)


def default_dropout(name: str) -> float:
    """Return the dropout rate before the classifier with which this network was trained."""
    short, _ = _resolve(name)
    for table in (V1_COEFFICIENTS, LITE_COEFFICIENTS, EDGETPU_COEFFICIENTS, V2_COEFFICIENTS):
        if short in table:
            return table[short][-1]
    return 0.0


def get_spec(name: str, *, num_classes: int = 1000, in_channels: int = 3) -> ArchSpec:
    """Return the network of this name, with `num_classes` outputs and `in_channels` inputs.

    A short name (b0, lite3, v2_s, edgetpu_m, resnet50) and timm's tf_ names mean the official network: TF
    "SAME" padding, BatchNorm epsilon 1e-3. timm's other names (efficientnet_b0, efficientnetv2_s) pad symmetrically,
    with epsilon 1e-5; torchvision's names (efficientnet_v2_s, torchvision/efficientnet_b5) follow torchvision.
    Raises SpecError for an unknown name; the message suggests the nearest known one.

    >>> spec = get_spec("lite0", num_classes=10)
    >>> spec.resolution, spec.num_classes, spec.activation
    (224, 10, 'relu6')
    """
    short, dialect = _resolve(name)
    spec = _official(short)
    changes: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    changes["lineage"] = Lineage(base=name, network=short)
    if dialect.startswith("timm") and short in _TIMM_RESOLUTION:
        changes["resolution"] = _TIMM_RESOLUTION[short]
    if short == "l2" and name.endswith("_475"):  # the same network, trained and tested at 475 pixels
        changes["resolution"] = 475
    if dialect in ("timm", "torchvision"):
        wide = dialect == "torchvision" and (short.startswith("v2_") or short in ("b5", "b6", "b7"))
        changes |= {"padding": "symmetric", "norm_epsilon": 1e-3 if wide else 1e-5}
    return dataclasses.replace(spec, **changes)


def _official(short: str) -> ArchSpec:
    if short in RESNET_REPEATS:
        return resnet_spec(short)
    return v2_spec(short) if short in V2_COEFFICIENTS else v1_spec(short)


def _resolve(name: str) -> tuple[str, str]:
    """Return the short name and the conventions that the name implies: official, timm_tf, timm or torchvision."""
    text = name.strip().lower()
    prefix, _, rest = text.rpartition("/")
    text = rest.split(".")[0]  # timm's pretraining tag
    if prefix not in ("", "timm", "torchvision"):
        raise SpecError(f"unknown network {name!r}{nearest(rest, NAMES)} (`effnet models list` lists them all)")
    if text in NAMES:
        return text, "timm" if prefix == "timm" and not text.startswith("resnet") else prefix or "official"
    found = re.fullmatch(r"(tf_)?efficientnet(-|_v2_|v2_|_)(\w+)", text)
    if found:
        tf, infix, tail = found.groups()
        short = f"v2_{tail}" if "v2" in infix else _EDGE_SHORT.get(tail, tail)
        if short in NAMES and not short.startswith("resnet") and not (prefix == "timm" and infix == "_v2_"):
            return short, _dialect(bool(tf), infix, prefix)
    raise SpecError(f"unknown network {name!r}{nearest(text, NAMES)} (`effnet models list` lists them all)")


def _dialect(tf: bool, infix: str, prefix: str) -> str:
    if tf:
        return "timm_tf"
    if infix == "-":  # efficientnet-b0: the official network, as lukemelas and the papers spell it
        return "official"
    return "torchvision" if infix == "_v2_" or prefix == "torchvision" else "timm"
