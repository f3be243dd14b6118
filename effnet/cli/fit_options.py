"""The options of fit that no other verb has."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.options import NAMES

MaxLatencyMs = Annotated[float | None, typer.Option(help="Maximum median latency of one image in the runtime, in ms.")]
MaxParams = Annotated[str | None, typer.Option(help="Maximum number of parameters, such as 1M.")]
MaxMacs = Annotated[str | None, typer.Option(help="Maximum multiply-accumulates (MACs) of one image, such as 50M.")]
MaxSizeMB = Annotated[float | None, typer.Option(help="Maximum size of the model's file, in 10^6 bytes.")]
MaxMemoryMB = Annotated[
    float | None,
    typer.Option(
        help="Maximum peak memory of the model beyond the idle runtime, in 10^6 bytes; image decoding comes on top."
    ),
]
Runtime = Annotated[str, typer.Option(metavar="NAME", help=f"Inference runtime of the device: {NAMES}.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|fp16|bf16|w8|int8",
        help="Precision of the exported model; auto tries int8 if a budget is set.",
    ),
]
MaxDrop = Annotated[float, typer.Option(help="Maximum accuracy drop from quantization, in percentage points.")]
Device = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Profile of the target device, written there by `effnet profile`.")
]
Trials = Annotated[
    int | None,
    typer.Option(
        help="Architectures to train briefly before choosing one (successive halving); default: 8 if --minutes >= 30."
    ),
]
Storage = Annotated[str, typer.Option(metavar="FILE|URL", help="Storage through which machines share their trials.")]
Weights = Annotated[
    str, typer.Option(metavar="ID|FILE|auto|none", help="Pretrained weights to start from; see `effnet models list`.")
]
Strategy = Annotated[
    str,
    typer.Option(
        metavar="auto|head|finetune|scratch",
        help="What to train; head is a linear probe; auto fine-tunes if that pays off.",
    ),
]
Model = Annotated[str, typer.Option(help="Architecture of --weights FILE, if it cannot be inferred.")]
Coverage = Annotated[
    float | None, typer.Option(help='Share of images to answer, such as 0.95; the others are "unknown".')
]
MaxError = Annotated[
    float | None, typer.Option(help='Abstain ("unknown") so that at most this share of answers is wrong, such as 0.01.')
]
Resize = Annotated[
    str,
    typer.Option(
        metavar="HOW", help="How images become square: center (crop), squash, pad, or auto (by aspect ratio)."
    ),
]
Balance = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="Balance rare classes: adjust (logits), sample (oversampling), weight (in the loss), none.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a field of the recipe, such as train.lr=0.1; repeatable."),
]
UnknownFrom = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Images of none of the classes, to measure how many are rejected.")
]
