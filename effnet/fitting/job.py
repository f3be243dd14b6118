"""The main job: a folder of pictures and a budget in, a proven model out."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from effnet.arch.spec import ArchSpec
from effnet.data.shapes import Resize
from effnet.errors import InputError
from effnet.fitting.asked import ask, ask_settings, with_balance
from effnet.fitting.budget import Budget
from effnet.fitting.events import Listener, ignore
from effnet.fitting.state import Strategy
from effnet.fitting.target import Target, Wanted
from effnet.fitting.task import Task, default_out
from effnet.fitting.team import follow, lead
from effnet.fitting.work import work
from effnet.runtime.formats import Runtime
from effnet.system.bounds import is_number
from effnet.system.text import brief
from effnet.training.calibration import Abstain
from effnet.training.ranks import joined
from effnet.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A finished fit: the bundle's folder, and the report that lies in it as report.json."""

    folder: Path
    report: Mapping[str, Any]


def fit(
    data: str | os.PathLike[str],
    *,
    max_latency_ms: float | None = None,
    max_params: float | None = None,
    max_macs: float | None = None,
    max_size_mb: float | None = None,
    max_memory_mb: float | None = None,
    threads: int = 1,
    epochs: int | None = None,
    minutes: float | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    channels: int | None = None,
    strict: bool = False,
    report_images: bool = True,
    group_by: str = "",
    resize: Resize = "auto",
    balance: str | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: str | os.PathLike[str] = "auto",
    strategy: Strategy = "auto",
    model: str = "",
    coverage: float | None = None,
    max_error: float | None = None,
    unknown_from: str | os.PathLike[str] | None = None,
    runtime: Runtime = "onnxruntime",
    precision: Wanted = "auto",
    max_drop: float = 0.5,
    device: str | os.PathLike[str] | None = None,
    trials: int | None = None,
    storage: str = "",
    resume: bool = False,
    listener: Listener = ignore,
) -> FitResult:
    """Trains the best EfficientNet for `data` that keeps every budget, and proves it in the device's runtime.

    It is the pretrained one that is expected to be most accurate or, without pretrained weights, the largest.

    `data` is a folder with a subfolder a class, a CSV or JSONL manifest, or "digits". Latency is the median of
    one picture with `threads` threads; sizes and memory are in 10^6 bytes. Training takes `epochs`, or
    `minutes` (10 by default). `out` (effnet-NAME by default) becomes the bundle; with `resume` a fit that was
    killed there goes on, on CPU to the same weights. report.html shows the worst mistakes with their test images,
    unless `report_images` is false.

    Where the data are not split, copies of one picture stay on one side of the split, and so do pictures of one group:
    of one `group` in a manifest, or in whose paths `group_by`, a regular expression, finds the same.

    `resize` is how an image becomes the square that the network sees: "center" crops to its middle, "squash" and "pad"
    show all of it, and "auto" chooses by the aspect ratios: "center" up to 16:9. `settings` change fields of the recipe
    by their dotted names, such as {"augment.flip": False}, which trains on no mirrored image; images whose mirror image
    is of another class are found out without it. `balance`, the recipe's balance.method, makes rare classes count as
    much as frequent ones: "adjust" by their logits, "sample" by more views, "weight" in the loss. The balanced accuracy
    then chooses heads, epochs, trials and precisions.

    `weights` are pretrained ones: an id of the catalog, a file, a bundle, "auto" for the best published ones that
    keep the budget, or "none"; `model` names the network of a file that does not tell it. `strategy` is "head" (on
    frozen features), "finetune" (head first, then all of it), "scratch", or "auto": the head, and fine-tuning where
    the head leaves much to learn. With `coverage` or `max_error` the model answers "unknown" where it is not sure
    enough; `unknown_from` is a folder of pictures of none of the classes to measure that with.

    `runtime` is the device's: "onnxruntime", "openvino", "litert" or "executorch". `precision` is "fp32", "fp16" or
    "w8" (weights of 16 and 8 bits), "bf16" (OpenVINO), "int8", or "auto": fewer bits where a budget may need them, and
    then only if that loses at most `max_drop` points on the validation pictures. `device` is a profile that `effnet
    profile` wrote on another machine: its predictions are taken for measurements. `trials` fresh networks are trained
    for a while, and the best goes on (8 where there are 30 minutes, else none); `storage`, a file or the URL of a
    database, shares them between machines.

    Raises BudgetError where no network fits, or where the finished file misses the budget (it is kept, with
    its report); BusyError where other processes hide whether several threads keep the latency; InputError for anything
    else that the caller can mend.
    """
    if not is_number(max_drop):
        raise InputError(f"max_drop must lie in 0..100 points; got {brief(max_drop)}")
    budget = Budget(
        latency_ms=max_latency_ms, params=max_params, macs=max_macs, size_mb=max_size_mb, memory_mb=max_memory_mb
    )
    asked = ask_settings(with_balance(settings, balance))
    seed = seed if seed is not None else asked.value("train.seed") or 0
    unknown, profile = None if unknown_from is None else os.fspath(unknown_from), os.fspath(device or "")
    task = Task(
        data=os.fspath(data), budget=budget, threads=threads, epochs=epochs, minutes=minutes, seed=seed,
        channels=channels, strict=strict, group_by=group_by, out=default_out(out, data), listener=listener, model=model,
        weights=os.fspath(weights), strategy="scratch" if weights == "none" and strategy == "auto" else strategy,
        abstain=Abstain(coverage=coverage, max_error=max_error, unknown_from=unknown), trials=trials, storage=storage,
        report_images=report_images, resize=resize, asked=asked,
        target=Target(runtime=runtime, precision=precision, max_drop=max_drop / 100, profile=profile),
    )  # fmt: skip
    return _run(task, resume=resume)


