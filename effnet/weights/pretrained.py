"""Weights that have learned already: from an id, a file or a bundle to a network in effnet's own names."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.data.preprocess import Preprocess
from effnet.errors import WeightsError
from effnet.runtime.config import WEIGHTS, read_config
from effnet.runtime.split_file import read_split
from effnet.weights.adapt import (
    Arrays,
    adapt_statistics,
    adapt_stem,
    drop_background,
    has_folded_norms,
    replace_head,
)
from effnet.weights.bundle import load_state
from effnet.weights.catalog import SCHEMES, PublishedWeights, entries, find, named, of_network, preprocess_of, with_file
from effnet.weights.class_names import class_names
from effnet.weights.download import Progress, fetch, verify_hash
from effnet.weights.files import read_arrays
from effnet.weights.hub_config import is_bundle, read_hub_config, weights_in
from effnet.weights.identify import identify
from effnet.weights.schemes import Scheme, to_effnet
from effnet.weights.schemes.keras import pixel_statistics

_WITH_BACKGROUND = 1001
_SHOWN = 3
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".ckpt", ".index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A network with its weights, keyed by effnet's names, and what its pictures must look like.

    `class_names` are empty where there is no classifier. `source` is the id or the path that it came from; `top1`
    is its published ImageNet-1k accuracy in percent, None where there is none. Of a file without a published name
    neither `licence` nor `top1` is known. `split_seed` and `group_by` are a bundle's:
    what its training data were split with.
    """

    name: str
    spec: ArchSpec
    state: Arrays
    preprocess: Preprocess
    class_names: tuple[str, ...]
    licence: str
    source: str
    top1: float | None
    split_seed: int | None = None
    group_by: str = ""

    def knows(self, class_names: Sequence[str], *, split_seed: int, group_by: str = "") -> bool:
        """Returns whether it was trained to tell these classes, and on none of the pictures held out by this split."""
        same_split = (self.split_seed, self.group_by) == (split_seed, group_by)
        return self.class_names == tuple(class_names) and same_split


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What a file holds; `statistics` are the mean and deviation of its own normalisation, where it has one."""

    scheme: Scheme
    spec: ArchSpec
    state: Arrays
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None


def load_pretrained(
    what: str, *, model: str | None = None, offline: bool = False, progress: Progress | None = None
) -> Pretrained:
    """Returns the weights that `what` stands for: an id of the catalog, a file or checkpoint, or a bundle's folder.

    A file's network is found from its names, its shapes, its own name and timm's config.json beside it; `model` says
    what they cannot: a network, or the id of published weights whose preprocessing these need. TensorFlow's 1001
    classes become 1000. Raises WeightsError where they cannot be had, read or matched with a network, BundleError for
    a damaged bundle.
    """
    found = find_source(what)
    if isinstance(found, Path):
        return _from_bundle(found) if is_bundle(found) else _from_file(found, model=model)
    return load_published(found, offline=offline, progress=progress)


def load_published(
    entry: PublishedWeights, *, file: Path | None = None, offline: bool = False, progress: Progress | None = None
) -> Pretrained:
    """Returns the weights of `entry`: from its cache or origin, or from `file`, a file, checkpoint or bundle.

    Raises WeightsError where they cannot be had or read, or where `file` holds another network.
    """
    if file is None:
        path = fetch(entry, offline=offline, progress=progress)
        return _describe(_read(path, entry=entry), preprocess_of(entry), entry=entry, source=entry.id)
    if not is_bundle(file):
        found = _describe(_read(weights_in(file), entry=entry), preprocess_of(entry), entry=entry, source=str(file))
    else:
        found = dataclasses.replace(_from_bundle(file), preprocess=preprocess_of(entry))
    _check_network(found.spec, entry, where=str(file))
    return found


def _check_network(spec: ArchSpec, entry: PublishedWeights, *, where: str) -> None:
    wanted = get_spec(entry.network)
    stages = (len(spec.blocks), len(wanted.blocks)) if entry.pruned else (spec.stages, wanted.stages)
    if stages[0] == stages[1] and (spec.padding, spec.norm_epsilon) == (wanted.padding, wanted.norm_epsilon):
        return
    raise WeightsError(
        f"{where} must hold the network of {entry.id}, {entry.network} with padding {wanted.padding!r} and epsilon "
        f"{wanted.norm_epsilon:g}; it holds {spec.name} with {spec.padding!r} and {spec.norm_epsilon:g}; name the id "
        "that it belongs to, or another file"
    )


def find_source(what: str) -> Path | PublishedWeights:
    """Returns the file, folder or set of published weights that `what` stands for, without reading or fetching it.

    A path that exists comes first, but for a whole id of the catalog. Raises WeightsError where there is none, or
    where effnet cannot build the network.
    """
    path = Path(what)
    if not what.strip():
        raise WeightsError("weights must be an id of `effnet weights list`, a file or a bundle; the text is empty")
    whole_id = any(what.strip() == entry.id for entry in entries(supported_only=False))
    if not whole_id and (path.exists() or path.with_name(path.name + ".index").exists()):
        return path
    elsewhere = len(path.parts) > 1 and path.parts[0] not in SCHEMES
    if elsewhere or (path.suffix in _SUFFIXES and not with_file(path.name)):
        raise WeightsError(
            f"there must be a file of weights at {what}; none is there, nor is a bundle; correct the path, or name "
            "published weights (`effnet weights list` lists them)"
        )
    entry = find(what)
    if entry.unsupported or entry.untrained:
        reason = entry.unsupported or "no weights were published"
        raise WeightsError(f"effnet cannot build {entry.id}: {reason}; `effnet weights list` lists those that it can")
    return entry


def _from_bundle(folder: Path) -> Pretrained:
    config, record = read_config(folder), read_split(folder)
    entry = _named(config.arch.name)
    published = entry is not None and entry.id == config.arch.name  # a bundle that `effnet pull` made
    return Pretrained(
        name=config.arch.name,
        spec=config.arch,
        state=to_effnet(load_state(folder), config.arch, scheme="effnet", where=str(folder / WEIGHTS)),
        preprocess=config.preprocess,
        class_names=config.class_names,
        licence=entry.licence if published else "",
        source=str(folder),
        top1=entry.top1 if published else None,
        split_seed=config.split_seed,
        group_by=record.group_by if record else "",
    )


def _from_file(path: Path, *, model: str | None) -> Pretrained:
    file, entry = weights_in(path), _named(model)
    described = None if entry else read_hub_config(path)
    known = with_file(file.name)
    if len(known) == 1 and model is None and described is None:
        if file.is_file():
            verify_hash(file, known[0])  # it bears the name of a published file, so it must be that file
        return _describe(_read(file, entry=known[0]), preprocess_of(known[0]), entry=known[0], source=str(path))
    if described is not None and model is None:
        found = _read(file, entry=_named(described.network), model=described.network)
    else:
        found = _read(file, entry=entry, model=model)
    if described is not None:
        preprocess, licence = described.preprocess, described.licence
    else:
        preprocess, licence = _preprocess_for(found, model=model, path=path), ""
    return dataclasses.replace(_describe(found, preprocess, entry=None, source=str(path)), licence=licence)


def _preprocess_for(found: _File, *, model: str | None, path: Path) -> Preprocess:
    """Returns the preprocessing of the published weights whose name the file bears, or else of all of its network.

    Raises WeightsError where those differ.
    """
    for name in (model, path.name, path.stem, found.spec.name):
        entry = _named(name)
        if entry and (entry.pruned or get_spec(entry.network).stages == found.spec.stages):
            return preprocess_of(entry)
    alike = of_network(found.spec, scheme=found.scheme)
    if not alike:
        return Preprocess(resolution=found.spec.resolution)
    first_of: dict[object, str] = {}
    for e in alike:
        first_of.setdefault((e.mean, e.std, e.test_crop, e.interpolation, e.mode), e.id)
    if len(first_of) > 1 and found.statistics is None:
        ids = " or ".join(f"--model {name}" for name in list(first_of.values())[:_SHOWN])
        raise WeightsError(
            f"{path} holds {found.spec.name}, and the published weights of this network differ in what pictures must "
            f"look like (mean, deviation, crop or interpolation); say which these are, or came from: {ids}"
        )
    return preprocess_of(alike[0])


def _read(path: Path, *, entry: PublishedWeights | None, model: str | None = None) -> _File:
    """Reads a file of the weights `entry`, where these are known, or else of the network `model`, where that is."""
    pruned = entry.id if entry and entry.pruned else model if model and "_pruned" in model else ""
    arrays = read_arrays(path)
    network = entry.network if entry else None if pruned else model
    scheme, spec = identify(arrays, name_hint=pruned or path.name, model=network)
    state = to_effnet(arrays, spec, scheme=scheme, where=str(path))
    # Others may have 1001 classes of their own, none of which is a background.
    background = scheme == "tensorflow" or (entry is not None and entry.num_classes == _WITH_BACKGROUND)
    if background and spec.num_classes == _WITH_BACKGROUND:
        spec, state = dataclasses.replace(spec, num_classes=_WITH_BACKGROUND - 1), drop_background(state)
    statistics = pixel_statistics(arrays) if scheme == "keras" else None
    return _File(scheme=scheme, spec=spec, state=state, statistics=statistics)


def _named(name: str | None) -> PublishedWeights | None:
    """Returns the published weights of exactly this name, an id or one that timm once had for it, or None."""
    try:
        return named(name or "")
    except WeightsError:
        return None


def _describe(found: _File, preprocess: Preprocess, *, entry: PublishedWeights | None, source: str) -> Pretrained:
    spec = found.spec
    if found.statistics is not None:
        mean, std = found.statistics
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
    # A background among 1001 classes is gone by now.
    names = class_names(spec.num_classes) if spec.num_classes not in (0, _WITH_BACKGROUND) else None
    if spec.in_channels != preprocess.channels:
        mean, std = (adapt_statistics(v, channels=spec.in_channels) for v in (preprocess.mean, preprocess.std))
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
    return Pretrained(
        name=spec.name,
        spec=dataclasses.replace(spec, resolution=preprocess.resolution),
        state=found.state,
        preprocess=preprocess,
        class_names=names if names is not None else tuple(f"class {i}" for i in range(spec.num_classes)),
        licence=entry.licence if entry else "",
        source=source,
        top1=entry.top1 if entry else None,
    )


def adapted(found: Pretrained, *, num_classes: int, in_channels: int, resolution: int) -> Pretrained:
    """Returns the backbone with a classifier of zeros for `num_classes`, for `in_channels`, at `resolution` pixels.

    Pictures whose channels are all alike give the features that they gave as red, green and blue, but for a pixel at
    the border: the stem's filters take over the deviations, the norm behind it the means.
    """
    spec = dataclasses.replace(
        found.spec, num_classes=num_classes, in_channels=in_channels, resolution=resolution, name=found.name
    )
    state = replace_head(found.state, spec, num_classes=num_classes)
    preprocess = dataclasses.replace(found.preprocess, resolution=resolution)
    if in_channels != found.spec.in_channels:
        mean, std = (adapt_statistics(v, channels=in_channels) for v in (preprocess.mean, preprocess.std))
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
        _adapt_input_(state, found.spec, found.preprocess, preprocess)
    return dataclasses.replace(found, spec=spec, state=state, preprocess=preprocess, class_names=())


def _adapt_input_(state: Arrays, spec: ArchSpec, before: Preprocess, after: Preprocess) -> None:
    """Makes the stem read pictures of other channels, as `adapt_stem` says, under another mean and deviation."""
    kernel = state["stem.conv.weight"]

    def response(kernel: np.ndarray, preprocess: Preprocess, level: float) -> np.ndarray:
        """Returns what a plain picture of this brightness gives, away from the border."""
        values = (level - np.array(preprocess.mean)) / np.array(preprocess.std)
        return np.einsum("oikl,i->o", kernel, values)

    # Filters for pixels that no deviation has divided yet; each new input then gets its own.
    raw = kernel / np.array(before.std)[:, None, None]
    adapted_kernel = adapt_stem(raw, channels=after.channels) * np.array(after.std)[:, None, None]
    shift = response(adapted_kernel, after, 0.5) - response(kernel, before, 0.5)
    # A norm takes the shift off as part of its mean; one that was folded away must stay neutral, and only adds a bias.
    name, change = ("bias", -shift) if has_folded_norms(state, spec) else ("running_mean", shift)
    state["stem.conv.weight"] = adapted_kernel.astype(np.float32)
    state[f"stem.norm.{name}"] = (state[f"stem.norm.{name}"] + change).astype(np.float32)
