"""LiteRT, formerly TensorFlow Lite."""

from effnet.runtimes.record import Need, Runtime, formats_of

RUNTIME = Runtime(
    name="litert",
    title="LiteRT",
    home=__name__,
    need=Need(module="ai_edge_litert", package="ai-edge-litert", extra="litert"),
    imports=(Need(module="ai_edge_quantizer", package="ai-edge-quantizer", extra="litert"),),
    formats=formats_of(
        "litert",
        ("litert", "fp32", ("model.tflite",)),
        ("litert-int8", "int8", ("model.int8.tflite",)),
    ),
    depends=("ai-edge-litert", "ai-edge-quantizer", "litert-torch"),
    profiled=("fp32", "int8"),
    untrained=True,
    fragile=True,
    maps=True,
)
