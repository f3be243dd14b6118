"""A runtime as a contributor writes one: an ONNX graph within an .npz file, run by ONNX Runtime."""

from effnet.runtimes.record import Need, Runtime, formats_of

RUNTIME = Runtime(
    name="toy",
    title="Toy",
    home=__name__,
    need=Need(module="onnxruntime", package="onnxruntime", extra="train"),
    formats=formats_of("toy", ("toy", "fp32", ("model.npz",))),
    depends=("onnxruntime",),
    profiled=("fp32",),
    fragile=True,
)
