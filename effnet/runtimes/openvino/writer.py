"""Export a bundle to OpenVINO's files, in fp32, fp16, bf16 or int8."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.metadata import model_metadata
from effnet.errors import InputError, MissingExtraError, SpecError
from effnet.runtimes.onnxruntime.graph import write_onnx
from effnet.runtimes.onnxruntime.writer import onnx_model
from effnet.runtimes.write import Quantization
from effnet.system.lock import SCRATCH

# The section in which OpenVINO's own tools (Model API, OVMS) look for a model's classes.
_MODEL_INFO = "model_info"
_SECTION = "effnet"


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
    """Write one of OpenVINO's formats into `folder`; see effnet.runtimes.write.write_export.

    fp16 stores fp16 weights and computes in fp32; bf16 stores the same but lets the processor compute in bfloat16.
    Raises SpecError if OpenVINO cannot convert the network, MissingExtraError without openvino or, for int8, nncf.
    """
    openvino = _import_openvino()
    try:
        model = to_openvino(config, state, maps=maps)
        if target.precision == "int8":
            assert images is not None
            model = quantize(model, images, quantization)
            # On processors with AMX OpenVINO's int8 kernels crash if the batch is dynamic and feature maps are small
            # (openvinotoolkit/openvino#37577); for another batch size reshape the model, as effnet's engine does.
            model.reshape([1, *(dimension.get_length() for dimension in list(model.input(0).get_partial_shape())[1:])])
        describe_model(model, config, inference_precision="bf16" if target.precision == "bf16" else "f32")
        # Both files are written together: the graph holds the offsets of its weights in the other file.
        with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
            path = Path(scratch) / target.file
            openvino.save_model(model, path, compress_to_fp16=target.precision in ("fp16", "bf16"))
            for name in (*target.others, target.file):
                os.replace(Path(scratch) / name, folder / name)
    except RuntimeError as error:
        raise SpecError(
            f"OpenVINO {openvino.__version__} cannot make {target.name} of this network: {error}"
        ) from error


def to_openvino(config: ModelConfig, state: Mapping[str, np.ndarray], *, maps: bool = False) -> Any:
    """Return the fp32 openvino.Model of a state dict as arrays.

    convert_model, not read_model: it fuses operations (a sigmoid and a product to Swish, a bias to one constant);
    without this NNCF quantizes within an activation and finds no bias to correct.
    """
    openvino = _import_openvino()
    with tempfile.TemporaryDirectory(prefix="effnet-openvino-") as scratch:
        path = Path(scratch) / "model.onnx"
        write_onnx(onnx_model(config, state, maps=maps), path, durable=False)
        return openvino.convert_model(path)


def quantize(model: Any, images: np.ndarray, quantization: Quantization) -> Any:
    """Return the int8 openvino.Model, calibrated on `images`, uint8 [images, R, R, C].

    Weights are symmetric per channel, activations asymmetric if they have both signs (NNCF's preset MIXED), as SiLU
    needs. "minmax" is NNCF's own estimate, the mean of the images' extremes; "percentile" the mean of their quantiles.
    Raises InputError for "entropy", which NNCF lacks. Source: recipe and accuracies of openvinotoolkit/nncf,
    tests/post_training/data/ptq_reference_data.yaml.
    """
    if quantization.method == "entropy":
        raise InputError("OpenVINO's int8 is calibrated by minmax or percentile; got entropy, which NNCF lacks")
    nncf = _import_nncf()
    sets = nncf.quantization.range_estimator.RangeEstimatorParametersSet
    advanced: dict[str, Any] = {"disable_bias_correction": quantization.bias_correction == "none"}
    if quantization.method == "percentile":
        advanced["activations_range_estimator_params"] = sets.MEAN_QUANTILE
    kept = operations_of(model, quantization.float_layers)
    with _quiet():
        quantized = nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in images]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            fast_bias_correction=quantization.bias_correction != "full",
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(**advanced),
        )
    _halve_weights_(quantized, kept)
    return quantized


def _halve_weights_(model: Any, kept: list[str]) -> None:
    """Store in fp16 the weights that NNCF left in fp32 although they were not excluded, as in squeeze-and-excitation.

    Otherwise they are a third of B0's file; save_model does not compress quantized models itself.
    """
    from openvino import opset13

    for operation in model.get_ordered_ops():
        weighty = operation.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
        if not weighty or operation.get_friendly_name() in kept:
            continue
        constant = operation.input_value(1).get_node()
        if constant.get_type_name() == "Constant" and constant.get_element_type().get_type_name() == "f32":
            half = opset13.constant(constant.data.astype(np.float16), name=constant.get_friendly_name())
            operation.input(1).replace_source_output(opset13.convert(half, "f32").output(0))


def operations_of(model: Any, layers: tuple[str, ...]) -> list[str]:
    """Return the names of the operations that multiply the weights of `layers`.

    OpenVINO splits a layer in two operations; the addition of the bias has the layer's name.
    """
    names = {operation.get_friendly_name() for operation in model.get_ops()}
    found = {layer: next((n for n in (f"{layer}/WithoutBiases", layer) if n in names), None) for layer in layers}
    if lost := [layer for layer, name in found.items() if name is None]:
        raise InputError(f"OpenVINO's graph has no layer {lost[0]}; name convolutions and linear layers of the network")
    return [name for name in found.values() if name is not None]


def describe_model(model: Any, config: ModelConfig, *, inference_precision: str) -> None:
    """Write classes, preprocessing and inference precision into the model's own metadata.

    `model_info` follows OpenVINO's Model API, whose labels are one string: spaces within a name become underscores. The
    section `effnet` has the same keys as the ONNX file's metadata, and the precision to compute in.
    """
    if config.output.activation == "softmax":
        labels = " ".join("_".join(name.split()) or "_" for name in config.class_names)
        model.set_rt_info("Classification", [_MODEL_INFO, "model_type"])
        model.set_rt_info(labels, [_MODEL_INFO, "labels"])
    for key, value in (model_metadata(config) | {"inference_precision": inference_precision}).items():
        model.set_rt_info(value, [_SECTION, key])


def read_description(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the section `effnet` of the metadata of the model at `path`; class_names and preprocess are JSON."""
    model = _import_openvino().Core().read_model(os.fspath(path))
    keys = ("class_names", "preprocess", "network", "threshold", "outputs", "inference_precision")
    return {key: model.get_rt_info([_SECTION, key]).astype(str) for key in keys if model.has_rt_info([_SECTION, key])}


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino


def _import_nncf() -> Any:
    try:
        with _quiet():
            import nncf
            import nncf.quantization.range_estimator
    except ImportError as error:
        raise MissingExtraError("nncf", "compress") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's progress bars and messages off stdout, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
