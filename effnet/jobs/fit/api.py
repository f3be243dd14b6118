"""The main job: from a folder of images and a budget to a verified model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from effnet.jobs.fit.checks import check_search_option
from effnet.jobs.fit.config import FitConfig, TrainConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.run import work
from effnet.report.model import Report
from effnet.runtimes.predictor import Predictor, load
from effnet.system.options import takes
from effnet.training.distributed.ranks import joined
from effnet.training.distributed.team import follow, lead


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A finished fit: the bundle's folder, and its report, also in report.json there."""

    folder: Path
    report: Report

    @property
    def test_figure(self) -> float:
        """The figure of the data's task on the test images, for the deployed file: for classes, the accuracy."""
        return self.report.test.figure

    @property
    def test_accuracy(self) -> float:
        """The share of the test images that the deployed file classifies correctly, if it is a classifier."""
        return self.report.test.accuracy

    @property
    def latency_ms(self) -> float | None:
        """The median latency of the deployed file for one image, in milliseconds; None if it was not measured."""
        return self.report.measured.latency_ms

    @property
    def model(self) -> Predictor:
        """The bundle, ready to predict."""
        return load(self.folder)


@takes(FitConfig)
def fit(config: FitConfig) -> FitResult:
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
    `outputs` are the columns of a manifest that are learnt, see `read_dataset`.

    `resize` is how an image becomes the square input: "center" crops to its middle, "squash" and "pad" show all of it,
    and "auto" chooses by the aspect ratios: "center" up to 16:9. `value_range` is the lowest and the highest value of
    images with more than 8 bits, such as (0, 4095); "auto" infers it from the data set. `settings` change fields of
    the recipe by their dotted names, such as {"augment.flip": False}, which disables horizontal flips; without it,
    classes that a flip turns into each other are detected.
    `balance`, the recipe's balance.method, gives rare classes the same weight as frequent ones: "adjust" by their
    logits, "sample" by more views, "weight" in the loss. Heads, epochs, trials and precisions are then selected by
    balanced accuracy. `cost` are costs of wrong answers, such as "miss:dog=5,false:cat=2": the finished model answers
    with the class of the least expected cost, and tags have the thresholds of the least cost; nothing else changes.

    `weights` are pretrained: an id of the catalog, a file, a bundle, "auto" for the best published ones that meet the
    budget, or "none"; `model` names the network of a file from which it cannot be inferred. `strategy` is "head" (on
    frozen features), "finetune" (head first, then the whole network), "scratch", or "auto": the head, and fine-tuning
    if the head's accuracy leaves room. With `coverage` or `max_error` the model abstains with "unknown" if its
    confidence is too low; `unknown_from` is a folder of images of none of the classes to measure that with.

    `runtime` is the device's, one of `runnable()` in effnet.runtimes.registry. `precision` is "fp32", "fp16" or
    "w8" (weight-only fp16 and int8), "bf16" (OpenVINO), "int8", or "auto": lower precisions if a budget may need them,
    and only if they lose at most `max_drop` percentage points on the validation images. `device` is a profile that
    `effnet profile` wrote on another machine: its predictions replace measurements. `trials` is the number of
    architectures that are trained briefly before the best is chosen (8 from 30 minutes on, else none). With `search`
    "auto" the network is searched, as `search` does, if minutes and images allow it. `procedure`
    replaces how the fit measures, plans and saves.

    Raises BudgetError if no network fits, or if the finished file misses the budget (it is kept, with its report);
    BusyError if background load hides whether several threads meet the latency budget; InputError for anything else
    that the caller can correct.
    """
    check_search_option(config.search)
    if config.search == "auto":
        from effnet.jobs.search.auto import fit_by_search  # which fits the network that it finds

        began = job_of(config).procedure.stopwatch.clock()
        if (found := fit_by_search(config)) is not None:
            return found
        return _run(config, began=began)  # finding out that no search can pay was part of the minutes
    return _run(config)


@takes(TrainConfig)
def train(config: TrainConfig) -> FitResult:
    """Train one network of your choice for `data`, then export and measure it; like `fit`, without a budget.

    `model` is a network's name, an ArchSpec, a bundle's folder or a JSON file of a spec. Its classifier and its input
    are adapted to the data; a classifier of boxes or masks is the backbone of a detector or a segmenter. `resolution`
    (pixels) is its own by default. `recipe` is a Recipe, the name of one, a JSON
    file of one or a Python file that defines `recipe(spec)`; by default it is chosen to suit the data and the time.
    `settings` change fields of either by their dotted names, such as {"train.lr": 0.1}; `epochs`, `minutes` and `seed`,
    if given, override the recipe's.
    `batch` is train.batch_size or, with "auto", keeps that and finds the largest micro-batch that fits in memory
    (train.micro_batch, separately in every stage).
    Every field that was used is in `out`/run/recipe.json, a recipe to train with again. Everything else is as in `fit`.
    """
    return _run(config)


def _run(config: FitConfig | TrainConfig, *, began: float | None = None) -> FitResult:
    job = dataclasses.replace(job_of(config), began=began)
    with joined() as ranks:
        if not ranks.main:
            return FitResult(folder=job.out, report=follow(ranks))
        leading = dataclasses.replace(job, ranks=ranks)
        return FitResult(folder=job.out, report=lead(ranks, lambda: work(leading)))
