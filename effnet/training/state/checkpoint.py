"""Checkpoints: the state of a run in one safetensors file, replaced atomically, never a pickle."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from effnet.bundle.names import CHECKPOINT
from effnet.errors import BundleError, EffnetError
from effnet.training.distributed.ranks import Ranks
from effnet.training.state.position import Position
from effnet.training.state.state import State
from effnet.training.state.tensorfile import save_tensors

BEST = "best.safetensors"
_EARLIER = "checkpoint-*.safetensors"

_UNREADABLE = (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError)


def state_tensors(state: State) -> dict[str, Tensor]:
    """Return every tensor needed to resume a run, by name; they are not copied."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in state.average.state_dict().items()}
    if state.auxiliary is not None:
        tensors |= {f"auxiliary.{name}": tensor for name, tensor in state.auxiliary.state_dict().items()}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    return tensors


def state_words(position: Position, state: State) -> dict[str, str]:
    """Return the rest of the state needed to resume a run, as JSON."""
    return {"position": json.dumps(asdict(position)), "scaler": json.dumps(state.scaler.state_dict())}


def save_checkpoint(folder: Path, position: Position, state: State, *, keep: int = 1) -> None:
    """Write everything needed to resume a run; keep the `keep` - 1 previous checkpoints, named by their steps.

    Raises EffnetError if it cannot be written; the last checkpoint then stays intact.
    """
    if keep > 1:
        _number_last(folder, step=position.step)
    try:
        save_tensors(state_tensors(state), folder / CHECKPOINT, metadata=state_words(position, state))
    except EffnetError as error:
        raise EffnetError(f"{error}. Free some disk space and continue with --resume") from error
    for path in _earlier(folder)[keep - 1 :]:
        path.unlink()


def _number_last(folder: Path, *, step: int) -> None:
    """Give the newest checkpoint a second name with its step; the first name will be replaced."""
    try:
        with safetensors.safe_open(folder / CHECKPOINT, framework="pt") as file:
            last = json.loads(file.metadata()["position"])["step"]
    except _UNREADABLE:
        return
    name = folder / f"checkpoint-{last:08d}.safetensors"
    if last == step or name.exists():
        return
    try:
        os.link(folder / CHECKPOINT, name)
    except OSError:  # a file system without hard links
        os.replace(folder / CHECKPOINT, name)


def _earlier(folder: Path) -> list[Path]:
    """Return the numbered checkpoints, the latest first."""
    return sorted(folder.glob(_EARLIER), reverse=True)


def load_checkpoint_(folder: Path, state: State, *, say: Callable[[str], None]) -> Position | None:
    """Restore the last checkpoint in place and return its position, or None if there is none.

    If it is damaged, the one before is used, and `say` gets a message. Raises BundleError if none can be read, or
    they belong to another network.
    """
    paths = [path for path in (folder / CHECKPOINT, *_earlier(folder)) if path.is_file()]
    first: str | None = None
    for path in paths:
        try:
            position = _restore_(path, state)
        except _UNREADABLE as error:
            first = first or " ".join(str(error).split())[:200] or type(error).__name__
            continue
        if first is not None:
            say(f"{paths[0]} cannot be resumed: {first}; continuing from {path.name}, at step {position.step}")
        return position
    if first is None:
        return None
    raise BundleError(f"the checkpoint {paths[0]} cannot be resumed: {first}; remove the folder to start over")


def trained_seconds(folder: Path) -> float:
    """Return the training time in seconds stored in the last checkpoint in `folder`; 0 without one."""
    return float(_position_in(folder).get("seconds", 0.0))


def is_finished(folder: Path) -> bool:
    """Whether the last checkpoint in `folder` is that of a finished run."""
    return bool(_position_in(folder).get("finished"))


def _position_in(folder: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(folder / CHECKPOINT, framework="pt") as file:
            return dict(json.loads(file.metadata()["position"]))
    except _UNREADABLE:  # reported when the run is resumed
        return {}


def begin_together_(folder: Path, state: State, ranks: Ranks, *, say: Callable[[str], None]) -> Position:
    """Give every process the state of the first, restored from its last checkpoint if there is one.

    Returns the position. Only the first process reads `folder`. Raises BundleError as load_checkpoint_ does.
    """
    position = (load_checkpoint_(folder, state, say=say) if ranks.main else None) or Position()
    if position.step and position.processes != ranks.size:
        say(
            f"This run began with {position.processes} process(es) and continues with {ranks.size}: BatchNorm "
            "statistics and dropout now differ, so its results match neither number of processes exactly"
        )
    position.processes = ranks.size
    if ranks.size == 1:
        return position
    ranks.meet()
    tensors = {name: tensor.cpu() for name, tensor in state_tensors(state).items()} if ranks.main else {}
    tensors, words = ranks.tell((tensors, state_words(position, state)))
    return position if ranks.main else put_back_(state, tensors, words)


def load_best(folder: Path) -> dict[str, Tensor]:
    """Return the best weights of the run in `folder`; raise BundleError if they cannot be read."""
    try:
        return safetensors.torch.load_file(folder / BEST)
    except _UNREADABLE as error:
        raise BundleError(
            f"{folder / BEST} must hold the best weights of this run; it cannot be read ({error}); remove the folder "
            "to start over"
        ) from error


def _restore_(path: Path, state: State) -> Position:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return put_back_(state, tensors, metadata)


def put_back_(state: State, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> Position:
    """Load these tensors, named as by state_tensors, into the state and return the position in `metadata`."""
    position = Position(**json.loads(metadata["position"]))
    position.best_score = tuple(position.best_score)  # type: ignore[assignment]
    state.model.load_state_dict(_under(tensors, "model."))
    state.average.load_state_dict(_under(tensors, "average."))
    if state.auxiliary is not None:
        state.auxiliary.load_state_dict(_under(tensors, "auxiliary."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer.").items():
        number, _, key = name.partition(".")
        moments.setdefault(int(number), {})[key] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    _lay_out_like_parameters_(state.optimizer)
    scale = json.loads(metadata.get("scaler", "{}"))
    if scale:
        state.scaler.load_state_dict(scale)
    return position


def _lay_out_like_parameters_(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments the memory layout of their parameters: fused optimisers pair them element by element."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
