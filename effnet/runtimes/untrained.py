"""Files of networks with random weights for a runtime, written by the exporter that deploys to it."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Format, Precision
from effnet.errors import InputError
from effnet.runtimes.registry import RUNTIMES, by_precision
from effnet.runtimes.write import write_export
from effnet.tasks.registry import task_for
from effnet.weights.folding import random_weights, unfold_norms

# Calibration of random weights needs few images.
_IMAGES = 2


def precisions_of(runtime: str) -> tuple[Precision, ...]:
    """Return the precisions that `runtime` can be profiled in; raise InputError if there are none."""
    known = [name for name, found in RUNTIMES.items() if found.profiled]
    if runtime not in known:
        raise InputError(f"a profile's runtime must be one of {', '.join(known)}; got {runtime!r}")
    return RUNTIMES[runtime].profiled


def write_graph(spec: ArchSpec, folder: Path, *, runtime: str, precision: Precision, pair_stem: bool = False) -> Path:
    """Write `spec` with random weights into `folder` in the format of `runtime`, and return the file's path.

    `pair_stem` is as in Quantization.
    Needs no data, and milliseconds for ONNX Runtime, OpenVINO (which reads ONNX directly) and LiteRT. Raises InputError
    if the runtime does not support `precision`, MissingExtraError if a package that writes it is not installed.
    """
    formats, found = by_precision(runtime), RUNTIMES.get(runtime)
    if found is None or not found.can_run or precision not in formats:
        raise InputError(
            f"the precision for {runtime} must be one of {', '.join(formats) or 'none'}; got {precision!r}"
        )
    if not found.untrained:
        return export_untrained(spec, formats[precision], folder)
    writer = import_module(f"{found.home}.untrained")
    return writer.write_untrained(spec, formats[precision], folder, pair_stem=pair_stem and found.mlas)


def export_untrained(spec: ArchSpec, target: Format, folder: Path) -> Path:
    """Write `spec` with random weights in the format `target` with the exporter of bundles, and return its path."""
    from effnet.bundle.config import ModelConfig
    from effnet.data.preprocess import Preprocess

    half = (0.5,) * spec.in_channels
    preprocess = Preprocess(resolution=spec.resolution, mean=half, std=half)
    if spec.decoder is not None:
        preprocess = replace(preprocess, mode="corner", crop=1.0, height=spec.height)
    config = ModelConfig(
        arch=spec,
        preprocess=preprocess,
        class_names=tuple(f"class {i}" for i in range(spec.num_classes)),
        task=task_for(spec),
    )
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *spec.input_size, spec.in_channels), dtype=np.uint8)
    return write_export(target.name, folder, config, unfold_norms(spec, random_weights(spec)), images=images)
