"""The steps of pruning: importance, the pruned network with re-fitted weights, and its recovery."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig, read_config, write_text
from effnet.bundle.names import CONFIG
from effnet.bundle.weights import load_arrays_, load_state, save_bundle, state_arrays
from effnet.compression.activations import with_activation
from effnet.compression.importance import Importance, taylor_importance, weight_importance
from effnet.compression.norm_statistics import rebased, right_answers, sample_batches, sample_views
from effnet.compression.prune import count_of, vector_width
from effnet.compression.prune import prune as prune_spec
from effnet.compression.reconstruct import reconstructed
from effnet.compression.recovery import recovery_recipe
from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.jobs.procedure import Procedure
from effnet.jobs.prune.config import PruneConfig
from effnet.jobs.prune.dense import dense_recovery_recipe, dense_speed
from effnet.measurement.acceptance import compared
from effnet.measurement.paired import Paired
from effnet.nn.dense import DenseNetwork, build_network
from effnet.nn.network import Network
from effnet.progress import Listener, Noted
from effnet.system.bounds import MAX_EPOCHS, check_whole
from effnet.system.files import read_json
from effnet.system.lock import SCRATCH
from effnet.system.text import brief, reason_of
from effnet.training.learning import learning_of, own_input
from effnet.training.loop import train
from effnet.training.losses import Batch
from effnet.training.recipe.schema import Loss, Recipe
from effnet.training.speed import train_speed
from effnet.weights.adapt import Arrays
from effnet.weights.morph import transfer

DEFAULT_EPOCHS, _MOST_EPOCHS, _TRAINING_SHARE = 20, 60, 0.7
# Much is removed and must be relearned: a larger learning rate, stronger augmentation and a higher temperature than for
# other recoveries. The rate is for pruning to a half; if less is removed, it is much smaller.
_RATE, _TEMPERATURE, _AREA, _SMALL_AREA, _SMALL = 1e-3, 2.0, 0.4, 0.6, 40
# If at least this share stays, re-fitted weights may need no training.
_LIGHT = 0.85
# With fewer images, batch statistics would only add noise to those computed once before training.
_ENOUGH_FOR_STATISTICS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The inputs of every step of one job."""

    bundle: Path
    config: ModelConfig
    dataset: Dataset
    options: PruneConfig
    folder: Path
    listener: Listener
    procedure: Procedure

    @property
    def dense(self) -> bool:
        """Whether this is a detector or a segmenter, whose task has a training of its own and no teacher."""
        return self.config.arch.decoder is not None

    def say(self, text: str) -> None:
        """Send a note to the listener."""
        self.listener(Noted(text=text))


def _network(config: ModelConfig, state: Arrays, where: Path) -> Network | DenseNetwork:
    network = build_network(config.arch)
    load_arrays_(network, state, where=str(where))
    return network.eval()


def prune_in_steps(run: Run) -> tuple[Network | DenseNetwork, float]:
    """Return the pruned and recovered network and the seconds of its training."""
    options, seconds = run.options, 0.0
    original = count_of(run.config.arch, options.count)
    config, state = run.config, load_state(run.bundle)
    epochs = _epochs(run)
    for number in range(1, options.num_steps + 1):
        folder = run.folder / f"step-{number}"
        if not (folder / "start" / CONFIG).is_file():
            limit = original * options.share ** (number / options.num_steps)
            _prune_once(run, config, state, limit=limit, folder=folder, heading=f"Step {number} of {options.num_steps}")
        config = read_config(folder / "start")
        network, spent = _recover(
            run, config, folder, epochs=epochs[number - 1], share=epochs[number - 1] / sum(epochs)
        )
        state = state_arrays(network)
        seconds += spent
    return network, seconds


def _images(run: Run) -> Iterator[Batch]:
    preprocess, seed = run.config.preprocess, run.options.seed
    if own := own_input(learning_of(run.dataset)):
        return sample_views(run.dataset, _recipe(run, epochs=1), preprocess, own=own, seed=seed)
    return sample_batches(run.dataset.train, preprocess, seed=seed)


