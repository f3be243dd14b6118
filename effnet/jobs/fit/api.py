"""The main job: from a folder of images and a budget to a verified model."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from effnet.arch.spec import ArchSpec
from effnet.bundle.spec_of import read_spec
from effnet.data.datasets import DataLike, Dataset, name_of
from effnet.data.inspection.shapes import Resize
from effnet.data.value_range import Asked as AskedRange
from effnet.errors import InputError
from effnet.jobs.fit.asked import Asked, ask, ask_settings, with_balance
from effnet.jobs.fit.resume import Strategy
from effnet.jobs.fit.run import work
from effnet.jobs.fit.task import Task, default_out
from effnet.measurement.calibration import Abstain
from effnet.planner.budget import Budget
from effnet.planner.events import Listener, ignore
from effnet.planner.target import Target, Wanted
from effnet.runtimes.predictor import Predictor, load
from effnet.runtimes.registry import DEFAULT
from effnet.system.bounds import is_number
from effnet.system.text import brief
from effnet.tasks.registry import find_task
from effnet.training.distributed.ranks import joined
from effnet.training.distributed.team import follow, lead
from effnet.training.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A finished fit: the bundle's folder, and its report, also in report.json there."""

    folder: Path
    report: Mapping[str, Any]

    @property
    def test_figure(self) -> float:
        """The figure of the data's task on the test images, for the deployed file: for classes, the accuracy."""
        return self.report[f"test_{find_task(self.report['task']).figure.key}"]

    @property
    def test_accuracy(self) -> float:
        """The share of the test images that the deployed file classifies correctly, if it is a classifier."""
        return self.report["test_accuracy"]

    @property
    def latency_ms(self) -> float | None:
        """The median latency of the deployed file for one image, in milliseconds; None if it was not measured."""
        return self.report["measured"].get("latency_ms")

    @property
    def model(self) -> Predictor:
        """The bundle, ready to predict."""
        return load(self.folder)


def fit(
    data: DataLike,
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
    value_range: AskedRange = "auto",
    balance: str | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: str | os.PathLike[str] = "auto",
    strategy: Strategy = "auto",
    model: str = "",
    coverage: float | None = None,
    max_error: float | None = None,
    unknown_from: str | os.PathLike[str] | None = None,
    runtime: str = DEFAULT,
    precision: Wanted = "auto",
    max_drop: float = 0.5,
    device: str | os.PathLike[str] | None = None,
    trials: int | None = None,
    storage: str = "",
    resume: bool = False,
    listener: Listener = ignore,
) -> FitResult:
    """Train the best EfficientNet for `data` that meets every budget, and verify it in the device's runtime.

    It is the pretrained network with the highest expected accuracy or, without pretrained weights, the largest.

    `data` is a folder with a subfolder for each class, a CSV or JSONL manifest, or "digits"; or images in memory, as a
    Dataset or a torch.utils.data.Dataset, see `Dataset.from_arrays` and `from_torch`. Latency is the median of
    one image with `threads` threads; sizes and memory are in 10^6 bytes. Training takes `epochs`.
    Or all of the work is done in `minutes`: steps that do not fit are left out, and the report says so. Without
    either, training takes 10 minutes. `out` (effnet-NAME by default) becomes the bundle; `resume` continues a fit that
    was killed there, on CPU to the same weights. report.html shows the worst mistakes with their test images,
    unless `report_images` is false.

    If the data are not split, copies of one image stay on one side of the split, and so do images of one group: those
    with the same `group` in a manifest, or in whose paths the regular expression `group_by` matches the same text.

    `resize` is how an image becomes the square input: "center" crops to its middle, "squash" and "pad" show all of it,
    and "auto" chooses by the aspect ratios: "center" up to 16:9. `value_range` is the lowest and the highest value of
    images with more than 8 bits, such as (0, 4095); "auto" infers it from the data set. `settings` change fields of
    the recipe by their dotted names, such as {"augment.flip": False}, which disables horizontal flips; without it,
    classes that a flip turns into each other are detected.
    `balance`, the recipe's balance.method, gives rare classes the same weight as frequent ones: "adjust" by their
    logits, "sample" by more views, "weight" in the loss. Heads, epochs, trials and precisions are then selected by
    balanced accuracy.

    `weights` are pretrained: an id of the catalog, a file, a bundle, "auto" for the best published ones that meet the
    budget, or "none"; `model` names the network of a file from which it cannot be inferred. `strategy` is "head" (on
    frozen features), "finetune" (head first, then the whole network), "scratch", or "auto": the head, and fine-tuning
    if the head's accuracy leaves room. With `coverage` or `max_error` the model abstains with "unknown" if its
    confidence is too low; `unknown_from` is a folder of images of none of the classes to measure that with.

    `runtime` is the device's, one of `runnable()` in effnet.runtimes.registry. `precision` is "fp32", "fp16" or
    "w8" (weight-only fp16 and int8), "bf16" (OpenVINO), "int8", or "auto": lower precisions if a budget may need them,
    and only if they lose at most `max_drop` percentage points on the validation images. `device` is a profile that
    `effnet profile` wrote on another machine: its predictions replace measurements. `trials` is the number of
    architectures that are trained briefly before the best is chosen (8 from 30 minutes on, else none); `storage`, a
    file or the URL of a database, shares them between machines.

    Raises BudgetError if no network fits, or if the finished file misses the budget (it is kept, with its report);
    BusyError if background load hides whether several threads meet the latency budget; InputError for anything else
    that the caller can correct.
    """
    if not is_number(max_drop):
        raise InputError(f"max_drop must lie in 0..100 percentage points; got {brief(max_drop)}")
    budget = Budget(
        latency_ms=max_latency_ms, params=max_params, macs=max_macs, size_mb=max_size_mb, memory_mb=max_memory_mb
    )
    asked = ask_settings(with_balance(settings, balance))
    seed = _seed(seed, asked, data)
    unknown, profile = None if unknown_from is None else os.fspath(unknown_from), os.fspath(device or "")
    task = Task(
        **_source(data, group_by), budget=budget, threads=threads, epochs=epochs, minutes=minutes, seed=seed,
        channels=channels, strict=strict, out=default_out(out, name_of(data)), listener=listener, model=model,
        weights=os.fspath(weights), strategy="scratch" if weights == "none" and strategy == "auto" else strategy,
        abstain=Abstain(coverage=coverage, max_error=max_error, unknown_from=unknown), trials=trials, storage=storage,
        report_images=report_images, resize=resize, value_range=value_range, asked=asked,
        target=Target(runtime=runtime, precision=precision, max_drop=max_drop / 100, profile=profile),
    )  # fmt: skip
    return _run(task, resume=resume)


