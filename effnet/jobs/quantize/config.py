"""The options of quantize: a field each. It imports nothing slow, as `effnet --help` reads it."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from effnet.progress import Listener, ignore
from effnet.runtimes.registry import DEFAULT, runnable
from effnet.system.options import option

if TYPE_CHECKING:
    from effnet.compression.tools import Tools
    from effnet.data.datasets import DataLike
    from effnet.jobs.procedure import Procedure


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeConfig:
    """The options of `quantize`; `tools` replaces those of the runtime."""

    PREFIX: ClassVar[str] = "quantize"

    bundle: str | os.PathLike[str] = field(kw_only=False)
    data: "DataLike" = field(kw_only=False)
    max_latency_ms: float | None = option(
        "Maximum median latency of one image, in ms; default: as low as possible.", main=True
    )
    max_size_mb: float | None = option("Maximum size of the artifact, in 10^6 bytes.", main=True)
    max_memory_mb: float | None = option(
        "Maximum peak memory of the model beyond the idle runtime, in 10^6 bytes; image decoding comes on top.",
        main=True,
    )
    max_drop: float = option(
        "Maximum drop of validation accuracy of a step, in percentage points; of AP or mIoU, 1 at least.",
        default=0.5,
        main=True,
    )
    runtime: str = option(
        f"Inference runtime to target and to verify in: {', '.join(runnable())}.",
        default=DEFAULT,
        main=True,
        metavar="NAME",
    )
    minutes: float | None = option("Time limit in minutes; no new step starts after it.", main=True)
    out: str | os.PathLike[str] | None = option(
        "Folder for a quantized copy; by default the bundle itself is changed.", main=True, metavar="DIR"
    )
    threads: int = option("Threads of the runtime; 0: one per core.", default=1)
    train: bool = option(
        "Allow steps that train, of classifiers: activation replacement and quantization-aware training (QAT).",
        default=True,
    )
    tools: "Tools | None" = None
    listener: Listener = ignore
    procedure: "Procedure | None" = None
