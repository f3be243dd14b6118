"""exports.json of a bundle: the recorded measurements of each export, with the digest of its files."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from effnet.bundle.config import write_text
from effnet.bundle.formats import Format
from effnet.runtimes.registry import exports, find_export
from effnet.system.files import open_regular, read_json

LEDGER = "exports.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The record of one export.

    `digest` is that of its files when it was verified. `max_difference` (of a probability) and `agreement` (share of
    equal top classes) compare it with the eager network on `checked` images, random ones if `random`; None if the
    runtime cannot run here. `accuracy` is measured on the `scored` images of the test split. `drop` is the accuracy
    drop from fp32 on the `judged` labelled images, as a share, below 0 for a gain; None if it was not measured.
    `calibration` holds the int8 settings. For embeddings, `relative_error` is the largest length of a difference, as a
    share of the eager embedding's, and `cosine` the least cosine; None for other exports.
    """

    digest: str
    size_bytes: int
    checked: int = 0
    random: bool = True
    max_difference: float | None = None
    agreement: float | None = None
    scored: int = 0
    accuracy: float | None = None
    judged: int = 0
    drop: float | None = None
    relative_error: float | None = None
    cosine: float | None = None
    calibration: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def read_ledger(folder: str | os.PathLike[str]) -> dict[str, Entry]:
    """Return the records of the exports in the bundle `folder`, by format.

    An export whose files have changed or are gone has no record, and no export has one if exports.json is absent or
    damaged: `effnet export` measures it again.
    """
    try:
        data = read_json(Path(folder) / LEDGER)
        entries = data["exports"] if data["format"] == _FORMAT else {}
        found = {name: Entry(**entry) for name, entry in entries.items() if name in exports()}
        found = {name: entry for name, entry in found.items() if _is_usable(entry)}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}
    return {name: entry for name, entry in found.items() if digest_of(folder, find_export(name)) == entry.digest}


def _is_usable(entry: Entry) -> bool:
    """Return whether the numbers of an entry, which may have been edited by hand, are valid."""
    counts = (entry.size_bytes, entry.checked, entry.scored)
    shares = (entry.accuracy, entry.agreement, entry.max_difference, entry.relative_error, entry.cosine)
    return all(type(count) is int and count >= 0 for count in counts) and all(
        share is None or (type(share) in (int, float) and 0 <= share <= 1) for share in shares
    )


def record(folder: str | os.PathLike[str], name: str, entry: Entry) -> None:
    """Write the record of the format `name` into exports.json, whole or not at all."""
    entries = {**read_ledger(folder), name: entry}
    data = {"format": _FORMAT, "exports": {key: asdict(entries[key]) for key in exports() if key in entries}}
    write_text(Path(folder) / LEDGER, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def digest_of(folder: str | os.PathLike[str], target: Format) -> str | None:
    """Return a digest of the files of a format in `folder`, None if one is missing or cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in target.files:
            path = Path(folder) / name
            for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
                with open_regular(file) as stream:
                    content = stream.read()
                digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    except OSError:
        return None
    return digest.hexdigest()
