"""split.json of a bundle: the record of its data's split, to find the same test images again."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effnet.data.sources.source import Group, Listing
from effnet.errors import BundleError
from effnet.system.files import read_json, written_whole

SPLIT = "split.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """The seed and the group pattern of a split, and the `fingerprint` of its data.

    `joined` are groups of (near-)duplicate images, by path below the data folder, that were kept in one part; `leaked`
    are test images with a duplicate in train or val; `seen` is a sample of the marks (`effnet.data.inspection.leaks`)
    of the images in train and val; `outputs` are the words that chose the labels of a manifest, and `corrections` the
    labels that were corrected, see `Listing`.
    """

    seed: int
    fingerprint: str
    group_by: str = ""
    joined: tuple[tuple[str, ...], ...] = ()
    leaked: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    corrections: tuple[tuple[str, str | None], ...] = ()

    def groups(self, listing: Listing) -> tuple[Group, ...]:
        """Return `joined` as groups of the images in `listing`."""
        return tuple(Group(kind="similar", names=tuple(map(listing.absolute, paths))) for paths in self.joined)

    def leaked_names(self, listing: Listing) -> tuple[str, ...]:
        """Return the names of the leaked images in `listing`."""
        return tuple(map(listing.absolute, self.leaked))


def write_split(record: SplitRecord, folder: Path) -> None:
    """Write split.json into `folder`, whole or not at all."""
    # Names need not be valid text: escapes preserve them.
    text = json.dumps({"format": _FORMAT, **asdict(record)}, indent=1, ensure_ascii=True) + "\n"
    with written_whole(folder / SPLIT) as path:
        path.write_text(text, encoding="ascii")


def read_split(folder: str | os.PathLike[str]) -> SplitRecord | None:
    """Return the split.json of a bundle, or None if it has none; raises BundleError if it is damaged."""
    path = Path(folder) / SPLIT
    try:
        return _parse(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else error
        reason = error.strerror if isinstance(error, OSError) else lacking
        raise BundleError(f"{path} must be as effnet wrote it; it cannot be read ({reason}): remove it") from error


def _parse(data: Any) -> SplitRecord:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ValueError(f"it must be an object of format {_FORMAT}")
    seed, joined = data["seed"], data["joined"]
    if type(seed) is not int or seed < 0 or not isinstance(joined, list):
        raise ValueError("the seed must be a whole number of at least 0, and joined a list")
    return SplitRecord(
        seed=seed,
        fingerprint=_text(data["fingerprint"]),
        group_by=_text(data["group_by"]),
        joined=tuple(_texts(paths) for paths in joined),
        leaked=_texts(data["leaked"]),
        seen=_texts(data["seen"]),
        outputs=_texts(data.get("outputs", [])),
        corrections=_corrections(data.get("corrections", [])),
    )


def _corrections(value: Any) -> tuple[tuple[str, str | None], ...]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ValueError("corrections must be a list of pairs of a path and a label")
    return tuple((_text(path), None if label is None else _text(label)) for path, label in value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"it must hold lists of paths; one is {type(value).__name__}")
    return tuple(map(_text, value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it must hold texts; one is {type(value).__name__}")
    return value
