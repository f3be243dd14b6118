"""A bundle's weights become a torch.export archive, model.pt2."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from effnet.exporting.deployed import deployed_module
from effnet.exporting.metadata import model_metadata
from effnet.exporting.targets import Quantization
from effnet.runtime.config import ModelConfig
from effnet.runtime.formats import Format


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: Quantization,
) -> None:
    """Writes model.pt2 into `folder`, whole or not at all.

    It maps uint8 [batch, side, side, channels], of any batch, to probabilities [batch, classes]; its extra files
    `class_names` and `preprocess` hold JSON, `network` and, where there is one, `threshold` texts.
    """
    module = deployed_module(config, state).requires_grad_(False)
    side, channels = config.preprocess.resolution, config.preprocess.channels
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, side, side, channels, dtype=torch.uint8)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # tells of files on this machine
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files=model_metadata(config))
    path = folder / target.file
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(stream.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
