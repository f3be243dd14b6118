"""What kind of thing DATA names, told by its spelling and by what a folder holds."""

import os

from effnet.errors import InputError

HUB = "hf:"
"""What begins the name of a data set that the package `datasets` reads."""

INDEX = "effnet-shards.json"
"""Beside shards: class names and, for each shard, its split, number of images, size and hash."""


def is_url(text: str) -> bool:
    """Return whether a text names something that has to be downloaded."""
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
    """Raise InputError if a folder to write to and the folder of the data are the same, or one lies in the other.

    What is written among the images would be taken for a class, or for images, the next time.
    """
    folder = os.fspath(data).removeprefix(HUB)
    if not os.path.isdir(folder):
        return
    place, root = os.path.realpath(out), os.path.realpath(folder)
    shared = os.path.commonpath((place, root)) if os.path.splitdrive(place)[0] == os.path.splitdrive(root)[0] else ""
    if shared not in (place, root):
        return
    how = "is that folder" if place == root else "lies in it" if shared == root else "holds it"
    name = os.path.basename(place) if shared == root != place else "effnet-model"
    beside = os.path.join(os.path.dirname(root), name)
    raise InputError(
        f"{option} must lie outside of DATA ({os.fspath(data)}), but {os.fspath(out)} {how}: give {option} "
        f"{os.path.relpath(beside)}"
    )
