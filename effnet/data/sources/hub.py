"""List data sets read with the package `datasets`: from the Hugging Face hub, saved to disk, or in folders."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from effnet.data.labels import class_name
from effnet.data.sources.names import HUB
from effnet.data.sources.source import SPLIT_NAMES, Listing, Part, Skipped
from effnet.errors import DataError, ImageError, MissingExtraError, nearest
from effnet.system.text import printable

# Files that save_to_disk writes to a folder.
_SAVED = ("dataset_dict.json", "state.json")
# If a data set has several columns of a kind, the one with such a name is used.
_USUAL = {"image": ("image", "img"), "label": ("label", "labels")}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRow:
    """An image in a row of a table; `rows` are datasets.Dataset with the image column alone, undecoded."""

    rows: Any
    column: str
    row: int
    table: str

    @property
    def name(self) -> str:
        """The table and the row, as in hf:beans/train[17]."""
        return f"{self.table}[{self.row}]"

    @property
    def block(self) -> int:
        """The number 0: a table is on the disk as a whole."""
        return 0

    def read(self) -> bytes:
        """Return the encoded image; raise ImageError if the file that the row names cannot be read."""
        value = self.rows[self.row][self.column]
        if value["bytes"] is not None:
            return value["bytes"]
        try:
            with open(value["path"], "rb") as file:
                return file.read()
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise ImageError(f"{printable(self.name)}: {reason}: {printable(value['path'])}") from error


def list_hub(data: str) -> Listing:
    """List the images of hf:NAME, hf:NAME:CONFIG or hf:FOLDER; ?image=COLUMN&label=COLUMN names the columns.

    Raises:
        DataError: it cannot be loaded, or has no column of images or of classes.
        MissingExtraError: the package `datasets` is not installed.
    """
    name, _, query = data.removeprefix(HUB).partition("?")
    wanted = {key: values[-1] for key, values in parse_qs(query).items()}
    if unknown := sorted(wanted.keys() - _USUAL.keys()):
        raise DataError(
            f"{data}: only image and label are allowed after ?, received {unknown[0]}{nearest(unknown[0], _USUAL)}"
        )
    tables = _load(name)
    shown = f"{HUB}{name}"
    parts: dict[str, Part] = {}
    skipped: list[Skipped] = []
    notes: list[str] = []
    for split, table in tables.items():
        meaning = SPLIT_NAMES.get(split.lower(), "" if len(tables) == 1 else None)
        part, without = _part(table, wanted, f"{shown}/{split}")
        if meaning is None:
            notes.append(f"The split {printable(split)} is neither train, val nor test, so it is not used.")
        elif not part.sources:
            notes.append(f"The split {printable(split)} has no labels, so it is not used.")
        elif meaning in parts:
            raise DataError(f"{shown} must have one split of each kind, but two mean {meaning}: {', '.join(tables)}")
        else:
            parts[meaning] = part
            skipped.extend(without)
    if len(parts) == 1 and "train" not in parts:
        parts = {"": next(iter(parts.values()))}
    if not parts:
        raise DataError(f"{shown} must have labelled images, but has none in its splits {', '.join(tables)}")
    last = os.path.basename(name.partition(":")[0].rstrip("/"))
    return Listing(name=last or "data", parts=parts, skipped=tuple(skipped), notes=tuple(notes))


def _load(name: str) -> dict[str, Any]:
    """Return the tables by split."""
    folder, config = (name, None) if os.path.isdir(name) else _name_and_config(name)
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hf") from error
    try:
        with _quiet(datasets):
            if os.path.isdir(folder) and any(os.path.isfile(os.path.join(folder, file)) for file in _SAVED):
                found = datasets.load_from_disk(folder)
            else:
                found = datasets.load_dataset(folder, config)
    # Errors of many classes: from the hub, the file system, the table reader and datasets itself.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        offline = " (HF_HUB_OFFLINE forbids the network)" if datasets.config.HF_HUB_OFFLINE else ""
        raise DataError(
            f"{HUB}{printable(name)} must be a data set on the hub, or a folder that `datasets` can load{offline}; "
            f"it cannot be loaded: {reason}"
        ) from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"all": found}


def _name_and_config(name: str) -> tuple[str, str | None]:
    place, _, config = name.partition(":")
    if not place:
        raise DataError(f"a name or folder must follow {HUB}, as in hf:beans or hf:./saved; received {HUB}{name}")
    return place, config or None


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Hide the progress bars of `datasets` unless standard error is a terminal."""
    hidden = not sys.stderr.isatty() and datasets.is_progress_bar_enabled()
    if hidden:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            datasets.enable_progress_bars()


def _part(table: Any, wanted: dict[str, str], shown: str) -> tuple[Part, list[Skipped]]:
    """Return the labelled rows of a table, and the skipped rows without a label."""
    import datasets

    image = _column(table, datasets.Image, "image", wanted, shown)
    label = _label_column(table, wanted, shown)
    feature = table.features[label]
    rows = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    values = table.with_format(None)[label][:]
    sources, labels, without = [], [], []
    for row, value in enumerate(values):
        source = HubRow(rows=rows, column=image, row=row, table=shown)
        text = _class_of(feature, value)
        if not text:
            without.append(Skipped(path=source.name, reason="it has no label"))
            continue
        sources.append(source)
        labels.append(text)
    return Part(sources=tuple(sources), labels=tuple(labels)), without


def _class_of(feature: Any, value: Any) -> str:
    """Return the class name for a cell of the label column, or an empty string if it has no label."""
    names = getattr(feature, "names", None)
    if value is None or (names is not None and value < 0):
        return ""
    return class_name(str(value) if names is None else names[value])


def _label_column(table: Any, wanted: dict[str, str], shown: str) -> str:
    """Return the label column: strings or integers if named by the user, strings if there is no ClassLabel column."""
    import datasets

    asked = "label" in wanted
    has_classes = any(isinstance(feature, datasets.ClassLabel) for feature in table.features.values())
    kinds = r"(large_)?string|u?int\d+" if asked else r"(large_)?string"
    for name in [wanted["label"]] if asked else () if has_classes else _USUAL["label"]:
        feature = table.features.get(name)
        if isinstance(feature, datasets.Value) and re.fullmatch(kinds, feature.dtype):
            return name
    return _column(table, datasets.ClassLabel, "label", wanted, shown)


def _column(table: Any, kind: type, role: str, wanted: dict[str, str], shown: str) -> str:
    """Return the name of the only column of a kind, or of the one named by the user or by convention."""
    fitting = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    if role in wanted:
        if wanted[role] in fitting:
            return wanted[role]
    elif len(fitting) == 1:
        return fitting[0]
    elif usual := [name for name in _USUAL[role] if name in fitting]:
        return usual[0]
    columns = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())
    asked = f", but {wanted[role]!r} is not one{nearest(wanted[role], fitting)}" if role in wanted else ""
    several = f"; name one of them: ?{role}={fitting[0]}" if len(fitting) > 1 and role not in wanted else ""
    raise DataError(f"{shown} must have one column of {kind.__name__}{asked}; its columns are {columns}{several}")
