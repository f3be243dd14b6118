"""Create a torch module from a network's name, a spec, published weights or a bundle."""

import dataclasses
import os
from pathlib import Path

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.bundle.spec_of import read_spec
from effnet.bundle.weights import load_arrays_
from effnet.data.preprocess import Preprocess
from effnet.errors import WeightsError
from effnet.nn.network import FeatureMaps, Network, build
from effnet.weights.adapt import adapt_statistics, has_folded_norms
from effnet.weights.catalog import of_network, preprocess_of
from effnet.weights.hub_config import is_bundle
from effnet.weights.network_file import default_preprocess, named_or_none
from effnet.weights.pretrained import Pretrained, adapted, find_source, load_pretrained, load_published

_WITH_BACKGROUND = 1001


def create_model(
    network: str | os.PathLike[str] | ArchSpec,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    norm_momentum: float = 0.1,
    seed: int | None = None,
    offline: bool = False,
) -> Network | FeatureMaps:
    """Return the module of a network, in training mode; its input is normalised images [batch, channels, R, R].

    `network` is a name (b0, tf_efficientnet_lite0), an ArchSpec or its JSON file, the id of published weights (`effnet
    weights list`), a bundle's folder or a file of weights. With `pretrained`, a name or a spec gets its best published
    weights, an id its own, downloaded unless `offline`; a bundle or a file of weights always brings its own. Other
    weights are drawn from `seed` if given, else from torch's global generator.

    `num_classes` other than the weights' replaces the classifier by one of zeros, which gives all classes the same
    probability; 0 leaves it out, and the module returns the pooled features. `in_chans` other than theirs adapts the
    first convolution and the preprocessing. With `features_only` the module returns the feature maps that its
    `feature_info` lists, for a detector or a segmenter. `dropout`, `drop_path` and `norm_momentum` are as in `build`.
    BatchNorm stays frozen in training if the weights have its statistics folded into the convolutions.

    `effnet.transforms(module)` is its preprocessing. Raises SpecError or WeightsError if there is no such network, or
    its weights are unavailable or unreadable.
    """
    if isinstance(network, ArchSpec):
        num_classes = network.num_classes if num_classes is None else num_classes
        in_chans = network.in_channels if in_chans is None else in_chans
    found = _weights(network, pretrained=pretrained, offline=offline)
    if found is None:
        spec, preprocess = _untrained(network, num_classes=num_classes, in_chans=in_chans)
    else:
        side = network.resolution if isinstance(network, ArchSpec) else found.preprocess.resolution
        classes = None if num_classes in (None, found.spec.num_classes) else num_classes
        channels = found.spec.in_channels if in_chans is None else in_chans
        found = adapted(found, num_classes=classes, in_channels=channels, resolution=side)
        spec, preprocess = found.spec, found.preprocess
    module = build(spec, dropout=dropout, drop_path=drop_path, norm_momentum=norm_momentum, seed=seed)
    module.preprocess = preprocess
    if found is not None:
        load_arrays_(module, found.state, where=found.source)
        module.frozen_norms = has_folded_norms(found.state, spec)
    return (FeatureMaps(module) if features_only else module).train()


def _weights(network: str | os.PathLike[str] | ArchSpec, *, pretrained: bool, offline: bool) -> Pretrained | None:
    """Return the weights to start from, or None for random ones."""
    if isinstance(network, ArchSpec):
        if not pretrained:
            return None
        found = of_network(network, scheme="timm")
        if not found:
            raise WeightsError(
                f"no weights were published for {network.name}, exactly as it is; leave pretrained out, or name another"
            )
        return load_published(found[0], offline=offline)
    if not isinstance(network, str | os.PathLike):  # `read_spec` reports it
        return None
    text = os.fspath(network)
    is_file = os.path.isfile(text) and not text.endswith(".json")
    return load_pretrained(text, offline=offline) if pretrained or is_file or is_bundle(Path(text)) else None


def _untrained(
    network: str | os.PathLike[str] | ArchSpec, *, num_classes: int | None, in_chans: int | None
) -> tuple[ArchSpec, Preprocess]:
    """Return the spec of a name, an id or a spec, and the preprocessing of the id's weights, else ImageNet's."""
    entry = named_or_none(network) if isinstance(network, str) else None
    if entry is None:
        spec = network if isinstance(network, ArchSpec) else read_spec(network)
        preprocess = default_preprocess(spec)
    else:
        if entry.unsupported:
            find_source(entry.id)  # raises the reason
        if entry.pruned:
            raise WeightsError(f"the channels of {entry.id} are in its file; create it with pretrained=True")
        preprocess = preprocess_of(entry)
        classes = entry.num_classes - (entry.num_classes == _WITH_BACKGROUND)
        spec = dataclasses.replace(get_spec(entry.network), num_classes=classes, resolution=preprocess.resolution)
    spec = dataclasses.replace(
        spec,
        num_classes=spec.num_classes if num_classes is None else num_classes,
        in_channels=spec.in_channels if in_chans is None else in_chans,
    )
    return spec, _for_channels(preprocess, spec.in_channels)


def _for_channels(preprocess: Preprocess, channels: int) -> Preprocess:
    if channels == preprocess.channels:
        return preprocess
    mean, std = (adapt_statistics(values, channels=channels) for values in (preprocess.mean, preprocess.std))
    return dataclasses.replace(preprocess, mean=mean, std=std)
