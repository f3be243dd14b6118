"""The model card of a pruned network."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnet.system.text import markdown, percent, printable
from effnet.tasks.registry import find_task
from effnet.tasks.task import Task


def card(report: Mapping[str, Any], *, name: str) -> str:
    """Return a pruned bundle's README.md, as Markdown with the hub's metadata."""
    before, after, options = report["before"], report["after"], report["options"]
    task = find_task(report["task"])
    figures = [figure for figure in task.figures if f"test_{figure.key}" in after]
    rows = (
        ("parameters", f"{before['params']:,}", f"{after['params']:,}"),
        ("multiply-accumulates", f"{before['macs'] / 1e6:.1f}M", f"{after['macs'] / 1e6:.1f}M"),
        ("blocks", before["blocks"], after["blocks"]),
        ("latency in ONNX Runtime, ms", f"{before['latency_ms']:.3g}", f"{after['latency_ms']:.3g}"),
        *(
            (f"test {figure.title}", *(figure.shown(side[f"test_{figure.key}"]) for side in (before, after)))
            for figure in figures
        ),
    )
    texts = (name, after["network"], report["original"], report["data"])
    title, network, original, data = (markdown(str(text)) for text in texts)
    table = "\n".join(f"| {what} | {old} | {new} |" for what, old, new in rows)
    sure = ""
    if "confidence" in after:
        low, high = after["confidence"]
        sure = f" (95 % confidence of the new one {percent(low, 1)} to {percent(high, 1)})"
    # The hub's name of the task; several outputs have that of their classes.
    kind = getattr(task.module("reporting"), "TAG", "image-classification")
    tag = "- pruned\n" if options["share"] < 1 else ""
    # Class names may contain Markdown.
    plain = (re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", warning) for warning in report["warnings"])
    warnings = "".join(f"**Warning:** {text}\n\n" for text in plain)
    return (
        f"---\nlibrary_name: effnet\npipeline_tag: {kind}\ntags:\n- {kind}\n"
        f"- efficientnet\n- onnx\n{tag}---\n\n"
        f"# {title}\n\n"
        f"{warnings}{network}, made from the bundle {original} by {_how(options)} and {_recovered(task, options)} "
        f"on {data}.\n\n"
        f"| | original | now |\n|---|---:|---:|\n{table}\n\n"
        f"Scored on the exported file with {after['test_images']} test images{sure}. Both files were timed in turn "
        f"with {options['threads']} "
        f"{'thread' if options['threads'] == 1 else 'threads'}; the new one takes {report['latency_ratio']:.2f} of "
        "the original's time.\n\n"
        f"## Use\n\n```sh\neffnet predict {shlex.quote(printable(name))} IMAGES\n```\n\n"
        "## Licence\n\nThat of the original and of the images that it was trained on.\n"
    )


def _recovered(task: Task, options: Mapping[str, Any]) -> str:
    """Return how the accuracy was recovered."""
    if task.whole is not None:
        return "training with the annotations"
    return f"recovery with {markdown(Path(options['teacher']).name) or 'the original'} as teacher"


def _how(options: Mapping[str, Any]) -> str:
    """Return the changes made to the original before training."""
    steps = f"{options['steps']} {'step' if options['steps'] == 1 else 'steps'}"
    pruning = f"structured pruning (importance: {options['method']}, {steps})" if options["share"] < 1 else ""
    activation = f"{options['activation']} as its activation" if options["activation"] else ""
    return ", ".join(filter(None, (pruning, activation)))
