"""Bundles: a model as a folder with config.json and model.safetensors, never a pickle."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

from effnet.arch.cost import cost
from effnet.bundle.config import ModelConfig, read_config, write_config
from effnet.bundle.declared import to_32_bit
from effnet.bundle.names import WEIGHTS
from effnet.bundle.safetensors_file import load_safetensors
from effnet.errors import BundleError, WeightsError
from effnet.nn.dense import DenseNetwork, build_network
from effnet.nn.network import Network
from effnet.system.files import written_whole


def state_arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return the floating-point state of `module` as float32 arrays, without batch counters."""
    return {
        name: tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }


def save_bundle(folder: Path, config: ModelConfig, state: Mapping[str, np.ndarray]) -> None:
    """Write config.json and model.safetensors into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(state, folder / WEIGHTS, metadata={"format": "pt"})
    write_config(config, folder)


def write_arrays(arrays: Mapping[str, np.ndarray], path: Path, *, metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all, with the permissions of the folder's other files."""
    # safetensors writes memory in its given order of axes, and makes files readable by their owner only.
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with written_whole(path) as beside:
        beside.write_bytes(safetensors.numpy.save(rows, metadata=metadata))


def load_state(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the weights of the bundle in `folder`; raises BundleError if they cannot be read."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise BundleError(f"a bundle must contain {WEIGHTS}; {folder} has none: copy it there, or name another bundle")
    return load_arrays(path)[0]


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file; raises BundleError if they cannot be read.

    Floating-point arrays become float32; narrower types convert exactly.
    """
    try:
        arrays, metadata = load_safetensors(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not a complete safetensors file: {error}") from error
    except WeightsError as error:
        raise BundleError(str(error)) from error
    return {name: to_32_bit(array) for name, array in arrays.items()}, metadata


def load_module(folder: str | os.PathLike[str]) -> Network | DenseNetwork:
    """Return the bundle's network with its weights, in evaluation mode.

    Its input is normalised images [batch, channels, height, width]; it returns logits, a detector or a segmenter its
    outputs by name. Raises BundleError if a weight is missing, unknown or of another shape.
    """
    config, state, where = read_config(folder), load_state(folder), str(Path(folder) / WEIGHTS)
    total = cost(config.arch)
    wanted, found = total.params + total.buffers, sum(array.size for array in state.values())
    if (
        wanted > 2 * found + 1_000_000
    ):  # checked before memory is allocated for the architecture of config.json; names are compared below
        raise BundleError(f"{where} must hold the {wanted:,} weights of its architecture; it has {found:,}")
    network = build_network(config.arch)
    network.preprocess = config.preprocess
    load_arrays_(network, state, where=where)
    return network.eval()


def load_arrays_(module: torch.nn.Module, state: Mapping[str, np.ndarray], *, where: str) -> None:
    """Copy `state`, as `state_arrays` gave it, into `module`; raises BundleError if it does not match."""
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items() if t.is_floating_point()}
    missing, unknown = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if missing or unknown:
        raise BundleError(
            f"{where} does not match its architecture: it lacks {missing[:3] or 'nothing'} "
            f"and has unknown {unknown[:3] or 'nothing'}"
        )
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise BundleError(f"{where}: {name} must have shape {shape}; got {tuple(state[name].shape)}")
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