def train(
    data: DataLike,
    *,
    model: str | os.PathLike[str] | ArchSpec = "b0",
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
    value_range: AskedRange = "auto",
    balance: str | None = None,
    batch: int | Literal["auto"] | None = None,
    resume: bool = False,
    listener: Listener = ignore,
) -> FitResult:
    """Train one network of your choice for `data`, then export and measure it; like `fit`, without a budget.

    `model` is a network's name, an ArchSpec, a bundle's folder or a JSON file of a spec. Its classifier and its input
    are adapted to the data; `resolution` (pixels) is its own by default. `recipe` is a Recipe, the name of one, a JSON
    file of one or a Python file that defines `recipe(spec)`; by default it is chosen to suit the data and the time.
    `settings` change fields of either by their dotted names, such as {"train.lr": 0.1}; `epochs`, `minutes` and `seed`,
    if given, override the recipe's.
    `batch` is train.batch_size or, with "auto", keeps that and finds the largest micro-batch that fits in memory
    (train.micro_batch, separately in every stage).
    Every field that was used is in `out`/run/recipe.json, a recipe to train with again. Everything else is as in `fit`.
    """
    network = model if isinstance(model, ArchSpec) else read_spec(model)
    if resolution is not None:
        network = dataclasses.replace(network, resolution=resolution)
    sizes = {} if batch in (None, "auto") else {"train.batch_size": batch}
    asked = ask(recipe, {**with_balance(settings, balance), **sizes}, spec=network)
    seed = _seed(seed, asked, data)
    task = Task(
        **_source(data, group_by), budget=Budget(), threads=1, epochs=epochs, minutes=minutes, seed=seed,
        channels=channels, strict=strict, out=default_out(out, name_of(data)), listener=listener, network=network,
        model="" if isinstance(model, ArchSpec) else os.fspath(model), asked=asked, auto_batch=batch == "auto",
        target=Target(precision="fp32"), report_images=report_images, resize=resize,
        value_range=value_range,
    )  # fmt: skip
    return _run(task, resume=resume)


def _source(data: DataLike, group_by: str) -> dict[str, Any]:
    """Return the task's fields for the data; a data set keeps the groups that it was split with."""
    dataset = None if isinstance(data, str | os.PathLike) else data
    own = data.group_by if isinstance(data, Dataset) else ""
    return {"data": name_of(data), "dataset": dataset, "group_by": group_by or own}


def _seed(seed: int | None, asked: Asked, data: DataLike) -> int:
    """Return the seed: the one given, else the recipe's, else that of a data set's split, else 0."""
    if seed is None:
        seed = asked.value("train.seed")
    return seed or 0 if seed is not None or not isinstance(data, Dataset) else data.seed


def _run(task: Task, *, resume: bool) -> FitResult:
    with joined() as ranks:
        if not ranks.main:
            return FitResult(folder=task.out, report=follow(ranks))
        leading = dataclasses.replace(task, ranks=ranks)
        return FitResult(folder=task.out, report=lead(ranks, lambda: work(leading, resume=resume)))
