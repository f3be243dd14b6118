"""OpenVINO."""

from effnet.runtimes.record import Need, Runtime, formats_of

RUNTIME = Runtime(
    name="openvino",
    title="OpenVINO",
    home=__name__,
    need=Need(module="openvino", package="openvino", extra="openvino"),
    quantizer=Need(module="nncf", package="nncf", extra="compress"),
    formats=formats_of(
        "openvino",
        ("openvino", "fp32", ("model.xml", "model.bin")),
        ("openvino-fp16", "fp16", ("model.fp16.xml", "model.fp16.bin")),
        ("openvino-bf16", "bf16", ("model.bf16.xml", "model.bf16.bin")),
        ("openvino-int8", "int8", ("model.int8.xml", "model.int8.bin")),
    ),
    depends=("openvino", "nncf"),
    profiled=("fp32", "int8"),
    untrained=True,
    maps=True,
)
