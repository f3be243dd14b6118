"""Pretrained weights: from an id, a file or a bundle to a network in effnet's own names."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import read_config
from effnet.bundle.names import WEIGHTS
from effnet.bundle.split_file import read_split
from effnet.bundle.weights import load_state
from effnet.data.preprocess import Preprocess
from effnet.errors import WeightsError
from effnet.weights.adapt import Arrays, adapt_statistics, adapt_stem, has_folded_norms, replace_head
from effnet.weights.catalog import SCHEMES, PublishedWeights, entries, find, preprocess_of, with_file
from effnet.weights.download import Progress, fetch, is_published, verify_hash
from effnet.weights.hub_config import is_bundle, read_hub_config, weights_in
from effnet.weights.network_file import (
    NetworkFile,
    default_names,
    for_network,
    named_or_none,
    preprocess_for,
    published_file,
    read_network,
)
from effnet.weights.provenance import find_origin, published_origin
from effnet.weights.schemes import to_effnet

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".ckpt", ".index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A network with its weights, keyed by effnet's names, and its preprocessing.

    `class_names` are empty if there is no classifier. `source` is the id or path of its origin. `published` is the id
    of published weights, proven by their download source or by a hash; it is empty for others, which have no `top1`,
    the published ImageNet-1k accuracy in percent. `licence` is empty if unknown. `split_seed` and `group_by` are those
    of the split of a bundle's training data. `notes` are sentences on how the network was found in its file.
    """

    spec: ArchSpec
    state: Arrays
    preprocess: Preprocess
    class_names: tuple[str, ...]
    licence: str
    source: str
    top1: float | None
    published: str = ""
    split_seed: int | None = None
    group_by: str = ""
    notes: tuple[str, ...] = ()

    def knows(self, class_names: Sequence[str], *, split_seed: int, group_by: str = "") -> bool:
        """Return whether it is already trained on these classes, and on none of the images held out by this split."""
        same_split = (self.split_seed, self.group_by) == (split_seed, group_by)
        return self.class_names == tuple(class_names) and same_split


def load_pretrained(
    what: str, *, model: str | None = None, offline: bool = False, progress: Progress | None = None
) -> Pretrained:
    """Return the weights named by `what`: an id of the catalog, a file or checkpoint, or a bundle's folder.

    A file's network follows from its names, its shapes, its own name and timm's config.json beside it; `model` adds
    what these lack: a network, or the id of published weights whose preprocessing applies. TensorFlow's 1001 classes
    become 1000. Raises WeightsError if they are unavailable, unreadable or of no known network, BundleError for a
    damaged bundle.
    """
    found = find_source(what)
    if isinstance(found, Path):
        return _from_bundle(found) if is_bundle(found) else _from_file(found, model=model)
    return load_published(found, offline=offline, progress=progress)


def load_published(
    entry: PublishedWeights, *, file: Path | None = None, offline: bool = False, progress: Progress | None = None
) -> Pretrained:
    """Return the weights of `entry` from the cache or its origin, or those of its network from `file`, of any format.

    The weights in `file` are called published only if that is proven: by its hash, or by an unchanged bundle made of
    published weights. Raises WeightsError if they are unavailable or unreadable, or if `file` holds another network.
    """
    if file is None:
        path = fetch(entry, offline=offline, progress=progress)
        return _describe(read_network(path, entry=entry), preprocess_of(entry), entry=entry, source=entry.id)
    if is_bundle(file):
        found = dataclasses.replace(_from_bundle(file), preprocess=preprocess_of(entry))
        if found.published != entry.id:
            found = dataclasses.replace(found, published="", top1=None)
    else:
        path = weights_in(file)
        proven = entry if is_published(path, entry) else None
        found = _describe(read_network(path, entry=entry), preprocess_of(entry), entry=proven, source=str(file))
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
    """Return the file, folder or set of published weights named by `what`, without reading or downloading it.

    An existing path has priority, except over a whole id of the catalog. Raises WeightsError if there is none, or if
    effnet cannot build the network.
    """
    path = Path(what)
    if not what.strip():
        raise WeightsError("weights must be an id of `effnet models list`, a file or a bundle; the text is empty")
    whole_id = any(what.strip() == entry.id for entry in entries(supported_only=False))
    if not whole_id and (path.exists() or path.with_name(path.name + ".index").exists()):
        return path
    elsewhere = len(path.parts) > 1 and path.parts[0] not in SCHEMES
    if elsewhere or (path.suffix in _SUFFIXES and not with_file(path.name)):
        raise WeightsError(
            f"there must be a file of weights at {what}; none is there, nor is a bundle; correct the path, or name "
            "published weights (`effnet models list` lists them)"
        )
    entry = find(what)
    if entry.unsupported or entry.untrained:
        reason = entry.unsupported or "no weights were published"
        raise WeightsError(f"effnet cannot build {entry.id}: {reason}; `effnet models list` lists those that it can")
    return entry


