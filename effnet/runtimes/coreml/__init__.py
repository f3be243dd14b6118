"""Core ML: effnet writes its files on any machine, but only Apple's systems run them."""

from effnet.runtimes.record import Need, Runtime, formats_of

RUNTIME = Runtime(
    name="coreml",
    title="Core ML",
    home=__name__,
    need=Need(module="coremltools", package="coremltools", extra="coreml"),
    formats=formats_of("coreml", ("coreml", "fp16", ("model.mlpackage",))),
    depends=("coremltools", "torch"),
    can_run=False,
)
