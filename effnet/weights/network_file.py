"""Read a file of weights as a network: its spec, its state in effnet's names, and its preprocessing."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.decoders.record import Detector
from effnet.arch.families.efficientdet import COCO_CLASSES
from effnet.arch.spec import ArchSpec
from effnet.data.preprocess import Preprocess
from effnet.errors import SpecError, WeightsError
from effnet.weights.adapt import Arrays, adapt_statistics, drop_background
from effnet.weights.catalog import PublishedWeights, entries, named, of_network, preprocess_of
from effnet.weights.class_names import class_names, coco_names
from effnet.weights.download import is_published
from effnet.weights.identify import identify
from effnet.weights.locate import Found, find_network
from effnet.weights.readers.files import read_file
from effnet.weights.schemes import Scheme, to_effnet
from effnet.weights.schemes.keras import pixel_statistics

_WITH_BACKGROUND = 1001
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFile:
    """The network of a file, and the file's metadata.

    `statistics` are the mean and deviation of its own normalisation, if it has one; `told_model` and `told_names` are
    the network's name and the classes, if it has them; `located` its place in the file; `notes` sentences on that.
    """

    scheme: Scheme
    spec: ArchSpec
    state: Arrays
    located: Found
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    told_model: str = ""
    told_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_network(
    path: Path, *, entry: PublishedWeights | None, model: str | None = None, head: str | None = None
) -> NetworkFile:
    """Return the network of a file: that of the weights `entry` or of the network `model`, if one is given.

    `head` names its classifier if that is elsewhere. The network's name in the file's metadata, or the file's own name,
    decides what shapes cannot. Raises WeightsError if there is no known network.
    """
    pruned = entry.id if entry and entry.pruned else model if model and "_pruned" in model else ""
    contents = read_file(path)
    told = contents.told
    located = find_network(
        contents.arrays, where=str(path), head=head, path=told.path, beside=told.beside, left=told.left
    )
    network = entry.network if entry else None if pruned else model
    hint = pruned or f"{told.model} {path.name}".lstrip()
    scheme, spec = identify(located.arrays, name_hint=hint, model=network, where=path.name)
    state = to_effnet(located.arrays, spec, scheme=scheme, where=str(path))
    # Others may have 1001 classes of their own, none of which is a background.
    background = scheme == "tensorflow" or (entry is not None and entry.num_classes == _WITH_BACKGROUND)
    if background and spec.num_classes == _WITH_BACKGROUND:
        spec, state = dataclasses.replace(spec, num_classes=_WITH_BACKGROUND - 1), drop_background(state)
    return NetworkFile(
        scheme=scheme,
        spec=spec,
        state=state,
        located=located,
        statistics=pixel_statistics(contents.arrays) if scheme == "keras" else None,
        told_model=told.model,
        told_names=told.class_names,
        notes=located.notes + _contradiction(spec, told.model),
    )


def _contradiction(spec: ArchSpec, told: str) -> tuple[str, ...]:
    """Return a note if the checkpoint names another network of these layers than the requested one."""
    try:
        other = get_spec(told) if told else spec
    except SpecError:
        return ()
    same = (other.padding, other.norm_epsilon) == (spec.padding, spec.norm_epsilon)
    if same or other.stages != spec.stages:
        return ()
    return (f"the checkpoint calls itself {told}, whose padding or epsilon differ from those of {spec.name}",)


def named_or_none(name: str | None) -> PublishedWeights | None:
    """Return the published weights of exactly this name, an id or an older name of timm's, or None."""
    try:
        return named(name or "")
    except WeightsError:
        return None


def published_file(path: Path, spec: ArchSpec) -> PublishedWeights | None:
    """Return the published weights of this network with the hash of the file, whatever its name, or None.

    Of several with one hash, return the one whose file has that name, or else the first.
    """
    params = cost(spec).params
    alike = [e for e in entries() if e.pruned or e.params == params]
    alike.sort(key=lambda e: path.name not in (e.file, *e.legacy_files))
    return next((e for e in alike if is_published(path, e)), None)


