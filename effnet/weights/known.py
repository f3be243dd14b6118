"""The networks that a file may hold under each naming scheme, by name."""

from collections.abc import Mapping
from functools import cache

from effnet.arch.catalog import DETECTORS, EFFDETS_OWN, NAMES, get_spec
from effnet.arch.decoders.layers import SCORES
from effnet.arch.decoders.record import Detector
from effnet.arch.spec import ArchSpec
from effnet.errors import WeightsError
from effnet.weights.schemes import SMP, Scheme, foreign_names
from effnet.weights.schemes.smp import CHANNELS, unet

Shapes = Mapping[str, tuple[int, ...]]


def known_networks(scheme: Scheme) -> tuple[str, ...]:
    """Return the names of the networks that a file under this scheme may hold; those of U-Nets are their encoders'."""
    if scheme == "effdet":
        return (*DETECTORS, *(f"effdet/{name}" for name in EFFDETS_OWN))
    if scheme in SMP:
        return tuple(name for name in NAMES if not name.startswith("resnet"))
    return (*NAMES, *DETECTORS) if scheme in ("effnet", "tensorflow") else NAMES


def known_network(name: str, scheme: Scheme, *, num_classes: int = 1, in_channels: int = 3) -> ArchSpec:
    """Return the network of this name as a file under this scheme has it.

    Raises SpecError for an unknown name, WeightsError if no such file can be read.
    """
    if scheme not in SMP:
        return get_spec(name, num_classes=num_classes, in_channels=in_channels)
    spec = get_spec(name, in_channels=in_channels)
    if spec.decoder is not None:
        raise WeightsError(f"{name} is no encoder of a U-Net; name the encoder, such as tf_efficientnet_lite0")
    return unet(spec, scheme=scheme, num_classes=num_classes)


def sized_network(name: str, shapes: Shapes, scheme: Scheme) -> ArchSpec:
    """Return the network of this name with the classes, the input channels and a U-Net's widths that shapes have."""
    spec = known_network(name, scheme)
    keys = foreign_names(spec, scheme)
    stem, bias = shapes.get(keys["stem.conv.weight"], ()), shapes.get(keys[last_bias(spec)], ())
    channels = 3
    if len(stem) == 4:
        channels = max(1, stem[2] if scheme in ("keras", "tensorflow") else stem[1])
    outputs = bias[0] if bias else 0
    if scheme in SMP:
        widths = [shapes.get(f"decoder.blocks.{number}.conv1.0.weight", ()) for number in range(len(CHANNELS))]
        widths_or_usual = [shape[0] if shape else usual for shape, usual in zip(widths, CHANNELS, strict=True)]
        encoder = get_spec(name, in_channels=channels)
        return unet(encoder, scheme=scheme, num_classes=max(1, outputs), channels=widths_or_usual)
    if isinstance(spec.decoder, Detector):
        outputs = max(1, outputs // spec.decoder.head.priors)
    return known_network(name, scheme, num_classes=outputs, in_channels=channels)


def last_bias(spec: ArchSpec) -> str:
    """Return effnet's name of the array with a number for each class: the bias of the last layer."""
    if spec.decoder is None:
        return "classifier.bias"
    return f"head.{SCORES}.last.pointwise.bias" if isinstance(spec.decoder, Detector) else "decoder.last.bias"


@cache
def known_names(name: str, scheme: Scheme) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the foreign names of a known network without its classifier, and those of the classifier.

    A network with a decoder has no classifier that others could replace. Without names in this scheme all are empty.
    """
    try:
        spec = known_network(name, scheme)
        names = foreign_names(spec, scheme)
    except WeightsError:
        return frozenset(), ()
    classifier = () if spec.decoder else (names["classifier.weight"], names["classifier.bias"])
    return frozenset(names.values()) - set(classifier), classifier
