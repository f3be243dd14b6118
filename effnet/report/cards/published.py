"""Model cards of weights trained elsewhere: source, licence, accuracy, preprocessing."""

from collections.abc import Sequence

from effnet.arch.catalog import FAMILIES
from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import Preprocess
from effnet.system.text import markdown
from effnet.tasks.registry import task_for
from effnet.weights.catalog import PublishedWeights

# Licences by their names in the hub's metadata.
_HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "mit")
_PIPELINES = {
    "classification": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
}
UNKNOWN_LICENCE = "unknown: ask the author of the weights"
"""Text for the licence of weights that are not published ones."""


def published_card(
    entry: PublishedWeights, spec: ArchSpec, preprocess: Preprocess, *, folder: str, checked: bool
) -> str:
    """Return README.md, as Markdown with the hub's metadata, of the bundle `folder` made from `entry`.

    `spec` and `preprocess` are the bundle's own; `checked`: a hash proved that the file is the published one.
    """
    parts = (
        _metadata(spec, entry),
        _head(entry, spec, checked=checked),
        _accuracy(entry, spec),
        _preprocessing(preprocess, spec),
        _use(spec, folder),
        _licence(entry),
        _limits(spec),
    )
    return "\n\n".join(parts) + "\n"


def imported_card(config: ModelConfig, *, folder: str, notes: Sequence[str] = ()) -> str:
    """Return README.md of the bundle `folder` made from an unpublished file; `notes` describe how it was read."""
    spec, total = config.arch, cost(config.arch)
    source = config.origin.source if config.origin else "imported"
    told = "".join(f"\n- {markdown(note)}" for note in notes)
    parts = (
        _metadata(spec, None),
        f"# {markdown(source)}\n\n"
        f"Weights of {spec.name}, {markdown(source)}. Whether they are published weights is unknown.\n{told}\n\n"
        f"{_outputs(spec)}; {total.params:,} parameters; {total.macs / 1e9:.3f} billion multiply-accumulates at "
        f"{spec.resolution} x {spec.resolution} pixels.",
        f"## Accuracy\n\nUnknown: effnet has not measured it; run `effnet evaluate {folder} DATA`.",
        _preprocessing(config.preprocess, spec),
        _use(spec, folder),
        f"## Licence\n\n{UNKNOWN_LICENCE[0].upper()}{UNKNOWN_LICENCE[1:]}.",
    )
    return "\n\n".join(parts) + "\n"


def _metadata(spec: ArchSpec, entry: PublishedWeights | None) -> str:
    task = _PIPELINES[task_for(spec)] if spec.num_classes else "image-feature-extraction"
    lines = ["---", "library_name: effnet", f"pipeline_tag: {task}"]
    lines += [f"license: {entry.licence}"] if entry and entry.licence in _HUB_LICENCES else []
    resnet = spec.lineage.network in FAMILIES["ResNet"]
    lines += ["tags:", f"- {task}", "- resnet" if resnet else "- efficientnet"]
    lines += ["- onnx"] if spec.num_classes else []
    lines += [f"base_model: {entry.hub}"] if entry and entry.hub else []
    return "\n".join([*lines, "---"])


def _head(entry: PublishedWeights, spec: ArchSpec, *, checked: bool) -> str:
    total = cost(spec)
    place = f"`{entry.page}`" if entry.package else f"<{entry.page}>"
    note = f"\n\nNote: {entry.note}." if entry.note else ""
    return (
        f"# {entry.id}\n\n"
        f"Published weights of {entry.network}, converted by `effnet models pull {entry.id}`.\n"
        f"Source: {entry.source}, {place}. {_proof(checked)}\n\n"
        f"{_outputs(spec)}; {total.params:,} parameters; {total.macs / 1e9:.3f} billion "
        f"multiply-accumulates at {spec.resolution} x {spec.resolution} pixels.{note}"
    )


def _outputs(spec: ArchSpec) -> str:
    return f"{spec.num_classes:,} classes" if spec.num_classes else "Features, without a classifier"


def _proof(checked: bool) -> str:
    if checked:
        return "The file has the published hash."
    return "No hash of this file is published, so it could not be verified."


def _accuracy(entry: PublishedWeights, spec: ArchSpec) -> str:
    if not entry.accuracies:
        return "## Accuracy\n\nNo accuracy was published for these weights."
    whole = "" if spec.num_classes else " It applies to the network with its classifier, which this bundle lacks."
    rows = "\n".join(f"| {size} | {top1:g} % |" for top1, size in entry.accuracies)
    return (
        "## Accuracy\n\n"
        f"ImageNet-1k validation, as published by {entry.accuracy_source}; effnet has not measured it.{whole}\n\n"
        f"| Resolution | Top-1 |\n|---:|---:|\n{rows}"
    )


def _preprocessing(preprocess: Preprocess, spec: ArchSpec) -> str:
    side, crop = preprocess.resolution, preprocess.crop
    if preprocess.mode == "squash":
        whole = int(side / crop)
        resize = f"resized to {whole} x {whole}, whatever its shape"
        resize += f"; the middle {side} x {side} are kept" if whole != side else ""
    elif preprocess.mode == "pad":
        resize = f"resized so that its longer side is {side} pixels, then padded to {side} x {side}"
        resize += " with the mean colour"
    elif preprocess.mode == "corner":
        height, width = preprocess.size
        resize = f"resized as large as fits into {width} x {height} pixels and placed at the top left; the rest has the"
        resize += " mean colour"
    else:
        resize = f"resized so that its shorter side is {int(side / crop)} pixels; the middle {side} x {side} are kept"
    applied = ", and `effnet predict` applies it" if spec.num_classes else ""
    inside = "; `model.onnx` does this itself and takes uint8" if spec.num_classes else ""
    return (
        f"## Preprocessing\n\n`config.json` holds it{applied}: an RGB image is {resize}; "
        f"interpolation {preprocess.interpolation}. Pixels scaled to 0..1 have the mean {_numbers(preprocess.mean)} "
        f"subtracted and are divided by {_numbers(preprocess.std)}{inside}."
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _use(spec: ArchSpec, folder: str) -> str:
    if not spec.num_classes:
        return f'## Use\n\n```python\nimport effnet\n\nbackbone = effnet.load_module("{folder}")\n```'
    return f"## Use\n\n```sh\neffnet predict {folder} IMAGES\n```"


def _licence(entry: PublishedWeights) -> str:
    return f"## Licence\n\n{entry.licence}: {entry.licence_source}. The terms of the ImageNet images may also apply."


def _limits(spec: ArchSpec) -> str:
    known = "It predicts ImageNet's classes only" if spec.num_classes else "It returns features, not names"
    return (
        f"## Limits\n\n- {known}, and it has the biases of images gathered from the web.\n"
        "- The accuracy holds for images like ImageNet's; test it on your own images before use."
    )
