"""The verb pretrain: from a folder of images without labels to a backbone that `fit --weights` takes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import ModelConfig, write_text
from effnet.bundle.config_fields import Origin
from effnet.bundle.names import CONFIG, RUN
from effnet.bundle.weights import state_arrays
from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.jobs.new_bundle import write_bundle
from effnet.jobs.pretrain.config import PretrainConfig
from effnet.jobs.pretrain.run import OPTIONS, Run, make_run, prepared_, state_of, tell
from effnet.jobs.procedure import USUAL
from effnet.measurement.paired import Paired, paired
from effnet.report.cards.published import imported_card
from effnet.system.bounds import MAX_EPOCHS, MAX_SEED, MAX_SIDE, check_minutes, check_whole
from effnet.system.lock import alone_in
from effnet.system.machine import versions
from effnet.system.options import takes
from effnet.system.text import percent
from effnet.training.distributed.ranks import Ranks, joined
from effnet.training.distributed.team import Training, follow, lead, train_together
from effnet.training.loop import TrainResult
from effnet.training.pretraining.model import Pretraining
from effnet.training.transfer.features import Features, extract, make_extractor
from effnet.training.transfer.head import train_head
from effnet.weights.adapt import Arrays
from effnet.weights.pretrained import Pretrained

RECORD = "pretrain.json"
# Features whose spread is below this are nearly equal for all images.
_COLLAPSED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainResult:
    """The new bundle's folder, and sentences on its training.

    `kept` says whether it holds the new weights: False if the probe found them no better than those before, None if
    nothing judged them. `before` and `after` are the accuracies of the probe on its validation images.
    """

    folder: Path
    kept: bool | None
    before: float | None
    after: float | None
    losses: tuple[float, ...]
    notes: tuple[str, ...]


@takes(PretrainConfig)
def pretrain(config: PretrainConfig) -> PretrainResult:
    """Train a backbone on two views of each image below `data`, without labels, and write a bundle of it.

    `method` is "simclr", with the decoupled loss by default, or "byol"; with a `teacher`, a larger network's
    similarities are learnt (SEED). It begins with `weights` or, for "none", with the network `pretrain.model` at
    random. The weights of the last epoch count: labels choose nothing. With labelled images as `probe`, a linear probe
    on their training images judges the weights before and after on their validation images, and the bundle holds the
    new ones only if they are better; copies of these images are left out of `data`. `resume` continues a run that was
    killed, on CPU to the same weights. `settings` are fields of the recipe. The results are in pretrain.json.

    Raises InputError if `out` is in use or there are too few images, WeightsError for weights that cannot be read.
    """
    _check(config)
    with joined() as ranks:
        if not ranks.main:
            return PretrainResult(**follow(ranks))
        return PretrainResult(**lead(ranks, lambda: _pretrain(config, ranks)))


def _check(config: PretrainConfig) -> None:
    if config.method not in ("simclr", "byol"):
        raise InputError(f"method must be simclr or byol; got {config.method!r}")
    if config.loss not in ("decoupled", "nt_xent"):
        raise InputError(f"pretrain.loss must be decoupled or nt_xent; got {config.loss!r}")
    if config.epochs is not None and config.minutes is not None:
        raise InputError("give --epochs or --minutes, not both")
    if config.minutes is not None:
        check_minutes(config.minutes)
    if config.epochs is not None:
        check_whole("epochs", config.epochs, least=1, most=MAX_EPOCHS)
    if config.resolution is not None:
        check_whole("pretrain.resolution", config.resolution, least=1, most=MAX_SIDE)
    check_whole("the seed", config.seed, least=0, most=MAX_SEED)
    check_whole("pretrain.queued", config.queued, least=1, most=10**7)
    shares = {"min_area": (config.min_area, 0.01, 1.0), "momentum": (config.momentum, 0.0, 1.0)}
    shares |= {
        "strength": (config.strength, 0.0, 1.0),
        "temperature": (1.0 if config.temperature is None else config.temperature, 0.001, 100.0),
    }
    for name, (value, least, most) in shares.items():
        if not least <= value <= most:
            raise InputError(f"pretrain.{name} must lie in {least:g}..{most:g}; got {value:g}")


def _pretrain(config: PretrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Return the fields of the result."""
    out = Path(config.out)
    with alone_in(out):
        folder = _run_folder(out, resume=config.resume)
        run = make_run(config, folder)
        for note in run.notes:
            tell(config, note)
        tell(
            config, f"Training on {len(run.dataset.train):,} images for {run.recipe.train.epochs} epochs", heading=True
        )
        trained = _train(run, config, folder, ranks)
        assert isinstance(trained.model, Pretraining)
        new = state_of(run.found, state_arrays(trained.model.network))
        judged = _judged(run, new, folder, config)
        notes = (*run.notes, *_told(trained, judged))
        for note in notes[len(run.notes) :]:
            tell(config, note)
        # What was random before is not worth keeping.
        kept = None if judged is None else judged.better or not run.found.state
        _write(out, run.found if kept is False else new, notes, kept=kept, config=config)
        facts = {
            "kept": kept,
            "before": None if judged is None else judged.before,
            "after": None if judged is None else judged.after,
            "losses": tuple(row["val_loss"] for row in trained.history),
            "notes": notes,
        }
        record = facts | {"recipe": run.recipe.to_dict(), "epochs": list(trained.history)}
        record |= {"compared": None if judged is None else judged.paired.to_dict()}
        write_text(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return {"folder": out} | facts


def _run_folder(out: Path, *, resume: bool) -> Path:
    """Return the folder of the run in `out`; raise InputError if `out` is in use and not to be resumed."""
    folder = out / RUN
    if (out / CONFIG).is_file() or out.is_file():
        raise InputError(f"{out} must be new or empty; there is a bundle in it: name another --out")
    used = out.is_dir() and any(out.iterdir())
    if used and not resume:
        raise InputError(
            f"{out} must be new or empty; it is not: add --resume to continue a run, or name another --out"
        )
    if used and not (folder / OPTIONS).is_file():
        raise InputError(f"{out} must hold a run to resume; it does not: name another --out")
    return folder


def _train(run: Run, config: PretrainConfig, folder: Path, ranks: Ranks) -> TrainResult:
    procedure = config.procedure or USUAL
    return train_together(
        Training(
            model=prepared_(run.model),
            dataset=run.dataset,
            recipe=run.recipe,
            preprocess=run.preprocess,
            folder=folder,
            deadline_seconds=None if config.minutes is None else 60 * config.minutes,
            checkpoint_seconds=procedure.checkpoint_seconds,
            learning=run.learning,
        ),
        ranks,
        listener=config.listener,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """The probe's accuracies with the weights before and after, and their comparison on the same images."""

    before: float
    after: float
    paired: Paired

    @property
    def better(self) -> bool:
        """Whether the new weights give more right answers."""
        return self.paired.drop < 0


def _judged(run: Run, new: Pretrained, folder: Path, config: PretrainConfig) -> _Judged | None:
    """Return the comparison of linear probes on both weights, None without labelled images."""
    if run.probe is None:
        return None
    if not len(run.probe.val):
        raise InputError(f"--probe must have validation images; {run.probe.name} has none: add images, or leave it out")
    tell(config, "Judging the weights by a linear probe", heading=True)
    first = run.found if run.found.state else state_of(run.found, _at_random(run, config))
    before, after = (_right(each, run.probe, folder) for each in (first, new))
    return _Judged(before=float(before.mean()), after=float(after.mean()), paired=paired(before, after))


def _at_random(run: Run, config: PretrainConfig) -> Arrays:
    from effnet.nn.network import build

    return state_arrays(build(run.found.spec, seed=config.seed))


def _right(found: Pretrained, dataset: Dataset, folder: Path) -> np.ndarray:
    """Return whether a linear probe on the training images is right on each validation image, bool [images]."""
    path = folder / "probe.onnx"
    extractor = make_extractor(found.spec, found.state, found.preprocess, path)
    parts: list[Features] = [extract(extractor, split) for split in (dataset.train, dataset.val)]
    train, val = (split.labels[rows.indices] for split, rows in zip((dataset.train, dataset.val), parts, strict=True))
    head = train_head(
        parts[0].values, train, num_classes=len(dataset.class_names), val_features=parts[1].values, val_labels=val
    )
    path.unlink()
    found_right: np.ndarray = (parts[1].values @ head.weight.T + head.bias).argmax(1) == val
    return found_right


def _told(trained: TrainResult, judged: _Judged | None) -> tuple[str, ...]:
    last = trained.history[-1]
    told = [
        f"The loss on held-out images is {last['val_loss']:.4g}, that of the first epoch "
        f"{trained.history[0]['val_loss']:.4g}; the spread of the features is {last['val_spread']:.2f}."
    ]
    if last["val_spread"] < _COLLAPSED:
        told.append("The features of all images are nearly equal: the training has collapsed; do not use the weights.")
    if judged is None:
        told.append("Nothing judged the weights: give --probe DATA with labelled images, or compare two fits.")
        return tuple(told)
    verdict = "the new weights are better" if judged.better else "the new weights are not better"
    told.append(
        f"A linear probe had {percent(judged.before)} before and has {percent(judged.after)} after: it "
        f"{judged.paired.sentence()}; {verdict}."
    )
    return tuple(told)


def _write(out: Path, found: Pretrained, notes: tuple[str, ...], *, kept: bool | None, config: PretrainConfig) -> None:
    """Write the bundle; config.json comes last but for its hash."""
    how = "distilled" if config.teacher else config.method
    begun = "at random" if config.weights == "none" else os.path.basename(os.fspath(config.weights))
    source = f"{begun}, unchanged: pretraining did not help" if kept is False else f"{begun}, pretrained with {how}"
    made = ModelConfig(
        arch=found.spec, preprocess=found.preprocess, class_names=(), versions=versions(), origin=Origin(source=source)
    )
    name = Path(os.path.realpath(out)).name
    write_bundle(out, made, found.state, card=lambda written: imported_card(written, folder=name, notes=notes))
