"""Replace a trained network's activation with a faster one, and retrain it."""

import dataclasses
from pathlib import Path

from effnet.arch.layers import named_layers
from effnet.arch.spec import Activation, ArchSpec, Gate
from effnet.compression.recovery import network_of, recover
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.progress import Listener
from effnet.training.recipe.schema import Recipe

# The replacements of an activation: of about the same shape, and cheaper in at least one runtime.
_STANDINS: dict[Activation, tuple[Activation, ...]] = {
    "silu": ("relu6", "hard_swish"),
    "hard_swish": ("relu6",),
    "relu": (),
    "relu6": (),
}


def standins(spec: ArchSpec) -> tuple[ArchSpec, ...]:
    """Return `spec` with each replacement of its activation, and a gate without exponentials.

    Source: tensorflow/tpu efficientnet/lite/README.md (ReLU6 for int8); Howard et al. 2019, section 5.2 (hard forms).
    """
    return tuple(with_activation(spec, activation) for activation in _STANDINS[spec.activation])


def check_standin(spec: ArchSpec, activation: str) -> None:
    """Raise InputError for an activation that cannot replace the network's own; an empty one replaces nothing."""
    known = _STANDINS[spec.activation]
    if activation and activation not in known:
        these = " or ".join(known) or "nothing"
        raise InputError(f"{these} can replace {spec.activation}, the activation of {spec.name}; got {activation!r}")


def with_activation(spec: ArchSpec, activation: Activation) -> ArchSpec:
    """Return `spec` with another activation; a sigmoid gate becomes a hard one. Layers keep their names and shapes."""
    gate: Gate = "hard_sigmoid" if spec.se_gate == "sigmoid" else spec.se_gate
    if not any(layer.op == "mul" for _, layer in named_layers(spec)):
        gate = spec.se_gate  # the network has no gates
    lineage = dataclasses.replace(spec.lineage, activation=activation)
    return dataclasses.replace(spec, lineage=lineage, activation=activation, se_gate=gate)


def with_spec(subject: Subject, spec: ArchSpec) -> Subject:
    """Return the subject's weights under another spec with the same layers, not yet retrained."""
    return dataclasses.replace(subject, config=dataclasses.replace(subject.config, arch=spec))


def train_replaced(
    subject: Subject,
    spec: ArchSpec,
    dataset: Dataset,
    recipe: Recipe,
    *,
    folder: Path,
    listener: Listener | None = None,
    deadline_seconds: float | None = None,
) -> Subject:
    """Return the subject as `spec`, with its weights retrained from their old values.

    `recipe` is a recovery_recipe whose teacher is the network with its original activation.
    """
    changed = with_spec(subject, spec)
    state = recover(
        network_of(changed), changed, dataset, recipe, folder=folder, listener=listener,
        deadline_seconds=deadline_seconds,
    )  # fmt: skip
    return dataclasses.replace(changed, state=state)