def train(
    data: str | os.PathLike[str],
    *,
    spec: ArchSpec,
    model: str = "",
    resolution: int | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    channels: int | None = None,
    strict: bool = False,
    report_images: bool = True,
    group_by: str = "",
    resize: Resize = "auto",
    balance: str | None = None,
    batch: int | Literal["auto"] | None = None,
    resume: bool = False,
    listener: Listener = ignore,
) -> FitResult:
    """Trains one network of your choice for `data`, then exports and measures it; like `fit`, without a budget.

    `model` is what the user called the network, for the report.

    The classifier and the input of `spec` are made to match the data; `resolution` (pixels) is the spec's own
    by default. `recipe` is a Recipe, the name of one, a JSON file of one or a Python file that defines
    `recipe(spec)`; without, it is chosen to suit the data and the time. `settings` change fields of either by their
    dotted names, such as {"train.lr": 0.1}; `epochs`, `minutes` and `seed`, where given, come before the recipe's.
    `batch` is train.batch_size or, with "auto", leaves that as it is and finds how many of its pictures the memory
    holds at once (train.micro_batch, in every stage its own).
    Every field that was used is in `out`/run/recipe.json, a recipe to train with again. Everything else is as in `fit`.
    """
    network = spec if resolution is None else dataclasses.replace(spec, resolution=resolution)
    sizes = {} if batch in (None, "auto") else {"train.batch_size": batch}
    asked = ask(recipe, {**with_balance(settings, balance), **sizes}, spec=network)
    seed = seed if seed is not None else asked.value("train.seed") or 0
    task = Task(
        data=os.fspath(data), budget=Budget(), threads=1, epochs=epochs, minutes=minutes, seed=seed,
        channels=channels, strict=strict, group_by=group_by, out=default_out(out, data), listener=listener,
        network=network, model=model, asked=asked, auto_batch=batch == "auto", target=Target(precision="fp32"),
        report_images=report_images, resize=resize,
    )  # fmt: skip
    return _run(task, resume=resume)


def _run(task: Task, *, resume: bool) -> FitResult:
    with joined() as ranks:
        if not ranks.main:
            return FitResult(folder=task.out, report=follow(ranks))
        leading = dataclasses.replace(task, ranks=ranks)
        return FitResult(folder=task.out, report=lead(ranks, lambda: work(leading, resume=resume)))
