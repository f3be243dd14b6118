"""config.json of a bundle: the model's task and outputs, its architecture, classes and preprocessing."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.layers import output_shapes
from effnet.arch.spec import ArchSpec
from effnet.bundle.config_fields import (
    FIRST,
    Origin,
    costs_of,
    is_text,
    known_of,
    named_costs,
    number_of,
    origin_of,
    seed_of,
    specs_of,
    task_of,
)
from effnet.bundle.names import CONFIG
from effnet.bundle.score_file import write_score_arrays
from effnet.data.preprocess import Preprocess
from effnet.data.several.outputs import OutputSpec, column_names
from effnet.errors import BundleError, InputError, shown
from effnet.system.files import MAX_JSON_BYTES, read_json, written_whole
from effnet.tasks.classification import TASK, bound
from effnet.tasks.costs import Costs
from effnet.tasks.known import KnownScore
from effnet.tasks.registry import find_task
from effnet.tasks.task import FEATURES, NamedOutput, Output, Task

FORMAT = 2
MAX_NAME_LENGTH = 1_000
"""The most characters of a class name."""
# Fitted temperatures lie in 0.05..20; outside these limits the scaled logits might not be finite in float32.
_TEMPERATURES = (1e-4, 1e4)
_DIGESTS = "sha256"
_MAPS = "maps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The architecture, its preprocessing, its class names, and the package versions that wrote it.

    `task` is the name of what the network answers (effnet.tasks), `class_names` are the names of its outputs: the
    classes, of a classifier; empty for a backbone, which has no last layer. `specs` are the outputs of a task of
    several, whose columns have these names; they have temperatures and thresholds of their own.

    `split_seed` is the seed of the training data's split: a test split with this seed holds no training image. None if
    it is unknown.

    The network's logits are divided by `temperature` before softmax; the ONNX file does so itself. An image whose most
    probable class is below `threshold` is of no known class; None disables this. `deployed` is the format (of
    effnet.runtimes.registry) that predicts by default. `origin` says where the weights of a pulled or imported bundle
    come from. `balanced` is the degree to which the training class frequencies were removed from the probabilities:
    these assume classes as frequent as frequency^(1 - balanced), at 0 as in training, at 1 uniform. `costs` are those
    of a classifier's wrong answers, None if all cost the same: they decide the answer, the probabilities are without
    them; the outputs of `specs` have their own. `known` is the score that says which images are of no known class, if
    another than the largest probability was chosen: files that can hold it return it too, and its threshold decides;
    `threshold` remains that of files that cannot.
    """

    arch: ArchSpec
    preprocess: Preprocess
    class_names: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    split_seed: int | None = None
    temperature: float = 1.0
    threshold: float | None = None
    deployed: str = "onnx"
    origin: Origin | None = None
    balanced: float = 0.0
    task: str = "classification"
    specs: tuple[OutputSpec, ...] = ()
    costs: Costs | None = None
    known: KnownScore | None = None

    def __post_init__(self) -> None:
        wanted = self.class_names if self.task_record.bind else ()
        if column_names(self.specs) != wanted:
            raise BundleError(
                f"the columns of the outputs must be {shown(list(wanted))}; got {shown(list(column_names(self.specs)))}"
            )
        if len(self.class_names) != self.arch.num_classes:
            raise BundleError(
                f"a model with {self.arch.num_classes} outputs needs as many class names; got {len(self.class_names)}: "
                "name each output, in their order"
            )
        if self.preprocess.channels != self.arch.in_channels:
            raise BundleError(
                f"the network takes {self.arch.in_channels} channels but preprocessing outputs "
                f"{self.preprocess.channels}"
            )
        if (longest := max(map(len, self.class_names), default=0)) > MAX_NAME_LENGTH:
            raise BundleError(f"a class name must have at most {MAX_NAME_LENGTH:,} characters; got {longest:,}")
        if not _TEMPERATURES[0] <= self.temperature <= _TEMPERATURES[1]:
            raise BundleError(
                f"temperature must lie in {_TEMPERATURES[0]:g}..{_TEMPERATURES[1]:g}; got {self.temperature}"
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BundleError(f"threshold must be a probability from 0 to 1, or null; got {self.threshold}")
        if self.costs is not None and (self.specs or len(self.costs.miss) != len(self.class_names)):
            raise BundleError(f"costs must be those of the {len(self.class_names)} classes of a classifier")
        if self.known is not None and (self.task != TASK.name or not self.class_names or self.preprocess.clip):
            raise BundleError(f"known must be null but for a classifier of images; the task is {self.task}")
        if not 0 <= self.balanced <= 1:
            raise BundleError(f"balanced must be a share from 0 to 1; got {self.balanced}")

    @property
    def task_record(self) -> Task:
        """The record of the task; raises BundleError if it is not registered in this process."""
        try:
            found = find_task(self.task)
        except InputError as error:
            raise BundleError(str(error)) from error
        if found.bind is not None:
            return found.bind(self.specs)
        return bound(costs=self.costs, known=self.known) if found is TASK else found

    @property
    def output(self) -> Output:
        """What a file of this model returns: the answers to its task or, without a last layer, the features."""
        return self.task_record.output if self.class_names else FEATURES

    @property
    def file_outputs(self) -> tuple[Output, ...]:
        """The outputs of a file of this model, in the order of the last layer's columns."""
        if self.arch.decoder is not None:
            return self._decoded_outputs()
        if self.class_names:
            return self.task_record.file_outputs(self.class_names)
        return (replace(FEATURES, width=self.arch.feature_channels),)

    def _decoded_outputs(self) -> tuple[Output, ...]:
        """Return the outputs of a network with a decoder: its task says what they mean, the graph has their shapes."""
        shapes = output_shapes(self.arch, self.preprocess.size)
        meant = {output.name: output for output in self.task_record.several}
        return tuple(replace(meant[name], shape=shape, width=math.prod(shape)) for name, shape in shapes.items())

    @property
    def temperatures(self) -> float | np.ndarray:
        """What the logits are divided by: a number or, of several outputs, float64 [columns]."""
        if not self.specs:
            return self.temperature
        return np.repeat([spec.temperature for spec in self.specs], [spec.width for spec in self.specs])

    @property
    def outputs(self) -> tuple[NamedOutput, ...]:
        """The named outputs that config.json declares, for programs that read only it."""
        return tuple(NamedOutput(name=each.name, shape=each.sides, meaning=each.meaning) for each in self.file_outputs)

    def uncalibrated(self) -> "ModelConfig":
        """Return the config with temperatures of 1, and without thresholds and a score."""
        specs = tuple(replace(spec, temperature=1.0, threshold=None, thresholds=()) for spec in self.specs)
        return replace(self, temperature=1.0, threshold=None, specs=specs, known=None)

    def must_classify(self, what: str) -> None:
        """Raise InputError unless this is a classifier, for which alone effnet has `what`."""
        if not self.task_record.calibrated:
            raise InputError(f"{what} is for classifiers; this bundle's task is {self.task}")

    def must_answer(self, what: str) -> None:
        """Raise InputError unless this is a classifier, a detector or a segmenter: for these effnet has `what`."""
        if not self.task_record.calibrated and self.task_record.whole is None:
            raise InputError(f"{what} is for classifiers, detectors and segmenters; this bundle's task is {self.task}")


def write_config(config: ModelConfig, folder: Path, *, digests: Mapping[str, str] | None = None) -> None:
    """Write config.json into `folder`, whole or not at all; `digests` are as `write_digests` takes them."""
    data = {
        "format": FORMAT,
        "library_name": "effnet",
        "task": config.task,
        "outputs": _declared(config),
        "arch": spec_to_dict(config.arch),
        "preprocess": config.preprocess.to_dict(),
        "class_names": list(config.class_names),
        "versions": dict(config.versions),
        "split_seed": config.split_seed,
        "temperature": config.temperature,
        "threshold": config.threshold,
        "deployed": config.deployed,
        "balanced": config.balanced,
    }
    if config.costs is not None:
        data["costs"] = named_costs(config.costs, config.class_names)
    if config.origin is not None:
        data["origin"] = asdict(config.origin)
    if config.known is not None:
        data["known"] = config.known.to_dict()
    write_score_arrays(config.known, folder)
    _write(data if digests is None else data | {_DIGESTS: dict(sorted(digests.items()))}, folder)


def _declared(config: ModelConfig) -> list[dict[str, Any]]:
    """Return the declared outputs as JSON-able data; those of several have their specs."""
    found = [output.to_dict() for output in config.outputs]
    if not config.specs:
        return found
    return [output | {"spec": asdict(spec)} for output, spec in zip(found, config.specs, strict=True)]


def _write(data: Mapping[str, Any], folder: Path) -> None:
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    if (size := len(text.encode())) > MAX_JSON_BYTES:
        raise BundleError(f"{CONFIG} must have at most {MAX_JSON_BYTES:,} bytes; the class names make it {size:,}")
    write_text(folder / CONFIG, text)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """Return the config of the bundle in `folder`.

    Raises BundleError if the folder is no bundle, or its config is damaged or of another version.
    """
    return _parse(_read(folder), Path(folder) / CONFIG)


def _read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(folder) / CONFIG
    try:
        data = read_json(path)
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError | NotADirectoryError) else f": {error.strerror}"
        raise BundleError(f"a bundle is a folder with a {CONFIG}; {folder} has none that can be read{why}") from error
    except ValueError as error:
        raise BundleError(f"{path} must be JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") not in (FIRST, FORMAT):
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise BundleError(
            f"this effnet reads the bundle formats {FIRST} and {FORMAT}; {path} has {shown(found)}: upgrade effnet"
        )
    return data


