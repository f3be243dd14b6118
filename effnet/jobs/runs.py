"""The runs of fit and train, read back from their folders and compared, without torch."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effnet.report.runs.compare import difference, short_names, write_comparison
from effnet.report.runs.read import Run, find_runs, read_run

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison of runs: `page` is the written file, `names` are short names of the runs.

    `differing` holds each setting in which the runs differ, by its dotted name, with one text for each run.
    """

    page: Path
    runs: tuple[Run, ...]
    names: tuple[str, ...]
    differing: Mapping[str, Sequence[str]]


def runs(folder: PathLike = ".") -> tuple[Run, ...]:
    """Return all runs of `fit` and `train` in or below a folder, the latest first, finished or not.

    A run that cannot be read lists its problems. Raises InputError if there is no such folder.
    """
    return find_runs(Path(folder), now=time.time())


def compare(folders: Sequence[PathLike], *, out: PathLike = "compare.html") -> Comparison:
    """Compare runs on one page, `out`: their results, the settings in which they differ, and their curves.

    `folders` are output folders of `fit` or `train`, or attempts in them; one that is named twice counts once. Raises
    InputError for a folder that holds no run or not one finished epoch, and if the page cannot be written.
    """
    now, page = time.time(), Path(out)
    given = {Path(folder).absolute(): Path(folder) for folder in folders}
    found = tuple(read_run(folder, now=now) for folder in given.values())
    write_comparison(found, page)
    names = tuple(short_names([run.folder for run in found]))
    return Comparison(page=page, runs=found, names=names, differing=difference(found))
