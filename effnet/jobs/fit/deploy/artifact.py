"""What an attempt has made: a network with everything measured on its file, and its way into the folder of the fit."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import read_config, write_config
from effnet.bundle.names import ONNX, PROOF, WEIGHTS
from effnet.bundle.split_file import write_split
from effnet.data.datasets import Dataset
from effnet.data.view.evaluation import eval_image_at
from effnet.jobs.fit.deploy.export import Deployed
from effnet.jobs.fit.overlays import mistakes_overlaid
from effnet.jobs.fit.transfer.finetune import Learned
from effnet.measurement.classification.calibration import Calibration
from effnet.measurement.evaluate import Score
from effnet.measurement.known.choice import KnownChoice
from effnet.measurement.speed.timing import Timing
from effnet.measurement.verify import ExportCheck
from effnet.report.html import write_report
from effnet.report.model import Report
from effnet.runtimes.digests import digests_of
from effnet.runtimes.recorded import record_each
from effnet.system.files import written_whole
from effnet.training.recipe.schema import Balance
from effnet.weights.labels import split_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A trained and exported network with everything measured on the exported file; `folder` holds its files.

    `measurements` are all measurements of the file, `measured` the one that counts; the figures that `predicted` names
    come from the profile of another device. `outside_ms` is the time outside the file, part of the measured latency.
    `calibration` is None if the answers are no probabilities, `known` if no score was to say which images are unknown.
    `deployed` is the file. `changes` lists the modifications of the trained network, as `jobs.fit.prune` returns them.
    `seconds` is the time of training, over all its sessions, and of this proof. `undecided` says why it is unknown
    whether the latency budget is met, which is then the only possible miss; empty if it is known. `balance` is the
    method that gives rare classes the same weight as frequent ones. `left_out` lists the steps for which there was no
    time.
    """

    folder: Path
    spec: ArchSpec
    learned: Learned
    balance: Balance
    calibration: Calibration | None
    known: KnownChoice | None
    check: ExportCheck
    score: Score
    timing: Timing
    outside_ms: float
    measured: dict[str, float]
    measurements: tuple[dict[str, float], ...]
    deployed: Deployed
    predicted: tuple[str, ...]
    changes: Mapping[str, Any]
    failures: tuple[str, ...]
    undecided: str
    seconds: float
    left_out: tuple[str, ...] = ()

    @property
    def honoured(self) -> bool:
        """Whether every budget is met."""
        return not self.failures


def publish(artifact: Artifact, report: Report, dataset: Dataset, out: Path, *, draws: bool) -> None:
    """Move the bundle's files into `out` and write the reports beside them, with plots if `draws`."""
    found = artifact.deployed.format
    for name in dict.fromkeys((WEIGHTS, ONNX, *found.others, found.file)):
        with written_whole(out / name) as beside:
            shutil.copyfile(artifact.folder / name, beside)
    write_split(split_record(dataset), out)
    (out / PROOF).unlink(missing_ok=True)
    record_each(artifact.folder, ("onnx", found.name), into=out)
    # The config comes last: it makes the folder a bundle.
    write_config(read_config(artifact.folder), out, digests=digests_of(out, ["onnx", found.name]))
    images = _images(artifact, dataset) if report.report_images else ()
    seen = report.report_images and draws
    overlays = mistakes_overlaid(artifact.deployed, artifact.score, dataset.test) if seen else ()
    write_report(report, out, images=images, overlays=overlays, draws=draws)


def _images(artifact: Artifact, dataset: Dataset) -> Iterator[np.ndarray]:
    """Yield the misclassified test images, one at a time: a few dozen photographs may exceed the memory."""
    preprocess = artifact.deployed.config.preprocess
    for mistake in artifact.score.mistakes:
        with eval_image_at(dataset.test, mistake.index, preprocess) as image:
            yield image