def read_digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the recorded SHA-256, in hexadecimal, of each model file in the bundle `folder`.

    The key is the file's name. A file written by another program has none. Raises BundleError like read_config.
    """
    found = _read(folder).get(_DIGESTS, {})
    if not isinstance(found, dict) or not all(map(is_text, found.values())):
        raise BundleError(f"{Path(folder) / CONFIG}: {_DIGESTS} must be a JSON object of texts; got {shown(found)}")
    return found


def read_maps(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of the files in the bundle `folder` that return activation maps too (effnet.runtimes.maps).

    Raises BundleError like read_config.
    """
    found = _read(folder).get(_MAPS, [])
    if not isinstance(found, list) or not all(map(is_text, found)):
        raise BundleError(f"{Path(folder) / CONFIG}: {_MAPS} must be a list of texts; got {shown(found)}")
    return tuple(found)


def write_digests(folder: Path, digests: Mapping[str, str], *, maps: Iterable[str] | None = None) -> None:
    """Replace the digests of model files in the bundle's config.json in `folder`.

    `maps` are the names of those that return activation maps; by default they are what they were.

    Code that puts a model file into a bundle calls this before the change without the file's digest, and after it with
    the digest: then a process killed in between leaves no digest of another file.
    """
    known = set(read_maps(folder) if maps is None else maps)
    data = _read(folder) | {_DIGESTS: dict(sorted(digests.items()))}
    _write(data | ({_MAPS: sorted(known & set(digests))} if known or _MAPS in data else {}), folder)


