"""Read a folder, a manifest or a built-in name as a Dataset: labelled images in train, val and test."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from effnet.data.annotated.record import notes_of
from effnet.data.clips.record import Clip
from effnet.data.corrections import corrected
from effnet.data.groups import with_groups
from effnet.data.images.decode import Decoding, decoded_image, fit_channels
from effnet.data.inspection.channels import choose_channels
from effnet.data.items import Items
from effnet.data.labels import CLASSES, LabelKind
from effnet.data.manifests.columns import read_words
from effnet.data.order import Blocks
from effnet.data.several.outputs import SEVERAL, OutputSpec, fitted_specs, outputs_of
from effnet.data.sound.record import Sound
from effnet.data.sources.in_memory import Arrays, Labels, MapStyle, list_arrays, list_items
from effnet.data.sources.listing import check_no_outputs, list_path
from effnet.data.sources.source import Group, Listing, Part, Skipped, Source, encoded, refuse_if_strict, source_name
from effnet.data.split import arrange
from effnet.data.view.value_range import ValueRange
from effnet.errors import DataError, InputError
from effnet.system.bounds import MAX_CHANNELS, MAX_SEED, check_whole

_ITEMS = "items"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images and their labels: paths, uint8 arrays [H, W, C] or stored ones, and as many targets of the task.

    `labels` are int64 [images], the numbers of the classes, or what another task learns, an array [images, ...]: of
    several outputs float64 [images, target columns], NaN if unknown (effnet.data.several.outputs).
    `blocks` names the part that holds each image if the parts cannot all be available at once; see `epoch_order`.
    """

    sources: Sequence[Source]
    labels: np.ndarray
    blocks: Blocks | None = None

    def __len__(self) -> int:
        return len(self.sources)

    def to_torch(self, transform: Callable[[Any], Any] | None = None, *, channels: int = 3) -> Items:
        """Return the split as a map-style data set for torch's DataLoader, Subset and random_split.

        An item is (transform(image), label): the number of a class, or a row of targets. The image is a Pillow image,
        upright, in RGB or, with 1 of `channels`, grey; the result of `effnet.transforms` reads files itself and needs
        no `channels`.
        """
        load = partial(load_image, self)
        return Items(sources=self.sources, labels=self.labels, load=load, transform=transform, channels=channels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Labelled images in three splits; a label is an index into `class_names`, unless `label_kind` says otherwise.

    `class_names` are the names of the network's outputs. `channels`, `value_range` and, of sounds, `sound` are the
    arguments for decoding; `clip` says how clips are shown, None if the images are no frames of clips;
    `mirror_safe` says that a mirrored image keeps its label; `notes` are sentences on how the images were split and
    what was left out. `made` are the splits created here, with `seed`; none of `groups` is on two sides of them.
    `listed` is the listing it was created from.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    train: Split
    val: Split
    test: Split
    mirror_safe: bool
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    made: tuple[str, ...] = ()
    seed: int = 0
    listed: Listing | None = None
    value_range: ValueRange | None = None
    sound: Sound | None = None
    clip: Clip | None = None
    label_kind: LabelKind = CLASSES

    @property
    def decoding(self) -> Decoding:
        """How the files are decoded."""
        return Decoding(channels=self.channels, value_range=self.value_range, sound=self.sound)

    @property
    def task(self) -> str:
        """The name of the task that learns these labels (effnet.tasks)."""
        return self.label_kind.task

    @property
    def specs(self) -> tuple[OutputSpec, ...]:
        """The outputs of labels of several, numbers with mean, deviation and tolerance of the training images."""
        several = self.label_kind.task == SEVERAL.task
        return fitted_specs(self.class_names, self.train.labels) if several else ()

    @property
    def images_a_class(self) -> float:
        """The training images for each class, on average; of several outputs, for those of the one with the most."""
        classes = len(self.class_names)
        most = classes if self.label_kind.classes else max(spec.width for spec in outputs_of(self.class_names))
        return len(self.train) / most

    @property
    def group_by(self) -> str:
        """The pattern by which images were grouped, or an empty string."""
        return "" if self.listed is None else self.listed.group_by

    @classmethod
    def from_arrays(
        cls,
        images: Arrays,
        labels: Labels,
        *,
        class_names: Sequence[str] | None = None,
        val: tuple[Arrays, Labels] | None = None,
        test: tuple[Arrays, Labels] | None = None,
        name: str = "arrays",
        seed: int = 0,
        label_kind: LabelKind = CLASSES,
    ) -> "Dataset":
        """Return the data set of images in memory, for `fit`, `train` and `evaluate`, which take it for a path.

        `images` are uint8 [images, height, width] or [images, height, width, channels], or a list of such arrays of any
        sizes. `labels` are names, or numbers that count `class_names` from 0; without `class_names`, the names are
        sorted, and the class of a number is that number as text. Without `val` or `test`, images and labels, they are
        split off, stratified with `seed`. Labels of several outputs are mappings such as {"gender": "Women", "tags":
        ["sun"], "year": 2011}: a text is a class, a list holds tags, a number is a number; what is absent, None or NaN
        is unknown. `label_kind` is the kind of other labels: OBJECTS (effnet.data.annotated.objects), MASKS
        (effnet.data.annotated.masks.labels), or that of a task of one's own. Raises DataError if they do not match.
        """
        check_options(seed=seed, channels=None)
        parts = _given((images, labels), val, test)
        listing = list_arrays(parts, class_names=class_names, name=name, label_kind=label_kind)
        return split_listing(listing, seed=seed)

    @classmethod
    def from_torch(
        cls,
        items: MapStyle,
        *,
        class_names: Sequence[str] | None = None,
        val: MapStyle | None = None,
        test: MapStyle | None = None,
        name: str = _ITEMS,
        seed: int = 0,
    ) -> "Dataset":
        """Return the data set of the items (image, label) of a torch.utils.data.Dataset, otherwise as `from_arrays`.

        An image is a Pillow image, a uint8 array [height, width, channels], or a tensor [channels, height, width] of
        uint8 or of 0 to 1, always the same: give the data set without augmentation and normalisation, which are
        effnet's. It is read again in every epoch, from several threads. `classes` and `targets` of torchvision's data
        sets are used. A label may be a mapping of several outputs, as in `from_arrays`.
        """
        check_options(seed=seed, channels=None)
        listing = list_items(_given(items, val, test), class_names=class_names, name=name)
        return split_listing(listing, seed=seed)


DataLike = str | os.PathLike[str] | Dataset | MapStyle
"""The data of a job: a path or name, a data set of effnet, or a map-style one such as torch's."""


def name_of(data: DataLike) -> str:
    """Return the path of the data, or the name of a data set."""
    if isinstance(data, Dataset):
        return data.name
    return os.fspath(data) if isinstance(data, str | os.PathLike) else _ITEMS


def _given(train: Any, val: Any, test: Any) -> dict[str, Any]:
    """Return the given splits by name; images that are not split are under an empty name."""
    held_out = {name: part for name, part in (("val", val), ("test", test)) if part is not None}
    return {"train" if held_out else "": train, **held_out}


def read_dataset(
    source: DataLike,
    *,
    seed: int = 0,
    channels: int | None = None,
    strict: bool = False,
    group_by: str = "",
    outputs: str | Sequence[str] = "",
    task: str = "auto",
    corrections: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a folder with one subfolder per class, a CSV or JSONL manifest, shards, hf:NAME, or the built-in "digits".

    Shards are in WebDataset format: a folder of .tar files, one of them, a pattern (train-{000000..000009}.tar), or
    URLs of these. hf:NAME[:CONFIG] and hf:FOLDER are read by the package `datasets`. Images are listed, not opened,
    except for a few headers if `channels` is None, and for files of equal size, to find identical ones; remote shards
    are downloaded, and `progress` counts them. With strict, an unusable file is an error; otherwise it is skipped.

    If the source is not split, identical files stay on one side of the split, and so do images of one group: those
    with the same `group` in a manifest, or with the same match of the regular expression `group_by` in their paths
    below the source.

    `outputs` choose the columns of a manifest that are learnt, as in "gender,articleType,year" or a list of names; by
    default those titled label:NAME (a class), tags:NAME (tags, with | between them) and number:NAME, and label. The
    same words before a name state the kind of a column that lacks them. A Dataset is split again from its listing; a
    torch.utils.data.Dataset is as in `from_torch`.

    `task` is detection (boxes as Pascal VOC, COCO, YOLO or a table), segmentation (masks, or outlines in COCO),
    classification, or auto: what the folder holds, annotations before class folders. `corrections` is a file of right
    labels, as `effnet serve` writes it (effnet.data.corrections).

    Raises:
        DataError: the source does not exist or does not have a usable layout.
    """
    check_options(seed=seed, channels=channels)
    listing = list_source(source, outputs=outputs, progress=progress, task=task)
    refuse_if_strict(listing.skipped, strict=strict)
    if corrections is not None:
        listing = corrected(listing, os.fspath(corrections))
    if not isinstance(source, Dataset):
        listing = with_groups(listing, group_by=group_by)
    elif group_by not in ("", source.group_by):
        raise DataError(f"group_by must be that of the data set, {source.group_by!r}; got {group_by!r}")
    elif task != source.task and {task, source.task} & {"detection", "segmentation"} and task != "auto":
        raise DataError(f"task must be that of the data set, {source.task}; got {task}: read its folder again with it")
    return split_listing(listing, seed=seed, channels=channels, strict=strict)


def check_options(*, seed: int, channels: int | None) -> None:
    """Raise DataError for an invalid seed or number of channels."""
    try:
        check_whole("seed", seed, least=0, most=MAX_SEED)
        if channels is not None:
            check_whole("channels", channels, least=1, most=MAX_CHANNELS)
    except InputError as error:
        raise DataError(str(error)) from error


def split_listing(
    listing: Listing,
    *,
    seed: int,
    channels: int | None = None,
    strict: bool = False,
) -> Dataset:
    """Return the data set of a listing, split with `seed` if it has no splits; groups are kept together."""
    kind = listing.label_kind
    try:
        parts, made, split_notes = arrange(listing.parts, seed=seed, groups=listing.groups, strata=kind.strata)
        class_names, class_notes = kind.name(parts, listing.class_names, strict)
    except DataError as error:
        lost = notes_of(finding for finding in listing.findings if "not used" in finding.sentence)
        if not lost:
            raise
        raise DataError(". ".join((str(error), *lost))) from error  # they may be why
    notes = [*split_notes, *class_notes, *listing.notes]
    if channels is None and (channels := listing.channels) is None:
        channels, note = choose_channels(_near(parts["train"].sources, mixed=listing.mixed), seed=seed)
        notes.append(note)
    splits: dict[str, Any] = {
        name: to_split(parts[name], class_names, mixed=listing.mixed, kind=kind) for name in ("train", "val", "test")
    }
    return Dataset(
        name=listing.name,
        class_names=class_names,
        channels=channels,
        **splits,
        mirror_safe=listing.mirror_safe,
        skipped=listing.skipped,
        notes=tuple(notes),
        groups=listing.groups,
        made=made,
        seed=seed,
        listed=listing,
        label_kind=kind,
    )


def load_image(split: Split, index: int, *, channels: int, value_range: ValueRange | None = None) -> np.ndarray:
    """Return image `index` as uint8 [H, W, channels]; raise ImageError if it cannot be decoded."""
    with loaded_image(split, index, Decoding(channels=channels, value_range=value_range)) as image:
        return image


@contextmanager
def loaded_image(split: Split, index: int, decoding: Decoding) -> Iterator[np.ndarray]:
    """Yield the result of `load_image`, for a block that reduces it: see `decoded_image`."""
    source = split.sources[index]
    if isinstance(source, np.ndarray):
        yield fit_channels(source, decoding.channels)
        return
    with decoded_image(encoded(source), decoding, name=source_name(source, "")) as image:
        yield image


def list_source(
    source: DataLike,
    *,
    outputs: str | Sequence[str] = "",
    of_model: bool = False,
    progress: Callable[[int, int], None] | None = None,
    task: str = "auto",
    class_names: Sequence[str] = (),
) -> Listing:
    """Return the listing of a source that `read_dataset` accepts, not yet split; raise DataError as it does.

    With `of_model`, `outputs` are those of a model, with their kinds: only manifests heed them, and may lack some.
    `task` is what is learnt, `class_names` those of a model that finds objects or masks.
    """
    words = read_words(outputs)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return list_path(path, words, of_model=of_model, progress=progress, task=task, class_names=class_names)
    check_no_outputs(words, f"a {type(source).__name__}", of_model=of_model)
    if isinstance(source, Dataset):
        if source.listed is None:
            raise DataError("the data set must be one of read_dataset, Dataset.from_arrays or Dataset.from_torch")
        return source.listed
    if not isinstance(source, MapStyle):
        raise DataError(f"DATA must be a path, a Dataset of effnet or one of torch; got {type(source).__name__}")
    return list_items({"": source}, class_names=None, name=_ITEMS)


def _near(sources: Sequence[Any], *, mixed: int) -> Sequence[Any]:
    """Return the images that may be read in any order: those of the first block, if not all blocks can be available."""
    return sources[: sum(source.block == sources[0].block for source in sources)] if mixed else sources


def to_split(part: Part, names: Sequence[str], *, mixed: int = 0, kind: LabelKind = CLASSES) -> Split:
    """Return the images of a part with their targets: the numbers of their classes, for classes."""
    labels = kind.to_targets(part.labels, tuple(names))
    blocks = None
    if mixed:
        stored: Any = part.sources
        lies_in = np.fromiter((source.block for source in stored), dtype=np.int64, count=len(part.sources))
        blocks = Blocks(numbers=lies_in, mixed=mixed)
    sources: Any = part.sources
    in_memory = sources and isinstance(sources[0], np.ndarray)
    images: Any = np.stack(sources) if in_memory else sources
    return Split(sources=images, labels=labels, blocks=blocks)
