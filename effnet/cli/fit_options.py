"""The options of fit that no other verb has."""

from pathlib import Path
from typing import Annotated

import typer

MaxLatencyMs = Annotated[float | None, typer.Option(help="Median time of one image in the runtime.")]
MaxParams = Annotated[str | None, typer.Option(help="Parameters, such as 1M.")]
MaxMacs = Annotated[str | None, typer.Option(help="Multiply-accumulates of one image, such as 50M.")]
MaxSizeMB = Annotated[float | None, typer.Option(help="Size of the model's file, in 10^6 bytes.")]
MaxMemoryMB = Annotated[
    float | None,
    typer.Option(
        help="Peak memory of the model beyond the idle runtime, in 10^6 bytes; decoding an image comes on top."
    ),
]
Runtime = Annotated[
    str, typer.Option(metavar="NAME", help="What the device runs: onnxruntime, openvino, litert or executorch.")
]
Precision = Annotated[
    str, typer.Option(metavar="auto|fp32|fp16|bf16|w8|int8", help="Bits of the file; auto: fewer if a budget asks.")
]
MaxDrop = Annotated[float, typer.Option(help="Points of accuracy that fewer bits may cost.")]
Device = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Profile of another device, by `effnet profile`, to plan for.")
]
Trials = Annotated[
    int | None, typer.Option(help="Fresh networks that are tried before one is chosen; 8 from 30 minutes on.")
]
Storage = Annotated[str, typer.Option(metavar="FILE|URL", help="Where machines share their trials.")]
Weights = Annotated[
    str, typer.Option(metavar="ID|FILE|auto|none", help="Pretrained weights to begin with; `effnet weights list`.")
]
Strategy = Annotated[
    str, typer.Option(metavar="auto|head|finetune|scratch", help="What is trained; auto fine-tunes where it pays.")
]
Model = Annotated[str, typer.Option(help="The network of a --weights FILE that does not tell it.")]
Coverage = Annotated[
    float | None, typer.Option(help='Share of images to answer, such as 0.95; the others are "unknown".')
]
MaxError = Annotated[float | None, typer.Option(help='Largest error among the answers, such as 0.01; "unknown" else.')]
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
        help="Make rare classes count as much: adjust (logits), sample (more views), weight (in the loss), none.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field of the recipe, such as train.lr=0.1; repeatable."),
]
UnknownFrom = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Images of none of the classes, to measure rejection on.")
]