def _from_bundle(folder: Path) -> Pretrained:
    config, record = read_config(folder), read_split(folder)
    entry = published_origin(folder, config)
    licensed = find_origin(config)
    return Pretrained(
        spec=config.arch,
        state=to_effnet(load_state(folder), config.arch, scheme="effnet", where=str(folder / WEIGHTS)),
        preprocess=config.preprocess,
        class_names=config.class_names,
        licence=licensed.licence if licensed else "",
        source=str(folder),
        published=entry.id if entry else "",
        top1=entry.top1 if entry else None,
        split_seed=config.split_seed,
        group_by=record.group_by if record else "",
    )


def _from_file(path: Path, *, model: str | None) -> Pretrained:
    """Read a file; it is called by a published name only if its hash is the published one."""
    file, asked = weights_in(path), named_or_none(model)
    described = None if asked else read_hub_config(path)
    known = with_file(file.name)
    bears_name = len(known) == 1 and model is None and described is None
    if bears_name and file.is_file():
        verify_hash(file, known[0])  # it has the name of a published file, so it must be that file
    if described is not None and model is None:
        found = read_network(file, entry=named_or_none(described.network), model=described.network)
    else:
        found = read_network(file, entry=known[0] if bears_name else asked, model=model)
    entry = published_file(file, found.spec)
    if described is not None:
        preprocess = described.preprocess
    elif entry is not None and model is None:
        preprocess = preprocess_of(entry)
    else:
        preprocess = preprocess_of(known[0]) if bears_name else preprocess_for(found, model=model, path=path)
    read = _describe(found, preprocess, entry=entry, source=str(path))
    return read if entry or described is None else dataclasses.replace(read, licence=described.licence)


def _describe(found: NetworkFile, preprocess: Preprocess, *, entry: PublishedWeights | None, source: str) -> Pretrained:
    preprocess = for_network(preprocess, found)
    return Pretrained(
        spec=dataclasses.replace(found.spec, resolution=preprocess.resolution, height=preprocess.height),
        state=found.state,
        preprocess=preprocess,
        class_names=default_names(found.spec),
        licence=entry.licence if entry else "",
        source=source,
        published=entry.id if entry else "",
        top1=entry.top1 if entry else None,
        notes=found.notes,
    )


def load_backbone(what: str, *, model: str | None = None, progress: Progress | None = None) -> Pretrained:
    """Return the weights named by `what`, as `load_pretrained` does; of a detector or a U-Net only the backbone.

    A backbone has no classes, and a note says what it was part of.
    """
    found = load_pretrained(what, model=model, progress=progress)
    if found.spec.decoder is None:
        return found
    spec = dataclasses.replace(found.spec, decoder=None, num_classes=0, height=0)
    state = {name: array for name, array in found.state.items() if name.startswith(("stem.", "stages."))}
    note = f"it is {found.spec.name} with a decoder; only its backbone is used"
    return dataclasses.replace(
        found, spec=spec, state=state, class_names=(), top1=None, notes=(*found.notes, note)
    )  # fmt: skip


def adapted(found: Pretrained, *, num_classes: int | None, in_channels: int, resolution: int) -> Pretrained:
    """Return the network with a classifier of zeros for `num_classes`, for `in_channels`, at `resolution` pixels.

    Without `num_classes`, the classifier and its classes are kept.

    Images with equal channels give the same features as in red, green and blue, except for a pixel at the border: the
    deviations are moved into the stem's filters, the means into the BatchNorm behind it.
    """
    spec = dataclasses.replace(found.spec, in_channels=in_channels, resolution=resolution)
    state, class_names = dict(found.state), found.class_names
    if num_classes is not None:
        spec, class_names = dataclasses.replace(spec, num_classes=num_classes), ()
        state = replace_head(state, spec, num_classes=num_classes)
    preprocess = dataclasses.replace(found.preprocess, resolution=resolution)
    if in_channels != found.spec.in_channels:
        mean, std = (adapt_statistics(v, channels=in_channels) for v in (preprocess.mean, preprocess.std))
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
        _adapt_input_(state, found.spec, found.preprocess, preprocess)
    return dataclasses.replace(found, spec=spec, state=state, preprocess=preprocess, class_names=class_names)


def _adapt_input_(state: Arrays, spec: ArchSpec, before: Preprocess, after: Preprocess) -> None:
    """Adapt the stem to other input channels, as `adapt_stem` does, and to another mean and deviation."""
    kernel = state["stem.conv.weight"]

    def response(kernel: np.ndarray, preprocess: Preprocess, level: float) -> np.ndarray:
        """Return the response to a uniform image of this brightness, away from the border."""
        values = (level - np.array(preprocess.mean)) / np.array(preprocess.std)
        return np.einsum("oikl,i->o", kernel, values)

    # Filters for pixels before division by the deviation; each new input then gets its own deviation.
    raw = kernel / np.array(before.std)[:, None, None]
    adapted_kernel = adapt_stem(raw, channels=after.channels) * np.array(after.std)[:, None, None]
    shift = response(adapted_kernel, after, 0.5) - response(kernel, before, 0.5)
    # A BatchNorm absorbs the shift in its mean; a folded one must stay neutral, and gets it as a bias.
    name, change = ("bias", -shift) if has_folded_norms(state, spec) else ("running_mean", shift)
    state["stem.conv.weight"] = adapted_kernel.astype(np.float32)
    state[f"stem.norm.{name}"] = (state[f"stem.norm.{name}"] + change).astype(np.float32)
