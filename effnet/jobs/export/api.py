"""The verb export: write a bundle's model in the formats of several runtimes, each verified before it is kept."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from effnet.bundle.config import ModelConfig, read_config, write_config, write_digests
from effnet.bundle.formats import Format
from effnet.errors import EffnetError, InputError
from effnet.jobs.export.place import move_in, plain_errors, prepare_place
from effnet.measurement.acceptance import Acceptance, FigureDrop, check_max_drop
from effnet.measurement.paired import MAX_DROP, Paired
from effnet.measurement.proof import Proof, Said, prove
from effnet.measurement.sample import CALIBRATED, Images, gather
from effnet.runtimes.digests import digests_of
from effnet.runtimes.installed import missing, versions_for
from effnet.runtimes.ledger import Entry, digest_of, record
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.recorded import record_each
from effnet.runtimes.registry import RUNTIMES, features_format, find_format
from effnet.runtimes.write import Quantization, check_maps, check_task, write_export
from effnet.system.lock import SCRATCH, alone_in

if TYPE_CHECKING:
    from effnet.measurement.verify import ExportCheck, FeaturesCheck

# Activation maps of this many images are compared; those of a thousand classes are large.
_MAPPED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One exported format of a bundle.

    `check` compares it with the eager network, on random images if `random`; None if the runtime cannot run here.
    `accuracy` is measured in the runtime itself on the `scored` images of the split `part`; None without data.
    `unscored` says why there is none although data were given. `judged` is the accuracy drop from quantization on
    labelled images; None for fp32, and without such images. If `several`, the file has several outputs; if `in_image`,
    the answers are objects or masks; if `without_score`, it cannot return the bundle's score (effnet.tasks.known).
    """

    format: Format
    path: Path
    size_bytes: int
    check: "ExportCheck | FeaturesCheck | None"
    random: bool
    accuracy: float | None = None
    scored: int = 0
    part: str = ""
    unscored: str = ""
    judged: Paired | FigureDrop | None = None
    several: bool = False
    in_image: bool = False
    without_score: bool = False


@overload
def export(  # type: ignore[overload-overlap]  # a text is one name, not a list of letters
    folder: str | os.PathLike[str],
    *,
    to: str = ...,
    features: bool = ...,
    maps: bool = ...,
    data: str | os.PathLike[str] | None = ...,
    out: str | os.PathLike[str] | None = ...,
    quantization: Quantization | None = ...,
    images: int = ...,
    max_drop: float = ...,
) -> "ExportCheck | FeaturesCheck | None": ...
@overload
def export(
    folder: str | os.PathLike[str],
    *,
    to: Sequence[str],
    features: bool = ...,
    maps: bool = ...,
    data: str | os.PathLike[str] | None = ...,
    out: str | os.PathLike[str] | None = ...,
    quantization: Quantization | None = ...,
    images: int = ...,
    max_drop: float = ...,
) -> dict[str, Exported]: ...
def export(
    folder: str | os.PathLike[str],
    *,
    to: str | Sequence[str] = "onnx",
    features: bool = False,
    maps: bool = False,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    quantization: Quantization | None = None,
    images: int = CALIBRATED,
    max_drop: float = MAX_DROP,
) -> "ExportCheck | FeaturesCheck | dict[str, Exported] | None":
    """Write formats (effnet.runtimes.registry) of the bundle `folder` into it or into `out`, each verified.

    Returns, for the name of one format, its ExportCheck against the module (None for Core ML, which is converted, not
    run); for a list of names, one Exported per name. With `features` the files output embeddings instead of
    probabilities, for Predictor.embed: features.onnx and similar, checked against the module's features and not scored.
    With `maps` they return activation maps too, for Predictor.maps and `effnet explain`.
    Checks run on test images of `data`, or on random images; with data the test split is scored too, and `images`
    images of the training split calibrate int8. A reduced-precision file that loses more than the share `max_drop` of
    the accuracy on the validation split (the test split without one) is rejected with BudgetError; without data its
    accuracy is not checked. Raises the first EffnetError after all formats have been tried; a format that fails leaves
    its old file unchanged.
    """
    names = [to] if isinstance(to, str) else list(to)
    found: dict[str, Exported] = {}
    failed: list[EffnetError] = []
    for name, result in export_each(
        folder,
        names,
        features=features,
        maps=maps,
        data=data,
        out=out,
        quantization=quantization,
        images=images,
        max_drop=max_drop,
    ):
        if isinstance(result, EffnetError):
            failed.append(result)
        else:
            found[name] = result
    if failed:
        raise failed[0]
    return found[to].check if isinstance(to, str) else found


