"""Determine the kind of source that DATA names, from its spelling and a folder's contents."""

import os

from effnet.errors import InputError

HUB = "hf:"
"""Prefix of data sets that the package `datasets` reads."""

INDEX = "effnet-shards.json"
"""Index file beside shards: class names and, for each shard, its split, number of images, size and hash."""


def is_url(text: str) -> bool:
    """Return whether a text is a URL, which must be downloaded."""
    return text.startswith(("http://", "https://"))


def is_sharded(data: str) -> bool:
    """Return whether DATA names shards: a URL, a tar file, a pattern of them, or a folder that holds some."""
    if is_url(data):
        return True
    if os.path.isdir(data):
        with os.scandir(data) as entries:
            names = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        return (INDEX, False) in names or (
            any(name.endswith(".tar") for name, _ in names) and not any(folder for _, folder in names)
        )
    return data.endswith(".tar") or (not os.path.exists(data) and ".tar" in data and "{" in data)


def refuse_inside(out: str | os.PathLike[str], data: str | os.PathLike[str], *, option: str = "--out") -> None:
    """Raise InputError if the output folder and the data folder are the same, or one is inside the other.

    Files written among the images would be read as a class, or as images, the next time.
    """
    folder = os.fspath(data).removeprefix(HUB)
    if not os.path.isdir(folder):
        return
    place, root = os.path.realpath(out), os.path.realpath(folder)
    shared = os.path.commonpath((place, root)) if os.path.splitdrive(place)[0] == os.path.splitdrive(root)[0] else ""
    if shared not in (place, root):
        return
    how = "is that folder" if place == root else "is inside it" if shared == root else "contains it"
    name = os.path.basename(place) if shared == root != place else "effnet-model"
    beside = os.path.join(os.path.dirname(root), name)
    raise InputError(
        f"{option} must be outside of DATA ({os.fspath(data)}), but {os.fspath(out)} {how}: give {option} "
        f"{os.path.relpath(beside)}"
    )
