"""ONNX Runtime, which every install has."""

from effnet.runtimes.record import Need, Runtime, formats_of

RUNTIME = Runtime(
    name="onnxruntime",
    title="ONNX Runtime",
    home=__name__,
    need=Need(module="onnxruntime", package="onnxruntime", extra="train"),
    formats=formats_of(
        "onnxruntime",
        ("onnx", "fp32", ("model.onnx",)),
        ("onnx-fp16", "fp16", ("model.fp16.onnx",)),
        ("onnx-w8", "w8", ("model.w8.onnx",)),
        ("onnx-int8", "int8", ("model.int8.onnx",)),
    ),
    depends=("onnx", "onnxruntime"),
    profiled=("fp32", "int8"),
    untrained=True,
    parallel=True,
    mlas=True,
    maps=True,
    scored=True,
)
