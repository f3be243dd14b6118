"""`python -m benchmarks.segment_parity`: U-Nets against segmentation_models_pytorch 0.6 with the same random weights.

Whole networks with the default decoder, on encoders of all three kinds: smp's own, its copies of timm's, and timm's
themselves. The figure is the largest difference of a logit as a part of the largest; parameters are counted too: smp's
6,251,469 for B0 and one class contain a convolution that nothing reads.

It needs smp: pip install --no-deps segmentation-models-pytorch==0.6.0 (beside timm).
"""

from types import ModuleType

import torch
from torch import nn

from benchmarks import peers
from benchmarks.detect_parity import copied, draw_weights_
from benchmarks.harness import finish, options
from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.weights.schemes import Scheme
from effnet.weights.schemes.smp import unet

GOAL = 1e-4
# smp's name of the encoder, effnet's, and the scheme of the names.
ENCODERS: tuple[tuple[str, str, Scheme], ...] = (
    ("efficientnet-b0", "b0", "smp"),
    ("timm-efficientnet-b0", "b0", "smp_timm"),
    ("timm-tf_efficientnet_lite0", "lite0", "smp_timm"),
    ("timm-efficientnet-b2", "b2", "smp_timm"),
    ("tu-tf_efficientnet_lite0", "tf_efficientnet_lite0", "smp_tu"),
    ("tu-efficientnet_b1", "efficientnet_b1", "smp_tu"),
)
PARAMS, UNREAD = 6_251_469, 412_160
_SIDE, _IMAGES = 96, 2


def main() -> None:
    """Compare all encoders, and count the parameters of B0."""
    args = options(__doc__ or "", n=len(ENCODERS))
    smp = peers.import_smp()
    torch.set_num_threads(1)
    found = []
    for row in ENCODERS[: args.n]:
        peer, spec = peer_of(smp, *row)
        found.append(difference(peer, spec, row[2]))
        print(f"{row[0]}: {found[-1]:.2g}")
    peer, spec = peer_of(smp, *ENCODERS[0], num_classes=1)
    counted = sum(parameter.numel() for parameter in peer.parameters()), cost(spec).params
    if counted != (PARAMS, PARAMS - UNREAD):
        raise SystemExit(f"the U-Net on B0 must have {PARAMS:,} parameters, {UNREAD:,} of them unread; got {counted}")
    finish(
        "segment_parity", args, figure=max(found), goal=GOAL, unit="of the largest logit", better="lower",
        samples={"outputs": found}, details={"encoders": [row[0] for row in ENCODERS[: args.n]], "params": counted},
    )  # fmt: skip


def peer_of(
    smp: ModuleType, theirs: str, ours: str, scheme: Scheme, *, num_classes: int = 3
) -> tuple[nn.Module, ArchSpec]:
    """Return smp's U-Net with random weights, and its spec."""
    peer: nn.Module = smp.Unet(theirs, encoder_weights=None, classes=num_classes)
    draw_weights_(peer, _SIDE)
    return peer, unet(get_spec(ours), scheme=scheme, num_classes=num_classes)


@torch.no_grad()
def difference(peer: nn.Module, spec: ArchSpec, scheme: Scheme) -> float:
    """Return the largest difference of a logit as a part of the largest."""
    images = torch.randn(_IMAGES, 3, _SIDE, 2 * _SIDE, generator=torch.Generator().manual_seed(1))
    theirs, ours = peer.eval()(images), copied(peer, spec, scheme=scheme)(images)["mask"]
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


if __name__ == "__main__":
    main()