def _epochs(run: Run) -> list[int]:
    """Return the epochs of each step: half of all for the last, the others divided equally."""
    options, steps = run.options, run.options.num_steps
    total = options.epochs or DEFAULT_EPOCHS
    if options.minutes is not None:
        path = run.folder / "epochs.json"
        if not path.is_file():  # a resumed run does not measure again
            # The teacher's forward pass is about a third of its training step.
            if run.dense:
                speed = dense_speed(run.config.arch, run.dataset, run.config.preprocess)
            else:
                speed = train_speed(run.config.arch) * 0.75
            possible = 60 * options.minutes * _TRAINING_SHARE * speed / len(run.dataset.train)
            write_text(path, json.dumps(max(steps, min(_MOST_EPOCHS, int(possible)))))
        total = kept_json(path, int)
        check_whole(f"the epochs in {path}", total, least=1, most=MAX_EPOCHS)
    if steps == 1:
        return [total]
    early = max(1, total // 2 // (steps - 1))
    return [early] * (steps - 1) + [max(1, total - early * (steps - 1))]


def _prune_once(run: Run, config: ModelConfig, state: Arrays, *, limit: float, folder: Path, heading: str) -> None:
    """Write the starting point of a step's training, a bundle without an ONNX file, into `folder`/start."""
    options = run.options
    # Training freezes BatchNorm, so its statistics are recomputed before each step; before the first, because the
    # original's may be frozen or folded.
    state = rebased(_network(config, state, run.bundle), (batch.images for batch in _images(run)))
    importance = _importance(run, config, state)
    found = prune_spec(
        config.arch,
        importance=importance,
        limit=limit,
        count=options.count,
        scope=options.scope,
        round_to=options.round_to or vector_width(),
        drop_blocks=options.drop_blocks,
    )
    smaller = replace(config, arch=_with_activation(found.spec, options.activation))
    moved = transfer(state, source=config.arch, target=found.spec, keep=found.keep)
    whole, left = _network(config, state, run.bundle), _network(smaller, moved, folder)
    moved = reconstructed(whole, left, found.keep, (batch.images for batch in _images(run)))
    before, after = cost(config.arch), cost(found.spec)
    changed = smaller.arch.activation != config.arch.activation
    run.say(
        f"{heading}: {before.macs / 1e6:.4g}M MACs become {after.macs / 1e6:.4g}M, {before.params:,} "
        f"parameters {after.params:,}, {len(config.arch.blocks)} blocks {len(found.spec.blocks)}"
        + (f", {config.arch.activation} {smaller.arch.activation}" if changed else "")
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        save_bundle(Path(scratch) / "start", smaller, moved)
        os.replace(Path(scratch) / "start", folder / "start")


def _with_activation(spec: ArchSpec, activation: str) -> ArchSpec:
    return spec if activation in ("", spec.activation) else with_activation(spec, activation)  # type: ignore[arg-type]


def _importance(run: Run, config: ModelConfig, state: Arrays) -> Importance:
    if run.options.share == 1:  # nothing is pruned
        return weight_importance(config.arch, state)
    if run.options.method != "taylor":
        return weight_importance(config.arch, state, method=run.options.method)
    # Smoothed labels: a network that has memorised its training images would have almost no gradient.
    recipe = _recipe(run, epochs=1) if run.dense else Recipe(loss=Loss(label_smoothing=0.1))
    loss = learning_of(run.dataset).loss_of(run.dataset, recipe, preprocess=config.preprocess, device=None)
    return taylor_importance(_network(config, state, run.bundle), _images(run), loss)


def _recipe(run: Run, *, epochs: int) -> Recipe:
    """Return the recipe of a recovery."""
    options, preprocess = run.options, run.config.preprocess
    rate = 1.0 if options.activation else min(1.0, 2 * (1 - options.share)) ** 2
    if run.dense:
        return dense_recovery_recipe(run.config.arch, run.dataset, epochs=epochs, rate=rate, seed=options.seed)
    return recovery_recipe(
        run.dataset,
        preprocess,
        epochs=epochs,
        teacher=Path(options.teacher or run.bundle),
        lr=_RATE * rate,
        temperature=_TEMPERATURE,
        min_area=_SMALL_AREA if preprocess.resolution <= _SMALL else _AREA,
        frozen_norms=len(run.dataset.train) < _ENOUGH_FOR_STATISTICS,
        balanced=run.config.balanced,
        seed=options.seed,
    )


def _recover(
    run: Run, config: ModelConfig, folder: Path, *, epochs: int, share: float
) -> tuple[Network | DenseNetwork, float]:
    """Train the network in `folder`/start, or resume its training, and return the best network.

    `share` is its share of a time limit. If little is removed of a classifier, and the validation images show no
    significant loss against the original, it is not trained: it would forget more than it learns.
    """
    network = _network(config, load_state(folder / "start"), folder / "start")
    options = run.options
    light = options.share >= _LIGHT and not options.activation and not run.dense
    lost = _lost(run, network) if light and not (folder / "train").exists() else None
    if lost is not None and lost.interval[0] <= 0:
        run.say(f"Not trained, since its accuracy is that of the original: it {lost.sentence()}")
        return network, 0.0
    result = train(
        network,
        run.dataset,
        _recipe(run, epochs=epochs),
        config.preprocess,
        folder=folder / "train",
        listener=run.listener,
        deadline_seconds=None if options.minutes is None else 60 * options.minutes * share,
        checkpoint_seconds=run.procedure.checkpoint_seconds,
    )
    plain = _network(config, state_arrays(result.model), folder)
    return plain, result.seconds


def _lost(run: Run, network: Network | DenseNetwork) -> Paired | None:
    """Return the accuracy drop from the original on the validation images; None without any."""
    val, config = run.dataset.val, run.config
    if not len(val):
        return None
    original = _network(config, load_state(run.bundle), run.bundle)
    return compared(right_answers(original, val, config), right_answers(network, val, config), val, config)


def kept_json(path: Path, kind: type) -> Any:
    """Return the content of an earlier run's JSON file; raise InputError if it is damaged or of another kind."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"{path} must be JSON, but it cannot be read ({reason}); prune without --resume") from error
    if type(found) is not kind:
        raise InputError(
            f"{path} must hold a value of {kind.__name__}; it holds {brief(found)}; prune without --resume"
        )
    return found
