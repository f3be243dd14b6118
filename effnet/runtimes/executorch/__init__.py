"""ExecuTorch, whose programs are written by torch."""

from effnet.runtimes.record import Need, Runtime, formats_of

RUNTIME = Runtime(
    name="executorch",
    title="ExecuTorch",
    home=__name__,
    need=Need(module="executorch", package="executorch", extra="executorch"),
    quantizer=Need(module="torchao", package="torchao", extra="executorch"),
    formats=formats_of(
        "executorch",
        ("executorch", "fp32", ("model.pte",)),
        ("executorch-int8", "int8", ("model.int8.pte",)),
    ),
    depends=("executorch", "torchao", "torch"),
    profiled=("fp32", "int8"),
    untrained=True,
    fragile=True,
    maps=True,
)

TENSORS = "tensors"
"""The method of a program that returns the names of several outputs as JSON."""