def preprocess_for(found: NetworkFile, *, model: str | None, path: Path) -> Preprocess:
    """Return the preprocessing of the published weights with the file's name, or else of all of its network.

    Raises WeightsError if those differ.
    """
    choices = _preprocess_choices(found, model, found.told_model, path.name, path.stem)
    if len(choices) > 1 and found.statistics is None:
        ids = " or ".join(f"--model {entry.id}" for entry in choices[:_SHOWN])
        raise WeightsError(
            f"{path} holds {found.spec.name}, and the published weights of this network differ in preprocessing "
            f"(mean, deviation, crop or interpolation); name those that these are, or started from: {ids}"
        )
    return preprocess_of(choices[0]) if choices else default_preprocess(found.spec)


def default_preprocess(spec: ArchSpec) -> Preprocess:
    """Return the usual preprocessing of a network without weights: ImageNet's.

    With a decoder, the whole image is in the upper left corner; EfficientDet-Lite has a mean of 127 and a deviation of
    128. Source: google/automl, efficientdet/hparams_config.py and dataloader.py.
    """
    preprocess = Preprocess(resolution=spec.resolution)
    if spec.decoder is not None:
        preprocess = Preprocess(
            resolution=spec.resolution, height=spec.height, mode="corner", crop=1.0, interpolation="bilinear"
        )
    if isinstance(spec.decoder, Detector) and spec.activation == "relu6":
        preprocess = dataclasses.replace(preprocess, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    if spec.in_channels == preprocess.channels:
        return preprocess
    mean, std = (adapt_statistics(v, channels=spec.in_channels) for v in (preprocess.mean, preprocess.std))
    return dataclasses.replace(preprocess, mean=mean, std=std)


def preprocess_for_import(found: NetworkFile, *, model: str | None, path: Path) -> tuple[Preprocess, str]:
    """Return the result of `preprocess_for` with its source in words; if several differ, the first.

    The first in the catalog is also the default of timm and torchvision.
    """
    choices = _preprocess_choices(found, model, found.told_model, path.name, path.stem)
    if not choices:
        kind = "ImageNet" if found.spec.decoder is None else "networks with a decoder: whole images"
        return default_preprocess(found.spec), f"{kind}, at the network's own resolution"
    ids = [entry.id for entry in entries()]
    first, *others = sorted(choices, key=lambda entry: ids.index(entry.id))
    differ = (
        f" (the published weights of this network differ; --model {others[0].id} selects another)" if others else ""
    )
    return preprocess_of(first), first.id + differ


def _preprocess_choices(found: NetworkFile, *names: str | None) -> list[PublishedWeights]:
    """Return the published weights that bear one of the names, or the best of each distinct preprocessing.

    Those are of the same network and naming scheme.
    """
    for name in (*names, found.spec.lineage.base):
        entry = named_or_none(name)
        if entry and (entry.pruned or get_spec(entry.network).stages == found.spec.stages):
            return [entry]
    first_of: dict[object, PublishedWeights] = {}
    for e in of_network(found.spec, scheme=found.scheme):
        first_of.setdefault((e.mean, e.std, e.test_crop, e.interpolation, e.mode), e)
    return list(first_of.values())


def for_network(preprocess: Preprocess, found: NetworkFile) -> Preprocess:
    """Return preprocessing with the file's own normalisation, if it has one, for the channels of its network."""
    if found.statistics is not None:
        mean, std = found.statistics
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
    if found.spec.in_channels == preprocess.channels:
        return preprocess
    mean, std = (adapt_statistics(v, channels=found.spec.in_channels) for v in (preprocess.mean, preprocess.std))
    return dataclasses.replace(preprocess, mean=mean, std=std)


def default_names(spec: ArchSpec) -> tuple[str, ...]:
    """Return the names of ImageNet's classes, of a detector COCO's, if their number fits, else numbers as names."""
    num_classes = spec.num_classes
    if isinstance(spec.decoder, Detector) and num_classes == COCO_CLASSES:
        return coco_names()
    # The background among 1001 classes is already removed.
    known = num_classes not in (0, _WITH_BACKGROUND) and spec.decoder is None
    names = class_names(num_classes) if known else None
    return names if names is not None else tuple(f"class {i}" for i in range(num_classes))
