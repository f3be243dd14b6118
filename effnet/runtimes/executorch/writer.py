"""Export a bundle to ExecuTorch's .pte, with operators for XNNPACK."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.metadata import model_metadata
from effnet.errors import MissingExtraError
from effnet.runtimes.executorch import TENSORS
from effnet.runtimes.executorch.deployed import deployed_module
from effnet.runtimes.maps import MAPS
from effnet.runtimes.quiet import quiet
from effnet.runtimes.write import Quantization
from effnet.system.files import written_whole
from effnet.tasks.task import names_in_file


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: Quantization,
    maps: bool = False,
) -> None:
    """Write model.pte or model.int8.pte into `folder`, whole or not at all.

    Its method `forward` maps one image, uint8 [1, height, width, channels], to probabilities [1, classes]; its methods
    `class_names` and `preprocess` return JSON, `network` and `threshold` (if there is one) text. Of several outputs,
    `outputs` returns the metadata as JSON and `tensors` the names in order. Raises
    MissingExtraError if ExecuTorch is not installed, InputError for a quantization setting that it does not support.
    """
    module = deployed_module(config, state, maps=maps)
    tensors = (*names_in_file(config.file_outputs), *([MAPS] if maps else []))
    told = model_metadata(config) | ({TENSORS: json.dumps(tensors)} if len(tensors) > 1 else {})
    size = config.arch.size_at(config.preprocess.resolution)
    example = (torch.zeros(1, *size, config.preprocess.channels, dtype=torch.uint8),)
    with quiet():
        _check_installed()
        graph: torch.nn.Module = module
        if target.precision == "int8":
            from effnet.runtimes.executorch.int8 import quantize

            assert images is not None
            graph = quantize(module, images, quantization)
        data = _lower(torch.export.export(graph, example), told)
    with written_whole(folder / target.file) as beside:
        beside.write_bytes(data)


def _check_installed() -> None:
    for package in ("executorch", "torchao"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "executorch") from error


def _lower(program: torch.export.ExportedProgram, methods: Mapping[str, str]) -> bytes:
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.generic_node_configs import ConstantPadConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    class PadConfig(ConstantPadConfig):
        """Delegate padding to XNNPACK in int8 too, which it supports but the default configuration does not request."""

        def supported_precision_types(self) -> list[ConfigPrecisionType]:
            return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]

    configs = [PadConfig if found is ConstantPadConfig else found for found in ALL_PARTITIONER_CONFIGS]
    edge = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner(configs=configs)], constant_methods=dict(methods)
    )
    return edge.to_executorch().buffer
