"""The verb prune: make a bundle smaller and faster, and recover its accuracy by distillation from the original."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.bundle.config import read_config, write_text
from effnet.bundle.names import CONFIG, ONNX, RUN, WEIGHTS
from effnet.compression.activations import check_standin
from effnet.compression.importance import check_method
from effnet.compression.prune import COUNTS, check_scope
from effnet.compression.subject import mirrored_as_trained
from effnet.data.datasets import name_of
from effnet.data.sources.names import refuse_inside
from effnet.errors import BudgetError, InputError
from effnet.jobs.procedure import USUAL
from effnet.jobs.prune.config import PruneConfig
from effnet.jobs.prune.proof import PUBLISHED, REPORT, Original, prove
from effnet.jobs.prune.steps import Run, kept_json, prune_in_steps
from effnet.progress import Noted
from effnet.runtimes.digests import check_digests
from effnet.system.bounds import MAX_EPOCHS, MAX_SEED, MAX_THREADS, check_minutes, check_whole, is_number
from effnet.system.lock import alone_in, sweep
from effnet.system.options import options_of, takes
from effnet.system.text import brief
from effnet.training.distill import read_teacher
from effnet.weights.labels import read_as_fitted

OPTIONS = "prune.json"
_BOUNDS = (
    ("steps", 1, 100),
    ("epochs", 1, MAX_EPOCHS),
    ("round_to", 1, 4096),
    ("threads", 0, MAX_THREADS),
    ("seed", 0, MAX_SEED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """The resulting bundle, and its report: counts and measurements before and after."""

    folder: Path
    report: Mapping[str, Any]


@takes(PruneConfig)
def prune(config: PruneConfig) -> PruneResult:
    """Prune the bundle to a share of its parameters or MACs, recover it on `data`, and write the bundle `out`.

    `data` must have the bundle's classes; it is split as the bundle's own was. Every step recomputes the importance,
    prunes, re-fits the remaining pointwise layers by least squares to reproduce the original outputs, and trains with
    the original as its teacher. Of a detector or a segmenter the backbone is pruned, and the decoder reads the channels
    that are left; it is trained on its annotations, without a teacher. The result is an ordinary bundle; its ONNX file
    is checked against the module, scored on the test split and timed in turn with the original's. `resume` continues an
    interrupted run.

    Raises InputError if `out` is not empty, or if the data or a resumed run do not belong to the bundle; BudgetError if
    the network cannot be pruned that far.
    """
    _check(config)
    bundle, out, data = Path(config.bundle), Path(config.out), config.data
    found = read_config(bundle)
    if found.known is not None:  # the pruned network has other features
        config.listener(Noted(text=f"{found.known.lost('pruned')}. `effnet fit` chooses one"))
        found = replace(found, known=None)
    found.must_answer("pruning")
    if found.deployed == "onnx" and (bundle / ONNX).is_file():
        check_digests(bundle, "onnx")  # it is timed against the pruned one after training; fail early
    check_standin(found.arch, config.activation)
    if found.arch.decoder is not None and os.fspath(config.teacher):
        raise InputError(
            f"a teacher must be left out for {found.task}: a pruned detector or segmenter learns from its annotations"
        )
    if isinstance(data, str | os.PathLike):
        refuse_inside(out, data)
    dataset = read_as_fitted(data, folder=bundle, config=found)
    dataset = mirrored_as_trained(dataset, bundle)
    for teacher in {os.fspath(bundle), os.fspath(config.teacher) or os.fspath(bundle)}:
        read_teacher(teacher, class_names=dataset.class_names, channels=found.preprocess.channels)
    run = Run(
        bundle=bundle, config=found, dataset=dataset, options=config, folder=out / RUN, listener=config.listener,
        procedure=config.procedure or USUAL,
    )  # fmt: skip
    with alone_in(out):
        if config.resume and (done := _finished(out, config)) is not None:
            return done
        _begin(out, bundle, name_of(data), config)
        return _prune_bundle(run, out, name_of(data))


def _check(config: PruneConfig) -> None:
    """Raise InputError for a value out of range."""
    if config.macs is not None and config.params is not None:
        raise InputError("give --macs or --params, not both")
    check_method(config.method)
    check_scope(config.scope)
    share = config.share
    if not (is_number(share) and (0 < share < 1 or (share == 1 and config.activation))):
        raise InputError(
            f"the share of {COUNTS[config.count]} that stays must be above 0 and below 1, or 1 with another "
            f"activation; got {brief(share)}"
        )
    for name, least, most in _BOUNDS:
        value = getattr(config, name)
        if value is not None:
            check_whole(name, value, least=least, most=most)
    if config.epochs is not None and config.minutes is not None:
        raise InputError("give epochs or minutes, not both")
    if config.minutes is not None:
        check_minutes(config.minutes)


def _prune_bundle(run: Run, out: Path, data: str) -> PruneResult:
    options = run.options
    sweep(run.folder, deep=True)
    try:
        network, seconds = prune_in_steps(run)
    except BudgetError:  # there is nothing to resume
        _leave_nothing(out)
        raise
    report = prove(
        network,
        Original(bundle=run.bundle, config=run.config, dataset=run.dataset, data=data),
        options=options.record,
        training_seconds=seconds,
        threads=options.threads,
        folder=run.folder,
        out=out,
        say=run.say,
        stopwatch=run.procedure.stopwatch,
    )
    return PruneResult(folder=out, report=report)


def _finished(out: Path, options: PruneConfig) -> PruneResult | None:
    """Return the result of a finished run with these options, even if it was killed during its cleanup."""
    if not ((out / CONFIG).is_file() and (out / REPORT).is_file()):
        return None
    report = kept_json(out / REPORT, dict)
    if report.get("options") != options.record:
        return None
    shutil.rmtree(out / RUN, ignore_errors=True)
    return PruneResult(folder=out, report=report)


def _begin(out: Path, bundle: Path, data: str, options: PruneConfig) -> None:
    """Make the folder of the run, or check that the existing one is of the same run."""
    asked = {"bundle": str(bundle.resolve()), "data": data, **options.record}
    asked["weights"] = (bundle / WEIGHTS).stat().st_size if (bundle / WEIGHTS).is_file() else None
    path = out / RUN / OPTIONS
    # A run that was killed while publishing has left some of its files there.
    own = {RUN, *(PUBLISHED if path.is_file() else ())} if options.resume else set()
    foreign = [entry.name for entry in out.iterdir() if entry.name not in own] if out.is_dir() else []
    if foreign:
        hint = "" if options.resume else ", or continue with --resume" if path.is_file() else ""
        raise InputError(f"{out} must be a new or empty folder; it contains {sorted(foreign)[0]}: name another{hint}")
    if path.is_file():
        before = kept_json(path, dict)
        changed = [key for key, value in asked.items() if before.get(key) != value]
        names = {name: found.flag for name, found in options_of(PruneConfig).items()}
        other = [f"{names.get(key, key)} was {brief(before.get(key))}, now {brief(asked[key])}" for key in changed]
        if other:
            raise InputError(f"--resume must repeat the options of the run in {out}: {'; '.join(other)}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asked, indent=1) + "\n")


def _leave_nothing(out: Path) -> None:
    shutil.rmtree(out / RUN)
    if not any(out.iterdir()):
        out.rmdir()
