"""Cache the finished steps of a quantization search, by a key of all their inputs."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.codec import spec_to_dict
from effnet.bundle.config import write_text
from effnet.compression.subject import Subject
from effnet.data.datasets import Split
from effnet.data.sources.source import source_name
from effnet.system.files import read_json

_RECORD = "done.json"


def subject_key(subject: Subject) -> str:
    """Return a key of this network: architecture, weights, preprocessing, temperatures and thresholds."""
    config, digest = subject.config, hashlib.blake2b(digest_size=16)
    words = [spec_to_dict(config.arch), config.preprocess.to_dict(), list(config.class_names), config.temperature]
    words += [asdict(spec) for spec in config.specs]
    digest.update(json.dumps([*words, list(subject.float_layers)]).encode())
    for name in sorted(subject.state):
        digest.update(name.encode() + np.ascontiguousarray(subject.state[name]).tobytes())
    return digest.hexdigest()


def images_key(split: Split, images: np.ndarray) -> str:
    """Return a key of these held-out and calibration images, files by name and label."""
    labels = split.labels
    # Of objects, as masks are, an array holds addresses.
    known = repr(labels.tolist()).encode() if labels.dtype == object else np.ascontiguousarray(labels).tobytes()
    digest = hashlib.blake2b(known, digest_size=16)
    digest.update(np.ascontiguousarray(images).tobytes())
    for number, source in enumerate(split.sources):
        pixels = source.tobytes() if isinstance(source, np.ndarray) else None
        digest.update(source_name(source, str(number)).encode("utf-8", "replace") if pixels is None else pixels)
    return digest.hexdigest()


def kept_record(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the record in `folder` under this key; None if it has another key, is damaged or missing."""
    try:
        found = read_json(folder / _RECORD)
    except (OSError, ValueError):
        return None
    record = found.get("record") if isinstance(found, dict) and found.get("key") == key else None
    return record if isinstance(record, dict) else None


def keep_record(folder: Path, key: str, record: dict[str, Any]) -> None:
    """Record that the contents of `folder` are finished."""
    write_text(folder / _RECORD, json.dumps({"key": key, "record": record}) + "\n")


def own_folder(folder: Path, key: str) -> Path:
    """Return `folder`, emptied first if its contents were started under another key."""
    path = folder / "key"
    if not path.is_file() or path.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(path, key)
    return folder
