"""The verb quantize: run the quantization search on a bundle and deploy the winner."""

import dataclasses
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from effnet.bundle.config import (
    ModelConfig,
    read_config,
    read_digests,
    read_maps,
    write_config,
    write_digests,
    write_text,
)
from effnet.bundle.names import CONFIG, ONNX, PROOF, SCORE_ARRAYS, WEIGHTS
from effnet.bundle.split_file import SPLIT
from effnet.bundle.weights import load_state, save_bundle
from effnet.compression.ladder import AS_DEPLOYED, climb
from effnet.compression.record import Ladder
from effnet.compression.step import Gate
from effnet.compression.subject import Subject, mirrored_as_trained
from effnet.compression.tools import copy_export, tools_of
from effnet.data.sources.names import refuse_inside
from effnet.errors import BudgetError, InputError, nearest
from effnet.jobs.procedure import USUAL
from effnet.jobs.quantize.config import QuantizeConfig
from effnet.measurement.budget import Budget
from effnet.planner.events import Said
from effnet.report.facts import SearchFacts
from effnet.report.plots.sensitivity import save_sensitivity
from effnet.runtimes.digests import digests_of
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.recorded import record_each
from effnet.runtimes.registry import FORMATS, deployed_format, exports, runnable
from effnet.system.bounds import is_number
from effnet.system.lock import SCRATCH, alone_in
from effnet.system.options import takes
from effnet.system.processor import has_vnni
from effnet.system.signals import held_interrupts
from effnet.system.text import brief
from effnet.weights.labels import read_as_fitted

RECORD, PLOT = "quantize.json", "sensitivity.svg"
_SCRATCH = ".ladder"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeResult:
    """The quantized bundle's folder, and the record of all steps."""

    folder: Path
    record: Ladder


@takes(QuantizeConfig)
def quantize(config: QuantizeConfig) -> QuantizeResult:
    """Run the quantization search on the bundle and deploy the winner, in the bundle or in its copy `out`.

    `data` is the data that the bundle was trained on; it is split as it was then. The other arguments are as for
    `climb`, `max_drop` in percentage points. The bundle is unchanged until the winner is verified, and if the budget is
    not met: then BudgetError is raised. The next call reuses the finished steps of an interrupted one. If weights were
    trained, exports of the old weights are deleted. The record of all steps goes into quantize.json; if layers were
    ranked by their sensitivity to quantization, sensitivity.svg shows it.
    """
    target = Path(config.bundle if config.out is None else config.out)
    if config.runtime not in runnable():
        hint = nearest(config.runtime, runnable())
        raise InputError(f"--runtime must be one of {', '.join(runnable())}; got {config.runtime!r}{hint}")
    if not (is_number(config.max_drop) and 0 <= config.max_drop < 100):
        raise InputError(
            f"--max-drop must be percentage points from 0 to 100, 100 excluded; got {brief(config.max_drop)}"
        )
    with alone_in(target):
        return QuantizeResult(folder=target, record=_quantize(config, Path(config.bundle), target))


def _quantize(job: QuantizeConfig, folder: Path, target: Path) -> Ladder:
    """Run `quantize` with `target` locked."""
    config = _without_score(read_config(folder), job)
    config.must_answer("the search for int8")
    in_place = target.resolve() == folder.resolve()
    if not in_place and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--out must be a new or empty folder; {target} is neither: name another")
    if not in_place and isinstance(job.data, str | os.PathLike):
        refuse_inside(target, job.data)
    dataset = read_as_fitted(job.data, folder=folder, config=config)
    dataset = mirrored_as_trained(dataset, folder)
    scratch = folder / _SCRATCH if in_place else _beside(target)
    found = climb(
        Subject(config=config, state=load_state(folder)),
        dataset,
        runtime=job.runtime,
        folder=scratch,
        budget=Budget(latency_ms=job.max_latency_ms, size_mb=job.max_size_mb, memory_mb=job.max_memory_mb),
        gate=Gate(max_drop=job.max_drop / 100),
        threads=job.threads,
        train=job.train,
        minutes=job.minutes,
        present=folder,
        pair_stem=has_vnni(),
        tools=job.tools or tools_of(job.runtime, stopwatch=(job.procedure or USUAL).stopwatch),
        listener=job.listener,
    )
    if not found.met:
        shutil.rmtree(scratch, ignore_errors=True)
        raise BudgetError(f"{found.sentence}. The bundle is unchanged")
    if in_place:
        deploy(found, folder)
    else:
        _deploy_copy(found, folder, target)
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def _without_score(config: ModelConfig, job: QuantizeConfig) -> ModelConfig:
    """Return the config without the score that says unknown, and say so: it is of features that quantizing changes."""
    if config.known is not None:
        job.listener(Said(text=f"{config.known.lost('quantized')}. `effnet export --to onnx-int8` keeps it"))
    return dataclasses.replace(config, known=None)


def _beside(target: Path) -> Path:
    whole = Path(os.path.realpath(target))
    return whole.with_name(f".{whole.name}{_SCRATCH}")


def deploy(found: Ladder, folder: Path) -> None:
    """Put the winner of a quantization search into its bundle `folder`, with the record of the steps.

    Everything is written in a scratch folder first, then moved in, the config last.
    """
    if found.winner.name != AS_DEPLOYED:
        with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as beside:
            scratch = Path(beside)
            copy_export(found.format, found.folder, scratch)
            if found.changed:
                save_bundle(scratch, found.config, found.state)
                if found.format != "onnx":
                    export_onnx(scratch, found.config, found.state)
            else:
                config = dataclasses.replace(read_config(folder), deployed=found.format, known=None)
                write_config(config, scratch)
            made = [name for name, other in FORMATS.items() if (scratch / other.file).is_file()]
            files, known = digests_of(scratch, made), read_digests(folder)
            others = {} if found.changed else {name: value for name, value in known.items() if name not in files}
            write_digests(scratch, others | files, maps=[name for name in read_maps(folder) if name in others])
            if not found.changed and (folder / PROOF).is_file():
                shutil.copyfile(folder / PROOF, scratch / PROOF)
            record_each(scratch, made, into=scratch)
            write_digests(folder, others)
            _move_in(scratch, folder, changed=found.changed)
            _remove(folder / SCORE_ARRAYS)
    record = found.to_dict()
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    save_sensitivity(SearchFacts.from_dict(record), folder / PLOT)


def _move_in(scratch: Path, folder: Path, *, changed: bool) -> None:
    names = sorted(path.name for path in scratch.iterdir())
    with held_interrupts() as interrupt:  # a few renames that must not be interrupted
        for name in [name for name in names if name != CONFIG] + [CONFIG]:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            os.replace(scratch / name, folder / name)
        stale = [name for other in exports().values() for name in other.files if name not in names]
        for name in stale if changed else ():
            _remove(folder / name)
    interrupt.check()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _deploy_copy(found: Ladder, folder: Path, target: Path) -> None:
    """Make `target` a copy of the bundle with the winner in it, whole or not at all."""
    whole = Path(os.path.realpath(target))
    copy = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(copy, ignore_errors=True)  # of a process that was killed
    try:
        copy.mkdir(parents=True)
        deployed = deployed_format(read_config(folder))
        for name in {CONFIG, WEIGHTS, ONNX, SPLIT, PROOF, SCORE_ARRAYS, deployed.file, *deployed.others}:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, copy / name)
        deploy(found, copy)
        os.replace(copy, whole)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
