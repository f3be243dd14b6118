"""Every named network: short names, timm's and torchvision's names, published accuracy."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from effnet.arch.decoders.record import Detector
from effnet.arch.families.efficientdet import (
    COCO_CLASSES,
    EFFICIENTDET_COEFFICIENTS,
    EFFICIENTDET_LITE_COEFFICIENTS,
    efficientdet_spec,
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAP:
    """COCO's average precision in percent: AP on val2017, and AP and AP50 on test-dev2017; None if unpublished.

    `resolution` is in pixels.
    """

    val: float
    test: float | None
    test_50: float | None
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

_DET = "google/automl, efficientdet/README"
# name: AP on COCO val2017, AP and AP50 on test-dev2017. Those of Lite are of the float models.
_AP = {
    "efficientdet_d0": (34.3, 34.6, 53.0), "efficientdet_d1": (40.2, 40.5, 59.1),
    "efficientdet_d2": (43.5, 43.9, 62.7), "efficientdet_d3": (46.8, 47.2, 65.9),
    "efficientdet_d4": (49.3, 49.7, 68.4), "efficientdet_d5": (51.2, 51.5, 70.5),
    "efficientdet_d6": (52.1, 52.6, 71.5), "efficientdet_d7": (53.4, 53.7, 72.4),
    "efficientdet_d7x": (54.4, 55.1, 74.3),
    "efficientdet_lite0": (26.41, None, None), "efficientdet_lite1": (31.50, None, None),
    "efficientdet_lite2": (35.06, None, None), "efficientdet_lite3": (38.77, None, None),
    "efficientdet_lite3x": (42.64, None, None), "efficientdet_lite4": (43.18, None, None),
}  # fmt: skip

FAMILIES = {
    "EfficientNet": tuple(V1_COEFFICIENTS),
    "EfficientNet-Lite": tuple(LITE_COEFFICIENTS),
    "EfficientNet-EdgeTPU": tuple(EDGETPU_COEFFICIENTS),
    "EfficientNetV2": tuple(V2_COEFFICIENTS),
    "ResNet": tuple(RESNET_REPEATS),
}
NAMES: tuple[str, ...] = tuple(name for names in FAMILIES.values() for name in names)
"""The networks that classify images."""

DETECTOR_FAMILIES = {
    "EfficientDet": tuple(EFFICIENTDET_COEFFICIENTS),
    "EfficientDet-Lite": tuple(EFFICIENTDET_LITE_COEFFICIENTS),
}
DETECTORS: tuple[str, ...] = tuple(name for names in DETECTOR_FAMILIES.values() for name in names)
"""The networks that find objects in images."""

_CLASSES = 1000

EFFDETS_OWN = tuple(f"efficientdet_d{number}" for number in range(4))
"""The detectors that effdet also has on backbones of timm's own, under these names."""

_EVERY = (*NAMES, *DETECTORS)
_EDGE_SHORT = {"es": "edgetpu_s", "em": "edgetpu_m", "el": "edgetpu_l"}
# timm trains and tests these two at sizes of its own; the official ones are 280 and 300.
_TIMM_RESOLUTION = {"lite3": 300, "lite4": 380}


def short_name(name: str) -> str:
    """Return the name of this network in NAMES, such as v2_s for tf_efficientnetv2_s; raise SpecError if unknown."""
    return _resolve(name)[0]


def published(name: str) -> Published | None:
    """Return the published accuracy of a named network, or None; `published_ap` has that of detectors."""
    short, _ = _resolve(name)
    if short not in _TOP1:
        return None
    top1, source = _TOP1[short]
    return Published(top1=top1, resolution=_official(short).resolution, source=source)


def published_ap(name: str) -> PublishedAP | None:
    """Return the published average precision of a named detector; None for other networks."""
    short, _ = _resolve(name)
    if short not in _AP:
        return None
    val, test, test_50 = _AP[short]
    return PublishedAP(val=val, test=test, test_50=test_50, resolution=_official(short).resolution, source=_DET)


def default_dropout(name: str) -> float:
    """Return the dropout rate before the classifier with which this network was trained."""
    short, _ = _resolve(name)
    for table in (V1_COEFFICIENTS, LITE_COEFFICIENTS, EDGETPU_COEFFICIENTS, V2_COEFFICIENTS):
        if short in table:
            return table[short][-1]
    return 0.0


