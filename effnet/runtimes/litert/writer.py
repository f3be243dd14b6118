"""Export a bundle to LiteRT's model.tflite and model.int8.tflite."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.metadata import described_outputs
from effnet.runtimes.litert.decoded import answers_of
from effnet.runtimes.litert.graph import to_graph
from effnet.runtimes.litert.metadata import finish
from effnet.system.files import written_whole
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.task import FEATURES, Output
from effnet.weights.folding import calibrated_weights

if TYPE_CHECKING:
    from effnet.runtimes.write import Quantization


def to_tflite(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    class_names: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    answers: Sequence[Output] = (PROBABILITIES,),
    maps: bool = False,
) -> bytes:
    """Return the fp32 TFLite file of `spec` with folded `weights` (from fold_norms or random_weights).

    `mean` and `std` are per channel, of pixels scaled to 0..1. The batch size is dynamic, the image's side is fixed to
    `resolution`. `answers` are the outputs of the task; with `maps` there are activation maps too. The file holds
    `class_names` as labels.txt and `metadata`, JSON-able, as effnet.json. Raises SpecError if mean does not match the
    spec's channels, MissingExtraError without ai-edge-litert.
    """
    model = to_graph(spec, weights, mean=mean, std=std, resolution=resolution, answers=answers, maps=maps)
    outputs = answers_of(spec, answers) if spec.num_classes else (FEATURES,)
    return finish(model, name=spec.name, class_names=class_names, details=metadata or {}, answers=outputs, maps=maps)


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: "Quantization",
    maps: bool = False,
) -> None:
    """Write the format `target` of a state dict as arrays into `folder`, whole or not at all.

    `images`, uint8 [images, R, R, C], and `quantization` are for int8 only. Raises InputError for a quantization
    setting that LiteRT does not support.
    """
    preprocess = config.preprocess
    common: dict[str, Any] = {
        "mean": preprocess.mean,
        "std": preprocess.std,
        "resolution": preprocess.resolution,
        "class_names": config.class_names,
        "answers": config.file_outputs,
        "maps": maps,
        "metadata": {
            "class_names": list(config.class_names),
            "preprocess": preprocess.to_dict(),
            "network": config.arch.name,
            "threshold": config.threshold,
            **({"outputs": described_outputs(config)} if config.specs else {}),
        },
    }
    weights = calibrated_weights(config, state)
    if target.precision == "int8":
        # The quantizer loads here: a plain export does not need it.
        from effnet.runtimes.litert.int8 import to_int8

        assert images is not None
        data = to_int8(config.arch, weights, images=images, quantization=quantization, **common)
    else:
        data = to_tflite(config.arch, weights, **common)
    with written_whole(folder / target.file) as beside:
        beside.write_bytes(data)
