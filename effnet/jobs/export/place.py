"""The folder that exports are written to: it can predict, and holds all new files of a format or all old ones."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from effnet.bundle.config import ModelConfig, read_config, read_digests, read_maps, write_config, write_digests
from effnet.bundle.formats import Format
from effnet.bundle.names import CONFIG
from effnet.bundle.split_file import SPLIT
from effnet.errors import InputError
from effnet.runtimes.digests import digests_of
from effnet.system.signals import held_interrupts


@contextmanager
def plain_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a one-line InputError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"exports could not be written to {place}: {reason}; the files there are unchanged. Free some space "
            "there, or name another --out"
        ) from error


def prepare_place(place: Path, folder: Path, config: ModelConfig, targets: Sequence[Format]) -> None:
    """Give a folder other than the bundle's its own config, so that it can predict."""
    if place.resolve() == folder.resolve():
        return
    if (place / CONFIG).exists():
        found = read_config(place)
        if replace(found, deployed=config.deployed, versions={}) != replace(config, versions={}):
            raise InputError(f"{place} must be new or hold exports of this bundle; it is another's: name another --out")
        return
    place.mkdir(parents=True, exist_ok=True)
    if (folder / SPLIT).is_file():
        shutil.copyfile(folder / SPLIT, place / SPLIT)
    names = [target.base for target in targets]
    write_config(config if config.deployed in names else replace(config, deployed=names[0]), place)


def move_in(scratch: Path, place: Path, target: Format) -> None:
    """Move the files of a format to their place, or leave the old ones if one cannot be moved.

    The config that holds their digests comes last. Until then it holds none, so that a process killed in between leaves
    no digest of another file. Everything that needs disk space is written before anything is moved.
    """
    names = (*target.others, target.file)
    aside = scratch / "old"
    aside.mkdir()
    files, known = digests_of(scratch, [target.name]), read_digests(place)
    maps = {*read_maps(scratch), *(name for name in read_maps(place) if name not in names)}
    others = {name: value for name, value in known.items() if name not in names}
    without, whole, old = (
        _config_with(place, scratch / str(n), d, maps) for n, d in enumerate((others, others | files, None))
    )
    moved: list[str] = []
    with held_interrupts() as interrupt:  # an interrupt here could leave neither the old nor the new files
        try:
            os.replace(without, place / CONFIG)
            for name in names:
                if (place / name).exists():
                    os.replace(place / name, aside / name)
            for name in names:
                os.replace(scratch / name, place / name)
                moved.append(name)
            os.replace(whole, place / CONFIG)
        except OSError:
            for name in moved:
                _remove(place / name)
            for name in names:
                if (aside / name).exists():
                    os.replace(aside / name, place / name)
            os.replace(old, place / CONFIG)
            raise
    interrupt.check()


def _config_with(place: Path, scratch: Path, digests: Mapping[str, str] | None, maps: Iterable[str]) -> Path:
    """Return a copy of the config of `place`, in `scratch`, with `digests` and `maps`; with None, unchanged."""
    scratch.mkdir()
    copy = Path(shutil.copyfile(place / CONFIG, scratch / CONFIG))
    if digests is not None:
        write_digests(scratch, digests, maps=maps)
    return copy


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