def _parse(data: dict[str, Any], path: Path) -> ModelConfig:
    try:
        names, versions = data["class_names"], data.get("versions", {})
        if not isinstance(names, list) or not all(map(is_text, names)):
            raise BundleError("class_names must be a list of texts")
        if not isinstance(versions, dict) or not all(map(is_text, versions.values())):
            raise BundleError("versions must be a JSON object of texts")
        if not is_text(deployed := data.get("deployed", "onnx")):
            raise BundleError(f"deployed must be the name of a format; got {shown(deployed)}")
        config = ModelConfig(
            arch=spec_from_dict(data["arch"]),
            preprocess=Preprocess.from_dict(data["preprocess"]),
            class_names=tuple(names),
            versions=versions,
            split_seed=seed_of(data.get("split_seed")),
            # Bundles of 0.1.0 have neither.
            temperature=number_of(data.get("temperature", 1.0), "temperature"),
            threshold=None if data.get("threshold") is None else number_of(data["threshold"], "threshold"),
            deployed=deployed,
            origin=origin_of(data.get("origin")),
            balanced=number_of(data.get("balanced", 0.0), "balanced"),
            task=task_of(data),
            specs=specs_of(data),
            costs=costs_of(data.get("costs"), tuple(names)),
            known=known_of(data.get("known"), path.parent),
        )
        if data["format"] != FIRST:
            _check_outputs(data["outputs"], config)
        return config
    except KeyError as error:
        raise BundleError(f"{path} lacks {error}") from error
    except (InputError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path}: {error}") from error


def _check_outputs(value: object, config: ModelConfig) -> None:
    """Raise BundleError unless the declared outputs are those of the task."""
    wanted = json.loads(json.dumps(_declared(config)))  # as read: lists for tuples
    if value != wanted:
        raise BundleError(f"outputs must be those of the task {config.task}, {shown(wanted)}; got {shown(value)}")
