"""The parts of a report as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from effnet.arch.cost import Count
from effnet.arch.describe import StageRow
from effnet.arch.lineage import Lineage
from effnet.bundle.formats import Precision
from effnet.data.inspection.findings import DataReport
from effnet.planner.space import Status
from effnet.report.annotations import AnnotationFacts
from effnet.report.unlabelled import UnlabelledFacts
from effnet.system.records import FLAT, OPTIONAL, from_data
from effnet.training.recipe.schema import Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of the deployed file, by the keys of the budget; None if one was not measured."""

    latency_ms: float | None
    params: int
    macs: int
    size_mb: float | None
    memory_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUse:
    """The use of the minutes: seconds for each stage as planned, seconds in all, and the steps that did not fit."""

    minutes: float
    plan: Mapping[str, float]
    used_seconds: float
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The number of images in each split."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The data: `source` as it was named, `lines` of the inspection, and `findings`, the inspection itself.

    `annotations` are None of data without objects or masks.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    channels: int
    counts: Counts
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    findings: DataReport
    annotations: AnnotationFacts | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """The trained network: its exact name, the short one that people read, and its origin.

    `height` is that of its input, 0 if it is square with the side `resolution`. `outputs` are the shapes of the outputs
    for one image by name, if the graph has them: those of detectors and segmenters.
    """

    name: str
    title: str
    lineage: Lineage
    params: int
    macs: int
    resolution: int
    activation: str
    stages: tuple[StageRow, ...]
    height: int = field(default=0, metadata=OPTIONAL)
    outputs: Mapping[str, tuple[int, ...]] | None = field(default=None, metadata=OPTIONAL)

    @property
    def sides(self) -> tuple[int, int]:
        """The height and width of the input in pixels."""
        return self.height or self.resolution, self.resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One network that the plan considered, as `planner.space.Candidate` describes it."""

    name: str
    title: str
    family: str
    phi: float
    resolution: int
    weights: str
    precision: Precision
    kept: float
    kept_of: Count
    trial_accuracy: float | None
    trial_rounds: int
    waited: float
    latency_ms: float | None
    params: int
    macs: int
    size_mb: float
    memory_mb: float | None
    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFacts:
    """The provenance of pretrained weights.

    `weights` is an id or a path, `name` short enough for a page; `licence` is empty and `top1` None if unknown.
    """

    weights: str
    name: str
    network: str
    licence: str
    licence_source: str
    origin: str
    hub: str
    top1: float | None
    top1_resolution: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFacts(WeightsFacts):
    """The head on frozen features, and the provenance of its pretrained weights.

    `features` is the number of features, `computed` of them not from the cache. `pooled` are the stages that it reads
    beside the last feature map, numbers from 0, and `last_figure` is the validation figure without them, if known.
    """

    penalty: float | None
    views: int
    images: int
    val_figure: float
    val_balanced_figure: float
    val_loss: float
    features: int
    computed: int
    left_out: str
    seconds: float
    pooled: tuple[int, ...] = ()
    last_figure: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One epoch, a line of metrics.jsonl; `figures` are those of the task by their keys there, such as val_accuracy."""

    epoch: int
    loss: float
    val_loss: float
    figures: Mapping[str, float] = field(metadata=FLAT)
    learning_rate: float
    seconds: float
    images_per_second: float

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "EpochRow":
        """Return the epoch that `EpochEnd.to_row` wrote; raise ValueError for anything else."""
        return from_data(cls, row, where="an epoch")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterFacts:
    """The training of what follows the first `stages` stages, on kept feature maps of `views` views of each image.

    `best_epoch` 0 means that none of the `epochs` was better than the head alone.
    """

    stages: int
    views: int
    epochs: int
    best_epoch: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """How the network was trained; `recipe` is None for a head alone.

    `head` is None for training from scratch, and for a decoder on a pretrained backbone, whose weights are `start`.

    A network that was modified after training has the share `kept` of `kept_of`, the new `activation`, empty if it
    stayed, and the `recovery_seconds` of fine-tuning; the file lacks them for any other. `unlabelled` is None without
    unlabelled images, `later` if the later stages were not trained first; if they were trained alone, `epochs` are
    theirs.
    """

    method: str
    weights: str
    head: HeadFacts | None
    epochs: tuple[EpochRow, ...]
    best_epoch: int
    stopped: str
    device: str
    seconds: float
    balance: Balance
    kept: float | None = field(default=None, metadata=OPTIONAL)
    kept_of: Count | None = field(default=None, metadata=OPTIONAL)
    activation: str | None = field(default=None, metadata=OPTIONAL)
    recovery_seconds: float | None = field(default=None, metadata=OPTIONAL)
    start: WeightsFacts | None = field(default=None, metadata=OPTIONAL)
    unlabelled: UnlabelledFacts | None = field(default=None, metadata=OPTIONAL)
    later: LaterFacts | None = field(default=None, metadata=OPTIONAL)
    recipe: Mapping[str, Any] | None

    @property
    def pretrained(self) -> WeightsFacts | None:
        """The weights from which training started, None if there were none."""
        return self.head or self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """The comparison of the exported file with the trained network, as `measurement.verify` makes it."""

    images: int
    max_difference: float
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One quantization step, as `compression.step.Step` describes it."""

    name: str
    format: str
    done: str
    accuracy: float | None
    balanced_accuracy: float | None
    paired: Mapping[str, Any] | None
    latency_ms: float | None
    base_ms: float | None
    speed: float | None
    size_mb: float | None
    memory_mb: float | None
    kept: bool
    accepted: bool
    reason: str
    seconds: float
    lost: Mapping[str, Any] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerHarm:
    """A layer's sensitivity: the divergence of the predictions if it alone is quantized; None if it is not finite."""

    layer: str
    harm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationFacts:
    """The settings of the winner's int8 quantization, as `runtimes.write.Quantization` describes them."""

    method: str
    bias_correction: str
    float_layers: tuple[str, ...]
    pair_stem: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFacts:
    """The quantization search, as `compression.record.Ladder.to_dict` records it."""

    runtime: str
    budget: Mapping[str, float]
    precision: str | None
    gate: Mapping[str, float]
    steps: tuple[StepRow, ...]
    winner: str
    format: str
    network: str
    changed: bool
    quantization: QuantizationFacts | None
    met: bool
    sentence: str
    tested: Mapping[str, Any]
    sensitivity: tuple[LayerHarm, ...]

    @property
    def float_layers(self) -> tuple[str, ...]:
        """The layers that stay float in the winner."""
        return self.quantization.float_layers if self.quantization else ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SearchFacts":
        """Return the record that `Ladder.to_dict` wrote; raise ValueError for anything else."""
        return from_data(cls, data, where="the record of a quantization search")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedFacts:
    """The file for the device; `ladder` is None without quantization, `predicted` names figures of another device."""

    format: str
    file: str
    runtime: str
    precision: Precision
    ladder: SearchFacts | None
    predicted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFacts:
    """The measurement of the deployed file; `measurements` are all of them, one of which counts.

    `outside_ms` is the time of a detector or a segmenter from the file's outputs to its objects or mask: the rest is
    without it, the budget's latency with it.
    """

    p50_ms: float
    p95_ms: float
    least_ms: float
    busy: bool
    waited: float
    rounds_ms: tuple[float, ...]
    runs: int
    measurements: tuple[Mapping[str, float], ...]
    load_ms: float
    threads: int
    runtime: str
    batch: int
    outside_ms: float = field(default=0.0, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that trained and measured, as `system.machine.machine` describes it."""

    cpu: str
    cores: int
    memory_gb: float | None
    system: str
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One network that was trained; `honoured` says whether it met the budget, None if that is unknown."""

    name: str
    title: str
    honoured: bool | None
    failures: tuple[str, ...]
    seconds: float
