"""Write a real int8 artifact with ONNX Runtime's own quantizer, without effnet's exporters."""

import logging
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from effnet.bundle.config import write_config
from effnet.errors import InputError
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.registry import find_format
from effnet.system.processor import int8_saturates

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class _Reader(CalibrationDataReader):
    def __init__(self, images):
        self.parts = iter(np.array_split(images, max(1, len(images) // 16)))

    def get_next(self):
        part = next(self.parts, None)
        return None if part is None else {"image": part}


def write_static(name, folder, subject, images, quantization, *, per_channel=True):
    """Replace `rungs.write`: fp32 as it is, int8 by ONNX Runtime's quantize_static, and nothing else."""
    target = find_format(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(subject.config, folder)
    if target.name == "onnx":
        return export_onnx(folder, subject.config, subject.state)
    if target.name != "onnx-int8":
        raise InputError(f"there is no {name} here")
    if quantization.bias_correction == "full":
        raise InputError("quantize_static cannot correct biases")
    logging.getLogger().setLevel(logging.ERROR)  # it advises to optimise an optimised model
    with tempfile.TemporaryDirectory() as scratch:
        plain = export_onnx(Path(scratch), subject.config, subject.state)
        quantize_static(
            plain,
            folder / target.file,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            reduce_range=int8_saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[quantization.method],
            nodes_to_exclude=list(quantization.float_layers),
        )
    return folder / target.file
