"""The worst mistakes of a fit under maps of why the network preferred the wrong class."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from effnet.data.datasets import Split
from effnet.data.view.evaluation import eval_view_at
from effnet.jobs.fit.deploy.export import Deployed
from effnet.measurement.classification.score import Mistake
from effnet.measurement.evaluate import Score
from effnet.report.classification.section import SHOWN_MISTAKES
from effnet.report.explanation.overlay import overlay
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export


def mistakes_overlaid(deployed: Deployed, score: Score, split: Split) -> Iterator[np.ndarray]:
    """Yield the shown mistakes of a classifier, uint8 [R, R, 3]: orange is for the predicted class, blue for the true.

    The maps are those of the deployed weights in fp32. Other tasks have none.
    """
    config, names = deployed.config, deployed.config.class_names
    mistakes = [found for found in score.mistakes[:SHOWN_MISTAKES] if isinstance(found, Mistake)]
    if not mistakes or len(config.file_outputs) > 1 or config.output.activation != "softmax":
        return
    with tempfile.TemporaryDirectory(prefix="effnet-maps-") as scratch:
        engine = open_engine(write_export("onnx", Path(scratch), config, deployed.state, maps=True))
        for mistake in mistakes:
            image = eval_view_at(split, mistake.index, config.preprocess)
            (maps,) = engine.run_with_maps(image[None])[1]
            yield overlay(image, maps[names.index(mistake.predicted)] - maps[names.index(mistake.label)])
        del engine  # Windows cannot delete an open file