def get_spec(name: str, *, num_classes: int | None = None, in_channels: int = 3) -> ArchSpec:
    """Return the network of this name, with `num_classes` outputs and `in_channels` inputs.

    By default it has the classes of its published weights: 1000, or the 90 of COCO of a detector.

    A short name (b0, lite3, v2_s, edgetpu_m, resnet50) and timm's tf_ names mean the official network: TF
    "SAME" padding, BatchNorm epsilon 1e-3. timm's other names (efficientnet_b0, efficientnetv2_s) pad symmetrically,
    with epsilon 1e-5; torchvision's names (efficientnet_v2_s, torchvision/efficientnet_b5) follow torchvision. A
    detector's (efficientdet_d0, tf_efficientdet_lite0, efficientdet-d7x) all mean the official one, but
    effdet/efficientdet_d0 to _d3, effdet's own: symmetric padding, epsilon 1e-5, no biases before BatchNorms.
    Raises SpecError for an unknown name; the message suggests the nearest known one.

    >>> spec = get_spec("lite0", num_classes=10)
    >>> spec.resolution, spec.num_classes, spec.activation
    (224, 10, 'relu6')
    """
    short, dialect = _resolve(name)
    spec = _official(short)
    usual = COCO_CLASSES if short in DETECTORS else _CLASSES
    changes: dict[str, Any] = {"num_classes": usual if num_classes is None else num_classes}
    changes["in_channels"] = in_channels
    changes["lineage"] = Lineage(base=name, network=short)
    if dialect.startswith("timm") and short in _TIMM_RESOLUTION:
        changes["resolution"] = _TIMM_RESOLUTION[short]
    if short == "l2" and name.endswith("_475"):  # the same network, trained and tested at 475 pixels
        changes["resolution"] = 475
    if dialect == "effdet" and isinstance(spec.decoder, Detector):
        neck = dataclasses.replace(spec.decoder.neck, redundant_bias=False)
        changes["decoder"] = dataclasses.replace(spec.decoder, neck=neck)
    if dialect in ("timm", "torchvision", "effdet"):
        wide = dialect == "torchvision" and (short.startswith("v2_") or short in ("b5", "b6", "b7"))
        changes |= {"padding": "symmetric", "norm_epsilon": 1e-3 if wide else 1e-5}
    return dataclasses.replace(spec, **changes)


def _official(short: str) -> ArchSpec:
    if short in RESNET_REPEATS:
        return resnet_spec(short)
    if short in DETECTORS:
        return efficientdet_spec(short)
    return v2_spec(short) if short in V2_COEFFICIENTS else v1_spec(short)


def _resolve(name: str) -> tuple[str, str]:
    """Return the short name and the conventions that the name implies.

    They are official, timm_tf, timm, torchvision or effdet.
    """
    text = name.strip().lower()
    prefix, _, rest = text.rpartition("/")
    text = rest.split(".")[0]  # timm's pretraining tag
    if prefix in ("", "effdet") and (detector := _detector(text, prefix)):
        return detector
    if prefix not in ("", "timm", "torchvision"):
        raise SpecError(f"unknown network {name!r}{nearest(rest, _EVERY)} (`effnet models list` lists them all)")
    if text in NAMES:
        return text, "timm" if prefix == "timm" and not text.startswith("resnet") else prefix or "official"
    found = re.fullmatch(r"(tf_)?efficientnet(-|_v2_|v2_|_)(\w+)", text)
    if found:
        tf, infix, tail = found.groups()
        short = f"v2_{tail}" if "v2" in infix else _EDGE_SHORT.get(tail, tail)
        if short in NAMES and not short.startswith("resnet") and not (prefix == "timm" and infix == "_v2_"):
            return short, _dialect(bool(tf), infix, prefix)
    raise SpecError(f"unknown network {name!r}{nearest(text, _EVERY)} (`effnet models list` lists them all)")


def _detector(text: str, prefix: str) -> tuple[str, str] | None:
    """Return the short name of a detector and the conventions of its name, official or effdet; None for other texts.

    >>> _detector("tf_efficientdet_lite0", "effdet"), _detector("efficientdet_d0", "effdet")
    (('efficientdet_lite0', 'official'), ('efficientdet_d0', 'effdet'))
    """
    named = re.fullmatch(r"(tf_)?(efficientdet)[-_](\w+)", text)
    short = f"{named[2]}_{named[3]}" if named else ""
    if named is None or short not in DETECTORS:
        return None
    if named[1] or not prefix:
        return short, "official"
    return (short, "effdet") if short in EFFDETS_OWN else None


def _dialect(tf: bool, infix: str, prefix: str) -> str:
    if tf:
        return "timm_tf"
    if infix == "-":  # efficientnet-b0: the official network, as lukemelas and the papers spell it
        return "official"
    return "torchvision" if infix == "_v2_" or prefix == "torchvision" else "timm"
