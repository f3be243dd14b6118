"""A network whose channels and blocks are masked instead of removed: the reference of a pruned one."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from effnet.arch.channels import BlockKeep, Keep
from effnet.arch.spec import ArchSpec
from effnet.nn.network import Network

# What each module of a block puts out, for the modules behind which channels can be silenced.
_OUTPUTS = {
    "expand": "mid", "depthwise": "mid", "se": "mid", "project": "out", "conv1": "mid", "conv2": "mid", "conv3": "out",
    "eca": "mid", "shortcut": "out", "act": "out",
}  # fmt: skip


def masked_(network: Network, spec: ArchSpec, keep: Keep) -> Network:
    """Silence in place, by hooks on the eager modules, every channel that `keep` leaves out; dropped blocks pass on.

    It knows blocks by their kinds and modules, and nothing of how `transfer` finds its layers.
    """
    _silence(network.stem, keep.stem)
    for i, row in enumerate(keep.stages):
        for j, kept in enumerate(row):
            if kept is None:
                network.stages[i][j] = nn.Identity()
            else:
                _mask_block(network.stages[i][j], spec.stages[i][j].kind, kept)
    if keep.head:
        _silence(network.head, keep.head)
    return network


def _mask_block(block: nn.Module, kind: str, kept: BlockKeep) -> None:
    if kind == "conv":  # its unit is spread over the block itself
        _silence(block.get_submodule("act"), kept.out)
        return
    for name, module in block.named_children():
        if name not in _OUTPUTS:
            continue
        width = "out" if (kind, name) == ("basic", "conv2") else _OUTPUTS[name]
        _silence(module, getattr(kept, width))
        if name == "se":
            _silence(module.get_submodule("act"), kept.se)
        if name == "eca":
            _see_only(module.get_submodule("conv"), kept.mid)


def _silence(module: nn.Module, kept: tuple[int, ...]) -> None:
    chosen = torch.tensor(kept)

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(output.shape[1])
        mask[chosen] = 1
        return output * mask[:, None, None]

    module.register_forward_hook(hook)


def _see_only(conv: nn.Module, kept: tuple[int, ...]) -> None:
    """Let the kernel of ECA slide along the kept channels only."""
    chosen = list(kept)

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        row = inputs[0][:, chosen, 0, 0].unsqueeze(1)
        found = torch.zeros_like(output)
        found[:, chosen, 0, 0] = functional.conv1d(row, module.weight, padding="same").squeeze(1)
        return found

    conv.register_forward_hook(hook)


def random_keep(spec: ArchSpec, seed: int) -> Keep:
    """Draw a keep: about half of the channels of every tie, and half of the blocks that may go."""
    from effnet.arch.channels import block_name, keep_from, tied_widths

    rng = np.random.default_rng(seed)
    widths = {}
    for tie in tied_widths(spec):
        count = tie.channels if tie.fixed else int(rng.integers(1, tie.channels + 1))
        kept = tuple(sorted(rng.permutation(tie.channels)[:count].tolist()))
        widths |= dict.fromkeys(tie.widths, kept)
    dropped = []
    for i, blocks in enumerate(spec.stages):
        may_go = [block_name(i, j) for j, block in enumerate(blocks) if block.residual == "identity"]
        may_go = may_go[1:] if len(may_go) == len(blocks) else may_go
        dropped += [name for name in may_go if rng.random() < 0.5]
    return keep_from(spec, widths, dropped=dropped)
