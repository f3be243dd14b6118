"""Images of events: off by default, and never more than a limited number of files."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.errors import InputError
from effnet.system.files import written_whole

_QUALITY = 90
_MOST_TRIED = 1000
# Only files that were written here are removed.
_OURS = re.compile(r"effnet-\d{8}T\d{6}\.\d{3}Z-[\w.-]*-\d+\.jpg")


class Snapshots:
    """Writes JPEG files into a folder, and removes the oldest beyond `most`; files of others stay."""

    def __init__(self, folder: str | Path, *, most: int) -> None:
        self.folder, self._most = Path(folder), most
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--snapshots must be a folder that can be written; {folder}: {error.strerror}") from error

    def write(self, image: np.ndarray, *, source: str, time: str) -> str:
        """Write an image, uint8 [height, width, 3], of a source at an ISO time in UTC; return the name of its file.

        Raises OSError if it cannot be written.
        """
        stamp = re.sub(r"[-:]|\+00:00$", "", time)
        stem = f"effnet-{stamp}Z-{re.sub(r'[^A-Za-z0-9_.-]', '_', source)}"
        path = next(
            path for number in range(_MOST_TRIED) if not (path := self.folder / f"{stem}-{number}.jpg").exists()
        )
        with written_whole(path, durable=False) as beside:
            Image.fromarray(image).save(beside, format="JPEG", quality=_QUALITY)
        self._prune()
        return path.name

    def _prune(self) -> None:
        names = sorted(entry.name for entry in self.folder.iterdir() if _OURS.fullmatch(entry.name))
        for name in names[: max(0, len(names) - self._most)]:
            (self.folder / name).unlink(missing_ok=True)
