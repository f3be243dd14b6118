"""Variants in manifests of other programs: delimiters, and paths that do not match the file names exactly."""

import os

from effnet.data.images.decode import IMAGE_SUFFIXES

# Most frequent first; a header of one column has none of them.
_DELIMITERS = (",", "\t", ";", "|")


def delimiter_of(header: str) -> str:
    """Return the delimiter of a manifest, detected from its first line: comma, tab, semicolon or bar.

    It is the one that yields a column `path` or `label` in the header, otherwise the most frequent.
    """
    unquoted = header.replace('"', "")

    def worth(delimiter: str) -> tuple[int, int]:
        columns = [column.strip().lower() for column in unquoted.split(delimiter)]
        return sum(name in columns for name in ("path", "label")), len(columns)

    return max(_DELIMITERS, key=worth)


class ImageFinder:
    """Finds the files that a manifest's paths mean; each folder is listed at most once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """Return the file that a path means, relative to the manifest's folder, or None if there is none.

        It tries, in this order: the path unchanged; without surrounding blanks; with slashes for backslashes; and, if
        it has no image suffix, the only image in its folder with that name.
        """
        plain = path.strip().replace("\\", "/")
        for spelling in dict.fromkeys((path, path.strip(), plain)):
            full = os.path.join(self._folder, spelling)
            if os.path.isfile(full):
                return full
        place, name = os.path.split(os.path.join(self._folder, plain))
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            return None
        if place not in self._listed:
            self._listed[place] = _images_by_stem(place)
        found = self._listed[place].get(name, [])
        return os.path.join(place, found[0]) if len(found) == 1 else None


def _images_by_stem(folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with os.scandir(folder or os.curdir) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                    found.setdefault(stem, []).append(entry.name)
    except (OSError, ValueError):  # no such folder, or an invalid name
        return {}
    return found
