"""The exports of a bundle that are compared on the same images: the chosen one, and its other precision."""

import os
from pathlib import Path

from effnet.bundle.config import read_digests
from effnet.errors import InputError
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import by_precision


def beside(predictor: Predictor) -> tuple[Predictor, ...]:
    """Return predictors of a bundle's fp32 and int8 exports in the runtime of `predictor`, the chosen one among them.

    A precision whose file the bundle lacks is left out. Raises InputError for another task than classification.
    """
    check_classifier(predictor)
    folder, own = predictor.folder, predictor.format
    known = by_precision(own.runtime)
    wanted = [known[name] for name in ("fp32", "int8") if name in known]
    digests = read_digests(folder)
    found = [
        each for each in wanted if each == own or ((Path(folder) / each.file).exists() and _is_current(each, digests))
    ]
    if own not in found:
        found.append(own)
    return tuple(
        predictor if each == own else _opened(folder, predictor.threads, each.name, predictor) for each in found
    )


def _is_current(target: object, digests: object) -> bool:
    return all(name in digests for name in target.files)  # type: ignore[attr-defined,operator]


def _opened(folder: str | os.PathLike[str], threads: int, name: str, like: Predictor) -> Predictor:
    found = Predictor(folder, threads=threads, format=name)
    found.say = like.say
    return found


def check_classifier(predictor: Predictor) -> None:
    """Raise InputError unless the bundle is a classifier of single images."""
    config = predictor.config
    if config.task != "classification":
        raise InputError(
            f"corruptions, attacks and drift are measured for classifiers; {predictor.folder} is of the task "
            f"{config.task}: evaluate it without these options"
        )
    if config.preprocess.sound is not None or config.preprocess.clip is not None:
        what = "sounds" if config.preprocess.sound is not None else "clips"
        raise InputError(
            f"corruptions, attacks and drift are those of single images; {predictor.folder} answers for {what}"
        )
