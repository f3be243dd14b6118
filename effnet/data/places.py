"""What kind of thing DATA names, told by its spelling and by what a folder holds."""

import os

HUB = "hf:"
"""What begins the name of a data set that the package `datasets` reads."""

INDEX = "effnet-shards.json"
"""Beside shards: class names and, for each shard, its split, number of pictures, size and hash."""


def is_url(text: str) -> bool:
    """Returns whether a text names something that has to be downloaded."""
    return text.startswith(("http://", "https://"))


def is_sharded(data: str) -> bool:
    """Returns whether DATA names shards: a URL, a tar file, a pattern of them, or a folder that holds some."""
    if is_url(data):
        return True
    if os.path.isdir(data):
        with os.scandir(data) as entries:
            names = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        return (INDEX, False) in names or (
            any(name.endswith(".tar") for name, _ in names) and not any(folder for _, folder in names)
        )
    return data.endswith(".tar") or (not os.path.exists(data) and ".tar" in data and "{" in data)