def export_each(
    folder: str | os.PathLike[str],
    names: Sequence[str],
    *,
    features: bool = False,
    maps: bool = False,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    quantization: Quantization | None = None,
    images: int = CALIBRATED,
    max_drop: float = MAX_DROP,
    progress: Said | None = None,
) -> Iterator[tuple[str, Exported | EffnetError]]:
    """Yield each format as soon as it is in place, or the error that prevented it.

    `progress` is called with the operation, the images done and their total. Raises EffnetError at once for errors that
    affect every format: no bundle, unknown names, unreadable data, a folder that cannot be written to.
    """
    targets = [(features_format if features else find_format)(name) for name in dict.fromkeys(names)]
    if not targets:
        raise InputError("export takes at least one format; got none")
    if images < 1:
        raise InputError(f"images must be at least 1, to calibrate int8; got {images}")
    check_max_drop(max_drop)
    for target in targets:
        if RUNTIMES[target.runtime].can_run and (error := missing(target.runtime)):
            raise error
    folder = Path(folder)
    place = folder if out is None else Path(out)
    config = read_config(folder)
    for target in targets:
        check_task(config, target)
        if maps:
            check_maps(config, target)
    with alone_in(place):
        settings = quantization or Quantization()
        yield from _export_all(targets, folder, place, config, data, images, settings, max_drop, progress, maps)


def _export_all(
    targets: Sequence[Format],
    folder: Path,
    place: Path,
    config: ModelConfig,
    data: str | os.PathLike[str] | None,
    images: int,
    settings: Quantization,
    max_drop: float,
    progress: Said | None,
    maps: bool,
) -> Iterator[tuple[str, Exported | EffnetError]]:
    # Torch loads here: importing effnet.export must not need it.
    from effnet.bundle.weights import load_module, load_state
    from effnet.measurement.verify import eager_features, eager_maps, eager_outputs

    state, module = load_state(folder), load_module(folder)
    calibrated = images if any(target.precision == "int8" for target in targets) else 0
    judging = gather(config, data, folder=folder, calibrated=calibrated)
    with plain_errors(place):
        prepare_place(place, folder, config, targets)
    embed = targets[0].result == "features"
    eager = (eager_features if embed else eager_outputs)(module, config, judging.check)
    maps_eager = eager_maps(module, config, judging.check[:_MAPPED]) if maps else None
    judge = None
    # Only the task can tell whether a lower precision costs right answers.
    answers = config.task_record
    if judging.judged is not None and not embed and (answers.right is not None or answers.figure_drop):
        judge = Acceptance(config=config, state=state, split=judging.judged, max_drop=max_drop, place=place)
    for target in targets:
        result: Exported | EffnetError
        try:
            with plain_errors(place):
                result = _export_one(
                    target, place, config, state, judging, eager, settings, judge, progress, maps=maps_eager
                )
        except EffnetError as error:
            result = error
        yield target.base, result


def _export_one(
    target: Format,
    place: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    judging: Images,
    eager: np.ndarray,
    quantization: Quantization,
    judge: Acceptance | None,
    progress: Said | None,
    *,
    maps: np.ndarray | None,
) -> Exported:
    calibration = judging.calibration if target.precision == "int8" else None
    if progress:
        progress(f"writing {target.name}", 0, 0)
    # Within the folder, so that finished files can be renamed into place once they are verified.
    with tempfile.TemporaryDirectory(dir=place, prefix=SCRATCH) as name:
        scratch = Path(name)
        mapped = maps is not None
        write_export(target.name, scratch, config, state, images=calibration, quantization=quantization, maps=mapped)
        write_config(config, scratch)
        write_digests(scratch, digests_of(scratch, [target.name]), maps=[target.file] if mapped else [])
        proof = Proof()
        if RUNTIMES[target.runtime].can_run:
            proof = prove(target, Predictor(scratch, format=target.base), judging, eager, judge, progress, maps=maps)
        size = target.size_bytes(scratch)
        move_in(scratch, place, target)
    record_each(place, [target.name], into=place)
    check, judged = proof.check, proof.judged
    differs = {} if check is None else check.to_dict()
    entry = Entry(
        digest=digest_of(place, target) or "",
        size_bytes=size,
        checked=differs.pop("images", 0),
        random=judging.random,
        **differs,
        scored=proof.scored,
        accuracy=proof.accuracy,
        judged=judged.images if judged else 0,
        drop=judged.drop if judged else None,
        calibration={} if calibration is None else _settings(quantization, len(calibration)),
        versions=versions_for(target.runtime),
    )
    record(place, target.name, entry)
    return Exported(
        format=target,
        path=place / target.file,
        size_bytes=size,
        check=check,
        random=judging.random,
        accuracy=proof.accuracy,
        scored=proof.scored,
        part=judging.part,
        unscored=judging.unscored,
        judged=judged,
        several=len(config.file_outputs) > 1,
        in_image=config.arch.decoder is not None,
        without_score=config.known is not None and target.result != "features" and not RUNTIMES[target.runtime].scored,
    )


def _settings(quantization: Quantization, images: int) -> dict[str, object]:
    return {
        "images": images,
        "method": quantization.method,
        "bias_correction": quantization.bias_correction,
        "float_layers": list(quantization.float_layers),
    }
